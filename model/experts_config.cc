#include "model/experts_config.h"

#include <algorithm>
#include <optional>
#include <string>

#include "model/families.h"

namespace winnow::model {
namespace {

using Json = ConfigFields::Json;

// A size that has a name on model hubs and another in Transformers 5. Both may be there and must agree.
int64_t size_of(const ConfigFields& fields, std::string_view keys, int64_t fallback, int64_t lowest) {
  std::optional<int64_t> found;
  while (!keys.empty()) {
    const std::string key = first_word(keys);
    keys.remove_prefix(std::min(keys.size(), key.size() + 1));
    if (!fields.has(key.c_str())) continue;
    const int64_t size = fields.integer(key.c_str(), fallback, lowest);
    if (found && *found != size) fields.refuse(key.c_str(), std::to_string(*found) + ", as the other name of it says");
    found = size;
  }
  return found.value_or(fallback);
}

// Qwen: each so-many-th layer, less those of a list.
std::vector<bool> layers_by_step(const ConfigFields& fields, int64_t n_layers) {
  const int64_t step = fields.size("decoder_sparse_step", 1);
  std::vector<bool> layers;
  for (int64_t layer = 0; layer < n_layers; ++layer) layers.push_back((layer + 1) % step == 0);
  if (!fields.has("mlp_only_layers")) return layers;
  const Json& list = fields.value("mlp_only_layers");
  if (!list.is_array()) fields.refuse("mlp_only_layers", "a list of layers");
  for (const Json& layer : list) {
    if (!layer.is_number_integer()) fields.refuse("mlp_only_layers", "a list of layers");
    const auto index = layer.get<int64_t>();
    if (index >= 0 && index < n_layers) layers[static_cast<std::size_t>(index)] = false;
  }
  return layers;
}

// ERNIE: each so-many-th layer from one on, up to another.
std::vector<bool> layers_by_interval(const ConfigFields& fields, int64_t n_layers) {
  const int64_t first = fields.integer("moe_layer_start_index", 1, 0);
  const int64_t stated = fields.integer("moe_layer_end_index", -1, -1);
  const int64_t last = stated == -1 ? n_layers - 1 : stated;
  const int64_t interval = fields.size("moe_layer_interval", 1);
  std::vector<bool> layers;
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    layers.push_back((layer + 1) % interval == 0 && layer >= first && layer <= last);
  }
  return layers;
}

std::vector<bool> layers_with_experts(const ConfigFields& fields, const ExpertsFamily& experts, int64_t n_layers) {
  switch (experts.layers) {
    case ExpertLayers::kAll:
      break;
    case ExpertLayers::kByStep:
      return layers_by_step(fields, n_layers);
    case ExpertLayers::kByInterval:
      return layers_by_interval(fields, n_layers);
    case ExpertLayers::kAfterFirst: {
      const int64_t n_dense = fields.integer("first_k_dense_replace", 1, 0);
      std::vector<bool> layers(static_cast<std::size_t>(n_layers), true);
      std::fill_n(layers.begin(), std::min(n_dense, n_layers), false);
      return layers;
    }
  }
  return std::vector<bool>(static_cast<std::size_t>(n_layers), true);
}

void read_groups(const ConfigFields& fields, kernels::RouterShape& router) {
  router.n_groups = fields.size("n_group", 1);
  router.top_groups = fields.size("topk_group", 1);
  if (router.n_experts % router.n_groups != 0) {
    fields.refuse("n_group", "a divisor of the " + std::to_string(router.n_experts) + " experts");
  }
  if (router.top_groups > router.n_groups) {
    fields.refuse("topk_group", "at most n_group = " + std::to_string(router.n_groups));
  }
  // A group is as good as its two best.
  if (router.n_groups > 1 && router.n_experts / router.n_groups < 2) {
    fields.refuse("n_group", "groups of two experts or more");
  }
}

}  // namespace

ExpertsConfig read_experts(const ConfigFields& fields, const Family& family, int64_t n_layers, int64_t ffn) {
  const ExpertsFamily& of_family = family.experts;
  ExpertsConfig config;
  if (of_family.n_experts_keys.empty()) return config;
  kernels::RouterShape& router = config.router;
  router.scores = of_family.scores;
  router.n_experts = size_of(fields, of_family.n_experts_keys, of_family.n_experts, 0);
  const std::string n_key = first_word(of_family.n_experts_keys);
  if (router.n_experts > kMaxExperts) fields.refuse(n_key.c_str(), "at most " + std::to_string(kMaxExperts));
  if (router.n_experts == 0) return config;
  if (family.does_read("n_group")) read_groups(fields, router);
  router.top_k = size_of(fields, of_family.top_k_keys, of_family.top_k, 1);
  if (const int64_t most = router.n_experts / router.n_groups * router.top_groups; router.top_k > most) {
    const std::string key = first_word(of_family.top_k_keys);
    fields.refuse(key.c_str(), "at most " + std::to_string(most) + ", the experts that may be chosen");
  }
  router.normalised = of_family.normalised;
  if (family.does_read("norm_topk_prob")) router.normalised = fields.boolean("norm_topk_prob", of_family.normalised);
  if (family.does_read("routed_scaling_factor")) {
    router.scale = static_cast<float>(fields.positive("routed_scaling_factor", 1.0));
  }
  // Other programs' switch, which Transformers' model of the family does not have.
  const char* scores = of_family.scores == kernels::RouterScores::kSigmoid ? "sigmoid" : "softmax";
  if (fields.has("scoring_func") && fields.text("scoring_func", "") != scores) {
    fields.refuse("scoring_func", quote(scores));
  }
  config.ffn = of_family.ffn == 0 ? ffn : fields.size("moe_intermediate_size", of_family.ffn);
  if (!of_family.n_shared_key.empty()) {
    const std::string key(of_family.n_shared_key);
    const int64_t n_shared = fields.integer(key.c_str(), of_family.n_shared, 0);
    if (n_shared > kMaxExperts) fields.refuse(key.c_str(), "at most " + std::to_string(kMaxExperts));
    config.shared_ffn = n_shared * config.ffn;
  }
  if (std::max(config.shared_ffn, config.ffn * 2) > ConfigFields::kMaxSize / 2) {
    fields.refuse("moe_intermediate_size", "experts that are smaller");
  }
  config.layers = layers_with_experts(fields, of_family, n_layers);
  if (std::ranges::find(config.layers, true) == config.layers.end()) config.layers.clear();
  return config;
}

}  // namespace winnow::model
