// How many calibration examples a selection needs.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "results/calibration/measurement.h"

namespace winnow::campaign {

// Budgets of a study: K = floor(layers / divisor), where there are at least so many layers.
inline constexpr int64_t kStudyDivisors[] = {8, 4, 2};
// Random orders of the examples, of which subsets are the first n.
inline constexpr int64_t kSubsetDraws = 200;
// Share of the layers that a subset must choose as all examples do, in the mean.
inline constexpr double kStableOverlap = 0.9;

// Of one calibration at one budget: how the layers that n of its examples choose by mean delta NLL agree with those
// that all of them choose. All by n.
struct SelectionStability {
  int64_t divisor = 0;
  int64_t keep = 0;                   // K
  std::vector<int64_t> n_examples{};  // 2, 4, 8, ..., below all
  std::vector<double> overlap{};      // share of the K layers in both, mean over the draws
  std::vector<double> overlap_low{};  // the middle 95 % of the draws
  std::vector<double> overlap_high{};
  std::vector<double> same{};       // share of the draws that choose the same K layers
  std::optional<int64_t> needed{};  // smallest n with a mean overlap of kStableOverlap; none: no subset has it
};

// Returns a budget of kStudyDivisors each, without those for which there are too few layers.
std::vector<SelectionStability> selection_stability(const calibration::Measurement& measurement, uint64_t seed);

}  // namespace winnow::campaign
