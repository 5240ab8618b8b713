// Tests that run once with each variant of the CPU's vector kernels that this processor has.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/cpu/kernel_variants.h"

namespace winnow {

// The parameter is what WINNOW_CPU is set to.
class KernelVariantTest : public ::testing::TestWithParam<std::string> {
 protected:
  KernelVariantTest() { setenv("WINNOW_CPU", GetParam().c_str(), 1); }
  ~KernelVariantTest() override { unsetenv("WINNOW_CPU"); }

 public:
  static std::vector<std::string> names() {
    std::vector<std::string> names;
    for (const cpu::KernelVariant& variant : cpu::kernel_variants()) names.emplace_back(variant.name);
    return names;
  }
  // GoogleTest's names are of letters, digits and underscores.
  static std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
    std::string name = info.param;
    std::replace_if(
        name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
    return name;
  }
};

}  // namespace winnow

#define WINNOW_FOR_EACH_VARIANT(fixture) \
  INSTANTIATE_TEST_SUITE_P(Cpu, fixture, ::testing::ValuesIn(KernelVariantTest::names()), KernelVariantTest::test_name)
