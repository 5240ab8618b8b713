// One cell and its attempts in a batch job, whose launcher is a shell script: what is repeated, where, and how often.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "jobs/sweep/cell_state.h"
#include "jobs/sweep/failed_launch.h"
#include "jobs/sweep/files.h"
#include "jobs/sweep/run_cell.h"
#include "jobs/sweep/submission.h"
#include "tests/scratch.h"

namespace winnow::sweep {
namespace {

namespace fs = std::filesystem;

// Starts a script in place of srun, and counts what run-cell asks for.
class FakeBatch : public BatchSystem {
 public:
  explicit FakeBatch(fs::path script) : script_(std::move(script)) {}

  void begin(const Attempt&) override {}
  std::vector<std::string> launcher(const Cell&) override { return {"/bin/sh", script_.string()}; }
  std::string again(const Attempt& attempt) override {
    ++n_again;
    was_told = attempt.was_told;
    return "another job goes on";
  }
  void settled(const Attempt&) override { ++n_settled; }
  std::string job() const override { return "12"; }
  std::string task() const override { return "0"; }

  int n_again = 0;
  int n_settled = 0;
  bool was_told = false;

 private:
  fs::path script_;
};

class RunCell : public ::testing::Test {
 protected:
  RunCell() {
    cell_.name = "cell";
    cell_.run_directory = root() / "runs/cell";
    cell_.calibrate_arguments = {"calibrate"};
    cell_.seeds = {0};
    cell_.max_attempts = 2;
    submission_ = write_submission(root(), {cell_});
  }

  const fs::path& root() const { return scratch_.path(); }

  // One job of the cell. `body` is shell; $n is the number of the launch, `result` makes the result.
  int run(const std::string& body) {
    const fs::path script = root() / "srun";
    std::ofstream(script) << "cd '" << root().string() << "'\nn=$(($(cat n 2>/dev/null || echo 0) + 1)); echo $n > n\n"
                          << "result() { : > '" << cell_.results(0).string() << "'; }\n"
                          << body << "\n";
    batch_ = std::make_unique<FakeBatch>(script);
    return run_cell(submission_, 0, batch_.get(), std::chrono::milliseconds(0));
  }

  AttemptRecord record(int attempt) const {
    return AttemptRecord::from_json(read_json(attempt_record(cell_.run_directory, attempt)).value());
  }
  CellStatus status() const { return cell_status(cell_, {}); }

