// The speed of this rank, measured in a moment at the shapes that will come.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"
#include "pipeline/engine/sweep.h"

namespace winnow::engine {

// Seconds over an amount of work, as measured at some amounts: what a call costs whatever it does, and where a device
// comes to its speed, is in the points and in no formula.
class Curve {
 public:
  // amount > 0. Points may come in any order.
  void add(double amount, double seconds);
  // Returns the seconds of one call: on the line between two points; before the first on the line through the first
  // two, but no less than nothing; beyond the last in proportion. 0 without points, and for an amount of 0.
  double seconds_of(double amount) const;
  bool is_empty() const { return points_.empty(); }

 private:
  std::vector<std::pair<double, double>> points_;  // ascending amounts
};

// All calls of attention that go to the device together, as far as their speed depends on it.
struct AttentionLaunch {
  double rows = 0.0;            // padded, of all calls; a call on some of the heads counts as its share of them
  double pairs = 0.0;           // (row, key) pairs that are seen, all heads together as one
  double windowed_pairs = 0.0;  // those of calls with a row that does not see everything
};
AttentionLaunch launch_of(std::span<const kernels::AttentionCall> calls, const kernels::HeadShape& heads);

// What a pair costs, in launches of several shapes.
class AttentionRates {
 public:
  // Two launches this near to each other in shape cost the same: nothing is learnt from the second.
  static constexpr double kNear = 0.25;

  void add(const AttentionLaunch& launch, double seconds);
  // Returns the seconds of a launch: its pairs at the price that those of the measured launches have, each counting the
  // more the nearer it is in rows, keys a row and share of windows.
  double seconds_of(const AttentionLaunch& launch) const;
  // Returns how far the nearest one measured is, in doublings of rows or keys; a large number where there is none.
  double distance_to(const AttentionLaunch& launch) const;

 private:
  struct Sample {
    AttentionLaunch launch;
    double seconds_per_pair = 0.0;
  };
  std::vector<Sample> samples_;
};

// Seconds of pieces of work. They serve predictions and the order of units only: no result depends on them.
struct Rates {
  double per_layer_load = 0.0;  // weights of one layer into the backend, the mean over all; 0 where they stay there
  bool loads_beside = false;    // whether the next layer comes while one is computed
  int64_t chunk_rows = 1;       // of the device
  Curve input_rows;             // a chunk's queries, keys and values, over its rows
  Curve finish_rows;            // the rest of the layer without attention, over a chunk's rows
  AttentionRates attention;     // all heads
  // Keys and values of rows, rounded to each type that the measured requests have, over rows.
  std::map<KvType, Curve> rounded_rows;
  Curve score_rows;              // rows through norm and head, over a chunk's rows
  Curve compare_rows;            // the same, with the KL to other rows
  double per_signal_pair = 0.0;  // (query, key) pairs of signals
  double per_decode_pair = 0.0;  // (row, key) pairs of decoding over a cache
  double per_decode_call = 0.0;  // one row of one sequence, besides its pairs
  Curve set_up_bytes;            // memory and tables of a sweep, over its bytes
  double measuring_seconds = 0.0;
};

// Times each kind of work for at least a few milliseconds, at the shapes of these requests, whose prefixes need not be
// there; rounding to the types that these have, and to `more_types`, which others will have. Takes well under a second
// for small models, a few for one of 4B parameters. Throws Error(kOutOfMemory).
Rates measure_rates(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                    std::span<const SweepRequest> samples, std::span<const KvType> more_types = {});

// Best rates of the device: a large product by the backend, and a large copy, bytes read and written.
struct Ceilings {
  double flop_per_second = 0.0;
  double bytes_per_second = 0.0;
};
Ceilings measure_ceilings(kernels::Ops& ops);

}  // namespace winnow::engine
