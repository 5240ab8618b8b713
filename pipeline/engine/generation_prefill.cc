#include "pipeline/engine/generation_prefill.h"

#include <algorithm>

#include "kernels/tile.h"

namespace winnow::engine {

using kernels::round_down;
using kernels::round_up;

namespace {

int64_t padded_rows(const GenerationRequest& request, int64_t tile) {
  return round_up(static_cast<int64_t>(request.prompt.size()), tile);
}

const kernels::Window& window_of(const GenerationRequest& request, int64_t layer) {
  return request.windows[static_cast<std::size_t>(layer)].window;
}

// Whether the prompt has rows that see everything although new tokens do not.
bool sees_all_at_first(const kernels::Window& window) { return !kernels::is_windowed(window, 0); }

// Whether keys are computed in the layer's cache itself, which has room for all of them.
bool is_in_place(const CacheShape& shape, bool is_packed) { return !shape.forgets && !is_packed; }

// Whether the keys of all the prompt's rows are there for a chunk: in the cache, or beside one that is packed or has
// room for fewer.
bool holds_all(const CacheShape& shape, const kernels::Window& window) {
  return !shape.forgets || sees_all_at_first(window);
}

// Rows of keys that are not in the layer's cache while a chunk is computed.
int64_t outside_rows(const kernels::Ops& ops, const GenerationRequest& request, int64_t layer) {
  const CacheShape shape = cache_shape(request, layer);
  if (is_in_place(shape, request.windows[static_cast<std::size_t>(layer)].has_rounded_keys())) return 0;
  const int64_t tile = ops.device().row_tile();
  const int64_t whole = padded_rows(request, tile);
  const kernels::Window& window = window_of(request, layer);
  if (holds_all(shape, window)) return whole;
  const int64_t chunk = round_up(window.sinks, tile) + round_up(window.keys, tile) + tile + ops.device().chunk_rows();
  return std::min(whole, chunk);
}

int64_t total_rows(std::span<const GenerationRequest> requests, int64_t tile) {
  int64_t n_rows = 0;
  for (const GenerationRequest& request : requests) n_rows += padded_rows(request, tile);
  return n_rows;
}

int64_t largest_chunk(const kernels::Ops& ops, std::span<const GenerationRequest> requests) {
  int64_t longest = 0;
  for (const GenerationRequest& request : requests) {
    longest = std::max(longest, padded_rows(request, ops.device().row_tile()));
  }
  return std::min(longest, ops.device().chunk_rows());
}

int64_t most_outside_rows(const kernels::Ops& ops, std::span<const GenerationRequest> requests) {
  int64_t outside = 0;
  for (const GenerationRequest& request : requests) {
    for (int64_t layer = 0; layer < static_cast<int64_t>(request.windows.size()); ++layer) {
      outside = std::max(outside, outside_rows(ops, request, layer));
    }
  }
  return outside;
}

}  // namespace

PrefillBuffers::PrefillBuffers(const kernels::Ops& ops, const model::ModelConfig& config,
                               std::span<const GenerationRequest> requests)
    : list(ops, config),
      tokens(list.integers(total_rows(requests, ops.device().row_tile()), "the prompts' tokens")),
      positions(list.integers(total_rows(requests, ops.device().row_tile()), "the prompts' positions")),
      stack(list.residual(total_rows(requests, ops.device().row_tile()), "the prompts' rows")),
      q(list.queries(largest_chunk(ops, requests), "a chunk's queries")),
      attention(list.queries(largest_chunk(ops, requests), "attention's output")),
      keys(list.keys(most_outside_rows(ops, requests), "a chunk's keys and values")) {}

std::vector<std::pair<std::size_t, std::size_t>> Prefill::groups(const kernels::Ops& ops,
                                                                 std::span<const GenerationRequest> requests) {
  std::vector<std::pair<std::size_t, std::size_t>> groups;
  int64_t n_rows = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const int64_t padded = padded_rows(requests[i], ops.device().row_tile());
    if (groups.empty() || n_rows + padded > ops.device().stack_rows()) {
      groups.emplace_back(i, i);
      n_rows = 0;
    }
    n_rows += padded;
    groups.back().second = i + 1;
  }
  return groups;
}

