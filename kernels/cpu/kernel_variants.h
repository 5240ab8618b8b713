// Which vector kernels this process uses.
#pragma once

#include <vector>

#include "kernels/cpu/vector_kernels.h"

namespace winnow::cpu {

// The kernels for one type of processor.
struct KernelVariant {
  const char* name = "";  // the -march value that they are compiled for
  const VectorKernels* kernels = nullptr;
};

// Returns those that this build has and this processor runs, the fastest first. The last is that of WINNOW_ARCH, which
// the whole executable needs.
std::vector<KernelVariant> kernel_variants();

// Returns the one that the environment variable WINNOW_CPU names; the fastest where it is not set or empty. Throws
// Error(kUsage) where this build has none of that name, Error(kUnavailable) where the processor cannot run it.
KernelVariant chosen_kernels();

}  // namespace winnow::cpu
