// Keys and values of the rows that no pattern changes, kept over many sweeps of the same examples: with tail
// rows, all rows before the first that obeys a window. A sweep over the tail alone, against these,
// gives what a sweep over all rows gives, bit for bit.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"
#include "pipeline/engine/sweep.h"

namespace winnow::engine {

// Returns how many rows of a sequence a cached prefix can hold where no layer has a narrower window than this: those
// before R, the first row of a lane, but never all of them.
int64_t cached_rows(int64_t n_tokens, const kernels::Window& narrowest, int64_t row_tile);

// Returns the sweep that computes them: the request's first prefix_rows rows as the base has them, without variants.
SweepRequest prefix_request(const SweepRequest& request);

struct RowScore {
  double nll_nats = 0.0;
  bool is_argmax = false;
};

// The rows [0, n_rows) of one example: their keys and values in every layer, and the scores of those that predict
// answer tokens.
class CachedPrefix {
 public:
  enum class Place { kBackend, kHost };  // whose memory

  // Runs request.prefix_rows rows of the base. Throws Interrupted, Error(kOutOfMemory).
  CachedPrefix(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
               const SweepRequest& request, Place place, const StopCheck& stop);
  // Returns the memory that it keeps, of the backend or of the host, bytes.
  static int64_t size_bytes(const model::ModelConfig& config, const kernels::Ops& ops, int64_t n_rows);
  // Returns the backend memory that making the request's prefix takes besides what it keeps there, bytes.
  static int64_t workspace_bytes(const model::ModelConfig& config, const kernels::Ops& ops, const SweepRequest& request,
                                 Place place);

  int64_t n_rows() const { return n_rows_; }
  bool is_on_host() const { return place_ == Place::kHost; }
  // Returns what the layers saw when it was computed: a sweep from another base has other rows.
  const LayerWindows& windows() const { return windows_; }
  // Returns the layer's keys and values, in memory of `place`.
  kernels::KvSpan layer(int64_t layer) const { return kv_.slice(layer * n_rows_, n_rows_); }
  // Returns the score of row a - 1 <= row < n_rows.
  RowScore score(int64_t row) const { return scores_[static_cast<std::size_t>(row - first_score_row_)]; }

 private:
  int64_t n_rows_;
  Place place_;
  std::unique_ptr<kernels::Buffer> memory_;
  kernels::KvSpan kv_;  // of n_rows in one layer after another
  LayerWindows windows_;
  int64_t first_score_row_;       // a - 1
  std::vector<RowScore> scores_;  // of rows [first_score_row, n_rows)
};

// Says which rank keeps which prefix, and where. Every example belongs to one rank, which keeps its prefix in the
// backend's memory while there is room, then in the host's, then nowhere: its rows are computed anew each time.
struct PrefixPlan {
  std::vector<int64_t> owner;                             // rank, by example
  std::vector<std::optional<CachedPrefix::Place>> place;  // by example
  int64_t backend_bytes = 0;                              // of the rank that keeps most there
  int64_t host_bytes = 0;
};
struct PrefixLimits {
  int64_t backend_bytes = 0;  // of each rank
  int64_t host_bytes = 0;
};
// Shares examples out by size, the largest first. sizes: of each example's prefix, bytes; 0 where there is none to
// keep.
PrefixPlan plan_prefixes(std::span<const int64_t> sizes, int64_t n_ranks, const PrefixLimits& limits);

// The prefixes of a rank's examples.
class PrefixCache {
 public:
  PrefixCache(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights)
      : ops_(ops), config_(config), weights_(weights) {}

  // Gives a request with prefix_rows the prefix of its example, which is made when it is asked for first, and leaves it
  // as it is where there are no rows to keep. Throws Interrupted, Error.
  void provide(int64_t example, CachedPrefix::Place place, SweepRequest& request, const StopCheck& stop);

 private:
  kernels::Ops& ops_;
  const model::ModelConfig& config_;
  model::ModelWeights& weights_;
  std::map<int64_t, std::unique_ptr<CachedPrefix>> prefixes_;  // by example
};

}  // namespace winnow::engine
