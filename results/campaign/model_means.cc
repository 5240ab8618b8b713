#include "results/campaign/model_means.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "results/stats/resampling.h"

namespace winnow::campaign {
namespace {

// From so many models on a percentile interval of normal values holds their mean in 90 % or more.
constexpr int64_t kManyModels = 12;

}  // namespace

ModelResamples::ModelResamples(int64_t n_models) : n_models_(n_models) {
  if (n_models < kFewestModels) return;
  draws_.reserve(stats::at(kModelResamples * n_models));
  for (int64_t r = 0; r < kModelResamples; ++r) {
    const std::vector<int64_t> draw = stats::draw_rows(n_models, 0, r, kModelResampleStream);
    draws_.insert(draws_.end(), draw.begin(), draw.end());
  }
}

stats::Estimate ModelResamples::mean(std::span<const double> values, const char* why) const {
  const bool is_known = std::none_of(values.begin(), values.end(), [](double value) { return std::isnan(value); });
  if (!is_known || values.empty()) return stats::with_undefined_interval(stats::Figure::undefined(why), why);
  const stats::Figure mean = stats::Figure::of(stats::mean_of(values, stats::iota(n_models_)));
  if (draws_.empty()) {
    return stats::with_undefined_interval(mean, "an interval over models needs " + std::to_string(kFewestModels) +
                                                    " of them, there are " + std::to_string(n_models_));
  }
  std::vector<double> means;
  means.reserve(stats::at(kModelResamples));
  const std::span<const int64_t> draws(draws_);
  for (int64_t r = 0; r < kModelResamples; ++r) {
    means.push_back(stats::mean_of(values, draws.subspan(stats::at(r * n_models_), stats::at(n_models_))));
  }
  const stats::Interval interval = stats::percentile_interval(means);
  return {mean, stats::Figure::of(interval.low), stats::Figure::of(interval.high)};
}

std::string worth_of_intervals(int64_t n_models) {
  const std::string n = std::to_string(n_models);
  if (n_models == 1) return "One model says nothing of others; there are no intervals.";
  if (n_models < kFewestModels) return n + " models say little of others; there are no intervals.";
  if (n_models == kFewestModels) {
    return "Of " + n +
           " models an interval is their range, which holds the mean of all such models in 75 % of cases, " +
           "not in 95 %.";
  }
  if (n_models < kManyModels) {
    return "Intervals over " + n + " models are too narrow: they hold the mean of all such models in 80 to 90 % of " +
           "cases, not in 95 %.";
  }
  return "Intervals are over " + n + " models.";
}

}  // namespace winnow::campaign
