// The table of rotary cosines and sines.
#pragma once

#include <vector>

#include "model/config.h"

namespace winnow::model {

// Returns the inverse frequencies of a head, (head_dim / 2), radians per position, after the scaling of the rope type.
// Every step is rounded to float32 in the order of Transformers: one unit in the last place of a frequency is 1e-3 rad
// at position 24k. Source: Transformers modeling_rope_utils.py (_compute_llama3_parameters and siblings).
std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t head_dim);

// Returns (n_positions, head_dim) float32: cosines of the head_dim / 2 angles of a position, then their sines. An angle
// is the float32 product of the float32 inverse frequency and the float32 position, as in Transformers and vLLM: at
// position 24k the rounding of that product is 1e-3 rad, and it is what the model is served with. Its cosine is then
// exact.
std::vector<float> rope_table(const RopeConfig& rope, int64_t head_dim, int64_t n_positions);

}  // namespace winnow::model
