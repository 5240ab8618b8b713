#include "pipeline/run/residency_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/error.h"

namespace winnow::run {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// 36 layers of 200 MiB, and sweeps of 1 GiB and more.
ResidencyNeeds needs_of(int64_t limit_mib) {
  return {.n_layers = 36,
          .layer_bytes = 200 * kMiB,
          .shared_bytes = 800 * kMiB,
          .packed_bytes = 0,
          .least_sweep_bytes = 1000 * kMiB,
          .wave_bytes = 3000 * kMiB,
          .limit_bytes = limit_mib * kMiB};
}

std::string error_of(const ResidencyNeeds& needs, const std::string& stream) {
  try {
    plan_residency(needs, stream);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kOutOfMemory);
    return error.what();
  }
  return "";
}

TEST(ResidencyPlan, AutoKeepsAllWhereTheyFit) {
  EXPECT_TRUE(plan_residency(needs_of(7200 + 800 + 1000), "auto").keeps_all());
  EXPECT_FALSE(plan_residency(needs_of(7200 + 800 + 999), "auto").keeps_all());
}

TEST(ResidencyPlan, AutoKeepsWhatAWaveLeaves) {
  for (int64_t limit = 800 + 400 + 1000; limit < 9000; limit += 100) {
    const ResidencyNeeds needs = needs_of(limit);
    const model::Residency residency = plan_residency(needs, "auto");
    EXPECT_EQ(residency.n_buffers, 2);
    EXPECT_EQ(residency.n_kept, std::max<int64_t>(0, std::min<int64_t>(33, (limit - 800 - 400 - 3000) / 200))) << limit;
    const int64_t taken = needs.shared_bytes + residency.n_slots() * needs.layer_bytes + needs.least_sweep_bytes;
    EXPECT_LE(taken, needs.limit_bytes);
  }
}

TEST(ResidencyPlan, PackedWeightsTakeMemoryToo) {
  ResidencyNeeds needs = needs_of(2200);
  EXPECT_EQ(plan_residency(needs, "auto").n_kept, 0);
  EXPECT_EQ(error_of(needs, "on"), "");
  needs.packed_bytes = 1;
  EXPECT_NE(error_of(needs, "on"), "");
}

TEST(ResidencyPlan, OnKeepsNone) {
  const model::Residency residency = plan_residency(needs_of(100000), "on");
  EXPECT_EQ(residency.n_kept, 0);
  EXPECT_EQ(residency.n_buffers, 2);
  ResidencyNeeds one = needs_of(100000);
  one.n_layers = 1;
  EXPECT_EQ(plan_residency(one, "on").n_buffers, 1);
}

TEST(ResidencyPlan, OffKeepsAllOrSaysWhyNot) {
  EXPECT_TRUE(plan_residency(needs_of(9000), "off").keeps_all());
  const std::string error = error_of(needs_of(8999), "off");
  for (const char* part : {"--stream off", "7.81 GiB", "1000.00 MiB", "8.79 GiB", "--max-memory"}) {
    EXPECT_NE(error.find(part), std::string::npos) << part << " in " << error;
  }
}

TEST(ResidencyPlan, TooLittleForTwoBuffersIsSaid) {
  const ResidencyNeeds needs = needs_of(800 + 400 + 999);
  const std::string error = error_of(needs, "on");
  for (const char* part : {"--stream on", "1.17 GiB", "2 buffer(s)", "2.15 GiB", "--max-memory"}) {
    EXPECT_NE(error.find(part), std::string::npos) << part << " in " << error;
  }
  // Nobody asked, and all may be measured already.
  EXPECT_EQ(plan_residency(needs, "auto").n_slots(), 2);
}

}  // namespace
}  // namespace winnow::run
