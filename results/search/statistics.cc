#include "results/search/statistics.h"

#include <algorithm>
#include <optional>
#include <span>

#include "base/random.h"
#include "results/stats/correlation.h"
#include "results/stats/resampling.h"

namespace winnow::search {
namespace {

// rho between two columns of figures of the verified patterns, with its interval over resampled examples.
template <typename Get>
stats::Estimate rho_of(const std::vector<const MeasuredPattern*>& patterns, const Get& get, int64_t n_examples,
                       uint64_t seed, int64_t n_resamples) {
  const auto rho = [&](std::span<const int64_t> drawn) {
    std::vector<double> screened, verified;
    for (const MeasuredPattern* pattern : patterns) {
      screened.push_back(stats::mean_of(get(pattern->screened), drawn));
      verified.push_back(stats::mean_of(get(pattern->verified), drawn));
    }
    return stats::spearman(screened, verified);
  };
  const std::optional<double> value = rho(stats::iota(n_examples));
  if (!value) {
    const auto none =
        stats::Figure::undefined(patterns.size() < 2 ? "fewer than two patterns" : "the same in all verified patterns");
    return {none, none, none};
  }
  const auto figure = stats::Figure::of(*value);
  if (n_examples < 2) return stats::with_undefined_interval(figure, "one example");
  stats::Spread spread;
  for (int64_t r = 0; r < n_resamples; ++r) spread.add(rho(stats::draw_rows(n_examples, seed, r, kSearchStream)));
  return spread.around(figure, "not defined in many resamples");
}

stats::Figure wins_kept(const SearchResults& results) {
  int64_t n_pairs = 0;
  int64_t n_kept = 0;
  for (const int64_t index : results.best) {
    const MeasuredPattern& best = results.patterns[static_cast<std::size_t>(index)];
    if (best.verified.empty()) continue;
    const double best_value = objective_value(results.plan.objective, best.verified.means());
    for (const MeasuredPattern& other : results.patterns) {
      if (&other == &best || other.verified.empty() || count_full(other.windowed) != count_full(best.windowed))
        continue;
      n_pairs += 1;
      n_kept += best_value <= objective_value(results.plan.objective, other.verified.means()) ? 1 : 0;
    }
  }
  if (n_pairs == 0) return stats::Figure::undefined("no rejected pattern was verified");
  return stats::Figure::of(static_cast<double>(n_kept) / static_cast<double>(n_pairs));
}

}  // namespace

std::vector<int64_t> choose_verified(const std::vector<int64_t>& best, int64_t n_patterns, int64_t n_rejected,
                                     uint64_t seed) {
  std::vector<int64_t> others;
  for (int64_t p = 0; p < n_patterns; ++p) {
    if (std::find(best.begin(), best.end(), p) == best.end()) others.push_back(p);
  }
  RandomStream(seed, kSearchStream, UINT64_MAX).shuffle(std::span(others));
  others.resize(static_cast<std::size_t>(std::min(n_rejected, static_cast<int64_t>(others.size()))));
  others.insert(others.end(), best.begin(), best.end());
  std::sort(others.begin(), others.end());
  return others;
}

ScreeningAgreement compute_agreement(const SearchResults& results, uint64_t seed, int64_t n_resamples) {
  std::vector<const MeasuredPattern*> patterns;
  for (const MeasuredPattern& pattern : results.patterns) {
    if (!pattern.verified.empty()) patterns.push_back(&pattern);
  }
  ScreeningAgreement agreement;
  agreement.n_verified = static_cast<int64_t>(patterns.size());
  if (patterns.empty()) return agreement;
  const auto rho = [&](const auto& get) {
    return rho_of(patterns, get, results.n_verified_examples, seed, n_resamples);
  };
  agreement.rho_nll = rho([](const ExampleFigures& f) -> const auto& { return f.nll; });
  agreement.rho_exact_match = rho([](const ExampleFigures& f) -> const auto& { return f.exact_match; });
  agreement.wins_kept = wins_kept(results);
  return agreement;
}

Interactions compute_interactions(const SearchResults& results, const std::vector<int64_t>& candidates, uint64_t seed,
                                  int64_t n_resamples) {
  const auto n = static_cast<int64_t>(candidates.size());
  const ExampleFigures& full = results.patterns.front().screened;
  const auto single = [&](int64_t layer) -> const ExampleFigures& {
    return results.patterns[static_cast<std::size_t>(1 + layer)].screened;
  };
  Interactions found;
  found.candidates = candidates;
  for (int64_t layer = 0; layer < results.plan.n_layers; ++layer) {
    found.delta_nll.push_back(stats::mean_of(single(layer).nll) - stats::mean_of(full.nll));
    found.exact_match_drop.push_back(stats::mean_of(full.exact_match) - stats::mean_of(single(layer).exact_match));
  }
  for (stats::Table<double>* table : {&found.delta_nll_pair, &found.interaction_nll, &found.interaction_nll_ci_low,
                                      &found.interaction_nll_ci_high, &found.interaction_exact_match}) {
    *table = stats::Table<double>(n, n);
  }
  const auto n_examples = static_cast<int64_t>(results.example_id.size());
  if (results.example_id.size() < 2) found.spread_status = "one example";
  auto pattern = results.patterns.begin() + 1 + results.plan.n_layers;
  for (int64_t i = 0; i < n; ++i) {
    found.delta_nll_pair(i, i) = found.delta_nll[static_cast<std::size_t>(candidates[static_cast<std::size_t>(i)])];
    for (int64_t j = i + 1; j < n; ++j, ++pattern) {
      const ExampleFigures& both = pattern->screened;
      const ExampleFigures& a = single(candidates[static_cast<std::size_t>(i)]);
      const ExampleFigures& b = single(candidates[static_cast<std::size_t>(j)]);
      std::vector<double> nll;
      double exact_match = 0.0;
      for (std::size_t e = 0; e < both.nll.size(); ++e) {
        // (both - full) - (a - full) - (b - full)
        nll.push_back(both.nll[e] - a.nll[e] - b.nll[e] + full.nll[e]);
        exact_match -=
            static_cast<double>(both.exact_match[e] - a.exact_match[e] - b.exact_match[e] + full.exact_match[e]);
      }
      found.delta_nll_pair(i, j) = found.delta_nll_pair(j, i) = stats::mean_of(both.nll) - stats::mean_of(full.nll);
      found.interaction_nll(i, j) = found.interaction_nll(j, i) = stats::mean_of(nll);
      found.interaction_exact_match(i, j) = found.interaction_exact_match(j, i) =
          exact_match / static_cast<double>(nll.size());
      std::vector<double> means;
      for (int64_t r = 0; nll.size() > 1 && r < n_resamples; ++r) {
        means.push_back(stats::mean_of(nll, stats::draw_rows(n_examples, seed, r, kSearchStream)));
      }
      const double nan = std::numeric_limits<double>::quiet_NaN();
      const auto [low, high] = means.empty() ? stats::Interval{nan, nan} : stats::percentile_interval(means);
      found.interaction_nll_ci_low(i, j) = found.interaction_nll_ci_low(j, i) = low;
      found.interaction_nll_ci_high(i, j) = found.interaction_nll_ci_high(j, i) = high;
    }
  }
  return found;
}

}  // namespace winnow::search
