#include "pipeline/run/plan.h"

#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "tests/scratch.h"

namespace winnow::run {
namespace {

constexpr int64_t kLayers = 12;

std::vector<int64_t> all_layers() {
  std::vector<int64_t> layers(kLayers);
  std::iota(layers.begin(), layers.end(), 0);
  return layers;
}

std::vector<MissingCells> whole_examples(int64_t n) {
  std::vector<MissingCells> missing;
  for (int64_t e = 0; e < n; ++e)
    missing.push_back({.data_set = 0, .example = e, .base = true, .variants = all_layers()});
  return missing;
}

// A sweep's prices: the base costs 12 layer passes, lane l those from l on, example e is (1 + e) times as long. One
// lane takes 10 bytes, the base 100.
UnitPrices sweep_prices() {
  const auto length = [](const MissingCells& cells) { return 1.0 + static_cast<double>(cells.example); };
  return {.seconds =
              [length](const MissingCells& cells, std::span<const int64_t> layers) {
                double passes = static_cast<double>(kLayers);
                for (const int64_t layer : layers) passes += static_cast<double>(kLayers - layer);
                return passes * length(cells);
              },
          .bytes = [](const MissingCells&,
                      std::span<const int64_t> layers) { return 100 + 10 * static_cast<int64_t>(layers.size()); }};
}

using CellKey = std::tuple<int64_t, int64_t, int64_t>;

// Every cell of `missing` must be in exactly one unit.
void expect_covers(const std::vector<WorkUnit>& units, const std::vector<MissingCells>& missing) {
  std::multiset<CellKey> wanted;
  std::multiset<CellKey> planned;
  for (const MissingCells& cells : missing) {
    if (cells.base) wanted.insert({cells.data_set, cells.example, -1});
    for (const int64_t layer : cells.variants) wanted.insert({cells.data_set, cells.example, layer});
  }
  for (const WorkUnit& unit : units) {
    EXPECT_GT(unit.n_cells(), 0);
    if (unit.keeps_base) planned.insert({unit.data_set, unit.example, -1});
    for (const int64_t layer : unit.variants) planned.insert({unit.data_set, unit.example, layer});
  }
  EXPECT_EQ(planned, wanted);
}

TEST(Plan, OneRankSweepsEachExampleOnceLongestFirst) {
  const auto missing = whole_examples(3);
  const auto units = plan_units(missing, sweep_prices(), {.n_ranks = 1, .max_bytes = 1000});
  ASSERT_EQ(units.size(), 3U);
  expect_covers(units, missing);
  EXPECT_EQ(units[0].example, 2);
  EXPECT_EQ(units[1].example, 1);
  EXPECT_EQ(units[2].example, 0);
  EXPECT_DOUBLE_EQ(units[2].cost_seconds, 12.0 + 78.0);
}

TEST(Plan, ManyExamplesAreNotCut) {
  // 40 examples of one length on 4 ranks come out even: cutting would only repeat the base.
  auto missing = whole_examples(40);
  UnitPrices prices = sweep_prices();
  prices.seconds = [seconds = prices.seconds](const MissingCells& cells, std::span<const int64_t> layers) {
    MissingCells same = cells;
    same.example = 0;
    return seconds(same, layers);
  };
  EXPECT_EQ(plan_units(missing, prices, {.n_ranks = 4, .max_bytes = 1000}).size(), 40U);
}

TEST(Plan, CutsWhereRanksOutnumberExamples) {
  const auto missing = whole_examples(1);
  const UnitPrices prices = sweep_prices();
  double former = predict_makespan(plan_units(missing, prices, {.n_ranks = 1, .max_bytes = 1000}), 1);
  for (const int64_t n_ranks : {2, 4, 8}) {
    const auto units = plan_units(missing, prices, {.n_ranks = n_ranks, .max_bytes = 1000});
    SCOPED_TRACE(n_ranks);
    expect_covers(units, missing);
    EXPECT_GT(units.size(), 1U);
    const double makespan = predict_makespan(units, n_ranks);
    EXPECT_LT(makespan, former);
    // The base's 12 passes are every group's; the 78 of the lanes are shared out evenly, to the longest lane's length.
    EXPECT_LE(makespan, 12.0 + 78.0 / static_cast<double>(n_ranks) + 12.0);
    former = makespan;
  }
}

TEST(Plan, CutsTheLastExamplesToBalanceTheEnd) {
  const auto missing = whole_examples(3);
  const UnitPrices prices = sweep_prices();
  const auto units = plan_units(missing, prices, {.n_ranks = 2, .max_bytes = 1000});
  expect_covers(units, missing);
  const auto whole = plan_units(missing, prices, {.n_ranks = 1, .max_bytes = 1000});
  EXPECT_LE(predict_makespan(units, 2), predict_makespan(whole, 2));
}

TEST(Plan, CutsSeveralLastExamplesAtOnce) {
  // 12 examples of one length on 5 ranks: two rounds, then two whole examples for five ranks, of which cutting one
  // alone gains nothing. A base is 12 of 90 passes, so a fifth of an example is 12 + 78 / 5 or a little more.
  auto missing = whole_examples(12);
  UnitPrices prices = sweep_prices();
  prices.seconds = [seconds = prices.seconds](const MissingCells& cells, std::span<const int64_t> layers) {
    MissingCells same = cells;
    same.example = 0;
    return seconds(same, layers);
  };
  const auto units = plan_units(missing, prices, {.n_ranks = 5, .max_bytes = 1000});
  expect_covers(units, missing);
  EXPECT_GT(units.size(), 12U);
  EXPECT_LT(predict_makespan(units, 5), 0.9 * 3.0 * 90.0);
}

TEST(Plan, CutsToFitMemory) {
  const auto missing = whole_examples(2);
  for (const int64_t max_bytes : {220, 150, 130, 110}) {
    SCOPED_TRACE(max_bytes);
    const auto units = plan_units(missing, sweep_prices(), {.n_ranks = 1, .max_bytes = max_bytes});
    expect_covers(units, missing);
    const int64_t lanes = (max_bytes - 100) / 10;
    for (const WorkUnit& unit : units) EXPECT_LE(static_cast<int64_t>(unit.variants.size()), lanes);
  }
}

TEST(Plan, RefusesWhatFitsNowhere) {
  const auto missing = whole_examples(1);
  expect_error([&] { plan_units(missing, sweep_prices(), {.n_ranks = 1, .max_bytes = 109}); }, ExitCode::kOutOfMemory,
               {"example 0", "needs 110 B", "has 109 B", "--max-memory"});
}

TEST(Plan, PlansWhatIsLeftOfAnExample) {
  const std::vector<MissingCells> missing = {{.data_set = 1, .example = 4, .base = false, .variants = {3, 7}},
                                             {.data_set = 0, .example = 2, .base = true, .variants = {}}};
  const auto units = plan_units(missing, sweep_prices(), {.n_ranks = 3, .max_bytes = 1000});
  expect_covers(units, missing);
}

TEST(Plan, NothingMissingGivesNoUnits) {
  EXPECT_TRUE(plan_units({}, sweep_prices(), {.n_ranks = 4, .max_bytes = 1000}).empty());
  EXPECT_EQ(predict_makespan({}, 4), 0.0);
}

TEST(Plan, MakespanFollowsTheOrderOfHandingOut) {
  const auto unit = [](double seconds) { return WorkUnit{.variants = {0}, .cost_seconds = seconds}; };
  const std::vector<WorkUnit> units = {unit(5), unit(4), unit(3), unit(3)};
  EXPECT_DOUBLE_EQ(predict_makespan(units, 1), 15.0);
  EXPECT_DOUBLE_EQ(predict_makespan(units, 2), 8.0);
  EXPECT_DOUBLE_EQ(predict_makespan(units, 9), 5.0);
}

TEST(Plan, UnitsSurviveTheirMessage) {
  const auto units = plan_units(whole_examples(5), sweep_prices(), {.n_ranks = 3, .max_bytes = 150});
  const auto back = decode_units(encode_units(units));
  ASSERT_EQ(back.size(), units.size());
  for (std::size_t i = 0; i < units.size(); ++i) {
    EXPECT_EQ(back[i].data_set, units[i].data_set);
    EXPECT_EQ(back[i].example, units[i].example);
    EXPECT_EQ(back[i].keeps_base, units[i].keeps_base);
    EXPECT_EQ(back[i].variants, units[i].variants);
    EXPECT_EQ(back[i].cost_seconds, units[i].cost_seconds);
  }
}

}  // namespace
}  // namespace winnow::run
