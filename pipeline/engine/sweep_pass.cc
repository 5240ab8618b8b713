#include "pipeline/engine/sweep_pass.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "kernels/tile.h"
#include "pipeline/engine/cached_prefix.h"

namespace winnow::engine {

namespace {

// The one that a layer's mass is measured against: where the base is windowed and its variant is not, the base's.
const kernels::Window& narrower(const kernels::Window& a, const kernels::Window& b) { return a.keys < b.keys ? a : b; }

std::vector<TurnedSequence> turned_sequences(std::span<const SweepRequest> requests, const SweepLayout& layout) {
  std::vector<TurnedSequence> sequences;
  for (const SweepRequest& request : requests) sequences.push_back({request.whole_length(), layout.longest_rows});
  return sequences;
}

// The types in which any layer keeps its keys.
std::set<KvType> rounded_types(std::span<const SweepRequest> requests) {
  std::set<KvType> types;
  const auto add = [&](const LayerWindows& windows) {
    for (const LayerWindow& layer : windows) types.insert(layer.kv);
  };
  for (const SweepRequest& request : requests) {
    add(request.base);
    for (const LayerWindows& variant : request.variants) add(variant);
  }
  types.erase(KvType::kStored);
  return types;
}

// Whether a tile of a base has rows that read rounded keys and rows that do not.
bool has_edge(const SweepRequest& request, int64_t row_tile) {
  return std::ranges::any_of(request.base,
                             [&](const LayerWindow& layer) { return layer.kv_first_row % row_tile != 0; });
}

int64_t edge_rows(std::span<const SweepRequest> requests, int64_t row_tile) {
  const auto has = [&](const SweepRequest& request) { return has_edge(request, row_tile); };
  return std::ranges::any_of(requests, has) ? static_cast<int64_t>(requests.size()) * row_tile : 0;
}

int64_t all_prefix_rows(std::span<const SweepRequest> requests) {
  int64_t n_rows = 0;
  for (const SweepRequest& request : requests) n_rows += request.prefix_rows;
  return n_rows;
}

// Query rows [begin, end) of a call, absolute.
kernels::AttentionCall rows_of(kernels::AttentionCall call, int64_t begin, int64_t end) {
  call.q = call.q.slice(begin - call.first_row, end - begin);
  call.out = call.out.slice(begin - call.first_row, end - begin);
  call.first_row = begin;
  return call;
}

}  // namespace

SweepBuffers::SweepBuffers(const kernels::Ops& ops, const model::ModelConfig& config, const SweepLayout& layout,
                           std::span<const SweepRequest> requests, const KvSink* sink)
    : list(ops, config),
      positions(list.integers(layout.stack_rows + layout.scored_rows, "the rows' positions")),
      tokens(list.integers(layout.base_rows, "token ids")),
      stack(list.residual(layout.stack_rows, "the residual lanes")),
      scored(list.residual(layout.scored_rows, "the answer rows")),
      normed(list.hidden(Forward::normed_rows(ops, layout.scored_rows), "the final rows")),
      reference(list.hidden(layout.with_kl ? layout.base_scored_rows : 0, "the base's final rows")),
      base_q(list.queries(layout.base_rows, "the base's queries")),
      base_kv(list.keys(sink != nullptr ? 0 : layout.base_rows, "the base's keys and values")),
      group_q(list.queries(layout.group_rows, "the lanes' queries")),
      group_kv(list.keys(layout.group_rows, "the lanes' keys and values")),
      attention(list.queries(std::max(layout.base_rows, layout.group_rows), "attention's output")),
      hidden(list.residual(layout.with_hidden ? ops.device().chunk_rows() : 0, "hidden states of the signals")),
      edge(list.queries(edge_rows(requests, ops.device().row_tile()), "attention's output beside rounded keys")) {
  for (const SweepRequest& request : requests) {
    const bool is_fetched = request.prefix != nullptr && request.prefix->is_on_host();
    fetched.push_back(list.keys(is_fetched ? request.prefix->n_rows() : 0, "a layer of cached keys"));
  }
  for (const KvType type : rounded_types(requests)) {
    rounded.emplace(type, list.keys(layout.base_rows + all_prefix_rows(requests), "rounded keys and values"));
  }
}

int64_t SweepPass::predicted_bytes(const kernels::Ops& ops, const model::ModelConfig& config,
                                   std::span<const SweepRequest> requests, const KvSink* sink) {
  const SweepLayout layout(config, requests, ops);
  return SweepBuffers(ops, config, layout, requests, sink).list.size_bytes() +
         Forward::predicted_bytes(ops, config, turned_sequences(requests, layout),
                                  std::max(layout.longest_rows, layout.group_rows));
}

SweepPass::SweepPass(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                     std::span<const SweepRequest> requests, const KvSink* sink)
    : ops_(ops),
      config_(config),
      weights_(weights),
      requests_(requests),
      sink_(sink),
      layout_(config, requests, ops),
      signal_results_(ops.device()),
      forward_(ops, config, weights, turned_sequences(requests, layout_)),
      buffers_(ops, config, layout_, requests, sink) {
  for (const SweepRequest& request : requests) {
    const bool is_there = request.prefix != nullptr && request.prefix->n_rows() == request.prefix_rows &&
                          request.prefix->windows() == settings_of_first_rows(request.base, request.prefix_rows);
    if (request.prefix_rows > 0 && !is_there) fail(ExitCode::kInternal, "sweep: the prefix is not there");
  }
  buffers_.list.allocate(ops);
  make_tables();
  for (const SweepRequest& request : requests) signals_.emplace_back(request.variants.size());
  prefix_keys_.resize(requests.size());
}

// What the rows are, for the operations that ask for it: tokens and positions.
void SweepPass::make_tables() {
  std::vector<int32_t> positions;
  const auto add_positions = [&](const Segment& segment, const PlacedRows& rows) {
    const int64_t length = requests_[segment.request].whole_length();
    for (int64_t r = 0; r < rows.n_rows; ++r) positions.push_back(forward_.rotary.place(length, rows.first_row + r));
  };
  for (const Segment& segment : layout_.segments) add_positions(segment, segment.residual);
  for (const Segment& segment : layout_.segments) add_positions(segment, segment.scored);
  buffers_.list.upload(ops_, buffers_.positions, positions);

  std::vector<int32_t> tokens(static_cast<std::size_t>(layout_.base_rows), -1);
  for (const Segment& base : bases()) {
    const auto own = requests_[base.request]
                         .tokens.first(static_cast<std::size_t>(base.n_tokens))
                         .subspan(static_cast<std::size_t>(base.residual.first_row));
    std::copy(own.begin(), own.end(), tokens.begin() + base.residual.at);
  }
  buffers_.list.upload(ops_, buffers_.tokens, tokens);
}

// The rows that leave the last layer start from the residual rows that enter it: the base's for a lane born there.
void SweepPass::gather_scored(int64_t layer) {
  for (const Segment& segment : layout_.segments) {
    const Segment& source = SweepLayout::has_own_keys(segment, layer) ? segment : layout_.base_of(segment);
    const PlacedRows& from = source.residual;
    const PlacedRows& to = segment.scored;
    ops_.copy_rows(residual(from.at + to.first_row - from.first_row, to.n_rows), scored(to.at, to.n_rows));
  }
}

// Behind the last layer only those need their rows that have keys of their own there.
void SweepPass::fork_lanes(int64_t layer) {
  for (const Segment& segment : layout_.segments) {
    if (segment.fork_layer != layer || (is_last(layer) && !segment.has_own_rope)) continue;
    const PlacedRows& base = layout_.base_of(segment).residual;
    const PlacedRows& rows = segment.residual;
    ops_.copy_rows(residual(base.at + rows.first_row - base.first_row, rows.n_rows), residual(rows.at, rows.n_rows));
  }
}

// Queries, keys and values of the bases' rows: of those together that have one rotary embedding here.
void SweepPass::turn_bases(const model::LayerWeights& weights, int64_t layer) {
  for (std::size_t begin = 0, end = 0; begin < bases().size(); begin = end) {
    const Segment& first = bases()[begin];
    const LayerWindow& setting = SweepLayout::setting(first, layer);
    for (end = begin + 1; end < bases().size(); ++end) {
      if (SweepLayout::setting(bases()[end], layer).rope != setting.rope) break;
    }
    const Segment& last = bases()[end - 1];
    const kernels::Rows rows = residual(first.residual.at, last.residual.end() - first.residual.at);
    forward_.decoder.attention_input(
        weights, rows, residual_angles(weights, setting, first.residual.at),
        base_keys_.slice(first.residual.at, rows.n_rows),
        is_last(layer) ? kernels::Rows{} : at(buffers_.base_q).slice(first.residual.at, rows.n_rows));
    if (!is_last(layer)) continue;
    const kernels::Rows leaving = outgoing(first, last, layer);
    forward_.decoder.attention_input(weights, leaving, scored_angles(weights, setting, first.scored.at), {},
                                     at(buffers_.base_q).slice(first.scored.at, leaving.n_rows));
  }
}

kernels::KvSpan SweepPass::prefix_keys(std::size_t request, KvType type) const {
  if (type == KvType::kStored) return prefix_keys_[request];
  const int64_t before = layout_.base_rows + all_prefix_rows(requests_.first(request));
  return at(buffers_.rounded.at(type)).slice(before, requests_[request].prefix_rows);
}

// Keys of the bases' rows, and of the rows before them, in every type that a segment has in this layer.
void SweepPass::round_base_keys(int64_t layer) {
  for (const auto& [type, buffer] : buffers_.rounded) {
    std::set<std::size_t> requests;
    for (const Segment& segment :
         std::span(layout_.segments).first(static_cast<std::size_t>(layout_.n_active(layer)))) {
      if (SweepLayout::setting(segment, layer).kv == type) requests.insert(segment.request);
    }
    std::vector<kernels::KvCopy> copies;
    for (const std::size_t request : requests) {
      const Segment& base = bases()[request];
      copies.push_back({base_keys(base), 0, base_keys(base, type), 0, base.residual.n_rows});
      if (requests_[request].prefix_rows == 0) continue;
      copies.push_back({prefix_keys_[request], 0, prefix_keys(request, type), 0, requests_[request].prefix_rows});
    }
    if (!copies.empty()) ops_.round_kv(copies, config_.kv_rounding(type, layer), config_.heads);
  }
}

// The calls of a base's rows. Where they begin to read rounded keys inside a tile, the rows before in that tile come
// from a call of their own.
void SweepPass::add_base_calls(const Segment& base, const model::LayerWeights& weights, int64_t layer,
                               std::vector<kernels::AttentionCall>& calls) const {
  const PlacedRows& out = layout_.outgoing(base, layer);
  const LayerWindow& setting = SweepLayout::setting(base, layer);
  kernels::AttentionCall call = layout_.call(base, layer);
  call.sink_logits = weights.sink_logits;
  call.q = at(buffers_.base_q).slice(out.at, out.n_rows);
  call.out = at(buffers_.attention).slice(out.at, out.n_rows);
  const auto add = [&](kernels::AttentionCall part, KvType type) {
    if (part.n_rows() == 0) return;
    part.own.kv = base_keys(base, type);
    set_prefix(part, base.request, type);
    add_attention(part, setting, calls);
  };
  if (!setting.has_rounded_keys()) return add(call, KvType::kStored);
  const int64_t tile = ops_.device().row_tile();
  const int64_t first = std::clamp(kernels::round_down(setting.kv_first_row, tile), call.first_row, call.end_row());
  add(rows_of(call, call.first_row, first), KvType::kStored);
  add(rows_of(call, first, call.end_row()), setting.kv);
  if (setting.kv_first_row <= first || first == call.end_row()) return;
  kernels::AttentionCall edge = rows_of(call, first, first + tile);
  edge.out = at(buffers_.edge).slice(static_cast<int64_t>(base.request) * tile, tile);
  add(edge, KvType::kStored);
}

void SweepPass::run_bases(const model::LayerWeights& weights, int64_t layer) {
  std::vector<kernels::AttentionCall> calls;
  for (const Segment& base : bases()) add_base_calls(base, weights, layer, calls);
  ops_.attention(calls, config_.heads);
  const int64_t tile = ops_.device().row_tile();
  for (const Segment& base : bases()) {
    const PlacedRows& out = layout_.outgoing(base, layer);
    const int64_t first_row = SweepLayout::setting(base, layer).kv_first_row;
    const int64_t first = std::max(kernels::round_down(first_row, tile), out.first_row);
    if (first_row <= first || first >= out.first_row + out.n_rows) continue;
    ops_.copy_rows(at(buffers_.edge).slice(static_cast<int64_t>(base.request) * tile, first_row - first),
                   at(buffers_.attention).slice(out.at + first - out.first_row, first_row - first));
  }
  measure_signals_of(weights, layer);
  const kernels::Rows rows = outgoing(bases().front(), bases().back(), layer);
  forward_.decoder.finish(weights, at(buffers_.attention).slice(0, rows.n_rows), rows);
}

// The keys that segments [begin, end) have for themselves.
void SweepPass::round_lane_keys(std::size_t begin, std::size_t end, int64_t layer) {
  std::map<KvType, std::vector<kernels::KvCopy>> copies;
  for (const Segment& lane : std::span(layout_.segments).subspan(begin, end - begin)) {
    const LayerWindow& setting = SweepLayout::setting(lane, layer);
    if (!setting.has_rounded_keys() || !SweepLayout::has_own_keys(lane, layer)) continue;
    const kernels::KvSpan own =
        at(buffers_.group_kv).slice(lane.residual.at - layout_.segments[begin].residual.at, lane.residual.n_rows);
    copies[setting.kv].push_back({own, 0, own, 0, own.n_rows});
  }
  for (const auto& [type, of_type] : copies) {
    ops_.round_kv(of_type, config_.kv_rounding(type, layer), config_.heads);
  }
}

// Rows of segments [begin, end) before those that read rounded keys, which their first tile has, are the base's.
void SweepPass::restore_unrounded_rows(std::size_t begin, std::size_t end, int64_t layer) {
  for (const Segment& lane : std::span(layout_.segments).subspan(begin, end - begin)) {
    const PlacedRows& rows = layout_.outgoing(lane, layer);
    const int64_t n = std::min(SweepLayout::setting(lane, layer).kv_first_row - rows.first_row, rows.n_rows);
    if (n <= 0) continue;
    const Segment& base = layout_.base_of(lane);
    const int64_t at = rows.first_row - layout_.outgoing(base, layer).first_row;
    ops_.copy_rows(outgoing(base, layer).slice(at, n), outgoing(lane, layer).slice(0, n));
  }
}

// Segments [begin, end) of the lanes through one layer, together.
void SweepPass::run_lanes(const model::LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end) {
  const Segment& first = layout_.segments[begin];
  const int64_t first_out = layout_.outgoing(first, layer).at;
  const kernels::Rows rows = outgoing(first, layout_.segments[end - 1], layer);
  std::vector<kernels::AttentionCall> calls;
  int64_t n_own_rows = 0;
  int64_t n_own_scored = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const Segment& lane = layout_.segments[i];
    const Segment& base = layout_.base_of(lane);
    const PlacedRows& out = layout_.outgoing(lane, layer);
    const PlacedRows& base_out = layout_.outgoing(base, layer);
    kernels::AttentionCall call = layout_.call(lane, layer);
    call.sink_logits = weights.sink_logits;
    call.out = at(buffers_.attention).slice(out.at - first_out, out.n_rows);
    const KvType type = SweepLayout::setting(lane, layer).kv;
    if (SweepLayout::has_own_keys(lane, layer)) {
      n_own_rows = lane.residual.end() - first.residual.at;
      n_own_scored = lane.scored.end() - first.scored.at;
      call.q = at(buffers_.group_q).slice(out.at - first_out, out.n_rows);
      call.prefix.kv = base_keys(base, type);
      call.own.kv = at(buffers_.group_kv).slice(lane.residual.at - first.residual.at, lane.residual.n_rows);
    } else {
      call.q = at(buffers_.base_q).slice(base_out.at + out.first_row - base_out.first_row, out.n_rows);
      call.own.kv = base_keys(base, type);
    }
    if (base.residual.first_row > 0) set_prefix(call, lane.request, type);
    add_attention(call, SweepLayout::setting(lane, layer), calls);
  }
  const LayerWindow& setting = SweepLayout::setting(first, layer);
  forward_.decoder.attention_input(weights, residual(first.residual.at, n_own_rows),
                                   residual_angles(weights, setting, first.residual.at), at(buffers_.group_kv),
                                   is_last(layer) ? kernels::Rows{} : at(buffers_.group_q).slice(0, n_own_rows));
  if (is_last(layer)) {
    forward_.decoder.attention_input(weights, scored(first.scored.at, n_own_scored),
                                     scored_angles(weights, setting, first.scored.at), {},
                                     at(buffers_.group_q).slice(0, n_own_scored));
  }
  round_lane_keys(begin, end, layer);
  ops_.attention(calls, config_.heads);
  forward_.decoder.finish(weights, at(buffers_.attention).slice(0, rows.n_rows), rows);
  restore_unrounded_rows(begin, end, layer);
}

