// The memory that an engine takes for keys and values: pure arithmetic, by the rule of each engine's own allocator.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/kv_type.h"

namespace winnow::serving {

// Keys and values of a model. A layer's keys and values of one token take 2 * n_kv_heads * kv_head_bytes() of
// base/kv_type.h, in the checkpoint's type 2 * n_kv_heads * head_dim * element_bytes.
struct KvShape {
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t element_bytes = 2;  // of the checkpoint's type; the engine's may be narrower
};

// What is to be served, and how the engine is set; the defaults are the engines' own.
struct KvDemand {
  int64_t max_seq_len = 0;  // tokens of each sequence
  int64_t concurrency = 1;  // sequences at a time
  // Tokens that one step adds to a sequence at most; 0: the engine's default.
  int64_t chunk = 0;
};

// What tells an engine's layers apart.
struct KvKind {
  int64_t window = 0;  // keys, 0: full attention
  KvType type = KvType::kStored;
  auto operator<=>(const KvKind&) const = default;
};
// Numbers of layers of different kinds, each kind once.
using KvLayers = std::vector<std::pair<KvKind, int64_t>>;

// An engine's allocation in whole units, so that sums over layers are exact; what it counts is kv_allocation()'s
// matter, which is the same in bytes. An engine that is none of serving::engines(), such as "ideal", keeps what each
// window sees.
class KvRule {
 public:
  KvRule() = default;
  KvRule(std::string_view engine, const KvShape& shape, const KvDemand& demand);

  // Whether the allocation is the sum of what each layer takes; else there are groups of layers, padded.
  bool is_sum() const;
  // Returns what a layer takes, or the least that it may take in a group, units; `widest` is the type of those of all
  // layers that takes the most.
  int64_t units(const KvKind& kind, KvType widest) const;
  // Returns what layers take together, units.
  int64_t units(const KvLayers& layers) const;
  // Returns the bytes of so many units, of all sequences.
  double bytes(int64_t units) const;
  // Returns the one of two types that takes more.
  KvType wider(KvType a, KvType b) const;

 private:
  std::string engine_;
  KvShape shape_;
  KvDemand demand_;
};

struct KvAllocation {
  double ideal_bytes = 0.0;      // each layer keeps min(window, max_seq_len) tokens of each sequence
  double allocated_bytes = 0.0;  // what the engine takes
  double full_bytes = 0.0;       // what it takes where all layers have full attention, in the checkpoint's type
};

// Returns the bytes for keys and values on an engine (Engine::name). `windows` (n_layers) has the keys that a layer
// sees, 0: all; `kv` (n_layers) the types in which layers keep them, or is empty. Whether the engine has such types is
// kv_obstacle()'s matter (results/serving/engines.h). Neither tensor parallelism nor what the engine gives to its
// prefix cache besides is counted.
KvAllocation kv_allocation(std::string_view engine, std::span<const int64_t> windows, const KvShape& shape,
                           const KvDemand& demand, std::span<const KvType> kv = {});

// Returns the least --swa-full-tokens-ratio of SGLang, in hundredths, with which windowed layers have room for their
// window and the chunk of a prompt that is being processed, at most 1.
double sglang_pool_ratio(int64_t window, int64_t max_seq_len, int64_t chunk = 0);

}  // namespace winnow::serving
