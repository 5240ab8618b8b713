// Who started a process, by environments that launchers make.
#include "pipeline/runtime/launch.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/scratch.h"

namespace winnow::runtime {
namespace {

Lookup of(const std::map<std::string, std::string>& environment) {
  return [environment](const char* name) {
    const auto found = environment.find(name);
    return found == environment.end() ? std::nullopt : std::optional(found->second);
  };
}

TEST(Launch, AProcessIsAloneWhereNoLauncherSaysOtherwise) {
  EXPECT_FALSE(may_have_peers(of({})));
  EXPECT_FALSE(may_have_peers(of({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}})));  // sbatch
  EXPECT_FALSE(may_have_peers(of({{"OMPI_COMM_WORLD_SIZE", "1"}, {"PMIX_RANK", "0"}})));   // mpirun -n 1
  EXPECT_FALSE(may_have_peers(of({{"SLURM_STEP_NUM_TASKS", "1"}, {"PMIX_RANK", "0"}})));   // srun -n 1 --mpi=pmix
  EXPECT_FALSE(may_have_peers(of({{"OMPI_MCA_btl", "self"}, {"PMIX_MCA_gds", "hash"}})));  // settings only
}

TEST(Launch, RanksOfEveryLauncherMayHavePeers) {
  EXPECT_TRUE(may_have_peers(of({{"OMPI_COMM_WORLD_SIZE", "2"}})));
  EXPECT_TRUE(may_have_peers(of({{"PMI_SIZE", "4"}, {"PMI_RANK", "3"}})));
  EXPECT_TRUE(may_have_peers(of({{"SLURM_STEP_NUM_TASKS", "2"}})));
  EXPECT_TRUE(may_have_peers(of({{"PMIX_RANK", "0"}})));
  EXPECT_TRUE(may_have_peers(of({{"OMPI_COMM_WORLD_SIZE", "1"}, {"SLURM_STEP_NUM_TASKS", "4"}})));  // one in the other
  EXPECT_TRUE(may_have_peers(of({{"PMI_SIZE", "what"}})));
}

TEST(Launch, MpirunIsKnown) {
  EXPECT_TRUE(is_under_mpirun(of({{"OMPI_COMM_WORLD_SIZE", "1"}})));
  EXPECT_FALSE(is_under_mpirun(of({{"PMIX_RANK", "0"}})));
}

TEST(Launch, TemporaryFilesGoWhereTheyCanBeWritten) {
  const ScratchDirectory scratch;
  EXPECT_EQ(writable_temporary_directory(of({{"TMPDIR", scratch.path().string()}})), scratch.path().string());
  const auto other = writable_temporary_directory(of({{"TMPDIR", "/proc"}}));
  EXPECT_TRUE(other.has_value());
  EXPECT_NE(other, "/proc");
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

}  // namespace
}  // namespace winnow::runtime
