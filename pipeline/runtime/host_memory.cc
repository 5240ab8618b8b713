#include "pipeline/runtime/host_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/file_descriptor.h"

namespace winnow::runtime {
namespace {

std::span<std::byte> map(int64_t size_bytes, int flags, int fd) {
  const auto size = static_cast<std::size_t>(std::max<int64_t>(size_bytes, 1));
  void* const data = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (data == MAP_FAILED) return {};
  // Faster to lock and to copy from, and nothing that processes which are started have to copy the tables of; no harm
  // where it is refused.
  madvise(data, size, MADV_HUGEPAGE);
  madvise(data, size, MADV_DONTFORK);
  return {static_cast<std::byte*>(data), size};
}

// The file that the first rank of the host made, by way of that process: "" where it could not.
FileDescriptor open_of_peer(const std::string& path, int64_t size_bytes) {
  if (path.empty()) return {};
  FileDescriptor file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  struct stat found {};
  // Where process numbers mean other processes, the path leads elsewhere or nowhere.
  if (!file || fstat(file.get(), &found) != 0 || found.st_size != size_bytes) return {};
  return file;
}

}  // namespace

std::unique_ptr<HostMemory> HostMemory::share(MpiSession& session, int64_t size_bytes) {
  std::span<std::byte> memory;
  if (session.local_size() == 1) {
    memory = map(size_bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  } else {
    FileDescriptor own;
    std::string path;
    if (session.local_rank() == 0) {
      own = FileDescriptor(memfd_create("winnow-weights", MFD_CLOEXEC));
      if (own && ftruncate(own.get(), size_bytes) == 0) {
        path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(own.get());
      }
    }
    const FileDescriptor file = open_of_peer(session.gather_on_host(path).front(), size_bytes);
    if (file) memory = map(size_bytes, MAP_SHARED | MAP_NORESERVE, file.get());
    // Nobody goes on, and closes the file, before all have it.
    const std::vector<std::string> states = session.gather_on_host(memory.empty() ? "none" : "mapped");
    if (std::count(states.begin(), states.end(), "mapped") < session.local_size() && !memory.empty()) {
      munmap(memory.data(), memory.size());
      memory = {};
    }
  }
  if (memory.empty()) return nullptr;
  return std::unique_ptr<HostMemory>(new HostMemory(memory));
}

HostMemory::~HostMemory() { munmap(memory_.data(), memory_.size()); }

}  // namespace winnow::runtime
