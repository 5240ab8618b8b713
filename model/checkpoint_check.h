// Checks that a checkpoint holds the model that its config.json describes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "model/safetensors.h"

namespace winnow::model {

// Tensors that are missing, of another shape or type, that the model does not have (a bias or a gate would silently be
// left out), or that contradict config.json. `lines` has the first `most`, each with file, tensor, expected and found.
struct CheckpointFaults {
  int64_t count = 0;
  std::vector<std::string> lines;
};
CheckpointFaults find_faults(const ModelConfig& config, const Checkpoint& checkpoint, std::size_t most);
// Throws Error(kBadData) with the first fault, if any.
void require_model(const ModelConfig& config, const Checkpoint& checkpoint);

// Returns how many tensors are of layers after the last, which predict more tokens at a time and are not read.
int64_t count_mtp_tensors(const ModelConfig& config, const Checkpoint& checkpoint);

// Reads all weights until one is not finite, and says in which tensor and where; none where all are finite.
std::optional<std::string> find_not_finite(const ModelConfig& config, const Checkpoint& checkpoint);

}  // namespace winnow::model
