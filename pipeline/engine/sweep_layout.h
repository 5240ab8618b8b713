// The rows that a sweep computes and their places: pure arithmetic, no memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "pipeline/engine/sweep.h"

namespace winnow::engine {

// Rows of one request. The base has [base_first_row, padded_rows), a lane those from its first row on.
struct RowRange {
  int64_t n_rows = 0;          // T - 1, or T where a signal needs the row of the last token; not padded
  int64_t padded_rows = 0;     // multiple of the row tile
  int64_t base_first_row = 0;  // behind the cached prefix
  // R by variant, (variants): the tile of the first row that differs from the base, but with a cached prefix the row
  // behind that, as its keys and the lane's own lie one after another; padded_rows when no row differs.
  std::vector<int64_t> lane_first_row;
  int64_t removed_row = 0;        // first row without attention in the lanes that have it removed, not rounded
  int64_t removed_first_row = 0;  // first row of these lanes, its tile; padded_rows when there are none
  int64_t first_score_row = 0;    // of the base: the first that is wanted of the last layer, its tile
  int64_t answer_row = 0;         // tile that holds row a - 1
  // Returns true if a variant has rows of its own.
  bool has_lane(std::size_t variant) const { return lane_first_row[variant] < padded_rows; }
  // Returns the first score row of a lane that begins at first_row.
  int64_t first_score_row_of(int64_t first_row) const { return first_row > answer_row ? first_row : answer_row; }
};
// Returns the rows of a request. Throws Error(kInternal) for one that does not fit the model.
RowRange row_range(const model::ModelConfig& config, const SweepRequest& request, int64_t row_tile);

// Rows [first_row, first_row + n_rows) of a sequence, from row `at` of a stack on.
struct PlacedRows {
  int64_t first_row = 0;
  int64_t n_rows = 0;
  int64_t at = 0;
  int64_t end() const { return at + n_rows; }
};

// One residual stream: the base of a request or one of its lanes.
struct Segment {
  static constexpr int64_t kBase = -1;
  std::size_t request = 0;
  int64_t variant = kBase;                // index in the request, or kBase
  int64_t fork_layer = kBase;             // layer of its first own rows; the base has them from the start
  const LayerWindows* windows = nullptr;  // (n_layers)
  int64_t removed_row = kBase;            // first row without attention in the fork layer; kBase: none is without
  bool has_own_rope = false;              // whether its positions in the fork layer are not the base's
  int64_t n_tokens = 0;                   // rows of the sequence that are real
  PlacedRows residual;                    // in the stack
  PlacedRows scored;                      // in the rows that leave the last layer
  bool is_base() const { return variant == kBase; }
  bool is_removed() const { return removed_row != kBase; }
};

// The bases of all requests in their order, then the lanes in the order of their fork layers, so that the segments that
// are active at a layer are the front part of the stack; of those with one fork layer the ones with positions of their
// own come first and the ones without attention there last.
struct SweepLayout {
  SweepLayout(const model::ModelConfig& config, std::span<const SweepRequest> requests, const kernels::Ops& ops);

  std::vector<Segment> segments;
  int64_t n_layers = 0;
  int64_t base_rows = 0;         // in the stack
  int64_t stack_rows = 0;        // in all
  int64_t scored_rows = 0;       // in all
  int64_t base_scored_rows = 0;  // the bases', which come first
  bool with_kl = false;          // of any request
  bool with_hidden = false;      // whether a signal of any request needs hidden states
  int64_t group_rows = 0;        // of lanes that go through attention together, at most
  int64_t longest_rows = 0;      // of a sequence, padded

  bool is_last(int64_t layer) const { return layer == n_layers - 1; }
  int64_t n_active(int64_t layer) const;     // segments
  int64_t n_attending(int64_t layer) const;  // of them: all but those without attention in this layer
  // Returns the rows of a segment that leave a layer.
  const PlacedRows& outgoing(const Segment& segment, int64_t layer) const {
    return is_last(layer) ? segment.scored : segment.residual;
  }
  const Segment& base_of(const Segment& segment) const { return segments[segment.request]; }
  // Returns the end of the lanes from `begin` on, of the first n_active segments, that go through a layer together: as
  // many as the buffers of a group hold; those whose keys are turned have one embedding.
  std::size_t group_end(int64_t layer, std::size_t begin, std::size_t n_active) const;
  // Returns true if a segment has its own queries, keys and values in a layer; in its fork layer they are the base's,
  // unless they are turned otherwise.
  static bool has_own_keys(const Segment& segment, int64_t layer) {
    return segment.fork_layer < layer || (segment.fork_layer == layer && segment.has_own_rope);
  }
  // Returns the setting of a segment in a layer.
  static const LayerWindow& setting(const Segment& segment, int64_t layer) {
    return (*segment.windows)[static_cast<std::size_t>(layer)];
  }
  // Returns its attention call in a layer, without memory and window: add_attention() brings its setting.
  kernels::AttentionCall call(const Segment& segment, int64_t layer) const;
};

// Returns the different attention calls that a sweep over the request makes, without memory, for
// Ops::prepare_attention.
std::vector<kernels::AttentionCall> attention_shapes(const model::ModelConfig& config, const SweepRequest& request,
                                                     int64_t row_tile);

}  // namespace winnow::engine
