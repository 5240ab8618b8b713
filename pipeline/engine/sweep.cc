#include "pipeline/engine/sweep.h"

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "pipeline/engine/cached_prefix.h"
#include "pipeline/engine/sweep_pass.h"

namespace winnow::engine {

namespace {

// Bytes of every buffer of a sweep, in the order in which they are taken.
struct BufferSizes {
  int64_t rope, positions, tokens, stack, scored, final, reference, base_q, base_kv, group_q, group_kv, attention,
      hidden;
  BufferSizes(const kernels::Backend& backend, const model::ModelConfig& config, const SweepLayout& layout) {
    const kernels::HeadShape& heads = config.heads;
    const int64_t residual_row = config.hidden * kernels::size_bytes(backend.residual_dtype());
    const int64_t element = kernels::size_bytes(backend.activation_dtype());
    const int64_t query_row = heads.q_dim() * element;
    rope = layout.longest_rows * heads.head_dim * static_cast<int64_t>(sizeof(float));
    positions = (layout.stack_rows + layout.scored_rows) * static_cast<int64_t>(sizeof(int32_t));
    tokens = layout.base_rows * static_cast<int64_t>(sizeof(int32_t));
    stack = layout.stack_rows * residual_row;
    scored = layout.scored_rows * residual_row;
    final = std::min(layout.scored_rows, backend.chunk_rows()) * config.hidden * element;
    reference = layout.with_kl ? layout.base_scored_rows * config.hidden * element : 0;
    base_q = layout.base_rows * query_row;
    base_kv = backend.kv_bytes(layout.base_rows, heads);
    group_q = layout.group_rows * query_row;
    group_kv = backend.kv_bytes(layout.group_rows, heads);
    attention = std::max(layout.base_rows, layout.group_rows) * query_row;
    hidden = layout.with_hidden ? backend.chunk_rows() * residual_row : 0;
  }
  int64_t total() const {
    return rope + positions + tokens + stack + scored + final + reference + base_q + base_kv + group_q + group_kv +
           attention + hidden;
  }
};

}  // namespace

int64_t SweepPass::predicted_bytes(const kernels::Backend& backend, const model::ModelConfig& config,
                                   const SweepLayout& layout) {
  return BufferSizes(backend, config, layout).total() + model::DecoderLayer::workspace_bytes(backend, config) +
         backend.workspace_bytes(std::max(layout.longest_rows, layout.group_rows), config.hidden, config.vocab,
                                 config.heads);
}

SweepPass::SweepPass(kernels::Backend& backend, const model::ModelConfig& config, model::ModelWeights& weights,
                     std::span<const SweepRequest> requests)
    : backend_(backend),
      config_(config),
      weights_(weights),
      requests_(requests),
      layout_(config, requests, backend),
      decoder_(backend, config) {
  const BufferSizes sizes(backend, config, layout_);
  make_tables();
  stack_ = backend.allocate(sizes.stack, "the residual lanes");
  scored_ = backend.allocate(sizes.scored, "the answer rows");
  final_ = backend.allocate(sizes.final, "the final rows");
  reference_ = backend.allocate(sizes.reference, "the base's final rows");
  base_q_ = backend.allocate(sizes.base_q, "the base's queries");
  base_kv_ = backend.allocate(sizes.base_kv, "the base's keys and values");
  group_q_ = backend.allocate(sizes.group_q, "the lanes' queries");
  group_kv_ = backend.allocate(sizes.group_kv, "the lanes' keys and values");
  attention_ = backend.allocate(sizes.attention, "attention's output");
  hidden_ = backend.allocate(sizes.hidden, "hidden states of the signals");
  if (sizes.hidden > 0) hidden_on_host_ = backend.allocate_host(2 * sizes.hidden, "hidden states of the signals");
  signals_.assign(requests.size(), std::vector<SignalValues>(static_cast<std::size_t>(config.n_layers)));
  prefix_keys_.assign(requests.size(), nullptr);
  fetched_.resize(requests.size());
  for (std::size_t r = 0; r < requests.size(); ++r) {
    if (requests[r].prefix_rows == 0) continue;
    if (requests[r].prefix == nullptr || requests[r].prefix->n_rows() != requests[r].prefix_rows) {
      fail(ExitCode::kInternal, "sweep: the prefix is not there");
    }
    if (!requests[r].prefix->is_on_host()) continue;
    fetched_[r] = backend.allocate(requests[r].prefix->layer_bytes(), "a layer of cached keys");
  }
}

// What the rows are, for the operations that ask for it: tokens, positions and the angles of all positions.
void SweepPass::make_tables() {
  const int64_t n_positions = layout_.longest_rows;
  const std::span<const float> angles = weights_.rotary_table(n_positions);
  const kernels::HostTensor table{reinterpret_cast<const std::byte*>(angles.data()),
                                  kernels::DType::kF32,
                                  {n_positions, config_.heads.head_dim},
                                  "rotary table"};
  rope_memory_ = backend_.allocate(table.count() * static_cast<int64_t>(sizeof(float)), "the rotary table");
  angles_.cos_sin = backend_.load(table, kernels::WeightUse::kTable, rope_memory_->data());

  std::vector<int32_t> positions;
  const auto add_positions = [&](const Rows& rows) {
    for (int64_t r = 0; r < rows.n_rows; ++r) positions.push_back(static_cast<int32_t>(rows.first_row + r));
  };
  for (const Segment& segment : layout_.segments) add_positions(segment.residual);
  for (const Segment& segment : layout_.segments) add_positions(segment.scored);
  positions_ = backend_.upload(positions, "the rows' positions");
  angles_.positions = static_cast<const int32_t*>(positions_->data());

  std::vector<int32_t> tokens(static_cast<std::size_t>(layout_.base_rows), -1);
  for (const Segment& base : bases()) {
    const auto own = requests_[base.request]
                         .tokens.first(static_cast<std::size_t>(base.n_tokens))
                         .subspan(static_cast<std::size_t>(base.residual.first_row));
    std::copy(own.begin(), own.end(), tokens.begin() + base.residual.at);
  }
  tokens_ = backend_.upload(tokens, "token ids");
}

// The rows that leave the last layer start from the residual rows that enter it: the base's for a lane born there.
void SweepPass::gather_scored(int64_t layer) {
  for (const Segment& segment : layout_.segments) {
    const Segment& source = SweepLayout::has_own_keys(segment, layer) ? segment : layout_.base_of(segment);
    const Rows& from = source.residual;
    const Rows& to = segment.scored;
    backend_.copy(residual(from.at + to.first_row - from.first_row), scored(to.at), to.n_rows, config_.hidden);
  }
}

void SweepPass::give_birth(int64_t layer) {
  for (const Segment& segment : layout_.segments) {
    if (segment.birth != layer) continue;
    const Rows& base = layout_.base_of(segment).residual;
    const Rows& rows = segment.residual;
    backend_.copy(residual(base.at + rows.first_row - base.first_row), residual(rows.at), rows.n_rows, config_.hidden);
  }
}

void SweepPass::run_bases(const model::LayerWeights& weights, int64_t layer) {
  std::vector<kernels::AttentionCall> calls;
  int64_t n_rows = 0;
  for (const Segment& base : bases()) {
    const Rows& out = layout_.outgoing(base, layer);
    kernels::AttentionCall call = layout_.call(base, layer, requests_[base.request]);
    call.q = queries(base_q_, out.at);
    call.out = queries(attention_, out.at);
    call.own.data = keys(base_kv_, base.residual.at);
    set_prefix(call, base.request);
    calls.push_back(call);
    n_rows = out.end();
  }
  backend_.attention(calls, config_.heads);
  measure_signals_of(weights, layer);
  decoder_.finish(weights, attention_->data(), outgoing(layout_.segments.front(), layer), n_rows);
}

// Segments [begin, end) of the lanes through one layer, together.
void SweepPass::run_lanes(const model::LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end) {
  const Segment& first = layout_.segments[begin];
  const int64_t first_out = layout_.outgoing(first, layer).at;
  std::vector<kernels::AttentionCall> calls;
  int64_t n_own_rows = 0;
  int64_t n_own_scored = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const Segment& lane = layout_.segments[i];
    const Segment& base = layout_.base_of(lane);
    const Rows& out = layout_.outgoing(lane, layer);
    const Rows& base_out = layout_.outgoing(base, layer);
    kernels::AttentionCall call = layout_.call(lane, layer, requests_[lane.request]);
    call.out = queries(attention_, out.at - first_out);
    if (SweepLayout::has_own_keys(lane, layer)) {
      n_own_rows = lane.residual.end() - first.residual.at;
      n_own_scored = lane.scored.end() - first.scored.at;
      call.q = queries(group_q_, out.at - first_out);
      call.prefix.data = keys(base_kv_, base.residual.at);
      call.own.data = keys(group_kv_, lane.residual.at - first.residual.at);
    } else {
      call.q = queries(base_q_, base_out.at + out.first_row - base_out.first_row);
      call.own.data = keys(base_kv_, base.residual.at);
    }
    if (base.residual.first_row > 0) set_prefix(call, lane.request);
    calls.push_back(call);
  }
  decoder_.attention_input(weights, residual(first.residual.at), residual_angles(first.residual.at), n_own_rows,
                           group_kv_->data(), is_last(layer) ? nullptr : group_q_->data());
  if (is_last(layer)) {
    decoder_.attention_input(weights, scored(first.scored.at), scored_angles(first.scored.at), n_own_scored, nullptr,
                             group_q_->data());
  }
  backend_.attention(calls, config_.heads);
  decoder_.finish(weights, attention_->data(), outgoing(first, layer),
                  layout_.outgoing(layout_.segments[end - 1], layer).end() - first_out);
}

