// The rows that a sequence's cache keeps in each layer, and their slots.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
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

// Keys and values of one sequence in all layers: one piece of memory, freed with this.
class SequenceCache {
 public:
  SequenceCache(kernels::Ops& ops, const model::ModelConfig& config, const GenerationRequest& request);
  static int64_t predicted_bytes(const kernels::Ops& ops, const model::ModelConfig& config,
                                 const GenerationRequest& request);

  const CacheShape& shape(int64_t layer) const { return layers_[static_cast<std::size_t>(layer)].shape; }
  kernels::KvCache layer(int64_t layer) const;
  // Returns the bytes of its memory; of a layer with a type of keys and values those that its slots take in that type
  // with their scales, in place of what they give back, which this holds.
  int64_t kept_bytes() const;

 private:
  struct Layer {
    CacheShape shape;
    kernels::KvSpan kv;
    int64_t kept_bytes = 0;
  };
  std::vector<Layer> layers_;
  std::unique_ptr<kernels::Buffer> memory_;
};

// Appends the copies that bring rows [begin, end) of a sequence, which `from` holds, into their slots; no more rows
// than the ring has.
void store_rows(const kernels::KvCache& cache, int64_t begin, int64_t end, const kernels::KvRows& from,
                std::vector<kernels::KvCopy>& copies);
// Appends the copies that bring them from their slots to `to`.
void load_rows(const kernels::KvCache& cache, int64_t begin, int64_t end, const kernels::KvRows& to,
               std::vector<kernels::KvCopy>& copies);

}  // namespace winnow::engine
