#include "pipeline/engine/kv_cache.h"

#include <algorithm>

#include "kernels/tile.h"

namespace winnow::engine {

namespace {

KvType type_of(const GenerationRequest& request, int64_t layer) {
  return request.windows[static_cast<std::size_t>(layer)].kv;
}

int64_t layer_bytes(const kernels::Ops& ops, const model::ModelConfig& config, const GenerationRequest& request,
                    int64_t layer) {
  const KvType type = type_of(request, layer);
  const int64_t n_slots = cache_slots(ops, request, layer);
  return type == KvType::kStored ? ops.device().kv_bytes(n_slots, config.heads)
                                 : kernels::packed_kv_bytes(type, n_slots, config.heads);
}

// Calls body(row, slot, n) for ranges of rows that lie one after another in the cache too.
template <typename Body>
void for_ranges(const LayerCache& cache, int64_t begin, int64_t end, Body body) {
  const kernels::KvCache slots = cache.over({});
  while (begin < end) {
    const int64_t slot = slots.slot(begin);
    const int64_t border = begin < slots.n_sinks ? slots.n_sinks : slots.n_sinks + slots.n_ring;
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

int64_t cache_slots(const kernels::Ops& ops, const GenerationRequest& request, int64_t layer) {
  return kernels::round_up(cache_shape(request, layer).rows(), ops.device().row_tile());
}

SequenceCache::SequenceCache(kernels::Ops& ops, const model::ModelConfig& config, const GenerationRequest& request) {
  memory_ = ops.device().allocate(predicted_bytes(ops, config, request), "a sequence's keys and values");
  std::span<std::byte> rest = memory_->bytes();
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const auto size = static_cast<std::size_t>(layer_bytes(ops, config, request, layer));
    const KvType type = type_of(request, layer);
    LayerCache cache{.shape = cache_shape(request, layer), .kv = {}, .packed = {}};
    if (type == KvType::kStored) {
      cache.kv = ops.device().kv_span(rest.first(size), config.heads);
    } else {
      cache.packed = kernels::packed_kv(rest.first(size), type, cache_slots(ops, request, layer), config.heads);
    }
    layers_.push_back(cache);
    rest = rest.subspan(size);
  }
}

int64_t SequenceCache::predicted_bytes(const kernels::Ops& ops, const model::ModelConfig& config,
                                       const GenerationRequest& request) {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) bytes += layer_bytes(ops, config, request, layer);
  return bytes;
}

void CacheMoves::store(const LayerCache& cache, int64_t begin, int64_t end, const kernels::KvSpan& from,
                       int64_t first_row) {
  for_ranges(cache, begin, end, [&](int64_t row, int64_t slot, int64_t n) {
    if (cache.is_packed()) {
      packed_[cache.packed.type].push_back({from, row - first_row, cache.packed, slot, n});
    } else {
      copies_.push_back({from, row - first_row, cache.kv, slot, n});
    }
  });
}

void CacheMoves::load(const LayerCache& cache, int64_t begin, int64_t end, const kernels::KvSpan& to,
                      int64_t first_row) {
  for_ranges(cache, begin, end, [&](int64_t row, int64_t slot, int64_t n) {
    if (cache.is_packed()) {
      unpacked_[cache.packed.type].push_back({to, row - first_row, cache.packed, slot, n});
    } else {
      copies_.push_back({cache.kv, slot, to, row - first_row, n});
    }
  });
}

void CacheMoves::load_slots(const LayerCache& cache, int64_t n_slots, const kernels::KvSpan& to) {
  unpacked_[cache.packed.type].push_back({to, 0, cache.packed, 0, std::min(n_slots, cache.packed.n_rows)});
}

void CacheMoves::run(kernels::Ops& ops, const model::ModelConfig& config, int64_t layer) const {
  if (!copies_.empty()) ops.copy_kv(copies_, config.heads);
  for (const auto& [type, rows] : packed_) ops.pack_kv(rows, config.kv_rounding(type, layer), config.heads);
  for (const auto& [type, rows] : unpacked_) ops.unpack_kv(rows, config.kv_rounding(type, layer), config.heads);
}

}  // namespace winnow::engine
