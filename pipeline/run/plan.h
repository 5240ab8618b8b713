// Makes work units of missing cells: one for each example, or several with a group of lanes each where memory or
// balance asks for it. All are pure functions of their arguments.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace winnow::run {

// Cells that one example still lacks: its base's, or not, and those of these variants (ascending).
struct MissingCells {
  int64_t data_set = 0;  // index: 0 the calibration set, then the controls
  int64_t example = 0;
  bool base = false;
  std::vector<int64_t> variants;
};

// One piece of work: the base of an example with a group of its lanes. The base is run in every group; its cell is kept
// by one.
struct WorkUnit {
  int64_t data_set = 0;
  int64_t example = 0;
  bool keeps_base = false;
  std::vector<int64_t> variants;
  double cost_seconds = 0.0;

  int64_t n_cells() const { return static_cast<int64_t>(variants.size()) + (keeps_base ? 1 : 0); }
};

// Functions for the price of one example with a group of lanes.
struct UnitPrices {
  std::function<double(const MissingCells&, std::span<const int64_t> variants)> seconds;
  std::function<int64_t(const MissingCells&, std::span<const int64_t> variants)> bytes;
};

struct PlanLimits {
  int64_t n_ranks = 1;
  int64_t max_bytes = 0;  // of a unit on any rank
};

// Returns the units in the order in which they are handed out: longest first, ties by data set, example and first
// variant. Throws Error(kOutOfMemory) when the base with one lane does not fit.
std::vector<WorkUnit> plan_units(std::span<const MissingCells> missing, const UnitPrices& prices,
                                 const PlanLimits& limits);

// Returns the seconds until the last of n_ranks equal ranks ends that take units in that order.
double predict_makespan(std::span<const WorkUnit> units, int64_t n_ranks);

// Turn units into flat numbers for a message between ranks, and back.
std::vector<int64_t> encode_units(std::span<const WorkUnit> units);
std::vector<WorkUnit> decode_units(std::span<const int64_t> numbers);

}  // namespace winnow::run