int64_t Prefill::predicted_bytes(const kernels::Ops& ops, const model::ModelConfig& config,
                                 std::span<const GenerationRequest> requests) {
  int64_t most = 0;
  for (const auto& [begin, end] : groups(ops, requests)) {
    most = std::max(most, PrefillBuffers(ops, config, requests.subspan(begin, end - begin)).list.size_bytes());
  }
  return most;
}

Prefill::Prefill(Forward& forward, std::span<const GenerationRequest> requests,
                 std::span<const SequenceCache* const> caches)
    : forward_(forward), buffers_(forward.ops, forward.config, requests) {
  kernels::Ops& ops = forward.ops;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Prompt prompt{&requests[i], caches[i], static_cast<int64_t>(requests[i].prompt.size()),
                  padded_rows(requests[i], ops.device().row_tile()), stack_rows_};
    stack_rows_ += prompt.padded_rows;
    prompts_.push_back(prompt);
  }
  buffers_.list.allocate(ops);
  make_tables();
}

void Prefill::make_tables() {
  std::vector<int32_t> tokens(static_cast<std::size_t>(stack_rows_), -1);
  std::vector<int32_t> positions;
  for (const Prompt& prompt : prompts_) {
    std::copy(prompt.request->prompt.begin(), prompt.request->prompt.end(), tokens.begin() + prompt.at);
    const int64_t length = prompt.request->sequence_length();
    for (int64_t row = 0; row < prompt.padded_rows; ++row) positions.push_back(forward_.rotary.place(length, row));
  }
  buffers_.list.upload(forward_.ops, buffers_.tokens, tokens);
  buffers_.list.upload(forward_.ops, buffers_.positions, positions);
}

kernels::ConstRows Prefill::last_row(std::size_t prompt) const {
  return at(buffers_.stack).slice(prompts_[prompt].at + prompts_[prompt].n_rows - 1, 1);
}

void Prefill::run(const StopCheck& stop) {
  forward_.embed(at(buffers_.tokens), at(buffers_.stack));
  for (int64_t layer = 0; layer < forward_.config.n_layers; ++layer) {
    const model::LayerWeights& weights = forward_.weights.layer(layer);
    for (const Prompt& prompt : prompts_) {
      run_prompt(prompt, layer, weights);
      if (stop && stop()) throw Interrupted{};
    }
  }
}

void Prefill::run_prompt(const Prompt& prompt, int64_t layer, const model::LayerWeights& weights) {
  for (int64_t row = 0; row < prompt.padded_rows; row += forward_.ops.device().chunk_rows()) {
    const Chunk chunk = place_chunk(prompt, layer, row);
    run_chunk(prompt, chunk, layer, weights);
  }
}

// Decides where the keys of a chunk and of the rows before go, and brings those there that the chunk sees.
Prefill::Chunk Prefill::place_chunk(const Prompt& prompt, int64_t layer, int64_t first_row) {
  const kernels::Ops& ops = forward_.ops;
  const kernels::Window& window = window_of(*prompt.request, layer);
  const LayerCache& cache = prompt.cache->layer(layer);
  Chunk chunk{first_row, std::min(first_row + ops.device().chunk_rows(), prompt.padded_rows), {}, {}};
  if (holds_all(cache.shape, window)) {
    const kernels::KvSpan keys = is_in_place(cache.shape, cache.is_packed()) ? cache.kv : at(buffers_.keys);
    chunk.own = {keys.slice(0, chunk.end_row), 0};
    return chunk;
  }
  const int64_t sink_rows = round_up(window.sinks, ops.device().row_tile());
  int64_t first_seen = round_down(kernels::window_start(window, first_row), ops.device().row_tile());
  if (first_seen <= sink_rows) {
    first_seen = 0;
  } else {
    chunk.prefix = {at(buffers_.keys).slice(0, sink_rows), 0};
  }
  chunk.own = {at(buffers_.keys).slice(chunk.prefix.n_rows(), chunk.end_row - first_seen), first_seen};
  load_seen(prompt, chunk, layer);
  return chunk;
}

