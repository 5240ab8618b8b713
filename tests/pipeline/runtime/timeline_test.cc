#include "pipeline/runtime/timeline.h"

#include <gtest/gtest.h>

#include <numeric>

namespace winnow::runtime {
namespace {

// A clock that stands still until it is told.
struct FakeClock {
  double now = 100.0;
  Timeline::Now read() {
    return [this] { return now; };
  }
};

double of(const std::vector<double>& seconds, Part part) { return seconds[static_cast<std::size_t>(part)]; }

TEST(Timeline, EachInstantLiesInOnePart) {
  FakeClock clock;
  Timeline timeline(2.0, clock.read());
  clock.now += 1.0;  // in no part
  {
    const Timeline::Scope measuring(timeline, Part::kMeasuring);
    clock.now += 4.0;
    {
      const Timeline::Scope waiting(timeline, Part::kWaiting);
      clock.now += 8.0;
      EXPECT_FALSE(timeline.has(Part::kWaiting));  // it has not ended
    }
    EXPECT_TRUE(timeline.has(Part::kWaiting));
    clock.now += 16.0;
  }
  clock.now += 32.0;
  timeline.enter(Part::kTeardown);
  clock.now += 64.0;
  const std::vector<double> seconds = timeline.seconds();
  EXPECT_EQ(of(seconds, Part::kProcess), 2.0);
  EXPECT_EQ(of(seconds, Part::kOther), 33.0);
  EXPECT_EQ(of(seconds, Part::kMeasuring), 20.0);
  EXPECT_EQ(of(seconds, Part::kWaiting), 8.0);
  EXPECT_EQ(of(seconds, Part::kTeardown), 64.0);
  EXPECT_EQ(std::accumulate(seconds.begin(), seconds.end(), 0.0), 2.0 + clock.now - 100.0);
}

TEST(Timeline, AScopeEndsWhatBeganInIt) {
  FakeClock clock;
  Timeline timeline(0.0, clock.read());
  {
    const Timeline::Scope exchange(timeline, Part::kExchange);
    clock.now += 1.0;
    timeline.enter(Part::kWeights);
    clock.now += 2.0;
  }
  clock.now += 4.0;
  const std::vector<double> seconds = timeline.seconds();
  EXPECT_EQ(of(seconds, Part::kExchange), 1.0);
  EXPECT_EQ(of(seconds, Part::kWeights), 2.0);
  EXPECT_EQ(of(seconds, Part::kOther), 4.0);
}

TEST(Timeline, SurvivesItsMessage) {
  FakeClock clock;
  Timeline timeline(0.125, clock.read());
  clock.now += 1.0 / 3.0;
  const std::vector<double> seconds = timeline.seconds();
  EXPECT_EQ(Timeline::from_text(Timeline::to_text(seconds)), seconds);
  EXPECT_EQ(Timeline::from_text("nonsense"), std::vector<double>(kParts, 0.0));
}

TEST(Timeline, TableHasTheMostOfAnyRank) {
  std::vector<std::vector<double>> ranks(3, std::vector<double>(kParts, 0.0));
  ranks[0][static_cast<std::size_t>(Part::kMeasuring)] = 2.0;
  ranks[2][static_cast<std::size_t>(Part::kMeasuring)] = 3.5;
  ranks[1][static_cast<std::size_t>(Part::kRates)] = 0.25;
  const std::string table = timeline_table(ranks);
  EXPECT_NE(table.find("other units"), std::string::npos) << table;
  EXPECT_NE(table.find("2.000      3.500      2"), std::string::npos) << table;
  EXPECT_NE(table.find("0.000      0.250      1"), std::string::npos) << table;
  EXPECT_EQ(table.find("statistics"), std::string::npos) << table;  // took no time
}

TEST(Timeline, AProcessHasAnAge) {
  const double first = seconds_since_process_start();
  EXPECT_GT(first, 0.0);
  EXPECT_LT(first, 86400.0);
  EXPECT_GE(seconds_since_process_start(), first);
}

TEST(Timeline, EveryPartHasAName) {
  for (const PartName& part : part_names()) {
    EXPECT_NE(part.name, nullptr);
    EXPECT_NE(part.what, nullptr);
  }
}

}  // namespace
}  // namespace winnow::runtime