// As many lanes from `begin` on as the buffers of a group hold.
std::size_t SweepPass::group_end(std::size_t begin, std::size_t n_alive) const {
  const int64_t limit = layout_.segments[begin].residual.at + layout_.group_rows;
  std::size_t end = begin + 1;
  while (end < n_alive && layout_.segments[end].residual.end() <= limit) ++end;
  return end;
}

void SweepPass::fetch_prefixes(int64_t layer) {
  for (std::size_t r = 0; r < requests_.size(); ++r) {
    if (requests_[r].prefix_rows == 0) continue;
    void* keys = requests_[r].prefix->layer(layer);
    if (fetched_[r]) backend_.transfer(keys, fetched_[r]->data(), fetched_[r]->size_bytes());
    prefix_keys_[r] = fetched_[r] ? fetched_[r]->data() : keys;
  }
}

void SweepPass::run_layer(int64_t layer) {
  const model::LayerWeights& weights = weights_.layer(layer);
  fetch_prefixes(layer);
  decoder_.attention_input(weights, residual(0), residual_angles(0), layout_.base_rows, base_kv_->data(),
                           is_last(layer) ? nullptr : base_q_->data());
  if (is_last(layer)) {
    gather_scored(layer);
    decoder_.attention_input(weights, scored(0), scored_angles(0), bases().back().scored.end(), nullptr,
                             base_q_->data());
  } else {
    give_birth(layer);
  }
  run_bases(weights, layer);
  const auto n_attending = static_cast<std::size_t>(layout_.n_attending(layer));
  for (std::size_t begin = bases().size(); begin < n_attending;) {
    const std::size_t end = group_end(begin, n_attending);
    run_lanes(weights, layer, begin, end);
    begin = end;
  }
  run_removed(weights, layer, n_attending, static_cast<std::size_t>(layout_.n_alive(layer)));
}

