// Which layers of a model are mixtures of experts, and of which.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "kernels/experts.h"

namespace winnow::model {

struct Family;  // model/families.h

struct ExpertsConfig {
  kernels::RouterShape router;
  int64_t ffn = 0;           // of one expert
  int64_t shared_ffn = 0;    // of the experts that every row has, all together; 0: there are none
  std::vector<bool> layers;  // (n_layers): those with experts; empty in a dense model

  explicit operator bool() const { return !layers.empty(); }
  bool of_layer(int64_t layer) const { return !layers.empty() && layers[static_cast<std::size_t>(layer)]; }
};

// Reads the experts of the family; none in a dense one, or where no layer has any. `ffn` is intermediate_size. Throws
// Error(kBadData) naming the field.
ExpertsConfig read_experts(const ConfigFields& fields, const Family& family, int64_t n_layers, int64_t ffn);

}  // namespace winnow::model
