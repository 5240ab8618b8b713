#include "kernels/cpu/blas_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"

// OpenBLAS's own, of every version and build: what a product takes and gives back. Null in another BLAS.
extern "C" {
__attribute__((weak)) void* blas_memory_alloc(int position);
__attribute__((weak)) void blas_memory_free(void* buffer);
}

namespace winnow::cpu {
namespace {

// The size of a buffer, unless OpenBLAS was built otherwise, and a little for what goes along with it.
constexpr std::size_t kBufferBytes = std::size_t{128} << 20;
constexpr std::size_t kSpareBytes = std::size_t{32} << 20;
// OpenBLAS has a table of them, of twice its number of threads; so many threads hardly compute products all at once.
constexpr int kMostBuffers = 64;

}  // namespace

void map_blas_buffers(int n_threads) {
  if (blas_memory_alloc == nullptr || blas_memory_free == nullptr) return;
  std::vector<void*> buffers;
  for (int thread = 0; thread < std::min(n_threads, kMostBuffers); ++thread) {
    void* room = mmap(nullptr, kBufferBytes + kSpareBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) {
      const std::string reason = std::strerror(errno);
      for (void* buffer : buffers) blas_memory_free(buffer);
      fail(ExitCode::kOutOfMemory, "no room for OpenBLAS, which takes " + std::to_string(kBufferBytes >> 20) +
                                       " MiB of address space for each of " + std::to_string(n_threads) +
                                       " thread(s): " + reason +
                                       "; raise the limit (ulimit -v) or give fewer --threads");
    }
    munmap(room, kBufferBytes + kSpareBytes);
    buffers.push_back(blas_memory_alloc(0));
  }
  for (void* buffer : buffers) blas_memory_free(buffer);
}

}  // namespace winnow::cpu
