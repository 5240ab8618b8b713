// The rows that a sequence's cache keeps in each layer, their slots, and the moves of rows to and from them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "pipeline/engine/generation.h"

namespace winnow::engine {

// Rows of a sequence in one layer's cache.
struct CacheShape {
  int64_t n_sinks = 0;
  int64_t n_ring = 1;
  bool forgets = false;  // whether it has fewer slots than the sequence will have rows
  int64_t rows() const { return n_sinks + n_ring; }
};

// Returns what a layer keeps: all rows where one that is generated sees them all or where they fit into window and
// sinks anyway; else the sinks and the last rows of its window.
CacheShape cache_shape(const GenerationRequest& request, int64_t layer);
// Returns its slots: those rows, padded to whole tiles.
int64_t cache_slots(const kernels::Ops& ops, const GenerationRequest& request, int64_t layer);

// One layer's cache of a sequence: keys and values as the backend computes with them, or, of a layer with a type,
// packed.
struct LayerCache {
  CacheShape shape;
  kernels::KvSpan kv;
  kernels::PackedKv packed;  // where there is a type; `kv` is empty then

  bool is_packed() const { return static_cast<bool>(packed); }
  // Returns the cache as attention reads it; of one that is packed with `rows`, to which its slots are unpacked.
  kernels::KvCache over(const kernels::KvSpan& rows) const { return {rows, shape.n_sinks, shape.n_ring}; }
};

// Keys and values of one sequence in all layers: one piece of memory, freed with this.
class SequenceCache {
 public:
  SequenceCache(kernels::Ops& ops, const model::ModelConfig& config, const GenerationRequest& request);
  static int64_t predicted_bytes(const kernels::Ops& ops, const model::ModelConfig& config,
                                 const GenerationRequest& request);

  const LayerCache& layer(int64_t layer) const { return layers_[static_cast<std::size_t>(layer)]; }
  // Returns the bytes of its memory.
  int64_t kept_bytes() const { return memory_->size_bytes(); }

 private:
  std::vector<LayerCache> layers_;
  std::unique_ptr<kernels::Buffer> memory_;
};

// Moves of rows between the caches of one layer and rows as the backend computes with them: gathered, so that all
// sequences together are one operation, or one for each type.
class CacheMoves {
 public:
  // Adds rows [begin, end) of a sequence to be brought into their slots; no more rows than the ring has. The first row
  // of `from` is row first_row. A cache that is packed gets them as they are computed: what rounds twice is no
  // rounding.
  void store(const LayerCache& cache, int64_t begin, int64_t end, const kernels::KvSpan& from, int64_t first_row);
  // Adds them to be brought from their slots to `to`, whose first row is row first_row.
  void load(const LayerCache& cache, int64_t begin, int64_t end, const kernels::KvSpan& to, int64_t first_row);
  // Adds all slots of a packed cache, or the first n_slots, to be unpacked to those of the same numbers of `to`.
  void load_slots(const LayerCache& cache, int64_t n_slots, const kernels::KvSpan& to);
  // Makes them: first what is stored, then what is loaded.
  void run(kernels::Ops& ops, const model::ModelConfig& config, int64_t layer) const;

 private:
  std::vector<kernels::KvCopy> copies_;
  std::map<KvType, std::vector<kernels::KvPacking>> packed_, unpacked_;
};

}  // namespace winnow::engine