// Segments [begin, end), which are born here without the attention of this layer: only its MLP is left to do, and rows
// before the first without attention are the base's.
void SweepPass::run_removed(const model::LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end) {
  if (begin == end) return;
  const Segment& first = layout_.segments[begin];
  const int64_t n_rows = layout_.outgoing(layout_.segments[end - 1], layer).end() - layout_.outgoing(first, layer).at;
  decoder_.finish(weights, nullptr, outgoing(first, layer), n_rows);
  for (std::size_t i = begin; i < end; ++i) {
    const Segment& lane = layout_.segments[i];
    const Segment& base = layout_.base_of(lane);
    const Rows& rows = layout_.outgoing(lane, layer);
    const int64_t n_of_base = std::min(lane.removed_row - rows.first_row, rows.n_rows);
    if (n_of_base <= 0) continue;
    const int64_t at = rows.first_row - layout_.outgoing(base, layer).first_row;
    void* from = model::row_pointer(outgoing(base, layer), backend_.residual_dtype(), at, config_.hidden);
    backend_.copy(from, outgoing(lane, layer), n_of_base, config_.hidden);
  }
}

HiddenRows SweepPass::hidden_rows() const {
  if (!hidden_on_host_) return {};
  auto* host = static_cast<std::byte*>(hidden_on_host_->data());
  return {
      .n_rows = backend_.chunk_rows(), .rows = hidden_->data(), .before = host, .after = host + hidden_->size_bytes()};
}