void Prefill::load_seen(const Prompt& prompt, const Chunk& chunk, int64_t layer) {
  const kernels::Window& window = window_of(*prompt.request, layer);
  const LayerCache& cache = prompt.cache->layer(layer);
  const int64_t end = chunk.first_row;
  const kernels::KvRows& of_sinks = chunk.own.first_row > 0 ? chunk.prefix : chunk.own;
  CacheMoves moves;
  moves.load(cache, 0, std::min(window.sinks, end), of_sinks.kv, of_sinks.first_row);
  moves.load(cache, std::max(window.sinks, kernels::window_start(window, end)), end, chunk.own.kv, chunk.own.first_row);
  moves.run(forward_.ops, forward_.config, layer);
}

void Prefill::run_chunk(const Prompt& prompt, const Chunk& chunk, int64_t layer, const model::LayerWeights& weights) {
  kernels::Ops& ops = forward_.ops;
  const model::ModelConfig& config = forward_.config;
  const LayerWindow& setting = prompt.request->windows[static_cast<std::size_t>(layer)];
  const model::LayerAngles angles =
      forward_.rotary.angles(at(buffers_.positions), rope_of(setting, weights)).from(prompt.at);
  const kernels::KvSpan kv = chunk.own.kv.from(chunk.first_row - chunk.own.first_row);
  const bool is_last = layer == config.n_layers - 1;
  // Those of the rows that leave the layer.
  int64_t first_row = chunk.first_row;
  const auto residual = [&] { return at(buffers_.stack).slice(prompt.at + first_row, chunk.end_row - first_row); };
  const auto of_chunk = [&](PassBuffers::RowsId buffer) { return at(buffer).slice(0, chunk.end_row - first_row); };
  forward_.decoder.attention_input(weights, residual(), angles.from(first_row), kv,
                                   is_last ? kernels::Rows{} : of_chunk(buffers_.q));
  // A packed cache gets what was computed, and rounds it as it is rounded here.
  keep(prompt, chunk, layer);
  if (setting.has_rounded_keys()) {
    const kernels::KvCopy in_place{kv, 0, kv, 0, chunk.end_row - chunk.first_row};
    ops.round_kv(std::span(&in_place, 1), config.kv_rounding(setting.kv, layer), config.heads);
  }
  if (is_last) {
    // Behind the last layer one row is wanted.
    if (chunk.end_row < prompt.padded_rows) return;
    first_row = prompt.last_tile(ops.device().row_tile());
    forward_.decoder.attention_input(weights, residual(), angles.from(first_row), {}, of_chunk(buffers_.q));
  }
  kernels::AttentionCall call;
  call.q = of_chunk(buffers_.q);
  call.out = of_chunk(buffers_.attention);
  call.first_row = first_row;
  call.n_tokens = prompt.n_rows;
  call.prefix = chunk.prefix;
  call.own = chunk.own;
  call.window = setting.window;
  call.sink_logits = weights.sink_logits;
  ops.attention(std::span(&call, 1), config.heads);
  forward_.decoder.finish(weights, call.out, residual());
}

// Brings the rows of a chunk that will be seen again into a cache that is packed or keeps some only.
void Prefill::keep(const Prompt& prompt, const Chunk& chunk, int64_t layer) {
  const LayerCache& cache = prompt.cache->layer(layer);
  const CacheShape& shape = cache.shape;
  if (is_in_place(shape, cache.is_packed())) return;
  // Where the chunk's keys lie, as they were computed, behind those of all rows before, once at the end is enough.
  const bool is_whole = !cache.is_packed() && sees_all_at_first(window_of(*prompt.request, layer));
  if (is_whole && chunk.end_row < prompt.padded_rows) return;
  const int64_t first_row = is_whole ? 0 : chunk.first_row;
  const int64_t end_row = std::min(chunk.end_row, prompt.n_rows);
  CacheMoves moves;
  moves.store(cache, first_row, std::min(shape.n_sinks, end_row), chunk.own.kv, chunk.own.first_row);
  moves.store(cache, std::max({first_row, shape.n_sinks, end_row - shape.n_ring}), end_row, chunk.own.kv,
              chunk.own.first_row);
  moves.run(forward_.ops, forward_.config, layer);
}

}  // namespace winnow::engine
