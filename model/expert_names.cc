#include "model/expert_names.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

namespace winnow::model {

namespace {

using Tensors = std::map<std::string, kernels::HostTensor>;

constexpr std::string_view kGateUp = "mlp.experts.gate_up_proj";
constexpr std::string_view kDown = "mlp.experts.down_proj";
constexpr std::string_view kRouter = "mlp.gate.weight";
constexpr std::string_view kCorrections[] = {"mlp.e_score_correction_bias", "mlp.gate.e_score_correction_bias",
                                             "mlp.gate.moe_statics.e_score_correction_bias"};

void rename(Tensors& tensors, const std::string& from, const std::string& to) {
  if (from == to || tensors.contains(to)) return;
  auto node = tensors.extract(from);
  if (node.empty()) return;
  node.key() = to;
  tensors.insert(std::move(node));
}

// Takes a tensor (n_experts, parts * rows, cols) apart; `prefix` and `ends` make the names of the parts.
void split(Tensors& tensors, const std::string& name, const std::string& prefix,
           const std::vector<std::string_view>& ends) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return;
  const kernels::HostTensor whole = found->second;
  const auto n_parts = static_cast<int64_t>(ends.size());
  const bool has_parts = whole.shape.size() == 3 && whole.count() > 0 && whole.shape[0] <= kMaxExperts &&
                         whole.shape[1] % n_parts == 0 && whole.dtype != kernels::DType::kOther;
  if (!has_parts) return;
  tensors.erase(found);
  kernels::HostTensor part = whole;
  part.shape = {whole.shape[1] / n_parts, whole.shape[2]};
  for (int64_t expert = 0; expert < whole.shape[0]; ++expert) {
    for (const std::string_view end : ends) {
      part.name = whole.name + ", expert " + std::to_string(expert) + ", " + std::string(end);
      tensors.emplace(prefix + std::to_string(expert) + "." + std::string(end) + ".weight", part);
      part.data += part.count() * kernels::size_bytes(part.dtype);
    }
  }
}

}  // namespace

void use_hub_names(const ExpertsFamily& experts, Tensors& tensors) {
  if (experts.n_experts_keys.empty() || !experts.fused_gate_up.empty()) return;
  std::vector<std::string> layers;
  for (const auto& [name, tensor] : tensors) {
    if (name.ends_with(kGateUp)) layers.push_back(name.substr(0, name.size() - kGateUp.size()));
  }
  for (const std::string& layer : layers) {
    const std::string each = layer + std::string(experts.each) + ".";
    split(tensors, layer + std::string(kGateUp), each, {experts.gate, experts.up});
    split(tensors, layer + std::string(kDown), each, {experts.down});
    rename(tensors, layer + std::string(kRouter), layer + std::string(experts.router) + ".weight");
    if (experts.correction.empty()) continue;
    for (const std::string_view name : kCorrections) {
      rename(tensors, layer + std::string(name), layer + std::string(experts.correction));
    }
  }
}

}  // namespace winnow::model
