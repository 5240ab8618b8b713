// Which GPU each rank of a host takes, and what NCCL is told.
#include "pipeline/runtime/device_assignment.h"

#include <gtest/gtest.h>

namespace winnow::runtime {
namespace {

using Visible = std::vector<std::vector<std::string>>;

std::vector<int> devices(const std::vector<GpuChoice>& choices) {
  std::vector<int> numbers;
  for (const GpuChoice& choice : choices) numbers.push_back(choice.device);
  return numbers;
}

std::vector<int> sharers(const std::vector<GpuChoice>& choices) {
  std::vector<int> numbers;
  for (const GpuChoice& choice : choices) numbers.push_back(choice.n_sharers);
  return numbers;
}

TEST(ChooseGpus, TakesTheGpuOfTheLocalRank) {
  const auto choices = choose_gpus(Visible(3, {"a", "b", "c", "d"}));
  EXPECT_EQ(devices(choices), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(sharers(choices), (std::vector<int>{1, 1, 1}));
  EXPECT_FALSE(choices[0].is_shared());
  EXPECT_EQ(choices[0].host_ranks, 3);
  EXPECT_EQ(choices[0].host_gpus, 4);
}

TEST(ChooseGpus, RanksThatSeeOnlyTheirOwnGpuDoNotShare) {
  const auto choices = choose_gpus({{"a"}, {"b"}, {"c"}});
  EXPECT_EQ(devices(choices), (std::vector<int>{0, 0, 0}));
  EXPECT_EQ(sharers(choices), (std::vector<int>{1, 1, 1}));
  EXPECT_EQ(choices[2].host_gpus, 3);
}

TEST(ChooseGpus, RanksThatSeeDifferentPairsDoNotShare) {
  const auto choices = choose_gpus({{"a", "b"}, {"a", "b"}, {"c", "d"}, {"c", "d"}});
  EXPECT_EQ(devices(choices), (std::vector<int>{0, 1, 0, 1}));
  EXPECT_EQ(sharers(choices), (std::vector<int>{1, 1, 1, 1}));
}

TEST(ChooseGpus, ATakenGpuIsPassedOver) {
  // Local rank 2 would come round to "c", which local rank 0 has.
  const auto choices = choose_gpus({{"c"}, {"b", "a"}, {"c", "d"}});
  EXPECT_EQ(devices(choices), (std::vector<int>{0, 1, 1}));
  EXPECT_EQ(sharers(choices), (std::vector<int>{1, 1, 1}));
}

TEST(ChooseGpus, MoreRanksThanGpusShareEvenly) {
  const auto choices = choose_gpus(Visible(4, {"a", "b"}));
  EXPECT_EQ(devices(choices), (std::vector<int>{0, 1, 0, 1}));
  EXPECT_EQ(sharers(choices), (std::vector<int>{2, 2, 2, 2}));
  const auto three = choose_gpus(Visible(3, {"a", "b"}));
  EXPECT_EQ(sharers(three), (std::vector<int>{2, 1, 2}));
  EXPECT_TRUE(three[0].is_shared());
  EXPECT_FALSE(three[1].is_shared());
}

TEST(ChooseGpus, SeeingNoneIsNoSharing) {
  const auto choices = choose_gpus({{}, {"a"}, {}});
  EXPECT_EQ(devices(choices), (std::vector<int>{-1, 0, -1}));
  EXPECT_EQ(sharers(choices), (std::vector<int>{0, 1, 0}));
  EXPECT_FALSE(choices[0].is_shared());
}

TEST(NcclEnvironment, IsEmptyWhereNobodyShares) {
  EXPECT_TRUE(nccl_environment({.host = "node", .rank = 1, .is_one_host = true}).empty());
}

TEST(NcclEnvironment, RanksOnOneGpuAreHostsOfTheirOwn) {
  const NcclPlace first{.host = "node", .rank = 0, .shares_gpu = true, .is_any_shared = true, .is_one_host = true};
  NcclPlace second = first;
  second.rank = 1;
  const auto settings = nccl_environment(first);
  ASSERT_EQ(settings.size(), 2U);
  EXPECT_EQ(settings[0].first, "NCCL_HOSTID");
  EXPECT_NE(settings[0].second, nccl_environment(second)[0].second);
  EXPECT_EQ(settings[1], (std::pair<std::string, std::string>("NCCL_SOCKET_IFNAME", "lo")));
}

TEST(NcclEnvironment, LeavesTheNetworkAloneWhereItIsNeededOrGiven) {
  const NcclPlace hosts{.host = "node", .rank = 0, .shares_gpu = true, .is_any_shared = true};
  EXPECT_EQ(nccl_environment(hosts).size(), 1U);
  NcclPlace given = hosts;
  given.is_one_host = true;
  given.interface_is_given = true;
  EXPECT_EQ(nccl_environment(given).size(), 1U);
  // A rank with a GPU to itself talks to those that share one.
  const NcclPlace alone{.host = "node", .rank = 2, .is_any_shared = true, .is_one_host = true};
  ASSERT_EQ(nccl_environment(alone).size(), 1U);
  EXPECT_EQ(nccl_environment(alone)[0].first, "NCCL_SOCKET_IFNAME");
}

}  // namespace
}  // namespace winnow::runtime