void SweepPass::fetch_prefixes(int64_t layer) {
  for (std::size_t r = 0; r < requests_.size(); ++r) {
    if (requests_[r].prefix_rows == 0) continue;
    const kernels::KvSpan keys = requests_[r].prefix->layer(layer);
    prefix_keys_[r] = keys;
    if (!requests_[r].prefix->is_on_host()) continue;
    prefix_keys_[r] = at(buffers_.fetched[r]);
    ops_.copy_async(keys.bytes(), prefix_keys_[r].bytes());
  }
}

void SweepPass::run_layer(int64_t layer) {
  const model::LayerWeights& weights = weights_.layer(layer);
  fetch_prefixes(layer);
  base_keys_ = sink_ != nullptr ? sink_->place(layer) : at(buffers_.base_kv);
  fork_lanes(layer);
  if (is_last(layer)) gather_scored(layer);
  turn_bases(weights, layer);
  round_base_keys(layer);
  run_bases(weights, layer);
  const auto n_attending = static_cast<std::size_t>(layout_.n_attending(layer));
  for (std::size_t begin = bases().size(); begin < n_attending;) {
    const std::size_t end = layout_.group_end(layer, begin, n_attending);
    run_lanes(weights, layer, begin, end);
    begin = end;
  }
  run_removed(weights, layer, n_attending, static_cast<std::size_t>(layout_.n_active(layer)));
  if (sink_ != nullptr) sink_->done(layer);
}

