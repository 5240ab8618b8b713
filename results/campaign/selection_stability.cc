#include "results/campaign/selection_stability.h"

#include <span>

#include "base/random.h"
#include "results/stats/resampling.h"

namespace winnow::campaign {
namespace {

// Returns true for each of the columns that come first by mean.
std::vector<bool> top(std::span<const double> mean, std::span<const int64_t> layer, int64_t keep) {
  std::vector<bool> is_in(mean.size(), false);
  const std::vector<int64_t> order = stats::order_of(mean, layer);
  for (int64_t k = 0; k < keep; ++k) is_in[stats::at(order[stats::at(k)])] = true;
  return is_in;
}

int64_t n_common(const std::vector<bool>& a, const std::vector<bool>& b) {
  int64_t n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) n += a[i] && b[i] ? 1 : 0;
  return n;
}

void summarise(std::vector<double>& shares, SelectionStability& result) {
  result.overlap.push_back(stats::mean_of(shares));
  int64_t n_same = 0;
  for (const double share : shares) n_same += share == 1.0 ? 1 : 0;
  result.same.push_back(static_cast<double>(n_same) / static_cast<double>(shares.size()));
  const stats::Interval interval = stats::percentile_interval(shares);
  result.overlap_low.push_back(interval.low);
  result.overlap_high.push_back(interval.high);
}

}  // namespace

std::vector<SelectionStability> selection_stability(const calibration::Measurement& measurement, uint64_t seed) {
  // Subsets are of examples that every layer has.
  const stats::Table<double> delta =
      measurement.layer_examples.empty()
          ? calibration::columns_of(measurement).delta_nll
          : calibration::columns_of(calibration::first_examples(measurement, measurement.n_shared_examples()))
                .delta_nll;
  std::vector<SelectionStability> budgets;
  for (const int64_t divisor : kStudyDivisors) {
    if (delta.cols >= divisor) budgets.push_back({.divisor = divisor, .keep = delta.cols / divisor});
  }
  std::vector<std::vector<int64_t>> orders;
  for (int64_t d = 0; d < kSubsetDraws; ++d) {
    orders.push_back(stats::iota(delta.rows));
    RandomStream(seed, kSubsetStream, static_cast<uint64_t>(d)).shuffle(std::span<int64_t>(orders.back()));
  }
  const std::vector<double> all = stats::mean_of_rows(delta, stats::iota(delta.rows));
  for (int64_t n = 2; n < delta.rows; n *= 2) {
    std::vector<std::vector<double>> means;
    for (const std::vector<int64_t>& order : orders) {
      means.push_back(stats::mean_of_rows(delta, std::span<const int64_t>(order).first(stats::at(n))));
    }
    for (SelectionStability& budget : budgets) {
      const std::vector<bool> chosen = top(all, measurement.layer, budget.keep);
      std::vector<double> shares;
      for (const std::vector<double>& mean : means) {
        const int64_t common = n_common(chosen, top(mean, measurement.layer, budget.keep));
        shares.push_back(static_cast<double>(common) / static_cast<double>(budget.keep));
      }
      budget.n_examples.push_back(n);
      summarise(shares, budget);
      if (!budget.needed && budget.overlap.back() >= kStableOverlap) budget.needed = n;
    }
  }
  return budgets;
}

}  // namespace winnow::campaign
