// Memory that the ranks of a host share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "pipeline/runtime/session.h"

namespace winnow::runtime {

// Zeroed memory, one piece a host, that all of its ranks read and write. It has no name in any file system, so nothing
// stays behind however the ranks end, and needs no room in /dev/shm, of which containers have little.
class HostMemory {
 public:
  // Makes it; all ranks of the host have it, or none: null where the system does not give it, as under a limit of the
  // address space. Pages are taken when they are written first. Collective over the host.
  static std::unique_ptr<HostMemory> share(MpiSession& session, int64_t size_bytes);
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  ~HostMemory();

  std::span<std::byte> bytes() const { return memory_; }

 private:
  explicit HostMemory(std::span<std::byte> memory) : memory_(memory) {}

  std::span<std::byte> memory_;
};

}  // namespace winnow::runtime