  ScratchDirectory scratch_;
  Cell cell_;
  fs::path submission_;
  std::unique_ptr<FakeBatch> batch_;
};

const std::string kLaunchFailed = "echo 'srun: error: task 1 launch failed: Unspecified error' >&2; exit 0";

TEST_F(RunCell, AFailedLaunchIsRepeatedInTheSameJob) {
  EXPECT_EQ(run("[ $n -lt 3 ] && { " + kLaunchFailed + "; }\necho 'winnow 10:00:00 1 rank(s)'\nresult"), 0);
  EXPECT_EQ(status().state, CellState::kDone);
  EXPECT_EQ(batch_->n_again, 0);
  EXPECT_EQ(batch_->n_settled, 1);
  for (const int attempt : {1, 2}) {
    EXPECT_EQ(record(attempt).failed_launches, attempt);
    EXPECT_EQ(record(attempt).of_submission, 0);
    EXPECT_EQ(record(attempt).exit_code, 70);  // what srun returned is no success
    EXPECT_EQ(record(attempt).error, "srun: error: task 1 launch failed: Unspecified error");
  }
  EXPECT_EQ(record(3).failed_launches, 0);
  EXPECT_EQ(record(3).of_submission, 1);
}

TEST_F(RunCell, FailedLaunchesGoToOtherJobsAndComeToAnEnd) {
  for (const int n_launches : {3, 6, 9}) {
    EXPECT_EQ(run(kLaunchFailed), 75);
    EXPECT_EQ(list_attempts(cell_.run_directory).size(), n_launches);
    EXPECT_EQ(batch_->n_again, 1);
    EXPECT_FALSE(batch_->was_told);  // a job with a new number, not a requeued one
    EXPECT_EQ(status().state, CellState::kInterrupted);
  }
  EXPECT_EQ(run(kLaunchFailed), 70);
  EXPECT_EQ(batch_->n_again, 0);
  EXPECT_EQ(batch_->n_settled, 1);
  EXPECT_EQ(status().state, CellState::kFailed);
  EXPECT_EQ(status().last_error,
            "given up after 10 failed launches: srun: error: task 1 launch failed: Unspecified error");
  EXPECT_EQ(run("result"), 70);  // the submission has no launch left
  EXPECT_EQ(list_attempts(cell_.run_directory).size(), 10);
  submission_ = write_submission(root(), {cell_});
  EXPECT_EQ(run("result"), 0);
}

TEST_F(RunCell, AnEndWithoutAResultIsAnAttemptOnceARankHasBegun) {
  EXPECT_EQ(run("echo '0: winnow 10:00:00 1 rank(s)'; exit 0"), 75);
  EXPECT_EQ(batch_->n_again, 1);
  EXPECT_EQ(record(1).failed_launches, 0);
  EXPECT_EQ(record(1).of_submission, 1);
  EXPECT_NE(record(1).error.find("exit code 0, but " + cell_.results(0).string() + " is missing"), std::string::npos)
      << record(1).error;
  EXPECT_EQ(status().state, CellState::kInterrupted);
  EXPECT_EQ(run("echo 'winnow 10:00:00 1 rank(s)'; exit 0"), 70);
  EXPECT_EQ(batch_->n_again, 0);
  EXPECT_EQ(status().state, CellState::kFailed);
}

TEST_F(RunCell, ASilentEndWithoutAResultIsAFailedLaunch) {
  EXPECT_EQ(run("[ $n -gt 1 ] && result; exit 0"), 0);
  EXPECT_EQ(record(1).failed_launches, 1);
  EXPECT_EQ(record(1).error, "sh ended with exit code 0, but " + cell_.results(0).string() + " is missing");
}

TEST_F(RunCell, WhatNoLaunchWillChangeIsNotRepeated) {
  EXPECT_EQ(run("echo \"srun: error: Couldn't find the specified plugin name for mpi/pmix\" >&2; exit 1"), 1);
  EXPECT_EQ(batch_->n_again, 0);
  EXPECT_EQ(status().state, CellState::kFailed);
  EXPECT_EQ(run("echo 'winnow: bad weights' >&2; exit 65"), 65);
  EXPECT_EQ(list_attempts(cell_.run_directory).size(), 2);
}

TEST_F(RunCell, FailedLaunchesUseUpNoAttempt) {
  EXPECT_EQ(run("[ $n -lt 3 ] && { " + kLaunchFailed + "; }\necho 'winnow: rank 1: gone'; exit 75"), 75);
  EXPECT_TRUE(batch_->was_told);
  EXPECT_EQ(record(3).of_submission, 1);
  EXPECT_EQ(status().state, CellState::kInterrupted);
  EXPECT_EQ(run("echo 'winnow 10:00:00 1 rank(s)'; result"), 0);
}

TEST(Launch, IsFailedWhereSlurmSaysSoAndNoRankHasSpoken) {
  const ScratchDirectory scratch;
  const auto is_failed = [&](const std::string& text, int code) {
    std::ofstream(scratch.path() / "log") << text;
    return is_failed_launch(read_launch(scratch.path() / "log"), code);
  };
  for (const char* line :
       {"srun: error: task 0 launch failed: Unspecified error", "srun: error: Application launch failed: Timeout",
        "srun: error: Task launch for StepId=3.0 failed on node b: Communication connection failure",
        "srun: error: Unable to create step for job 3: Job/step already completing or completed",
        "srun: Job step creation temporarily disabled, retrying (Requested nodes are busy)",
        "srun: error: Unable to confirm allocation for job 3: Unable to contact slurm controller (connect failure)"}) {
    for (const int code : {0, 1, 143}) EXPECT_TRUE(is_failed(std::string(line) + "\n", code)) << line;
    EXPECT_FALSE(is_failed("winnow 10:00:00 1 rank(s)\n" + std::string(line) + "\n", 1)) << line;
    EXPECT_FALSE(is_failed("1: winnow: rank 1 on b: gone\n" + std::string(line) + "\n", 1)) << line;
  }
  EXPECT_TRUE(is_failed("", 0));
  EXPECT_TRUE(is_failed("slurmstepd: warning: something\n", 0));
  EXPECT_FALSE(is_failed("", 1));
  EXPECT_FALSE(is_failed("slurmstepd: error: execve(): /opt/winnow: No such file or directory\n", 2));
  EXPECT_FALSE(is_failed("winnow 10:00:00 1 rank(s)\n", 0));
}

}  // namespace
}  // namespace winnow::sweep
