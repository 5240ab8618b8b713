#include "pipeline/engine/sweep_layout.h"

#include <algorithm>
#include <tuple>

#include "base/error.h"
#include "kernels/tile.h"
#include "pipeline/engine/signals/functions.h"

namespace winnow::engine {

using kernels::round_down;
using kernels::round_up;

namespace {

// Keys of rows [first_row, first_row + n_rows), without memory.
kernels::KvRows rows_of_keys(int64_t first_row, int64_t n_rows) { return {{.n_rows = n_rows}, first_row}; }

void check(const model::ModelConfig& config, const SweepRequest& request) {
  const auto n_layers = static_cast<std::size_t>(config.n_layers);
  const auto fits = [&](const LayerWindows& windows) {
    return windows.size() == n_layers && std::all_of(windows.begin(), windows.end(), [&](const LayerWindow& layer) {
             const auto n_heads = static_cast<int64_t>(layer.windowed_heads.size());
             return layer.window.keys >= 1 && (n_heads == 0 || n_heads == config.heads.n_kv_heads) &&
                    layer.kv_first_row >= 0 && (layer.has_rounded_keys() || layer.kv_first_row == 0);
           });
  };
  const auto n_tokens = static_cast<int64_t>(request.tokens.size());
  if (request.prefix_rows < 0 || request.prefix_rows >= n_tokens) fail(ExitCode::kInternal, "sweep: no such prefix");
  const bool windows_fit = fits(request.base) && std::all_of(request.variants.begin(), request.variants.end(), fits);
  if (!windows_fit || request.answer_start < 1 || request.answer_start >= n_tokens) {
    fail(ExitCode::kInternal, "sweep: request does not fit the model");
  }
}

// Whether a variant's positions are not the base's in a layer.
bool has_own_rope(const LayerWindows& base, const LayerWindows& variant, int64_t layer) {
  return base[static_cast<std::size_t>(layer)].rope != variant[static_cast<std::size_t>(layer)].rope;
}

// Places rows one after another.
PlacedRows place(int64_t first_row, int64_t end_row, int64_t& at) {
  const PlacedRows rows{first_row, end_row - first_row, at};
  at += rows.n_rows;
  return rows;
}

}  // namespace

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
  const auto has_rounded_keys = [](const LayerWindow& layer) { return layer.has_rounded_keys(); };
  if (std::ranges::any_of(request.base, has_rounded_keys) && signals.any_of_layers())
    fail(ExitCode::kInternal, "sweep: signals of layers are those of keys as they were computed");
  bool is_prefix = true;
  for (const LayerWindows& variant : request.variants) {
    const int64_t different_row = first_different_row(request.base, variant);
    const int64_t first_row = first_row_of_lane(different_row);
    const bool has_lane = first_row < range.padded_rows;
    range.lane_first_row.push_back(has_lane && range.base_first_row > 0 ? range.base_first_row : first_row);
    is_prefix = is_prefix && different_row >= range.base_first_row;
    // A lane takes the rows before from the base.
    const auto rounds_later = [&](const LayerWindow& layer) { return layer.kv_first_row > different_row; };
    if (has_lane && std::ranges::any_of(variant, rounds_later))
      fail(ExitCode::kInternal, "sweep: rows before those that read rounded keys are not the base's");
  }
  if (!is_prefix) fail(ExitCode::kInternal, "sweep: rows of the prefix are not the base's");
  return range;
}

SweepLayout::SweepLayout(const model::ModelConfig& config, std::span<const SweepRequest> requests,
                         const kernels::Ops& ops)
    : n_layers(config.n_layers) {
  std::vector<RowRange> ranges;
  std::vector<Segment> lanes;
  int64_t longest_lane = 0;
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const SweepRequest& request = requests[r];
    const RowRange& range = ranges.emplace_back(row_range(config, request, ops.device().row_tile()));
    longest_rows = std::max(longest_rows, range.padded_rows);
    with_kl = with_kl || request.with_kl;
    with_hidden = with_hidden || request.signals.needs(&SignalNeeds::hidden_states);
    Segment segment{.request = r, .windows = &request.base, .n_tokens = range.n_rows, .residual = {}, .scored = {}};
    segments.push_back(segment);
    for (std::size_t v = 0; v < request.variants.size(); ++v) {
      segment.variant = static_cast<int64_t>(v);
      segment.fork_layer = fork_layer_of(request.base, request.variants[v]);
      if (segment.fork_layer == n_layers) continue;
      if (range.has_lane(v)) {
        segment.windows = &request.variants[v];
        segment.removed_row = Segment::kBase;
        segment.has_own_rope = has_own_rope(request.base, request.variants[v], segment.fork_layer);
        lanes.push_back(segment);
      }
      if (range.removed_first_row < range.padded_rows) {
        segment.windows = &request.base;
        segment.removed_row = range.removed_row;
        segment.has_own_rope = false;
        lanes.push_back(segment);
      }
    }
  }
  std::stable_sort(lanes.begin(), lanes.end(), [](const Segment& a, const Segment& b) {
    const auto key = [](const Segment& s) { return std::tuple(s.fork_layer, s.is_removed(), !s.has_own_rope); };
    return key(a) < key(b);
  });
  segments.insert(segments.end(), lanes.begin(), lanes.end());

  for (Segment& segment : segments) {
    const RowRange& range = ranges[segment.request];
    const int64_t first_row = segment.is_base()      ? range.base_first_row
                              : segment.is_removed() ? range.removed_first_row
                                                     : range.lane_first_row[static_cast<std::size_t>(segment.variant)];
    segment.residual = place(first_row, range.padded_rows, stack_rows);
    segment.scored = place(segment.is_base() ? range.first_score_row : range.first_score_row_of(first_row),
                           range.padded_rows, scored_rows);
    if (!segment.is_base()) longest_lane = std::max(longest_lane, segment.residual.n_rows);
    if (segment.is_base()) {
      base_rows = stack_rows;
      base_scored_rows = scored_rows;
    }
  }
  group_rows = std::min(stack_rows - base_rows, std::max({base_rows, ops.device().stack_rows(), longest_lane}));
}

