// Searches over patterns: what they measure and take, on tables of figures and on a model of six layers.

#include "results/search/search.h"
#include "kernels/cpu/cpu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <tuple>

#include "base/error.h"
#include "pipeline/engine/cached_prefix.h"
#include "tests/small_model.h"

namespace winnow::verbs {
namespace {

// Figures of every pattern of a few layers, with strong interactions; a coarse exact match has many ties.
struct Figures {
  explicit Figures(int64_t n_layers, uint32_t seed) {
    std::mt19937 generator(seed);
    for (uint32_t bits = 0; bits < (1U << n_layers); ++bits) {
      search::PatternMeans means;
      means.nll_nats = static_cast<double>(generator() % 1000) * 1e-3;
      means.exact_match = static_cast<double>(generator() % 4) * 0.25;
      means.kl_nats = static_cast<double>(generator() % 1000) * 1e-3;
      std::vector<bool> windowed;
      for (int64_t layer = 0; layer < n_layers; ++layer) windowed.push_back((bits >> layer & 1U) != 0);
      of[windowed] = means;
    }
  }
  search::MeasurePatterns measure() {
    return [this](const std::vector<bool>& base, const std::vector<std::vector<bool>>& patterns) {
      bases.push_back(base);
      std::vector<search::PatternMeans> means;
      for (const auto& pattern : patterns) {
        EXPECT_TRUE(measured.insert(pattern).second) << "measured twice";
        means.push_back(of.at(pattern));
      }
      return means;
    };
  }
  std::map<std::vector<bool>, search::PatternMeans> of;
  std::set<std::vector<bool>> measured;
  std::vector<std::vector<bool>> bases;
};

using Key = std::tuple<double, double, std::vector<bool>>;
Key key_of(search::Objective objective, const std::vector<bool>& windowed, const search::PatternMeans& means) {
  return {search::objective_value(objective, means), means.nll_nats, windowed};
}

TEST(GreedySearch, TakesTheBestSingleStepAtEveryStep) {
  for (const search::SearchMethod method :
       {search::SearchMethod::kGreedyForward, search::SearchMethod::kGreedyBackward}) {
    for (const search::Objective objective :
         {search::Objective::kNll, search::Objective::kExactMatch, search::Objective::kKl}) {
      for (uint32_t seed = 0; seed < 20; ++seed) {
        Figures figures(5, seed);
        const bool is_forward = method == search::SearchMethod::kGreedyForward;
        const int64_t keep = is_forward ? 4 : 1;
        const auto steps = search::greedy_search({method, objective, 5, keep, 1}, figures.measure());
        ASSERT_EQ(steps.size(), 5U);
        std::vector<bool> at(5, is_forward);
        EXPECT_EQ(steps[0].ranked[0].windowed, at);
        for (std::size_t s = 1; s < steps.size(); ++s) {
          EXPECT_EQ(figures.bases[s], at);
          std::optional<Key> best;
          for (std::size_t layer = 0; layer < 5; ++layer) {
            if (at[layer] != is_forward) continue;
            std::vector<bool> child = at;
            child[layer] = !is_forward;
            const Key key = key_of(objective, child, figures.of[child]);
            if (!best || key < *best) best = key;
          }
          at = std::get<2>(*best);
          EXPECT_EQ(steps[s].ranked[0].windowed, at) << search::search_method_name(method) << " " << s;
          EXPECT_EQ(steps[s].keep, search::count_full(at));
        }
      }
    }
  }
}

TEST(GreedySearch, ABeamOfAllSubsetsFindsTheOptimumOfEveryK) {
  for (const search::SearchMethod method :
       {search::SearchMethod::kGreedyForward, search::SearchMethod::kGreedyBackward}) {
    for (const search::Objective objective : {search::Objective::kNll, search::Objective::kExactMatch}) {
      Figures figures(6, 3);
      const int64_t keep = method == search::SearchMethod::kGreedyForward ? 6 : 0;
      const auto steps = search::greedy_search({method, objective, 6, keep, 20}, figures.measure());
      EXPECT_EQ(figures.measured.size(), 64U);
      for (const search::SearchStep& step : steps) {
        std::optional<Key> best;
        for (const auto& [windowed, means] : figures.of) {
          if (search::count_full(windowed) != step.keep) continue;
          const Key key = key_of(objective, windowed, means);
          if (!best || key < *best) best = key;
        }
        EXPECT_EQ(step.ranked[0].windowed, std::get<2>(*best)) << step.keep;
      }
    }
  }
}

TEST(GreedySearch, AWiderBeamMeasuresMoreAndEndsWhereAskedTo) {
  Figures narrow(6, 5);
  Figures wide(6, 5);
  const auto one =
      search::greedy_search({search::SearchMethod::kGreedyForward, search::Objective::kNll, 6, 3, 1}, narrow.measure());
  const auto two =
      search::greedy_search({search::SearchMethod::kGreedyForward, search::Objective::kNll, 6, 3, 2}, wide.measure());
  EXPECT_EQ(one.back().keep, 3);
  EXPECT_EQ(narrow.measured.size(), 1U + 6 + 5 + 4);
  EXPECT_GT(wide.measured.size(), narrow.measured.size());
  EXPECT_LE(two[2].ranked[0].means.nll_nats, one[2].ranked[0].means.nll_nats);
  EXPECT_EQ(search::greedy_search({search::SearchMethod::kGreedyForward, search::Objective::kNll, 6, 0, 1},
                                  Figures(6, 5).measure())
                .size(),
            1U);
}

TEST(GreedySearch, ItsSizeIsKnownBefore) {
  for (const search::SearchMethod method :
       {search::SearchMethod::kGreedyForward, search::SearchMethod::kGreedyBackward}) {
    for (const int64_t beam : {1, 20}) {
      Figures figures(6, 8);
      const search::SearchPlan plan{method, search::Objective::kNll, 6, 2, beam};
      search::greedy_search(plan, figures.measure());
      EXPECT_EQ(search::most_patterns(plan), static_cast<int64_t>(figures.measured.size())) << beam;
    }
  }
  EXPECT_GE(
      search::most_patterns({search::SearchMethod::kGreedyForward, search::Objective::kNll, 36, 18, int64_t{1} << 60}),
      10'000'000'000);
  EXPECT_EQ(search::most_patterns(
                {search::SearchMethod::kGreedyForward, search::Objective::kNll, 200, 100, int64_t{1} << 60}),
            INT64_MAX);
}

TEST(GreedySearch, TiesGoToTheLowerLayer) {
  const search::MeasurePatterns equal = [](const auto&, const auto& patterns) {
    return std::vector<search::PatternMeans>(patterns.size());
  };
  const auto forward =
      search::greedy_search({search::SearchMethod::kGreedyForward, search::Objective::kNll, 4, 2, 1}, equal);
  EXPECT_EQ(forward.back().ranked[0].windowed, (std::vector<bool>{false, false, true, true}));
  const auto backward =
      search::greedy_search({search::SearchMethod::kGreedyBackward, search::Objective::kNll, 4, 2, 1}, equal);
  EXPECT_EQ(backward.back().ranked[0].windowed, (std::vector<bool>{false, false, true, true}));
}

TEST(GreedySearch, LayersWithAWindowOfTheirOwnStayWindowed) {
  for (const search::SearchMethod method :
       {search::SearchMethod::kGreedyForward, search::SearchMethod::kGreedyBackward}) {
    Figures figures(5, 4);
    search::SearchPlan plan{method, search::Objective::kNll, 5, 1, 9};
    plan.native = {true, false, false, true, false};
    EXPECT_EQ(plan.n_free(), 3);
    const auto steps = search::greedy_search(plan, figures.measure());
    EXPECT_EQ(search::most_patterns(plan), static_cast<int64_t>(figures.measured.size()));
    EXPECT_EQ(steps.back().keep, 1);
    for (const std::vector<bool>& pattern : figures.measured) EXPECT_TRUE(pattern[0] && pattern[3]);
    plan.keep = 4;
    EXPECT_THROW(search::greedy_search(plan, figures.measure()), Error) << "three layers may have full attention";
  }
}

TEST(PairSearch, LayersWithAWindowOfTheirOwnAreNoCandidates) {
  Figures figures(5, 9);
  search::SearchPlan plan{search::SearchMethod::kPairs, search::Objective::kNll, 5, 3, 1};
  plan.native = {false, true, false, false, false};
  const search::PairSearch search = search::pair_search(plan, figures.measure());
  EXPECT_EQ(figures.measured.size(), 1U + 4 + 3);
  for (const std::vector<bool>& pattern : figures.measured) EXPECT_TRUE(pattern[1]);
  EXPECT_EQ(std::count(search.candidates.begin(), search.candidates.end(), 1), 0);
  EXPECT_EQ(search.single[1].nll_nats, search.full.nll_nats);
  EXPECT_EQ(search.single[2].nll_nats, figures.of[plan.with_windows({2})].nll_nats);
}

TEST(PairSearch, MeasuresThePairsOfTheDearestLayers) {
  Figures figures(5, 9);
  const search::SearchPlan plan{search::SearchMethod::kPairs, search::Objective::kNll, 5, 3, 1};
  const search::PairSearch search = search::pair_search(plan, figures.measure());
  EXPECT_EQ(figures.measured.size(), 1U + 5 + 3);
  std::vector<std::pair<double, int64_t>> order;
  for (int64_t layer = 0; layer < 5; ++layer) {
    const double nll = figures.of[plan.with_windows({layer})].nll_nats;
    EXPECT_EQ(search.single[static_cast<std::size_t>(layer)].nll_nats, nll);
    order.emplace_back(-nll, layer);
  }
  std::sort(order.begin(), order.end());
  std::vector<int64_t> dearest = {order[0].second, order[1].second, order[2].second};
  std::sort(dearest.begin(), dearest.end());
  EXPECT_EQ(search.candidates, dearest);
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < 3; ++j) {
      EXPECT_EQ(search.pair[i * 3 + j].nll_nats, figures.of[plan.with_windows({dearest[i], dearest[j]})].nll_nats);
    }
  }
}

TEST(Search, NamesAndPlansAreChecked) {
  EXPECT_EQ(search::parse_objective("exact-match"), search::Objective::kExactMatch);
  EXPECT_EQ(search::parse_search_method("pairs"), search::SearchMethod::kPairs);
  EXPECT_THROW(search::parse_objective("speed"), Error);
  EXPECT_THROW(search::parse_search_method("greedy"), Error);
  EXPECT_THROW(search::pair_search({search::SearchMethod::kPairs, search::Objective::kNll, 5, 1, 1}, {}), Error);
}

// A model of six layers and two examples: searches in tail semantics, against every pattern in a pass of its own.
class ModelSearch : public ::testing::Test {
 protected:
  ModelSearch() : model_({.n_layers = 6, .seed = 21}), ops_(cpu::make_cpu_backend({.n_threads = 2})) {
    weights_ = std::make_unique<model::ModelWeights>(model_.config, *model_.checkpoint, *ops_);
    cache_ = std::make_unique<engine::PrefixCache>(*ops_, model_.config, *weights_);
    for (const uint32_t seed : {1U, 2U}) tokens_.push_back(random_tokens(300, 128, seed));
  }

