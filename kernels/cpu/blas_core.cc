#include "kernels/cpu/blas_core.h"

#include <cblas.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/restart.h"

namespace winnow::cpu {
namespace {

constexpr const char* kCoreType = "OPENBLAS_CORETYPE";
// In the environment of the second start alone: OpenBLAS may not have the kernels, and a third start would not help.
constexpr const char* kRestarted = "WINNOW_RESTARTED";

// Cores of OpenBLAS (cpuid_x86.c, dynamic.c) whose kernels use no AVX2. Its Zen is as its Haswell.
constexpr std::array kCoresBeforeAvx2 = {
    "Katmai",    "Coppermine", "Northwood", "Prescott",    "Banias",      "Atom",    "Core2",
    "Penryn",    "Dunnington", "Nehalem",   "Sandybridge", "Athlon",      "Opteron", "Opteron_SSE3",
    "Barcelona", "Bobcat",     "Bulldozer", "Piledriver",  "Steamroller", "Nano",    "Generic"};

}  // namespace

VectorSupport vector_support() {
#if defined(__x86_64__)
  // By the features' names: that a level has a name is news to clang 14.
  __builtin_cpu_init();
  return {.avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0,
          .avx512 = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                    __builtin_cpu_supports("avx512cd") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
                    __builtin_cpu_supports("avx512vl") != 0};
#else
  return {};
#endif
}

std::string better_blas_core(std::string_view core, VectorSupport support) {
  if (!support.avx2 || std::ranges::find(kCoresBeforeAvx2, core) == kCoresBeforeAvx2.end()) return "";
  return support.avx512 ? "SkylakeX" : "Haswell";
}

void restart_with_better_blas_core(char** argv) {
  if (std::getenv(kRestarted) != nullptr) {
    unsetenv(kRestarted);
    unsetenv(kCoreType);
    return;
  }
  if (std::getenv(kCoreType) != nullptr) return;
  VectorSupport support = vector_support();
  const char* variant = std::getenv("WINNOW_CPU");
  if (variant != nullptr && std::string_view(variant) == "x86-64-v3") support.avx512 = false;
  const std::string core = better_blas_core(openblas_get_corename(), support);
  if (core.empty()) return;
  setenv(kCoreType, core.c_str(), 1);
  setenv(kRestarted, "1", 1);
  restart(argv, environ);
  // Where /proc is not mounted the old kernels do, slower.
  unsetenv(kRestarted);
  unsetenv(kCoreType);
}

}  // namespace winnow::cpu
