#include "results/storage/hdf5_server.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
#include "results/storage/hdf5.h"
#include "results/storage/hdf5_library.h"
#include "results/storage/hdf5_messages.h"
#include "results/storage/hdf5_reader.h"

// The sanitizers map terabytes, so there is no bound on memory under them.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WINNOW_IS_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WINNOW_IS_SANITIZED
#endif
#endif

namespace winnow::storage {
namespace {

// ---- bounds of one file's process: what it needs at most for that many bytes of values
// -------------------------------

// Some hundred milliseconds for what ought to take one, and a rate far below that of any decompression. Time on the
// processor from now on, so that a busy machine or a slow disk ends nothing. SIGPROF ends the process.
void bound_time(uint64_t n_bytes) {
  constexpr uint64_t kMicroseconds = 400'000, kBytesPerMicrosecond = 16, kSecond = 1'000'000;
  const uint64_t microseconds = kMicroseconds + n_bytes / kBytesPerMicrosecond;
  itimerval timer{};
  timer.it_value.tv_sec = static_cast<time_t>(microseconds / kSecond);
  timer.it_value.tv_usec = static_cast<suseconds_t>(microseconds % kSecond);
  setitimer(ITIMER_PROF, &timer, nullptr);
}

// A damaged length may claim anything. Beyond what the process has mapped: a fixed room, and a few copies of the values
// (of a chunk as stored, decompressed, converted).
void bound_memory([[maybe_unused]] uint64_t n_bytes) {
#ifndef WINNOW_IS_SANITIZED
  constexpr rlim_t kRoomBytes = rlim_t{1} << 30;
  rlim_t n_pages = 0;
  std::ifstream("/proc/self/statm") >> n_pages;
  rlimit limit{};
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur =
      std::min<rlim_t>(limit.rlim_max, n_pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + kRoomBytes + 4 * n_bytes);
  setrlimit(RLIMIT_AS, &limit);
#endif
}

void bound(uint64_t n_bytes) {
  bound_time(n_bytes);
  bound_memory(n_bytes);
}

// Groups and attributes can be as many as the file is long.
void bound_for_structure(uint64_t file_bytes) { bound(std::min(file_bytes, uint64_t{64} << 20)); }

// ---- one file
// --------------------------------------------------------------------------------------------------------

Message success() {
  Message answer;
  answer.put(ExitCode::kDone);
  return answer;
}

void put_shape(Message& message, const std::vector<int64_t>& shape) {
  message.put<uint64_t>(shape.size());
  for (const int64_t extent : shape) message.put(extent);
}

// Of an element; of a string what looking it up in the file's heap is worth.
std::size_t bytes_of(Type type) {
  if (type == Type::kString) return 160;
  return type == Type::kFloat64 || type == Type::kInt64 ? 8 : type == Type::kUint8 ? 1 : 4;
}

class FileServer {
 public:
  explicit FileServer(const Socket& socket) : socket_(socket) {}

  // Answers until the other end is closed.
  void run() {
    std::optional<LibraryFile> file;
    guarded([&] {
      Message opening;
      if (!opening.receive(socket_)) return;
      const std::string path = opening.take_text();
      std::error_code ignored;
      bound_for_structure(std::filesystem::file_size(path, ignored));
      file.emplace(path, opening.take_text());
      success().send(socket_);
    });
    if (!file) return;
    for (Message message, more; message.receive(socket_) && more.receive(socket_);) {
      guarded([&] {
        const auto request = message.take<Request>();
        bound_for_structure(file->size_bytes());
        answer(*file, request, message.take_text(), more);
      });
    }
  }

