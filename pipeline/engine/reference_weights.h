// The weights of reference.h's model, every one in float64.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"

namespace winnow::engine {

using ReferenceVector = std::vector<double>;

// y = W x + b; W (out_features, in_features), b may be empty.
struct ReferenceLinear {
  ReferenceVector weight;
  ReferenceVector bias;

  ReferenceVector operator()(const ReferenceVector& x) const;
};

struct ReferenceMlp {
  ReferenceLinear gate, up, down;
};

struct ReferenceLayer {
  ReferenceVector attention_norm, attention_output_norm, mlp_norm, mlp_output_norm, q_norm,
      k_norm;                   // empty: the layer has none
  ReferenceVector sink_logits;  // (n_heads), or none
  ReferenceLinear q, k, v, o;
  ReferenceMlp mlp;  // or the experts that every row has
  ReferenceLinear router;
  ReferenceVector correction;
  std::vector<ReferenceMlp> experts;  // empty: the layer has none
};

// Return a tensor, and all of a layer. Throw Error(kBadData) when the checkpoint lacks a tensor.
ReferenceVector read_reference(const model::Checkpoint& checkpoint, const std::string& name,
                               const std::vector<int64_t>& shape);
ReferenceLayer read_reference_layer(const model::ModelConfig& config, const model::Checkpoint& checkpoint,
                                    int64_t index);

}  // namespace winnow::engine
