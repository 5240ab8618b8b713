#include "pipeline/engine/kv_cache.h"

#include <algorithm>

#include "kernels/tile.h"

namespace winnow::engine {

namespace {

int64_t padded_rows(const kernels::Ops& ops, const CacheShape& shape) {
  return kernels::round_up(shape.rows(), ops.device().row_tile());
}

// Calls body(row, slot, n) for ranges of rows that lie one after another in the cache too.
template <typename Body>
void for_ranges(const kernels::KvCache& cache, int64_t begin, int64_t end, Body body) {
  while (begin < end) {
    const int64_t slot = cache.slot(begin);
    const int64_t border = begin < cache.n_sinks ? cache.n_sinks : cache.n_sinks + cache.n_ring;
    const int64_t n = std::min(end - begin, border - slot);
    body(begin, slot, n);
    begin += n;
  }
}

}  // namespace

CacheShape cache_shape(const GenerationRequest& request, int64_t layer) {
  const auto n_prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t n_rows = n_prompt + request.max_new_tokens - 1;  // the last token is not read again
  const kernels::Window& window = request.windows[static_cast<std::size_t>(layer)].window;
  const bool all_obey =
      kernels::is_windowed(window, n_prompt) && kernels::is_windowed(window, std::max(n_prompt, n_rows - 1));
  if (!all_obey || window.keys >= n_rows - window.sinks) return {0, n_rows, false};
  return {window.sinks, window.keys, true};
}

SequenceCache::SequenceCache(kernels::Ops& ops, const model::ModelConfig& config, const GenerationRequest& request) {
  memory_ = ops.device().allocate(predicted_bytes(ops, config, request), "a sequence's keys and values");
  kernels::KvSpan rest = ops.device().kv_span(memory_->bytes(), config.heads);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const CacheShape shape = cache_shape(request, layer);
    const int64_t n_rows = padded_rows(ops, shape);
    const KvType type = request.windows[static_cast<std::size_t>(layer)].kv;
    const int64_t kept = type == KvType::kStored
                             ? ops.device().kv_bytes(n_rows, config.heads)
                             : 2 * n_rows * config.heads.n_kv_heads * kv_head_bytes(type, config.heads.head_dim, 0);
    layers_.push_back({shape, rest.slice(0, n_rows), kept});
    rest = rest.from(n_rows);
  }
}

int64_t SequenceCache::predicted_bytes(const kernels::Ops& ops, const model::ModelConfig& config,
                                       const GenerationRequest& request) {
  int64_t n_rows = 0;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) n_rows += padded_rows(ops, cache_shape(request, layer));
  return ops.device().kv_bytes(n_rows, config.heads);
}

int64_t SequenceCache::kept_bytes() const {
  int64_t bytes = 0;
  for (const Layer& layer : layers_) bytes += layer.kept_bytes;
  return bytes;
}

kernels::KvCache SequenceCache::layer(int64_t layer) const {
  const Layer& l = layers_[static_cast<std::size_t>(layer)];
  return {l.kv, l.shape.n_sinks, l.shape.n_ring};
}

void store_rows(const kernels::KvCache& cache, int64_t begin, int64_t end, const kernels::KvRows& from,
                std::vector<kernels::KvCopy>& copies) {
  for_ranges(cache, begin, end, [&](int64_t row, int64_t slot, int64_t n) {
    copies.push_back({from.kv, row - from.first_row, cache.kv, slot, n});
  });
}

void load_rows(const kernels::KvCache& cache, int64_t begin, int64_t end, const kernels::KvRows& to,
               std::vector<kernels::KvCopy>& copies) {
  for_ranges(cache, begin, end, [&](int64_t row, int64_t slot, int64_t n) {
    copies.push_back({cache.kv, slot, to.kv, row - to.first_row, n});
  });
}

}  // namespace winnow::engine
