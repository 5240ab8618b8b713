// What a checkpoint computes, as far as the config.json of another family and the size of its cache need it.
#pragma once

#include <cstdint>
#include <vector>

namespace winnow::serving {

// Dimensions use the field's names, as in model/config.h.
struct ModelShape {
  int64_t n_layers = 0;
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  double norm_eps = 0.0;
  double rope_theta = 0.0;
  bool has_scaled_rope = false;  // of another type than default
  bool tied_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  int64_t n_experts = 0;  // 0: a dense model
  int64_t top_k = 0;
  int64_t expert_ffn = 0;
  bool normalised_experts = false;  // weights of the chosen experts are divided by their sum
  std::vector<bool> expert_layers;  // (n_layers), those with experts; empty in a dense model
  int64_t kv_element_bytes = 2;     // of a key or value in the cache
};

}  // namespace winnow::serving