  engine::SweepRequest request(std::size_t example, const engine::Pattern& base,
                               const std::vector<engine::Pattern>& variants) const {
    engine::SweepRequest request = drop_one(tokens_[example], 270, kWindow, 6);
    set_patterns(request, kWindow, base, variants);
    return request;
  }

  // As a search measures: one sweep from the base over the cached prefix.
  search::MeasurePatterns by_sweeps() {
    return [this](const std::vector<bool>& base, const std::vector<std::vector<bool>>& patterns) {
      std::vector<search::PatternMeans> means(patterns.size());
      for (std::size_t e = 0; e < tokens_.size(); ++e) {
        engine::SweepRequest sweep_request = request(e, base, patterns);
        sweep_request.prefix_rows = engine::cached_rows(300, kWindow, ops_->device().row_tile());
        cache_->provide(static_cast<int64_t>(e), engine::CachedPrefix::Place::kBackend, sweep_request, {});
        EXPECT_GT(sweep_request.prefix_rows, 0);
        const engine::SweepResult result = engine::sweep(*ops_, model_.config, *weights_, sweep_request, {});
        for (std::size_t p = 0; p < patterns.size(); ++p) means[p].nll_nats += result.variants[p].nll_nats / 2;
      }
      return means;
    };
  }

  double separate_nll(const engine::Pattern& pattern) {
    double nll = 0.0;
    for (std::size_t e = 0; e < tokens_.size(); ++e) {
      nll += engine::sweep(*ops_, model_.config, *weights_, request(e, pattern, {}), {}).base.nll_nats / 2;
    }
    return nll;
  }

