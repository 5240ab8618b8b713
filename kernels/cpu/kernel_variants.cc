#include "kernels/cpu/kernel_variants.h"

#include <cstdlib>
#include <string>

#include "base/error.h"
#include "kernels/cpu/blas_core.h"

namespace winnow::cpu {

// vector_kernels.cc defines each in a compilation of its own.
namespace base {
extern const VectorKernels kernels;
}
#if defined(WINNOW_HAS_X86_64_V4)
namespace x86_64_v4 {
extern const VectorKernels kernels;
}
#endif

namespace {

struct Candidate {
  KernelVariant variant;
  bool is_runnable;
};

std::vector<Candidate> candidates() {
  return {
#if defined(WINNOW_HAS_X86_64_V4)
    {{"x86-64-v4", &x86_64_v4::kernels}, vector_support().avx512},
#endif
        {{WINNOW_BASE_ARCH, &base::kernels}, true},
  };
}

}  // namespace

std::vector<KernelVariant> kernel_variants() {
  std::vector<KernelVariant> variants;
  for (const Candidate& candidate : candidates()) {
    if (candidate.is_runnable) variants.push_back(candidate.variant);
  }
  return variants;
}

KernelVariant chosen_kernels() {
  const char* name = std::getenv("WINNOW_CPU");
  if (name == nullptr || *name == '\0') return kernel_variants().front();
  std::string names;
  for (const Candidate& candidate : candidates()) {
    const std::string known = candidate.variant.name;
    names += (names.empty() ? "" : " or ") + known;
    if (known != name) continue;
    if (candidate.is_runnable) return candidate.variant;
    fail(ExitCode::kUnavailable,
         "WINNOW_CPU=" + known + ": this processor lacks instructions of it; unset WINNOW_CPU to let winnow choose");
  }
  fail(ExitCode::kUsage, "WINNOW_CPU=" + std::string(name) + ": this build has kernels for " + names +
                             "; name one of them, or unset WINNOW_CPU to let winnow choose");
}

}  // namespace winnow::cpu
