// Packed rows (kernels/packed_rows.h) to bfloat16, on the GPU.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/packed_rows.h"

namespace winnow::cuda {

// Writes n_rows packed rows in device memory as bfloat16, (n_rows, cols): float32 values as the host computes them,
// rounded to nearest, ties to even.
void unpack_rows(const kernels::PackedRows& rows, const std::byte* packed, int64_t n_rows, std::byte* to,
                 cudaStream_t stream);

}  // namespace winnow::cuda