  static constexpr kernels::Window kWindow{20, 2, 270 - 10, kernels::kNoLimit};
  Model model_;
  std::unique_ptr<kernels::Ops> ops_;
  std::unique_ptr<model::ModelWeights> weights_;
  std::unique_ptr<engine::PrefixCache> cache_;
  std::vector<std::vector<int32_t>> tokens_;
};

TEST_F(ModelSearch, GreedyTakesTheBestOfAllCandidatesMeasuredSeparately) {
  const auto steps =
      search::greedy_search({search::SearchMethod::kGreedyForward, search::Objective::kNll, 6, 5, 1}, by_sweeps());
  engine::Pattern at(6, true);
  EXPECT_EQ(steps[0].ranked[0].means.nll_nats, separate_nll(at));
  for (std::size_t s = 1; s < steps.size(); ++s) {
    std::pair<double, engine::Pattern> best{INFINITY, {}};
    for (std::size_t layer = 0; layer < 6; ++layer) {
      engine::Pattern child = at;
      if (!child[layer]) continue;
      child[layer] = false;
      best = std::min(best, {separate_nll(child), child});
    }
    at = best.second;
    EXPECT_EQ(steps[s].ranked[0].windowed, at);
    EXPECT_EQ(steps[s].ranked[0].means.nll_nats, best.first);
  }
}

TEST_F(ModelSearch, AWideBeamFindsTheBruteForceOptimum) {
  const auto steps =
      search::greedy_search({search::SearchMethod::kGreedyBackward, search::Objective::kNll, 6, 0, 20}, by_sweeps());
  std::map<int64_t, std::pair<double, engine::Pattern>> best;
  for (uint32_t bits = 0; bits < 64; ++bits) {
    engine::Pattern pattern;
    for (uint32_t layer = 0; layer < 6; ++layer) pattern.push_back((bits >> layer & 1U) != 0);
    const std::pair<double, engine::Pattern> found{separate_nll(pattern), pattern};
    const auto [it, is_new] = best.emplace(search::count_full(pattern), found);
    if (!is_new) it->second = std::min(it->second, found);
  }
  ASSERT_EQ(steps.size(), 7U);
  for (const search::SearchStep& step : steps) {
    EXPECT_EQ(step.ranked[0].windowed, best[step.keep].second) << step.keep;
    EXPECT_EQ(step.ranked[0].means.nll_nats, best[step.keep].first) << step.keep;
  }
}

TEST_F(ModelSearch, PairsEqualSeparatePasses) {
  const search::SearchPlan plan{search::SearchMethod::kPairs, search::Objective::kNll, 6, 3, 1};
  const search::PairSearch search = search::pair_search(plan, by_sweeps());
  EXPECT_EQ(search.full.nll_nats, separate_nll(engine::Pattern(6, false)));
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < 3; ++j) {
      const engine::Pattern pattern = plan.with_windows({search.candidates[i], search.candidates[j]});
      EXPECT_EQ(search.pair[i * 3 + j].nll_nats, separate_nll(pattern)) << i << " " << j;
    }
  }
}

}  // namespace
}  // namespace winnow::verbs
