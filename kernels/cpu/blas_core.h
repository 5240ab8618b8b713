// Which kernels OpenBLAS uses. It takes those for the processor's model number, and on a model newer than itself those
// of the Pentium 4: OpenBLAS 0.3.21 (Debian 12) on an Emerald Rapids Xeon needs 2.6 times the time for a calibration.
#pragma once

#include <string>
#include <string_view>

namespace winnow::cpu {

// What a processor can execute.
struct VectorSupport {
  bool avx2 = false;    // with FMA
  bool avx512 = false;  // F, BW, CD, DQ and VL
};

// Returns what this processor can execute.
VectorSupport vector_support();

// Returns the value of OPENBLAS_CORETYPE whose kernels fit `support`, where `core`, in the words of
// openblas_get_corename(), is older than AVX2 and the processor is not; "" where OpenBLAS has chosen well.
std::string better_blas_core(std::string_view core, VectorSupport support);

// Starts the program again, with the same arguments and OPENBLAS_CORETYPE set, where OpenBLAS has chosen badly: it
// chooses when it is loaded, before main(). A value that the user has set stays. Processes that winnow starts do not
// inherit the variable, because they may run on another type of processor. To be called first in main().
void restart_with_better_blas_core(char** argv);

}  // namespace winnow::cpu
