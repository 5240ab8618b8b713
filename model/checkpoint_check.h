// Whether a checkpoint holds the model that its config.json describes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "model/safetensors.h"

namespace winnow::model {

// What is wrong: tensors that are missing, of another shape or type, that the model does not have (a bias or a gate
// would silently be left out), or that contradict config.json. The first `most` as lines that name file, tensor,
// expected and found.
struct CheckpointFaults {
  int64_t count = 0;
  std::vector<std::string> lines;
};
CheckpointFaults find_faults(const ModelConfig& config, const Checkpoint& checkpoint, std::size_t most);
// Throws Error(kBadData) with the first of them.
void require_model(const ModelConfig& config, const Checkpoint& checkpoint);

// The first tensor of the model with a value that is not finite, and where: reads all weights until there is one.
// Nothing where all are finite.
std::optional<std::string> find_not_finite(const ModelConfig& config, const Checkpoint& checkpoint);

}  // namespace winnow::model
