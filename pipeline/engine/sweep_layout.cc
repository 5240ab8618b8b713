#include "pipeline/engine/sweep_layout.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "pipeline/engine/signals/functions.h"

namespace winnow::engine {

namespace {

void check(const model::ModelConfig& config, const SweepRequest& request) {
  const auto n_layers = static_cast<std::size_t>(config.n_layers);
  bool sizes_match = request.base.size() == n_layers;
  for (const Pattern& variant : request.variants) sizes_match = sizes_match && variant.size() == n_layers;
  const auto n_tokens = static_cast<int64_t>(request.tokens.size());
  if (request.prefix_rows < 0 || request.prefix_rows >= n_tokens) fail(ExitCode::kInternal, "sweep: no such prefix");
  if (!sizes_match || request.answer_start < 1 || request.answer_start >= n_tokens || request.window.keys < 1) {
    fail(ExitCode::kInternal, "sweep: request does not fit the model");
  }
}

// Places rows one after another.
Rows place(int64_t first_row, int64_t end_row, int64_t& at) {
  const Rows rows{first_row, end_row - first_row, at};
  at += rows.n_rows;
  return rows;
}

}  // namespace

int64_t birth_layer(const Pattern& base, const Pattern& variant) {
  const auto difference = std::mismatch(base.begin(), base.end(), variant.begin());
  return difference.first - base.begin();
}

RowRange row_range(const model::ModelConfig& config, const SweepRequest& request, int64_t row_tile) {
  check(config, request);
  RowRange range;
  const SignalOptions& signals = request.signals;
  const auto n_tokens = static_cast<int64_t>(request.tokens.size());
  const int64_t n_predicting = n_tokens - 1;
  range.n_rows = n_predicting + (signals.needs(&SignalNeeds::last_token) ? 1 : 0);
  range.padded_rows = round_up(range.n_rows, row_tile);
  const auto first_row_of_lane = [&](int64_t row) {
    return row >= n_predicting ? range.padded_rows : round_down(row, row_tile);
  };
  range.lane_first_row = first_row_of_lane(kernels::first_affected_row(request.window));
  const bool has_removed = signals.needs(&SignalNeeds::removed_lane);
  range.removed_row = std::max<int64_t>(0, request.answer_start - signals.removed_rows);
  range.removed_first_row = has_removed ? first_row_of_lane(range.removed_row) : range.padded_rows;
  range.base_first_row = request.prefix_rows;
  range.answer_row = round_down(request.answer_start - 1, row_tile);
  range.first_score_row = std::max(range.answer_row, range.base_first_row);
  if (measures_layers(signals)) {
    const int64_t first_row = first_signal_row(signals, n_tokens, request.answer_start);
    range.first_score_row = std::min(range.first_score_row, round_down(first_row, row_tile));
  }
  if (range.base_first_row > 0 && signals.any_of_layers())
    fail(ExitCode::kInternal, "sweep: a prefix has no layer signals");
  const bool is_prefix_of_lanes = range.lane_first_row == range.padded_rows || range.base_first_row == 0 ||
                                  range.base_first_row == range.lane_first_row;
  if (!is_prefix_of_lanes) fail(ExitCode::kInternal, "sweep: the prefix does not end where the lanes begin");
  return range;
}

SweepLayout::SweepLayout(const model::ModelConfig& config, std::span<const SweepRequest> requests,
                         const kernels::Backend& backend)
    : n_bases(static_cast<int64_t>(requests.size())), n_layers(config.n_layers) {
  std::vector<RowRange> ranges;
  std::vector<Segment> lanes;
  int64_t longest_lane = 0;
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const SweepRequest& request = requests[r];
    const RowRange& range = ranges.emplace_back(row_range(config, request, backend.row_tile()));
    longest_rows = std::max(longest_rows, range.padded_rows);
    with_kl = with_kl || request.with_kl;
    with_hidden = with_hidden || request.signals.needs(&SignalNeeds::hidden_states);
    Segment segment{.request = r, .pattern = &request.base, .n_tokens = range.n_rows, .residual = {}, .scored = {}};
    segments.push_back(segment);
    for (std::size_t v = 0; v < request.variants.size(); ++v) {
      segment.variant = static_cast<int64_t>(v);
      segment.birth = birth_layer(request.base, request.variants[v]);
      if (segment.birth == n_layers) continue;
      if (range.lane_first_row < range.padded_rows) {
        segment.pattern = &request.variants[v];
        segment.removed_row = Segment::kBase;
        lanes.push_back(segment);
      }
      if (range.removed_first_row < range.padded_rows) {
        segment.pattern = &request.base;
        segment.removed_row = range.removed_row;
        lanes.push_back(segment);
      }
    }
  }
  std::stable_sort(lanes.begin(), lanes.end(), [](const Segment& a, const Segment& b) {
    return std::pair(a.birth, a.is_removed()) < std::pair(b.birth, b.is_removed());
  });
  segments.insert(segments.end(), lanes.begin(), lanes.end());

