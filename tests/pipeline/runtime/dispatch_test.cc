// Units handed out to ranks that really are several, while rank 0's server thread and its worker share the counter.
#include "pipeline/runtime/dispatch.h"

#include <gtest/gtest.h>

#include "tests/pipeline/runtime/ranks.h"

namespace winnow::runtime {
namespace {

class DispatchRanks : public ::testing::TestWithParam<int> {};

TEST_P(DispatchRanks, GiveOutEveryUnitOnce) {
  const Outcome outcome = run_ranks(GetParam(), "dispatch_ranks units");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
}

TEST_P(DispatchRanks, AllHearOfAStop) {
  const Outcome outcome = run_ranks(GetParam(), "dispatch_ranks stop");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
}

INSTANTIATE_TEST_SUITE_P(Ranks, DispatchRanks, ::testing::Values(1, 2, 4));

TEST(Dispatch, OneOfManyFailuresIsSaid) {
  const Outcome outcome = run_ranks(3, "dispatch_ranks errors");
  EXPECT_EQ(outcome.exit_code, static_cast<int>(ExitCode::kBadData)) << outcome.output;
  const std::string line = ": everything fails\n";
  const std::size_t first = outcome.output.find(line);
  ASSERT_NE(first, std::string::npos) << outcome.output;
  EXPECT_EQ(outcome.output.find(line, first + 1), std::string::npos) << outcome.output;
}

}  // namespace
}  // namespace winnow::runtime
