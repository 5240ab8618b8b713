// Costs of a pattern when it is served: pure arithmetic on the model's shape.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/kv_type.h"
#include "base/pattern.h"

namespace winnow::evaluation {

// Dimensions of a dense decoder-only model with grouped-query attention and a gated MLP.
struct ServedModel {
  int64_t n_layers = 0;
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t kv_element_bytes = 2;  // of a key or value in the cache

  bool operator==(const ServedModel&) const = default;
};

// Keys that a layer sees when it is served. Full attention is a window without a limit.
struct ServedWindow {
  static constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max() / 4;
  int64_t keys = kNoLimit;      // that a row sees, itself included
  int64_t sinks = 0;            // first tokens that it sees besides
  bool decode_full = false;     // rows of the answer see everything: nothing can be dropped from the cache
  int64_t tail_rows = -1;       // of the prompt, that obey the window; -1: all
  double full_share = 0.0;      // of the key heads of a windowed layer, that see and keep everything all the same
  KvType kv = KvType::kStored;  // type of the keys and values that are kept

  bool is_windowed() const { return keys != kNoLimit; }
  bool operator==(const ServedWindow&) const = default;
};

// Returns the window where the pattern says so, full attention elsewhere; (n_layers). `native` has the keys of the
// windows that layers have of their own in every pattern, 0: none (n_layers), or is empty.
inline std::vector<ServedWindow> served_windows_of(const Pattern& pattern, const ServedWindow& window,
                                                   std::span<const int64_t> native = {}) {
  std::vector<ServedWindow> windows = by_layer(pattern, window, ServedWindow{});
  for (std::size_t layer = 0; layer < native.size(); ++layer) {
    if (native[layer] > 0) windows[layer] = {.keys = native[layer]};
  }
  return windows;
}

// Returns the bytes of the keys and values of one sequence after n_tokens tokens; windows (n_layers). A layer keeps the
// keys of its window and the sinks, no more, in its type and with the scales of that.
double kv_cache_bytes(const ServedModel& model, std::span<const ServedWindow> windows, int64_t n_tokens);
// Returns the floating-point operations (a multiplication and an addition are two) of a prompt of n_tokens: products
// with weights, queries with keys, probabilities with values, and the logits of the last row. Pairs outside the mask
// cost nothing.
double prefill_flop(const ServedModel& model, std::span<const ServedWindow> windows, int64_t n_tokens);

}  // namespace winnow::evaluation
