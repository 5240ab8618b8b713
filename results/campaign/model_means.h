// Means over the models of a sweep, with intervals over models.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "results/stats/figure.h"

namespace winnow::campaign {

// Fewer models have no interval: resamples of two are these two and their mean.
inline constexpr int64_t kFewestModels = 3;
// Resamples of the models.
inline constexpr int64_t kModelResamples = 10'000;

// Resamples of so many models, the same for every figure, so that differences are paired.
class ModelResamples {
 public:
  explicit ModelResamples(int64_t n_models);

  // Returns the mean of a figure, one value a model, with its 95 % percentile bootstrap interval over models. Undefined
  // where a value is NaN, for the reason `why`; without interval for fewer than kFewestModels.
  stats::Estimate mean(std::span<const double> values, const char* why) const;

 private:
  int64_t n_models_;
  std::vector<int64_t> draws_;  // (resamples, models); empty where there is no interval
};

// Returns what an interval over so many models is worth, in one sentence.
std::string worth_of_intervals(int64_t n_models);

}  // namespace winnow::campaign
