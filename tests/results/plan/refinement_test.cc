// Refined plans against all plans there are, on made-up losses whose layers cost more together than one by one.
#include "results/plan/refinement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/random.h"

namespace winnow::plan {
namespace {

double uniform(RandomStream& random) { return static_cast<double>(random.below(1'000'000)) * 1e-6; }

// Losses of all plans of some layers. Windowed layers that depend on each other lose more together: the loss of a plan
// is a sum over layers, plus one over pairs, plus a part that grows with the square of how much is taken in all.
struct MadeUp {
  MadeUp(int64_t n_layers, int64_t n_settings, uint64_t seed, double part_together = 1.0)
      : alone(n_layers, n_settings), together(part_together) {
    RandomStream random(seed, 7, 0);
    for (int64_t l = 0; l < n_layers; ++l) {
      for (int64_t s = 0; s + 1 < n_settings; ++s) taken[{l, s}] = uniform(random) / static_cast<double>(s + 1);
      taken[{l, n_settings - 1}] = 0.0;
      for (int64_t k = 0; k < l; ++k) pair[{k, l}] = random.below(3) == 0 ? 2.0 * uniform(random) : 0.0;
    }
    for (int64_t l = 0; l < n_layers; ++l) {
      Settings one(static_cast<std::size_t>(n_layers), n_settings - 1);
      for (int64_t s = 0; s < n_settings; ++s) {
        one[static_cast<std::size_t>(l)] = s;
        alone(l, s) = loss(one);
      }
    }
  }

  double loss(const Settings& plan) const {
    double all = 0.0;
    double pairs = 0.0;
    for (std::size_t l = 0; l < plan.size(); ++l) {
      const double one = taken.at({static_cast<int64_t>(l), plan[l]});
      for (std::size_t k = 0; k < l; ++k) {
        pairs += one * taken.at({static_cast<int64_t>(k), plan[k]}) *
                 pair.at({static_cast<int64_t>(k), static_cast<int64_t>(l)});
      }
      all += one;
    }
    return 0.02 * all + together * (pairs + 0.05 * all * all);
  }

  stats::Table<double> alone;
  double together;
  std::map<std::pair<int64_t, int64_t>, double> taken, pair;
};

// Setting s keeps 4^s keys and values of a byte each.
double price_of(const Settings& plan) {
  double price = 0.0;
  for (const int64_t setting : plan) price += 2.0 * std::pow(4.0, static_cast<double>(setting));
  return price;
}

Pricing pricing_of(int64_t n_settings) {
  std::vector<serving::KvKind> settings;
  for (int64_t s = 0; s < n_settings; ++s) settings.push_back({.window = int64_t{1} << (2 * s)});
  const int64_t all = std::exchange(settings.back().window, 0);
  const Service service{
      .engine = kIdeal, .shape = {.n_kv_heads = 1, .head_dim = 1, .element_bytes = 1}, .demand = {.max_seq_len = all}};
  return {service, {}, std::move(settings), {}};
}

RefinementRequest request_of(const MadeUp& made_up, std::vector<double> shares, int64_t steps) {
  RefinementRequest request{.alone = made_up.alone,
                            .pricing = pricing_of(made_up.alone.cols),
                            .budgets = std::move(shares),
                            .steps = steps,
                            .beam = 1};
  const double full = price_of(Settings(static_cast<std::size_t>(made_up.alone.rows), made_up.alone.cols - 1));
  for (double& budget : request.budgets) budget *= full;
  return request;
}

constexpr double kBase = 3.0;  // NLL of full attention

// Examples differ among each other by a nat or so, in what a plan loses by `spread`.
struct Measured {
  const MadeUp& made_up;
  double spread = 0.0;
  std::map<Settings, int64_t> n_examples;  // of each plan
  int64_t n_cells = 0;