// Segments [begin, end), which are born here without the attention of this layer: only its MLP is left to do, and rows
// before the first without attention are the base's.
void SweepPass::run_removed(const model::LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end) {
  if (begin == end) return;
  const Segment& first = layout_.segments[begin];
  forward_.decoder.finish(weights, {}, outgoing(first, layout_.segments[end - 1], layer));
  for (std::size_t i = begin; i < end; ++i) {
    const Segment& lane = layout_.segments[i];
    const Segment& base = layout_.base_of(lane);
    const PlacedRows& rows = layout_.outgoing(lane, layer);
    const int64_t n_of_base = std::min(lane.removed_row - rows.first_row, rows.n_rows);
    if (n_of_base <= 0) continue;
    const int64_t at = rows.first_row - layout_.outgoing(base, layer).first_row;
    ops_.copy_rows(outgoing(base, layer).slice(at, n_of_base), outgoing(lane, layer).slice(0, n_of_base));
  }
}

// The signals of the bases' layers that a variant of their request asks about.
void SweepPass::measure_signals_of(const model::LayerWeights& weights, int64_t layer) {
  for (const Segment& base : bases()) {
    const SweepRequest& request = requests_[base.request];
    if (!measures_layers(request.signals)) continue;
    const PlacedRows& out = layout_.outgoing(base, layer);
    for (std::size_t v = 0; v < request.variants.size(); ++v) {
      if (fork_layer_of(request.base, request.variants[v]) != layer) continue;
      const auto l = static_cast<std::size_t>(layer);
      const LayerState state{.ops = ops_,
                             .config = config_,
                             .weights = weights,
                             .window = narrower(request.base[l].window, request.variants[v][l].window),
                             .n_tokens = static_cast<int64_t>(request.tokens.size()),
                             .answer_start = request.answer_start,
                             .first_row = out.first_row,
                             .q = at(buffers_.base_q).slice(out.at, out.n_rows),
                             .attention = at(buffers_.attention).slice(out.at, out.n_rows),
                             .x = outgoing(base, layer),
                             .keys = {base_keys(base), base.residual.first_row},
                             .hidden = at(buffers_.hidden),
                             .results = signal_results_};
      for (SignalFinish& finish : measure_signals(state, request.signals)) {
        unfinished_signals_.push_back({base.request, v, std::move(finish)});
      }
    }
  }
}

void SweepPass::run_layers(const StopCheck& stop) {
  forward_.embed(at(buffers_.tokens), residual(0, layout_.base_rows));
  for (int64_t layer = 0; layer < config_.n_layers; ++layer) {
    run_layer(layer);
    if (stop && stop()) throw Interrupted{};
  }
}

std::vector<SweepResult> SweepPass::run(const StopCheck& stop) {
  run_layers(stop);
  const RowScores scores = score_rows();
  for (const UnfinishedSignal& signal : unfinished_signals_) signal.finish(signals_[signal.request][signal.variant]);
  return results_of(scores);
}

}  // namespace winnow::engine