  for (Segment& segment : segments) {
    const RowRange& range = ranges[segment.request];
    const int64_t first_row = segment.is_base()      ? range.base_first_row
                              : segment.is_removed() ? range.removed_first_row
                                                     : range.lane_first_row;
    segment.residual = place(first_row, range.padded_rows, stack_rows);
    segment.scored = place(segment.is_base() ? range.first_score_row : range.first_score_row_of(first_row),
                           range.padded_rows, scored_rows);
    if (!segment.is_base()) longest_lane = std::max(longest_lane, segment.residual.n_rows);
    if (segment.is_base()) {
      base_rows = stack_rows;
      base_scored_rows = scored_rows;
    }
  }
  group_rows = std::min(stack_rows - base_rows, std::max({base_rows, backend.stack_rows(), longest_lane}));
}

int64_t SweepLayout::n_alive(int64_t layer) const {
  const auto end = std::find_if(segments.begin(), segments.end(), [&](const Segment& s) { return s.birth > layer; });
  return end - segments.begin();
}

int64_t SweepLayout::n_attending(int64_t layer) const {
  const auto end = std::find_if(segments.begin(), segments.end(), [&](const Segment& s) {
    return s.birth > layer || (s.birth == layer && s.is_removed());
  });
  return end - segments.begin();
}

kernels::AttentionCall SweepLayout::call(const Segment& segment, int64_t layer, const SweepRequest& request) const {
  const Rows& out = outgoing(segment, layer);
  const Rows& base = base_of(segment).residual;
  kernels::AttentionCall call;
  call.first_row = out.first_row;
  call.n_rows = out.n_rows;
  call.n_tokens = segment.n_tokens;
  call.own = {nullptr, base.first_row, base.n_rows};
  call.prefix = {nullptr, 0, base.first_row};
  if (!segment.is_base() && has_own_keys(segment, layer)) {
    if (base.first_row == 0) call.prefix = call.own;
    call.own = {nullptr, segment.residual.first_row, segment.residual.n_rows};
  }
  call.window = (*segment.pattern)[static_cast<std::size_t>(layer)] ? request.window : kernels::full_attention();
  return call;
}

std::vector<kernels::AttentionCall> attention_shapes(const model::ModelConfig& config, const SweepRequest& request,
                                                     int64_t row_tile) {
  const RowRange range = row_range(config, request, row_tile);
  // A call's rows follow from the first row of its segment, from whose keys it has, from whether the layer is the last,
  // and from the window.
  enum class Keys { kBase, kBorrowed, kOwn };
  std::set<std::tuple<Keys, int64_t, bool, bool>> kinds;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const auto l = static_cast<std::size_t>(layer);
    const bool is_last = layer == config.n_layers - 1;
    kinds.insert({Keys::kBase, range.base_first_row, is_last, request.base[l]});
    for (const Pattern& variant : request.variants) {
      const int64_t birth = birth_layer(request.base, variant);
      if (birth <= layer && range.lane_first_row < range.padded_rows) {
        kinds.insert({birth == layer ? Keys::kBorrowed : Keys::kOwn, range.lane_first_row, is_last, variant[l]});
      }
      if (birth < layer && range.removed_first_row < range.padded_rows) {
        kinds.insert({Keys::kOwn, range.removed_first_row, is_last, request.base[l]});
      }
    }
  }
  std::vector<kernels::AttentionCall> calls;
  const kernels::KvRows base{nullptr, range.base_first_row, range.padded_rows - range.base_first_row};
  const kernels::KvRows before{nullptr, 0, range.base_first_row};
  for (const auto& [keys, first_row, is_last, is_windowed] : kinds) {
    const int64_t first_scored = keys == Keys::kBase ? range.first_score_row : range.first_score_row_of(first_row);
    kernels::AttentionCall call;
    call.first_row = is_last ? first_scored : first_row;
    call.n_rows = range.padded_rows - call.first_row;
    call.n_tokens = range.n_rows;
    call.own = base;
    call.prefix = before;
    if (keys == Keys::kOwn) {
      if (before.n_rows == 0) call.prefix = base;
      call.own = {nullptr, first_row, range.padded_rows - first_row};
    }
    call.window = is_windowed ? request.window : kernels::full_attention();
    calls.push_back(call);
  }
  return calls;
}

}  // namespace winnow::engine
