// The two ways to name the experts of a layer.
#pragma once

#include <map>
#include <string>

#include "kernels/tensor.h"
#include "model/families.h"

namespace winnow::model {

// Gives mixtures of experts the names that checkpoints on model hubs have, one matrix for each expert, where they have
// those of Transformers' modules: mlp.experts.gate_up_proj (n_experts, 2 * ffn, hidden), gate before up, and
// mlp.experts.down_proj (n_experts, hidden, ffn). save_pretrained writes these with save_original_format=False. What
// has another shape stays as it is.
void use_hub_names(const ExpertsFamily& experts, std::map<std::string, kernels::HostTensor>& tensors);

}  // namespace winnow::model
