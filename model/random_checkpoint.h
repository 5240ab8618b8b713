// Checkpoints with random weights of any shape: for tests, the self-test and benchmarks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "kernels/tensor.h"

namespace winnow::model {

struct RandomCheckpoint {
  std::string model_type = "qwen3";  // a family of model/families.h
  int64_t n_layers = 4;
  int64_t hidden = 64;
  int64_t n_heads = 4;
  int64_t n_kv_heads = 2;
  int64_t head_dim = 16;
  int64_t ffn = 96;
  int64_t vocab = 128;
  bool tied_embeddings = true;
  kernels::DType dtype = kernels::DType::kBf16;
  uint64_t seed = 1;
  // In a family with experts.
  int64_t n_experts = 8;
  int64_t top_k = 2;
  int64_t expert_ffn = 48;
};

// Writes DIR/config.json and DIR/model.safetensors; the directory is made. Weights are uniform with the variance
// 1 / in_features, norms are near 1. The same argument gives the same bytes everywhere. Throws Error(kCannotCreate).
void write_random_checkpoint(const std::filesystem::path& directory, const RandomCheckpoint& shape);

}  // namespace winnow::model