  double nll(const Settings& plan, int64_t example) const {
    uint64_t at = 0;
    for (const int64_t setting : plan) at = at * 8 + static_cast<uint64_t>(setting) + 1;
    const auto e = static_cast<uint64_t>(example);
    RandomStream of_example(0, 8, e);
    RandomStream of_cell(at, 9, e);
    return kBase + uniform(of_example) + made_up.loss(plan) + spread * (uniform(of_cell) - 0.5);
  }
  MeasurePlans measure() {
    return [this](const Settings&, const std::vector<Settings>& plans, int64_t n) {
      std::vector<std::vector<double>> all;
      for (const Settings& plan : plans) {
        EXPECT_LT(n_examples[plan], n) << "measured twice";
        n_cells += n - n_examples[plan];
        n_examples[plan] = n;
        std::vector<double>& by_example = all.emplace_back();
        for (int64_t e = 0; e < n; ++e) by_example.push_back(nll(plan, e));
      }
      return std::optional(all);
    };
  }
};

double least_of_all(const MadeUp& made_up, double budget) {
  Settings plan(static_cast<std::size_t>(made_up.alone.rows), 0);
  double least = std::numeric_limits<double>::infinity();
  while (true) {
    if (price_of(plan) <= budget) least = std::min(least, made_up.loss(plan));
    auto digit = plan.begin();
    while (digit != plan.end() && ++*digit == made_up.alone.cols) *digit++ = 0;
    if (digit == plan.end()) return least;
  }
}

struct Gaps {
  int n_optimal = 0;
  int n = 0;
  double refined = 0.0;  // sums over budgets of the loss above the least there is
  double added_up = 0.0;
};

Gaps gaps(int64_t n_layers, int64_t n_settings, uint64_t n_seeds) {
  Gaps gaps;
  for (uint64_t seed = 0; seed < n_seeds; ++seed) {
    const MadeUp made_up(n_layers, n_settings, seed);
    const RefinementRequest request = request_of(made_up, {0.15, 0.3, 0.5}, 8);
    Measured measured{.made_up = made_up, .n_examples = {}};
    const Refinement found = refine(request, measured.measure());
    EXPECT_EQ(measured.n_examples.size(), found.plans.size());
    EXPECT_EQ(found.n_dropped, 0);
    EXPECT_LE(static_cast<int64_t>(found.plans.size()), most_plans(request));
    for (std::size_t b = 0; b < request.budgets.size(); ++b) {
      const double least = least_of_all(made_up, request.budgets[b]);
      const RefinedBudget& budget = found.budgets[b];
      const auto loss = [&](int64_t p) {
        EXPECT_LE(found.price[static_cast<std::size_t>(p)], request.budgets[b]);
        return made_up.loss(found.plans[static_cast<std::size_t>(p)]) - least;
      };
      gaps.n += 1;
      gaps.n_optimal += loss(budget.best) < 1e-12 ? 1 : 0;
      gaps.refined += loss(budget.best);
      gaps.added_up += loss(budget.sum_of_layers);
      EXPECT_LE(loss(budget.best), loss(budget.sum_of_layers));
      EXPECT_GE(loss(budget.best), -1e-12);
    }
  }
  return gaps;
}

TEST(Refinement, FindsTheBestOfAllPlansOfFourLayersAndThreeSettings) {
  const Gaps found = gaps(4, 3, 40);
  EXPECT_EQ(found.n_optimal, found.n);
  EXPECT_GT(found.added_up, 0.1);  // which the sum of layers does not
}

TEST(Refinement, IsCloseToTheBestOfAllPlansOfEightLayersAndFourSettings) {
  const Gaps found = gaps(8, 4, 6);
  std::printf("optimal %d of %d, %.4f above the optimum, the sum of layers %.4f\n", found.n_optimal, found.n,
              found.refined, found.added_up);
  EXPECT_GE(2 * found.n_optimal, found.n);
  EXPECT_LT(found.refined, 0.1 * found.added_up);
}

// 40 layers x 8 settings, 63 million divisions: the knapsack of all layers is solved around every plan all the same.
TEST(Refinement, RefinesDeepModels) {
  const MadeUp made_up(40, 8, 1);
  const RefinementRequest request = request_of(made_up, {0.05, 0.2, 0.5}, 10);
  Measured measured{.made_up = made_up, .n_examples = {}};
  const auto start = std::chrono::steady_clock::now();
  const Refinement found = refine(request, measured.measure());
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  std::printf("%zu plans, %.2f s\n", found.plans.size(), taken.count());
  EXPECT_LE(static_cast<int64_t>(found.plans.size()), most_plans(request));
  double gained = 0.0;
  for (std::size_t b = 0; b < request.budgets.size(); ++b) {
    const auto loss = [&](int64_t p) { return made_up.loss(found.plans[static_cast<std::size_t>(p)]); };
    std::printf("budget %zu: %.4f, the sum of layers %.4f\n", b, loss(found.budgets[b].best),
                loss(found.budgets[b].sum_of_layers));
    EXPECT_LE(loss(found.budgets[b].best), loss(found.budgets[b].sum_of_layers));
    EXPECT_TRUE(found.budgets[b].is_settled);
    gained += loss(found.budgets[b].sum_of_layers) - loss(found.budgets[b].best);
    EXPECT_LE(found.price[static_cast<std::size_t>(found.budgets[b].best)], request.budgets[b]);
  }
  EXPECT_GT(gained, 1e-3);
}

// 64 examples: most plans are dropped after the first 16, and what is found is as good as measured in full.
TEST(Refinement, DropsPlansThatAreWorseOnTheFirstExamples) {
  double refined = 0.0;
  double added_up = 0.0;
  int64_t n_cells = 0;
  int64_t n_plans = 0;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const MadeUp made_up(8, 4, seed);
    RefinementRequest request = request_of(made_up, {0.15, 0.3, 0.5}, 8);
    request.n_examples = 64;
    Measured measured{.made_up = made_up, .spread = 0.02, .n_examples = {}};
    const Refinement found = refine(request, measured.measure());
    EXPECT_GT(found.n_dropped, static_cast<int64_t>(found.plans.size()));
    EXPECT_EQ(measured.n_examples.size(), found.plans.size() + static_cast<std::size_t>(found.n_dropped));
    for (const Settings& plan : found.plans) EXPECT_EQ(measured.n_examples.at(plan), 64);
    n_cells += measured.n_cells;
    n_plans += static_cast<int64_t>(measured.n_examples.size());
    for (std::size_t b = 0; b < request.budgets.size(); ++b) {
      const double least = least_of_all(made_up, request.budgets[b]);
      refined += made_up.loss(found.plans[static_cast<std::size_t>(found.budgets[b].best)]) - least;
      added_up += made_up.loss(found.plans[static_cast<std::size_t>(found.budgets[b].sum_of_layers)]) - least;
    }
  }
  std::printf("%.4f above the optimum, the sum of layers %.4f, by %.1f examples a plan\n", refined, added_up,
              static_cast<double>(n_cells) / static_cast<double>(n_plans));
  EXPECT_LT(refined, 0.1 * added_up);
  EXPECT_LT(n_cells, 32 * n_plans);
}

// Layers cost together what they cost alone, so the plan that adds up least is the best there is: what beats it on the
// examples does so by chance.
TEST(Refinement, KeepsTheSumOfLayersWhereOthersAreBetterByChance) {
  int n_kept = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const MadeUp made_up(6, 3, seed, 0.0);
    RefinementRequest request = request_of(made_up, {0.3}, 3);
    request.n_examples = 12;
    Measured measured{.made_up = made_up, .spread = 0.3, .n_examples = {}};
    const Refinement found = refine(request, measured.measure());
    n_kept += found.budgets[0].best == found.budgets[0].sum_of_layers ? 1 : 0;
  }
  EXPECT_GE(n_kept, 5);
}

