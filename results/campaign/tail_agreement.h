// Whether a sweep whose window holds for the rows at the end only ranks layers as the exact one does.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "results/campaign/collection.h"
#include "results/stats/figure.h"

namespace winnow::campaign {

// Share of the K layers that both choose.
struct OverlapAt {
  int64_t divisor = 0;
  int64_t keep = 0;  // K
  double share = 0.0;
};

// Two calibrations of one model on the same examples, which differ in the tail rows only.
struct TailAgreement {
  std::string exact, tail;  // labels of the cells
  std::string model;
  std::string dataset;  // of the tail
  int64_t window = 0;
  int64_t tail_rows = 0;
  stats::Estimate spearman_rho{};     // over layers, between the mean deltas; examples drawn for both
  std::vector<OverlapAt> overlaps{};  // a budget of kStudyDivisors each
};

// Reads the results of a cell anew, with the tables per example that a collection does not keep.
using ReadResults = std::function<calibration::Results(const CollectedCell&)>;

// Returns every pair of an exact calibration and one by the tail: same model, data, window, sinks, decoding, base,
// residual, seed and layers; of rows that differ in the seed only the first counts. Throws what `read` throws.
std::vector<TailAgreement> tail_agreements(const std::vector<CollectedCell>& cells, const ReadResults& read);

}  // namespace winnow::campaign
