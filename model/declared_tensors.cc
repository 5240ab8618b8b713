#include "model/declared_tensors.h"

#include <set>

#include "model/families.h"

namespace winnow::model {
namespace {

constexpr kernels::WeightUse kLinear = kernels::WeightUse::kLinear;
constexpr kernels::WeightUse kVector = kernels::WeightUse::kVector;
constexpr kernels::WeightUse kTable = kernels::WeightUse::kTable;

// The matrices of one layer, as they are added.
class LayerSpecs {
 public:
  explicit LayerSpecs(int64_t layer) : prefix_("model.layers." + std::to_string(layer) + ".") {}

  using Target = kernels::Matrix& (*)(LayerWeights&);
  void add(Target target, kernels::WeightUse use, std::vector<PartSpec> parts) {
    specs_.push_back({target, use, std::move(parts)});
  }
  // Nothing where the family has no such tensor.
  void add_vector(Target target, std::string_view name, int64_t n, bool turns = false) {
    if (!name.empty()) add(target, kVector, {vector(std::string(name) + ".weight", n, turns)});
  }

  PartSpec weight(std::string_view name, int64_t out, int64_t in, bool turns = false) const {
    return {{prefix_ + std::string(name) + ".weight", {out, in}}, 0, out, turns};
  }
  PartSpec vector(const std::string& name, int64_t n, bool turns = false) const {
    return {{prefix_ + name, {n}}, 0, n, turns};
  }
  PartSpec bias(std::string_view name, int64_t n, bool turns = false) const {
    return vector(std::string(name) + ".bias", n, turns);
  }

  // Rows first_row, first_row + step and so on of each expert in the tensor of all, (n_experts, in, out) or, quantised,
  // (n_experts, out, in).
  PartSpec of_expert(const ModelConfig& config, std::string_view name, int64_t out, int64_t in,
                     FusedExpert fused) const {
    const std::string whole = prefix_ + std::string(name);
    const int64_t n_experts = config.experts.router.n_experts;
    fused.is_transposed = config.quantization.weights_of(whole) == nullptr;
    std::vector<int64_t> shape = {n_experts, out, in};
    if (fused.is_transposed) std::swap(shape[1], shape[2]);
    return {.tensor = {whole, std::move(shape)}, .n_rows = out / fused.step, .fused = fused};
  }
  PartSpec bias_of_expert(const ModelConfig& config, std::string_view name, int64_t out, FusedExpert fused) const {
    return {.tensor = {prefix_ + std::string(name) + "_bias", {config.experts.router.n_experts, out}},
            .n_rows = out / fused.step,
            .fused = fused};
  }

  std::vector<MatrixSpec> specs_;  // so far

