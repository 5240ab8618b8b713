// What sbatch and squeue print, and what is remembered of a submission.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "jobs/sweep/executors/slurm/commands.h"
#include "jobs/sweep/executors/slurm/sbatch_answer.h"
#include "jobs/sweep/executors/slurm/submission.h"
#include "jobs/sweep/program_output.h"
#include "tests/scratch.h"

namespace winnow::sweep {
namespace {

using Kind = slurm::SbatchAnswer::Kind;

TEST(JobNumber, IsFoundInWhateverIsPrinted) {
  for (const char* text :
       {"5001", "5001\n", "5001;east\n", "  5001 \r\n", "Submitted batch job 5001\n",
        "sbatch: Submitted batch job 5001 on cluster east\n", "submitted batch job 5001.\n", "\x1b[1;32m5001\x1b[0m\n",
        "\x1b]0;a title\x07\x1b[32mSubmitted batch job \x1b[1m5001\x1b[0m\n",
        "Welcome, 42 users today\n----\n5001\nHave a nice day\n", "quota 17 of 100 GB\n5001;east\n",
        "7\nSubmitted batch job 5001\n9\n", "5001\n5001;east\n"}) {
    EXPECT_EQ(slurm::find_job_number(text).value_or("none"), "5001") << text;
  }
  for (const char* text :
       {"", "\n", "no number", "5001 jobs", "job 5001 is queued", "5001\n5002\n", "0", "05001", "50015001500", "-5001",
        "5001;", "5001;two words", "Submitted batch job 5001x", "Submitted batch job", "\x1b[", "\x1b]5001"}) {
    EXPECT_FALSE(slurm::find_job_number(text).has_value()) << text;
  }
}

slurm::SbatchAnswer answer(int exit_code, const std::string& out, const std::string& err, bool is_timed_out = false) {
  return slurm::read_sbatch_answer(
      {.exit_code = exit_code, .out = out, .err = err, .is_timed_out = is_timed_out, .is_cut = false});
}

TEST(SbatchAnswer, IsUnclearUnlessSbatchSaysWhatItDid) {
  EXPECT_EQ(answer(0, "5001\n", "sbatch: Verify job submission ... PASSED\n").job, "5001");
  EXPECT_EQ(answer(0, "", "Submitted batch job 5001\n").job, "5001");
  EXPECT_EQ(answer(0, "5001\n", "", true).kind, Kind::kQueued);  // something that it left behind did not end
  for (const char* words : {"sbatch: error: invalid partition specified: nowhere\n",
                            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect "
                            "failure)\n",
                            "sbatch: unrecognized option '--no-such-option'\n"}) {
    for (const int code : {1, 2, 255}) EXPECT_EQ(answer(code, "", words).kind, Kind::kRefused) << words;
  }
  EXPECT_EQ(answer(0, "done\n", "").kind, Kind::kUnclear);
  EXPECT_EQ(answer(0, "", "").kind, Kind::kUnclear);
  EXPECT_EQ(answer(0, "5001\n5002\n", "").kind, Kind::kUnclear);
  EXPECT_EQ(answer(1, "", "").kind, Kind::kUnclear);
  EXPECT_EQ(answer(1, "5001\n", "wrapper: the log is full\n").kind, Kind::kUnclear);
  EXPECT_EQ(answer(137, "", "").kind, Kind::kUnclear);
  EXPECT_EQ(answer(137, "5001\n", "").kind, Kind::kUnclear);
  EXPECT_EQ(answer(0, "", "", true).kind, Kind::kUnclear);
  for (const char* words : {"Socket timed out on send/recv operation", "Zero Bytes were transmitted or received",
                            "Unable to contact slurm controller (receive failure)"}) {
    EXPECT_EQ(answer(1, "", std::string("sbatch: error: Batch job submission failed: ") + words).kind, Kind::kUnclear);
  }
}

TEST(RunProgram, EndsWhatDoesNotEnd) {
  const auto output = run_program({"sh", "-c", "echo begun; sleep 600 & sleep 600"},
                                  {.dropped_prefixes = {}, .kept = {}, .time_limit = std::chrono::seconds(1)});
  ASSERT_TRUE(output.has_value());
  EXPECT_TRUE(output->is_timed_out);
  EXPECT_EQ(output->out, "begun\n");
  EXPECT_EQ(output->exit_code, 128 + SIGKILL);
  EXPECT_EQ(output->words(), "it did not end in time: begun");
}

TEST(RunProgram, DropsVariablesThatChangeWhatItDoes) {
  setenv("SQUEUE_STATES", "RUNNING", 1);
  setenv("SQUEUE", "kept", 1);
  const auto output = run_program({"sh", "-c", "echo \"$SQUEUE_STATES|$SQUEUE\""},
                                  {.dropped_prefixes = {"SQUEUE_"}, .kept = {}, .time_limit = {}});
  unsetenv("SQUEUE_STATES");
  unsetenv("SQUEUE");
  ASSERT_TRUE(output.has_value());
  EXPECT_EQ(output->out, "|kept\n");
}

TEST(Queue, OtherLinesArePassedOver) {
  const std::vector<slurm::QueuedTask> tasks = slurm::parse_queue(
      "Welcome\n5001|0|PENDING|night.a.group-1|Priority\n5001|N/A|PENDING|other|None\n|||||\n"
      "5001|1|RUNNING|night.a.group-1|a|b\nx|0|RUNNING|y|z\n");
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_EQ(tasks[0].id(), "5001_0");
  EXPECT_TRUE(tasks[0].is_live() && !tasks[0].is_running());
  EXPECT_TRUE(tasks[1].is_running());
}

TEST(Submitted, ReadsBackAndOddFilesAreNothing) {
  const ScratchDirectory scratch;
  const slurm::SubmittedArrays written{.jobs = {{"group-1", "5001"}}, .unclear_since = {{"group-2", 1'800'000'000}}};
  slurm::write_submitted(scratch.path(), written);
  const slurm::SubmittedArrays read = slurm::read_submitted(scratch.path());
  EXPECT_EQ(read.jobs, written.jobs);
  EXPECT_EQ(read.unclear_since, written.unclear_since);
  for (const char* text : {"", "[]", "null", "{\"jobs\": 3, \"unclear_since\": []}", "{\"jobs\": {\"a\": 1}}",
                           "{\"unclear_since\": {\"a\": \"b\", \"c\": 1.5, \"d\": null}}"}) {
    std::ofstream(scratch.path() / "submitted.json") << text;
    const slurm::SubmittedArrays odd = slurm::read_submitted(scratch.path());
    EXPECT_TRUE(odd.jobs.empty() && odd.unclear_since.empty()) << text;
  }
}

TEST(Submitted, IsClearAfterAWhile) {
  EXPECT_TRUE(slurm::is_unclear(1000, 1000));
  EXPECT_TRUE(slurm::is_unclear(1000, 1000 + slurm::kUnclearSeconds - 1));
  EXPECT_FALSE(slurm::is_unclear(1000, 1000 + slurm::kUnclearSeconds));
  EXPECT_TRUE(slurm::is_unclear(1000, 990));  // another host's clock
  EXPECT_FALSE(slurm::is_unclear(1'000'000, 1000));
}

}  // namespace
}  // namespace winnow::sweep
