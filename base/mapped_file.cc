#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <string>

#include <sys/stat.h>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace winnow {

struct MappedFile::Map {
  std::filesystem::path path;
  const std::byte* data = nullptr;
  std::size_t size = 0;
  FileStamp stamp;
  // What the handler says, made before: it must not allocate.
  std::string cut_short;
  std::string unreadable;
};

namespace {

namespace fs = std::filesystem;

[[noreturn]] void cannot_read(const fs::path& path, const char* reason) {
  fail(ExitCode::kNoInput, path.string() + ": cannot be read: " + reason);
}

// What the handler looks up. It runs in the middle of anything, so there is no lock, and no list that grows: files
// beyond these are mapped all the same, and a fault in them is nobody's.
struct KnownMap {
  std::atomic<const std::byte*> begin = nullptr;  // written last, cleared first
  std::size_t size = 0;
  const char* path = nullptr;
  const std::string* cut_short = nullptr;
  const std::string* unreadable = nullptr;
};
constexpr std::size_t kMaxKnown = 4096;
std::array<KnownMap, kMaxKnown> known_maps;
std::mutex known_maps_mutex;  // of those who add and remove

struct sigaction former_action;

void say(const std::string& line) {
  const char* at = line.data();
  std::size_t left = line.size();
  while (left > 0) {
    const ssize_t n = ::write(STDERR_FILENO, at, left);
    if (n <= 0) return;
    at += n;
    left -= static_cast<std::size_t>(n);
  }
}

void on_bus_error(int signal, siginfo_t* info, void* /*context*/) {
  const auto* const address = static_cast<const std::byte*>(info->si_addr);
  for (const KnownMap& map : known_maps) {
    const std::byte* const begin = map.begin;
    if (info->si_code <= 0 || begin == nullptr || address < begin || address >= begin + map.size) continue;
    struct stat status {};
    const bool is_cut = stat(map.path, &status) == 0 && static_cast<std::size_t>(status.st_size) < map.size;
    say(is_cut ? *map.cut_short : *map.unreadable);
    _exit(static_cast<int>(is_cut ? ExitCode::kBadData : ExitCode::kIoError));
  }
  // Somebody else's: what was there before sees it when the same instruction is tried again.
  sigaction(SIGBUS, &former_action, nullptr);
  if (info->si_code <= 0) raise(signal);
}

// After MPI's own handlers, which mpi_session.cc has installed long before a file is mapped.
void watch_for_bus_errors() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &former_action);
  });
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) : map_(std::make_unique<Map>()) {
  map_->path = path;
  // O_NONBLOCK: to open a pipe must not wait for its writer.
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) cannot_read(path, std::strerror(errno));
  const auto stamp = FileStamp::of_descriptor(file.get());
  struct stat status {};
  if (!stamp || fstat(file.get(), &status) != 0) cannot_read(path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) cannot_read(path, "not a regular file");
  map_->stamp = *stamp;
  map_->size = static_cast<std::size_t>(stamp->size_bytes);
  if (map_->size == 0) return;  // mmap refuses it
  watch_for_bus_errors();
  void* data = mmap(nullptr, map_->size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) cannot_read(path, std::strerror(errno));
  map_->data = static_cast<const std::byte*>(data);
  const std::string name = "winnow: " + one_line(path.string());
  map_->cut_short = name + ": was cut short while winnow read it; put the whole file back and repeat the command\n";
  map_->unreadable = name + ": cannot be read any more: its file system reports an error\n";

  const std::lock_guard lock(known_maps_mutex);
  for (KnownMap& known : known_maps) {
    if (known.begin != nullptr) continue;
    known.size = map_->size;
    known.path = map_->path.c_str();
    known.cut_short = &map_->cut_short;
    known.unreadable = &map_->unreadable;
    known.begin = map_->data;
    break;
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept = default;

MappedFile::~MappedFile() {
  if (!map_ || map_->data == nullptr) return;
  {
    const std::lock_guard lock(known_maps_mutex);
    for (KnownMap& known : known_maps) {
      if (known.begin == map_->data) known.begin = nullptr;
    }
  }
  munmap(const_cast<std::byte*>(map_->data), map_->size);
}

std::span<const std::byte> MappedFile::bytes() const { return {map_->data, map_->size}; }
const fs::path& MappedFile::path() const { return map_->path; }
const FileStamp& MappedFile::stamp() const { return map_->stamp; }

}  // namespace winnow
