// The tensors that a model is made of: names and shapes.
#pragma once

#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"

namespace winnow::model {

inline constexpr const char* kEmbedding = "model.embed_tokens.weight";
inline constexpr const char* kFinalNorm = "model.norm.weight";
inline constexpr const char* kHead = "lm_head.weight";

struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
};

// Tensors that become one matrix, one under the other.
struct MatrixSpec {
  kernels::Matrix& (*target)(LayerWeights&);
  kernels::WeightUse use;
  std::vector<TensorSpec> parts;
};

// Returns the tensors of one decoder layer, by the names that all four families share.
std::vector<MatrixSpec> declare_layer(const ModelConfig& config, int64_t layer);

// Returns all tensors of a model, layer by layer, then those that its layers share: the head is one of them unless it
// is tied.
std::vector<TensorSpec> declared_tensors(const ModelConfig& config);

}  // namespace winnow::model
