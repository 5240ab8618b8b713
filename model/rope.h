// The table of rotary cosines and sines.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "model/rope_config.h"

namespace winnow::model {

// What a table of angles is for, among those of one model.
struct RotaryKey {
  int32_t rope = 0;             // index of ModelConfig::ropes
  bool of_queries = false;      // with what queries are multiplied by besides
  int64_t sequence_length = 0;  // tokens; counts for kDynamic and kLongRope
  auto operator<=>(const RotaryKey&) const = default;
};

// Returns the length that stands for all those with the same angles: 0 where they do not depend on it.
int64_t length_class(const RopeConfig& rope, int64_t sequence_length);

// Returns the inverse frequencies of the pairs of a head that turn, radians per position, after the scaling of the rope
// type; none for kNone. sequence_length (tokens) counts for kDynamic and kLongRope. Every step is rounded to
// float32 in the order of Transformers: one unit in the last place of a frequency is 1e-3 rad at position 24k. Source:
// Transformers modeling_rope_utils.py (_compute_llama3_parameters and siblings).
std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t head_dim, int64_t sequence_length = 0);

// Returns (n_positions, head_dim) float32: cosines of the head_dim / 2 angles of a position, then their sines, times
// the attention scaling, and those of queries times their scale; 1 and 0 for pairs that do not turn. An angle is the
// float32 product of the float32 inverse frequency and the float32 position, as in Transformers and vLLM: at position
// 24k the rounding of that product is 1e-3 rad, and it is what the model is served with. Its cosine is then exact.
std::vector<float> rope_table(const RopeConfig& rope, int64_t head_dim, int64_t n_positions,
                              int64_t sequence_length = 0, bool of_queries = false);

// Returns which dimension of a head, as the checkpoint has them, comes to each place, (head_dim), so that all pairs are
// (i, i + head_dim / 2): those that turn first. Queries and keys in the same order have the same products.
std::vector<int64_t> rotary_order(const RopeConfig& rope, int64_t head_dim);

}  // namespace winnow::model
