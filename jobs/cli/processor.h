// Checks that this processor has the instructions that the build uses.
#pragma once

#include <span>
#include <string>

namespace winnow::cli {

struct ProcessorFeature {
  const char* name = "";  // as /proc/cpuinfo has it
  bool needed = false;    // the compiler may have used it
  bool present = false;   // the processor has it
};

// Returns the names of the needed features that are not present, "avx2, fma"; "" when all are.
std::string missing_features(std::span<const ProcessorFeature> features);

}  // namespace winnow::cli