TEST(LossModel, KnowsWhatWasMeasuredAndAddsUpChanges) {
  const MadeUp made_up(8, 4, 1);
  const LossModel model(made_up.alone);
  Settings centre(8, 1);
  std::vector<Settings> plans = {centre};
  for (std::size_t l = 0; l < centre.size(); ++l) {
    for (const int64_t s : {0, 2, 3}) {
      plans.push_back(centre);
      plans.back()[l] = s;
    }
  }
  std::vector<double> losses;
  for (const Settings& plan : plans) losses.push_back(made_up.loss(plan));
  const LossModel::Forecast forecast = model.around(centre, plans, losses);
  for (std::size_t p = 0; p < plans.size(); ++p) EXPECT_NEAR(forecast.loss(plans[p]), losses[p], 1e-4);
  // Of two changes it expects more than what the layers lose alone, as the plans around lost more.
  double error = 0.0;
  double error_of_sum = 0.0;
  for (std::size_t l = 1; l < centre.size(); ++l) {
    Settings both = centre;
    both[l - 1] = 0;
    both[l] = 3;
    error += std::abs(forecast.loss(both) - made_up.loss(both));
    error_of_sum += std::abs(model.sum_of_layers(both) - made_up.loss(both));
  }
  EXPECT_LT(error, 0.2 * error_of_sum);
}

TEST(Turnover, CountsWhatNarrowsAlthoughThereIsMoreRoom) {
  const std::vector<double> bytes = {1.0, 4.0, 16.0};
  const Turnover found = turnover({0, 1, 2, 0}, {1, 0, 2, 2}, bytes);
  EXPECT_EQ(found.n_changed, 3);
  EXPECT_EQ(found.n_narrowed, 1);
}

}  // namespace
}  // namespace winnow::plan
