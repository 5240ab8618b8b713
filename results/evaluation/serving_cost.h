// What a pattern costs when it is served: pure arithmetic on the model's shape.
#pragma once

#include <cstdint>

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

// The window of the layers that do not keep full attention.
struct ServedWindow {
  int64_t keys = 0;          // that a row sees, itself included
  int64_t sinks = 0;         // first tokens that it sees besides
  bool decode_full = false;  // rows of the answer see everything: nothing can be dropped from the cache
  int64_t tail_rows = -1;    // of the prompt, that obey the window; -1: all

  bool operator==(const ServedWindow&) const = default;
};

// Keys and values of one sequence after n_tokens tokens, bytes. A windowed layer keeps window and sinks, no more.
double kv_cache_bytes(const ServedModel& model, const ServedWindow& window, int64_t n_full_layers, int64_t n_tokens);
// Floating-point operations (a multiplication and an addition are two) of a prompt of n_tokens: products with weights,
// queries with keys, probabilities with values, and the logits of the last row. Pairs outside the mask cost nothing.
double prefill_flop(const ServedModel& model, const ServedWindow& window, int64_t n_full_layers, int64_t n_tokens);

}  // namespace winnow::evaluation