 private:
  // An Error goes to the other end in place of an answer, or of the rest of one.
  template <typename Action>
  void guarded(const Action& action) const {
    Message answer;
    try {
      action();
      return;
    } catch (const Error& error) {
      answer.put(error.code());
      answer.put_text(error.what());
    } catch (const std::bad_alloc&) {
      answer.put(ExitCode::kOutOfMemory);
      answer.put_text("the process that reads an HDF5 file has not the memory for its values");
    } catch (const std::exception& error) {
      answer.put(ExitCode::kBadData);
      answer.put_text(std::string("an HDF5 file could not be read: ") + error.what());
    }
    answer.send(socket_);
  }

  void answer(const LibraryFile& file, Request request, const std::string& object, Message& more) const {
    Message answer = success();
    switch (request) {
      case Request::kKind:
        answer.put(file.kind(object));
        break;
      case Request::kNames:
        put_texts(answer, file.names(object));
        break;
      case Request::kType:
        answer.put(file.type(object));
        break;
      case Request::kShape:
        put_shape(answer, file.shape(object));
        break;
      case Request::kRead:
        return send_values(file, object, more);
      case Request::kStringAttribute: {
        const std::optional<std::string> value = file.string_attribute(object, more.take_text());
        answer.put(value.has_value());
        if (value) answer.put_text(*value);
        break;
      }
      case Request::kIntegerAttribute: {
        const std::optional<int64_t> value = file.integer_attribute(object, more.take_text());
        answer.put(value.has_value());
        answer.put(value.value_or(0));
        break;
      }
    }
    answer.send(socket_);
  }

  static void put_texts(Message& answer, const std::vector<std::string>& texts) {
    answer.put<uint64_t>(texts.size());
    for (const std::string& text : texts) answer.put_text(text);
  }

  void send_values(const LibraryFile& file, const std::string& object, Message& more) const {
    const auto type = more.take<Type>();
    const std::vector<int64_t> shape = file.expect(object, type, more.take<int64_t>());
    uint64_t n_bytes = bytes_of(type);
    for (const int64_t extent : shape) n_bytes *= static_cast<uint64_t>(extent);
    bound(n_bytes + file.size_bytes());  // strings lie elsewhere in the file
    Message head = success();
    put_shape(head, shape);
    if (type == Type::kString) {
      put_texts(head, file.strings(object));
      head.send(socket_);
      return;
    }
    head.send(socket_);
    if (n_bytes == 0) return;
    file.read(object, type, [&](std::span<const std::byte> values) {
      Message piece = success();
      piece.put<uint64_t>(values.size());
      if (!piece.send(socket_) || !socket_.send(values.data(), values.size())) {
        fail(ExitCode::kInternal, object + ": nobody reads on");
      }
    });
  }

  const Socket& socket_;
};

// ---- the server
// ------------------------------------------------------------------------------------------------------

int serve() {
  const Socket control(STDIN_FILENO);
  for (Message request; request.receive(control);) {
    Message answer;
    if (request.take<ServerRequest>() == ServerRequest::kWait) {
      int status = -1;
      const auto process = request.take<pid_t>();
      while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
      }
      answer.put(status);
    } else {
      const Socket file(control.receive_file());
      const pid_t process = fork();
      if (process == 0) {
        close(STDIN_FILENO);
        FileServer(file).run();
        _exit(0);  // the library is not asked to tidy up after a damaged file
      }
      answer.put(process);
    }
    answer.send(control);
  }
  return 0;
}

}  // namespace

std::optional<int> serve_if_asked(int argc, char** argv) {
  if (argc != 2 || std::strcmp(argv[1], kServerArgument) != 0) return std::nullopt;
  int type = 0;
  socklen_t length = sizeof type;
  if (getsockopt(STDIN_FILENO, SOL_SOCKET, SO_TYPE, &type, &length) != 0) return static_cast<int>(ExitCode::kUsage);
  // What winnow had open, such as the lock of a run directory, must not be held here beyond its end.
  close_range(STDERR_FILENO + 1, ~0U, 0);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  try {
    return serve();
  } catch (const std::exception&) {
    return static_cast<int>(ExitCode::kInternal);
  }
}

}  // namespace winnow::storage