int64_t SweepLayout::n_active(int64_t layer) const {
  const auto end =
      std::find_if(segments.begin(), segments.end(), [&](const Segment& s) { return s.fork_layer > layer; });
  return end - segments.begin();
}

int64_t SweepLayout::n_attending(int64_t layer) const {
  const auto end = std::find_if(segments.begin(), segments.end(), [&](const Segment& s) {
    return s.fork_layer > layer || (s.fork_layer == layer && s.is_removed());
  });
  return end - segments.begin();
}

std::size_t SweepLayout::group_end(int64_t layer, std::size_t begin, std::size_t n_active) const {
  const Segment& first = segments[begin];
  const int64_t limit = first.residual.at + group_rows;
  const auto fits = [&](const Segment& lane) {
    const bool is_turned = has_own_keys(lane, layer);
    return lane.residual.end() <= limit && (!is_turned || setting(lane, layer).rope == setting(first, layer).rope);
  };
  std::size_t end = begin + 1;
  while (end < n_active && fits(segments[end])) ++end;
  return end;
}

kernels::AttentionCall SweepLayout::call(const Segment& segment, int64_t layer) const {
  const PlacedRows& out = outgoing(segment, layer);
  const PlacedRows& base = base_of(segment).residual;
  kernels::AttentionCall call;
  call.q.n_rows = out.n_rows;
  call.first_row = out.first_row;
  call.n_tokens = segment.n_tokens;
  call.own = rows_of_keys(base.first_row, base.n_rows);
  call.prefix = rows_of_keys(0, base.first_row);
  if (!segment.is_base() && has_own_keys(segment, layer)) {
    if (base.first_row == 0) call.prefix = call.own;
    call.own = rows_of_keys(segment.residual.first_row, segment.residual.n_rows);
  }
  return call;
}

std::vector<kernels::AttentionCall> attention_shapes(const model::ModelConfig& config, const SweepRequest& request,
                                                     int64_t row_tile) {
  const RowRange range = row_range(config, request, row_tile);
  // A call's rows follow from the first row of its segment, from whose keys it has, from whether the layer is the last,
  // and from the setting.
  enum class Keys { kBase, kBorrowed, kOwn };
  struct Kind {
    Keys keys;
    int64_t first_row;
    bool is_last;
    LayerWindow setting;
    bool operator==(const Kind&) const = default;
  };
  std::vector<Kind> kinds;
  const auto add = [&](const Kind& kind) {
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
  };
  for (std::size_t l = 0; l < request.base.size(); ++l) {
    const auto layer = static_cast<int64_t>(l);
    const bool is_last = layer == config.n_layers - 1;
    add({Keys::kBase, range.base_first_row, is_last, request.base[l]});
    for (std::size_t v = 0; v < request.variants.size(); ++v) {
      const int64_t fork_layer = fork_layer_of(request.base, request.variants[v]);
      if (fork_layer <= layer && range.has_lane(v)) {
        const bool is_borrowed = fork_layer == layer && !has_own_rope(request.base, request.variants[v], layer);
        add({is_borrowed ? Keys::kBorrowed : Keys::kOwn, range.lane_first_row[v], is_last, request.variants[v][l]});
      }
      if (fork_layer < layer && range.removed_first_row < range.padded_rows) {
        add({Keys::kOwn, range.removed_first_row, is_last, request.base[l]});
      }
    }
  }
  std::vector<kernels::AttentionCall> calls;
  const kernels::KvRows base = rows_of_keys(range.base_first_row, range.padded_rows - range.base_first_row);
  const kernels::KvRows before = rows_of_keys(0, range.base_first_row);
  for (const Kind& kind : kinds) {
    const int64_t first_scored =
        kind.keys == Keys::kBase ? range.first_score_row : range.first_score_row_of(kind.first_row);
    kernels::AttentionCall call;
    call.first_row = kind.is_last ? first_scored : kind.first_row;
    call.q.n_rows = range.padded_rows - call.first_row;
    call.n_tokens = range.n_rows;
    call.own = base;
    call.prefix = before;
    if (kind.keys == Keys::kOwn) {
      if (before.n_rows() == 0) call.prefix = base;
      call.own = rows_of_keys(kind.first_row, range.padded_rows - kind.first_row);
    }
    add_attention(call, kind.setting, calls);
  }
  return calls;
}

}  // namespace winnow::engine
