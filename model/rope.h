// The table of rotary cosines and sines.
#pragma once

#include <vector>

#include "model/config.h"

namespace winnow {

// Inverse frequencies of a head, (head_dim / 2), after the scaling of the rope type.
// Source: Transformers modeling_rope_utils.py (_compute_llama3_parameters and siblings).
std::vector<double> inverse_frequencies(const RopeConfig& rope, int64_t head_dim);

// (n_positions, head_dim) float32: cosines of the head_dim / 2 angles of a position, then their sines. Angles are
// formed in float64 from float32 inverse frequencies (Transformers keeps inv_freq in float32).
std::vector<float> rope_table(const RopeConfig& rope, int64_t head_dim, int64_t n_positions);

}  // namespace winnow
