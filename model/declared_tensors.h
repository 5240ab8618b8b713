// The tensors that a model is made of: names and shapes.
#pragma once

#include <optional>
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

// Where the rows of one expert lie in a tensor that has those of all.
struct FusedExpert {
  int64_t expert = 0;
  int64_t step = 1;            // from a row to the next one: 2 where gate and up lie in turn
  bool is_transposed = false;  // (n_experts, in, out); else (n_experts, out, in), or (n_experts, out) of biases
};

// Rows of a tensor of the checkpoint: all of them, unless a tensor holds several matrices one under the other. A vector
// may lie there as the only row of a matrix.
struct PartSpec {
  TensorSpec tensor;
  int64_t first_row = 0;
  int64_t n_rows = 0;
  bool turns = false;   // rows of heads that the rotary embedding turns: they are taken in rotary_order()
  bool is_row = false;  // of the matrix (1, n_rows)
  std::optional<FusedExpert> fused{};
};

// Parts that become one matrix, one under the other.
struct MatrixSpec {
  kernels::Matrix& (*target)(LayerWeights&);
  kernels::WeightUse use;
  std::vector<PartSpec> parts;
};

// Returns the matrices of one decoder layer, by the names of the family.
std::vector<MatrixSpec> declare_layer(const ModelConfig& config, int64_t layer);

// Returns all tensors of a model, layer by layer, then those that its layers share, each once. The head is among them
// unless it is tied.
std::vector<TensorSpec> declared_tensors(const ModelConfig& config);

}  // namespace winnow::model