// The signals of the bases' layers that a variant of their request asks about.
void SweepPass::measure_signals_of(const model::LayerWeights& weights, int64_t layer) {
  for (const Segment& base : bases()) {
    const SweepRequest& request = requests_[base.request];
    const auto asks = [&](const Pattern& variant) { return birth_layer(request.base, variant) == layer; };
    if (!measures_layers(request.signals)) continue;
    if (std::none_of(request.variants.begin(), request.variants.end(), asks)) continue;
    const Rows& out = layout_.outgoing(base, layer);
    const LayerState state{.backend = backend_,
                           .config = config_,
                           .weights = weights,
                           .window = request.window,
                           .n_tokens = static_cast<int64_t>(request.tokens.size()),
                           .answer_start = request.answer_start,
                           .first_row = out.first_row,
                           .q = queries(base_q_, out.at),
                           .attention = queries(attention_, out.at),
                           .x = outgoing(base, layer),
                           .keys = {keys(base_kv_, base.residual.at), base.residual.first_row, base.residual.n_rows},
                           .hidden = hidden_rows()};
    measure_signals(state, request.signals, signals_[base.request][static_cast<std::size_t>(layer)]);
  }
}

std::vector<SweepResult> SweepPass::run(const StopCheck& stop) {
  backend_.embed(weights_.embedding(), static_cast<const int32_t*>(tokens_->data()), stack_->data(), layout_.base_rows);
  for (int64_t layer = 0; layer < config_.n_layers; ++layer) {
    run_layer(layer);
    if (stop && stop()) throw Interrupted{};
  }
  const RowScores scores = score_rows();
  return results_of(scores);
}

int64_t predict_sweep_bytes(const model::ModelConfig& config, const kernels::Backend& backend,
                            std::span<const SweepRequest> requests) {
  int64_t fetched = 0;
  for (const SweepRequest& request : requests) {
    if (request.prefix != nullptr && request.prefix->is_on_host()) fetched += request.prefix->layer_bytes();
  }
  return SweepPass::predicted_bytes(backend, config, SweepLayout(config, requests, backend)) + fetched;
}

std::vector<SweepResult> sweep(kernels::Backend& backend, const model::ModelConfig& config,
                               model::ModelWeights& weights, std::span<const SweepRequest> requests,
                               const StopCheck& stop) {
  return SweepPass(backend, config, weights, requests).run(stop);
}

SweepResult sweep(kernels::Backend& backend, const model::ModelConfig& config, model::ModelWeights& weights,
                  const SweepRequest& request, const StopCheck& stop) {
  SweepResult result = std::move(sweep(backend, config, weights, std::span(&request, 1), stop).front());
  check_finite(request, result);
  return result;
}

}  // namespace winnow::engine
