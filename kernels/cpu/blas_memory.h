// Memory that OpenBLAS takes for itself.
#pragma once

namespace winnow::cpu {

// Has OpenBLAS map the buffers that n_threads threads need to compute products at the same time, 128 MiB of address
// space each, and keep them. It would do so in their first products, and where the system refuses memory (ulimit -v,
// strict accounting) it does not fail but asks again for ever. Here there is a check before it asks, and none of the
// later products asks any more. Throws Error(kOutOfMemory).
void map_blas_buffers(int n_threads);

}  // namespace winnow::cpu
