// This file is compiled for the oldest processor of its architecture, whatever WINNOW_ARCH says, and looks before any
// other code of the program runs: constructors of other files may already use the instructions in question.
#include "jobs/cli/processor.h"

#include <unistd.h>

#include "base/error.h"

namespace winnow::cli {

std::string missing_features(std::span<const ProcessorFeature> features) {
  std::string missing;
  for (const ProcessorFeature& feature : features) {
    if (!feature.needed || feature.present) continue;
    if (!missing.empty()) missing += ", ";
    missing += feature.name;
  }
  return missing;
}

#if defined(__x86_64__)
namespace {

// 101 is the first priority that a program may use: before the constructors of all other files.
__attribute__((constructor(101))) void require_processor() {
  __builtin_cpu_init();
  const ProcessorFeature features[] = {
      {"sse4_2", WINNOW_NEEDS_SSE4_2, __builtin_cpu_supports("sse4.2") != 0},
      {"popcnt", WINNOW_NEEDS_POPCNT, __builtin_cpu_supports("popcnt") != 0},
      {"avx", WINNOW_NEEDS_AVX, __builtin_cpu_supports("avx") != 0},
      {"avx2", WINNOW_NEEDS_AVX2, __builtin_cpu_supports("avx2") != 0},
      {"fma", WINNOW_NEEDS_FMA, __builtin_cpu_supports("fma") != 0},
      {"bmi1", WINNOW_NEEDS_BMI, __builtin_cpu_supports("bmi") != 0},
      {"bmi2", WINNOW_NEEDS_BMI2, __builtin_cpu_supports("bmi2") != 0},
      {"avx512f", WINNOW_NEEDS_AVX512F, __builtin_cpu_supports("avx512f") != 0},
      {"avx512bw", WINNOW_NEEDS_AVX512BW, __builtin_cpu_supports("avx512bw") != 0},
      {"avx512cd", WINNOW_NEEDS_AVX512CD, __builtin_cpu_supports("avx512cd") != 0},
      {"avx512dq", WINNOW_NEEDS_AVX512DQ, __builtin_cpu_supports("avx512dq") != 0},
      {"avx512vl", WINNOW_NEEDS_AVX512VL, __builtin_cpu_supports("avx512vl") != 0},
      {"avx512_vnni", WINNOW_NEEDS_AVX512VNNI, __builtin_cpu_supports("avx512vnni") != 0},
  };
  const std::string missing = missing_features(features);
  if (missing.empty()) return;
  const std::string line = "winnow: this processor lacks " + missing +
                           ", which this executable was built for; build it with "
                           "-DWINNOW_ARCH=native on this machine, or with x86-64-v3 for all that have AVX2\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, line.data(), line.size());
  _exit(static_cast<int>(ExitCode::kUnavailable));
}

}  // namespace
#endif

}  // namespace winnow::cli
