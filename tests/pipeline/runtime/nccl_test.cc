// Two ranks on one GPU, over NCCL. They are started with mpirun from here: a communicator needs processes of its own.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"
#include "results/calibration/store.h"
#include "tests/pipeline/runtime/ranks.h"
#include "tests/scratch.h"

namespace winnow::runtime {
namespace {

const std::string kDemo = std::string(WINNOW_TESTS_DIR) + "/demo";

class NcclTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  }

  std::string calibrate(const std::string& out, const std::string& more = "") const {
    return "winnow calibrate --device cuda --model " + kDemo + "/model --data " + kDemo +
           "/long.h5 --control short=" + kDemo + "/short.h5 --window 96 --sinks 4 --per-token --limit 6 --out " +
           (scratch_.path() / out).string() + " " + more;
  }
  calibration::Results results(const std::string& out) const {
    return calibration::read_results(scratch_.path() / out / "results.h5");
  }

  ScratchDirectory scratch_;
};

// Per-token tables are padded with NaN: their bits are compared.
template <typename T>
void expect_same_bits(const std::vector<T>& found, const std::vector<T>& expected, const char* what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size() * sizeof(T)), 0) << what;
}

void expect_same(const calibration::Measurement& found, const calibration::Measurement& expected) {
  EXPECT_EQ(found.example_id, expected.example_id);
  expect_same_bits(found.nll_base, expected.nll_base, "nll_base");
  expect_same_bits(found.nll.values, expected.nll.values, "nll");
  expect_same_bits(found.exact_match.values, expected.exact_match.values, "exact_match");
  expect_same_bits(found.token_accuracy.values, expected.token_accuracy.values, "token_accuracy");
  expect_same_bits(found.token_nll_base.values, expected.token_nll_base.values, "token_nll_base");
  expect_same_bits(found.token_nll.values, expected.token_nll.values, "token_nll");
}

TEST_F(NcclTest, SumsAreThoseOfMpiAndBroadcastsArrive) {
  const Outcome outcome = run_ranks(2, "nccl_ranks sums");
  if (outcome.exit_code == 77) GTEST_SKIP() << "this build has no NCCL";
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
}

TEST_F(NcclTest, TwoRanksMeasureWhatOneDoes) {
  const Outcome alone = run_program(calibrate("alone"));
  ASSERT_EQ(alone.exit_code, 0) << alone.output;
  const Outcome shared = run_ranks(2, calibrate("shared", "--share-gpu"));
  ASSERT_EQ(shared.exit_code, 0) << shared.output;
  const calibration::Results one = results("alone");
  const calibration::Results two = results("shared");
  expect_same(two.calibration, one.calibration);
  ASSERT_EQ(two.controls.size(), 1U);
  expect_same(two.controls.at("short"), one.controls.at("short"));
}

TEST_F(NcclTest, Fp8WeightsArriveAtTheRankThatDoesNotRead) {
  for (const char* name : {"fp8_block", "fp8_ceil_block", "fp8_channel", "fp8_tensor"}) {
    const std::string model = std::string(WINNOW_TESTS_DIR) + "/golden/quantized/" + name;
    const Outcome outcome = run_ranks(2, "nccl_ranks weights:" + model);
    if (outcome.exit_code == 77) GTEST_SKIP() << "this build has no NCCL";
    EXPECT_EQ(outcome.exit_code, 0) << name << ": " << outcome.output;
  }
}

TEST_F(NcclTest, RanksDoNotShareAGpuUnasked) {
  const Outcome outcome = run_ranks(2, calibrate("refused"), "CUDA_VISIBLE_DEVICES=0");
  EXPECT_EQ(outcome.exit_code, static_cast<int>(ExitCode::kUnavailable)) << outcome.output;
  EXPECT_NE(outcome.output.find("--share-gpu"), std::string::npos) << outcome.output;
}

TEST_F(NcclTest, ARankThatDoesNotAnswerEndsTheJobAtTheDeadline) {
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome = run_ranks(2, "nccl_ranks silent", "WINNOW_NCCL_DEADLINE=15");
  if (outcome.exit_code == 77) GTEST_SKIP() << "this build has no NCCL";
  EXPECT_EQ(outcome.exit_code, static_cast<int>(ExitCode::kInternal)) << outcome.output;
  EXPECT_NE(outcome.output.find("rank 0 on "), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("no answer within 15 s"), std::string::npos) << outcome.output;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

}  // namespace
}  // namespace winnow::runtime
