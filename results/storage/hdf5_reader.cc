#include "results/storage/hdf5_reader.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "results/storage/hdf5.h"
#include "results/storage/hdf5_server.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX wants it declared

namespace winnow::storage {
namespace {

// Set in the server: a program that reads files but does not begin with serve_if_asked would start itself for ever.
constexpr const char* kServerVariable = "WINNOW_HDF5_SERVER";

std::vector<std::string> server_environment() {
  std::vector<std::string> variables;
  // A pool of threads for matrix products would have no work there, and no lock is wanted on files that are only read.
  const std::vector<std::string> own = {std::string(kServerVariable) + "=1", "OPENBLAS_NUM_THREADS=1",
                                        "OMP_NUM_THREADS=1", "HDF5_USE_FILE_LOCKING=FALSE"};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable;
    const std::string name = text.substr(0, text.find('=') + 1);
    if (std::none_of(own.begin(), own.end(), [&](const std::string& mine) { return mine.starts_with(name); })) {
      variables.push_back(text);
    }
  }
  variables.insert(variables.end(), own.begin(), own.end());
  return variables;
}

std::vector<char*> c_strings(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

class Server {
 public:
  Server() {
    if (std::getenv(kServerVariable) != nullptr) {
      fail(ExitCode::kInternal, "this program does not begin with serve_if_asked, so it cannot read HDF5 files");
    }
    Socket theirs;
    Socket::connect(socket_, theirs);
    std::vector<std::string> words = {"winnow", kServerArgument};
    std::vector<std::string> variables = server_environment();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, theirs.fd(), STDIN_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    // Ctrl-C and the signals of a batch system reach the whole group. winnow ends by itself, and the server with it.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t blocked;
    sigfillset(&blocked);
    for (const int number : {SIGPROF, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&blocked, number);
    posix_spawnattr_setsigmask(&attributes, &blocked);
    sigset_t as_usual;
    sigfillset(&as_usual);
    posix_spawnattr_setsigdefault(&attributes, &as_usual);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    const int error = posix_spawn(&process_, "/proc/self/exe", &actions, &attributes, c_strings(words).data(),
                                  c_strings(variables).data());
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
      fail(error == ENOMEM ? ExitCode::kOutOfMemory : ExitCode::kInternal,
           std::string("the process that reads HDF5 files cannot be started: ") + std::strerror(error));
    }
  }
  ~Server() {
    socket_ = Socket();  // which ends it
    while (waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Forks for one file, which is read through `theirs`. Nothing when the server is gone.
  pid_t open(const Socket& theirs) const {
    Message request, answer;
    request.put(ServerRequest::kFork);
    if (!request.send(socket_) || !socket_.send_file(theirs.fd()) || !answer.receive(socket_)) return -1;
    return answer.take<pid_t>();
  }
  // The status (as of waitpid) with which the process of a file ended; -1 when the server is gone.
  int wait(pid_t process) const {
    Message request, answer;
    request.put(ServerRequest::kWait);
    request.put(process);
    return request.send(socket_) && answer.receive(socket_) ? answer.take<int>() : -1;
  }

 private:
  Socket socket_;
  pid_t process_ = -1;
};

// One for the whole run of the program; started again when it is gone. One thread reads HDF5 at a time.
std::unique_ptr<Server>& server() {
  static std::unique_ptr<Server> instance;
  return instance;
}

pid_t fork_for(const Socket& theirs) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (server() == nullptr) server() = std::make_unique<Server>();
    if (const pid_t process = server()->open(theirs); process > 0) return process;
    server().reset();
  }
  fail(ExitCode::kInternal, "the process that reads HDF5 files does not start; is there memory for it?");
}

}  // namespace

Reader::Reader(const std::string& path, const std::string& origin, uint64_t file_bytes)
    : origin_(origin), file_bytes_(file_bytes) {
  {
    Socket theirs;
    Socket::connect(socket_, theirs);
    process_ = fork_for(theirs);
  }
  Message opening;
  opening.put_text(path);
  opening.put_text(origin);
  if (!opening.send(socket_)) fail_dead("");
  try {
    answer("");
  } catch (...) {
    end();
    throw;
  }
}

Reader::~Reader() { end(); }

int Reader::end() {
  socket_ = Socket();
  const pid_t process = std::exchange(process_, -1);
  if (process < 0 || server() == nullptr) return -1;
  try {
    return server()->wait(process);
  } catch (const std::exception&) {
    return -1;
  }
}

void Reader::fail_dead(const std::string& object) {
  const int status = end();
  const std::string at = origin_ + (object.empty() ? "" : ": " + object);
  if (status != -1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
    fail(ExitCode::kOutOfMemory, at + ": the process that reads it was killed, perhaps for want of memory");
  }
  const bool is_endless = status != -1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF;
  fail(ExitCode::kBadData, at + ": is damaged: the HDF5 library " +
                               (is_endless ? "comes to no end with it" : "broke down on it") +
                               "; copy the file again, or move it away and repeat the command that wrote it");
}

Message Reader::answer(const std::string& object) {
  Message answer;
  if (!answer.receive(socket_)) fail_dead(object);
  const auto code = answer.take<ExitCode>();
  if (code != ExitCode::kDone) fail(code, answer.take_text());
  return answer;
}

Message Reader::ask(Request request, const std::string& object, const Message& more) {
  Message message;
  message.put(request);
  message.put_text(object);
  if (process_ < 0 || !message.send(socket_) || !more.send(socket_)) fail_dead(object);
  return answer(object);
}

void Reader::receive(const std::string& object, void* bytes, std::size_t size) {
  if (!socket_.receive(bytes, size)) fail_dead(object);
}

uint64_t Reader::max_bytes() const {
  constexpr uint64_t kMaxDeflateRatio = 1032;
  return file_bytes_ > (uint64_t{1} << 50) ? file_bytes_ : file_bytes_ * kMaxDeflateRatio;
}

}  // namespace winnow::storage