 private:
  std::string prefix_;
};

// Rows [first, first + n) of a part.
PartSpec rows_of(PartSpec part, int64_t first, int64_t n, bool turns = false) {
  part.first_row = first;
  part.n_rows = n;
  part.turns = turns;
  return part;
}

using L = LayerWeights;

void declare_attention(const ModelConfig& config, LayerSpecs& specs) {
  const Family& family = *config.family;
  const int64_t hidden = config.hidden;
  const int64_t q_dim = config.heads.q_dim();
  const int64_t kv_dim = config.heads.kv_dim();
  const auto q = [](L& l) -> kernels::Matrix& { return l.q; };
  const auto kv = [](L& l) -> kernels::Matrix& { return l.kv; };
  if (family.names.qkv.empty()) {
    specs.add(q, kLinear, {specs.weight("self_attn.q_proj", q_dim, hidden, true)});
    specs.add(
        kv, kLinear,
        {specs.weight("self_attn.k_proj", kv_dim, hidden, true), specs.weight("self_attn.v_proj", kv_dim, hidden)});
  } else {
    const PartSpec all = specs.weight(family.names.qkv, q_dim + 2 * kv_dim, hidden);
    specs.add(q, kLinear, {rows_of(all, 0, q_dim, true)});
    specs.add(kv, kLinear, {rows_of(all, q_dim, kv_dim, true), rows_of(all, q_dim + kv_dim, kv_dim)});
  }
  if (config.qkv_bias) {
    specs.add([](L& l) -> kernels::Matrix& { return l.q_bias; }, kVector,
              {specs.bias("self_attn.q_proj", q_dim, true)});
    specs.add([](L& l) -> kernels::Matrix& { return l.kv_bias; }, kVector,
              {specs.bias("self_attn.k_proj", kv_dim, true), specs.bias("self_attn.v_proj", kv_dim)});
  }
  if (config.has_qk_norm) {
    const bool per_head = family.qk_norm == QkNorm::kPerHead;
    specs.add_vector([](L& l) -> kernels::Matrix& { return l.q_norm.norm.weight; }, family.names.q_norm,
                     per_head ? config.heads.head_dim : q_dim, true);
    specs.add_vector([](L& l) -> kernels::Matrix& { return l.k_norm.norm.weight; }, family.names.k_norm,
                     per_head ? config.heads.head_dim : kv_dim, true);
  }
  if (!family.names.sink_logits.empty()) {
    // In float32 on every backend: attention adds them to its own sums, which are float32 too.
    specs.add([](L& l) -> kernels::Matrix& { return l.sink_logits; }, kernels::WeightUse::kTable,
              {specs.vector(std::string(family.names.sink_logits), config.heads.n_heads)});
  }
  specs.add([](L& l) -> kernels::Matrix& { return l.o; }, kLinear, {specs.weight("self_attn.o_proj", hidden, q_dim)});
  if (config.o_bias) {
    specs.add([](L& l) -> kernels::Matrix& { return l.o_bias; }, kVector, {specs.bias("self_attn.o_proj", hidden)});
  }
}

// The experts of a layer whose tensors have all of them.
void declare_fused_experts(const ModelConfig& config, LayerSpecs& specs) {
  const ExpertsFamily& names = config.family->experts;
  const int64_t ffn = config.experts.ffn;
  std::vector<PartSpec> gate_up;
  std::vector<PartSpec> gate_up_bias;
  std::vector<PartSpec> down;
  std::vector<PartSpec> down_bias;
  for (int64_t e = 0; e < config.experts.router.n_experts; ++e) {
    for (const int64_t first : {0, 1}) {  // gate, up
      const FusedExpert in_turn{.expert = e, .step = 2};
      gate_up.push_back(specs.of_expert(config, names.fused_gate_up, 2 * ffn, config.hidden, in_turn));
      gate_up_bias.push_back(specs.bias_of_expert(config, names.fused_gate_up, 2 * ffn, in_turn));
      gate_up.back().first_row = gate_up_bias.back().first_row = first;
    }
    down.push_back(specs.of_expert(config, names.fused_down, config.hidden, ffn, {.expert = e}));
    down_bias.push_back(specs.bias_of_expert(config, names.fused_down, config.hidden, {.expert = e}));
  }
  specs.add([](L& l) -> kernels::Matrix& { return l.experts.gate_up; }, kLinear, std::move(gate_up));
  specs.add([](L& l) -> kernels::Matrix& { return l.experts.down; }, kLinear, std::move(down));
  if (!names.has_biases) return;
  specs.add([](L& l) -> kernels::Matrix& { return l.experts.gate_up_bias; }, kVector, std::move(gate_up_bias));
  specs.add([](L& l) -> kernels::Matrix& { return l.experts.down_bias; }, kVector, std::move(down_bias));
}

// The router, the experts, and those that every row has in the place of the MLP.
void declare_experts(const ModelConfig& config, LayerSpecs& specs) {
  const ExpertsFamily& names = config.family->experts;
  const ExpertsConfig& experts = config.experts;
  const int64_t n_experts = experts.router.n_experts;
  const int64_t hidden = config.hidden;
  specs.add([](L& l) -> kernels::Matrix& { return l.router.weight; }, kLinear,
            {specs.weight(names.router, n_experts, hidden)});
  if (!names.correction.empty()) {
    PartSpec correction = specs.vector(std::string(names.correction), n_experts);
    correction.is_row = names.correction_is_row;
    if (correction.is_row) correction.tensor.shape = {1, n_experts};
    specs.add([](L& l) -> kernels::Matrix& { return l.router.correction; }, kTable, {std::move(correction)});
  }
  if (names.has_biases) {
    specs.add([](L& l) -> kernels::Matrix& { return l.router.bias; }, kTable, {specs.bias(names.router, n_experts)});
  }
  if (!names.fused_gate_up.empty()) {
    declare_fused_experts(config, specs);
    return;
  }
  std::vector<PartSpec> gate_up;
  std::vector<PartSpec> down;
  for (int64_t e = 0; e < n_experts; ++e) {
    const std::string expert = std::string(names.each) + "." + std::to_string(e) + ".";
    gate_up.push_back(specs.weight(expert + std::string(names.gate), experts.ffn, hidden));
    gate_up.push_back(specs.weight(expert + std::string(names.up), experts.ffn, hidden));
    down.push_back(specs.weight(expert + std::string(names.down), hidden, experts.ffn));
  }
  specs.add([](L& l) -> kernels::Matrix& { return l.experts.gate_up; }, kLinear, std::move(gate_up));
  specs.add([](L& l) -> kernels::Matrix& { return l.experts.down; }, kLinear, std::move(down));
  if (experts.shared_ffn == 0) return;
  const std::string shared = std::string(names.shared) + ".";
  specs.add([](L& l) -> kernels::Matrix& { return l.gate_up; }, kLinear,
            {specs.weight(shared + std::string(names.gate), experts.shared_ffn, hidden),
             specs.weight(shared + std::string(names.up), experts.shared_ffn, hidden)});
  specs.add([](L& l) -> kernels::Matrix& { return l.down; }, kLinear,
            {specs.weight(shared + std::string(names.down), hidden, experts.shared_ffn)});
}

void declare_mlp(const ModelConfig& config, LayerSpecs& specs) {
  const Family& family = *config.family;
  const int64_t hidden = config.hidden;
  const int64_t ffn = config.ffn;
  const auto gate_up = [](L& l) -> kernels::Matrix& { return l.gate_up; };
  if (family.names.gate_up.empty()) {
    specs.add(gate_up, kLinear, {specs.weight("mlp.gate_proj", ffn, hidden), specs.weight("mlp.up_proj", ffn, hidden)});
  } else {
    specs.add(gate_up, kLinear, {specs.weight(family.names.gate_up, 2 * ffn, hidden)});
  }
  specs.add([](L& l) -> kernels::Matrix& { return l.down; }, kLinear, {specs.weight("mlp.down_proj", hidden, ffn)});
  if (!config.mlp_bias) return;
  specs.add([](L& l) -> kernels::Matrix& { return l.gate_up_bias; }, kVector,
            {specs.bias("mlp.gate_proj", ffn), specs.bias("mlp.up_proj", ffn)});
  specs.add([](L& l) -> kernels::Matrix& { return l.down_bias; }, kVector, {specs.bias("mlp.down_proj", hidden)});
}

}  // namespace

std::vector<MatrixSpec> declare_layer(const ModelConfig& config, int64_t layer) {
  const LayerNames& names = config.family->names;
  LayerSpecs specs(layer);
  specs.add_vector([](L& l) -> kernels::Matrix& { return l.attention_norm.weight; }, names.attention_norm,
                   config.hidden);
  declare_attention(config, specs);
  specs.add_vector([](L& l) -> kernels::Matrix& { return l.attention_output_norm.weight; }, names.attention_output_norm,
                   config.hidden);
  specs.add_vector([](L& l) -> kernels::Matrix& { return l.mlp_norm.weight; }, names.mlp_norm, config.hidden);
  if (config.experts.of_layer(layer)) {
    declare_experts(config, specs);
  } else {
    declare_mlp(config, specs);
  }
  specs.add_vector([](L& l) -> kernels::Matrix& { return l.mlp_output_norm.weight; }, names.mlp_output_norm,
                   config.hidden);
  return std::move(specs.specs_);
}

std::vector<TensorSpec> declared_tensors(const ModelConfig& config) {
  std::vector<TensorSpec> tensors;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    std::set<std::string> known;
    for (MatrixSpec& spec : declare_layer(config, layer)) {
      for (PartSpec& part : spec.parts) {
        if (known.insert(part.tensor.name).second) tensors.push_back(std::move(part.tensor));
      }
    }
  }
  tensors.push_back({kEmbedding, {config.vocab, config.hidden}});
  tensors.push_back({kFinalNorm, {config.hidden}});
  if (!config.tied_embeddings) tensors.push_back({kHead, {config.vocab, config.hidden}});
  return tensors;
}

}  // namespace winnow::model
