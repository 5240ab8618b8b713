#include "model/declared_tensors.h"

namespace winnow::model {

std::vector<MatrixSpec> declare_layer(const ModelConfig& config, int64_t layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const int64_t hidden = config.hidden;
  const int64_t ffn = config.ffn;
  const int64_t q_dim = config.heads.q_dim();
  const int64_t kv_dim = config.heads.kv_dim();
  const auto weight = [&](const char* name, int64_t out, int64_t in) {
    return TensorSpec{prefix + name + ".weight", {out, in}};
  };
  const auto norm = [&](const char* name, int64_t n) { return TensorSpec{prefix + name + ".weight", {n}}; };
  const auto bias = [&](const char* name, int64_t n) { return TensorSpec{prefix + name + ".bias", {n}}; };
  constexpr kernels::WeightUse kLinear = kernels::WeightUse::kLinear;
  constexpr kernels::WeightUse kVector = kernels::WeightUse::kVector;

  std::vector<MatrixSpec> specs;
  const auto add = [&](kernels::Matrix& (*target)(LayerWeights&), kernels::WeightUse use,
                       std::vector<TensorSpec> parts) {
    specs.push_back({target, use, std::move(parts)});
  };
  using L = LayerWeights;
  add([](L& l) -> kernels::Matrix& { return l.input_norm; }, kVector, {norm("input_layernorm", hidden)});
  add([](L& l) -> kernels::Matrix& { return l.q; }, kLinear, {weight("self_attn.q_proj", q_dim, hidden)});
  add([](L& l) -> kernels::Matrix& { return l.kv; }, kLinear,
      {weight("self_attn.k_proj", kv_dim, hidden), weight("self_attn.v_proj", kv_dim, hidden)});
  if (config.qkv_bias) {
    add([](L& l) -> kernels::Matrix& { return l.q_bias; }, kVector, {bias("self_attn.q_proj", q_dim)});
    add([](L& l) -> kernels::Matrix& { return l.kv_bias; }, kVector,
        {bias("self_attn.k_proj", kv_dim), bias("self_attn.v_proj", kv_dim)});
  }
  if (config.qk_norm) {
    add([](L& l) -> kernels::Matrix& { return l.q_norm.weight; }, kVector,
        {norm("self_attn.q_norm", config.heads.head_dim)});
    add([](L& l) -> kernels::Matrix& { return l.k_norm.weight; }, kVector,
        {norm("self_attn.k_norm", config.heads.head_dim)});
  }
  add([](L& l) -> kernels::Matrix& { return l.o; }, kLinear, {weight("self_attn.o_proj", hidden, q_dim)});
  if (config.o_bias)
    add([](L& l) -> kernels::Matrix& { return l.o_bias; }, kVector, {bias("self_attn.o_proj", hidden)});
  add([](L& l) -> kernels::Matrix& { return l.post_norm; }, kVector, {norm("post_attention_layernorm", hidden)});
  add([](L& l) -> kernels::Matrix& { return l.gate_up; }, kLinear,
      {weight("mlp.gate_proj", ffn, hidden), weight("mlp.up_proj", ffn, hidden)});
  add([](L& l) -> kernels::Matrix& { return l.down; }, kLinear, {weight("mlp.down_proj", hidden, ffn)});
  if (config.mlp_bias) {
    add([](L& l) -> kernels::Matrix& { return l.gate_up_bias; }, kVector,
        {bias("mlp.gate_proj", ffn), bias("mlp.up_proj", ffn)});
    add([](L& l) -> kernels::Matrix& { return l.down_bias; }, kVector, {bias("mlp.down_proj", hidden)});
  }
  return specs;
}

std::vector<TensorSpec> declared_tensors(const ModelConfig& config) {
  std::vector<TensorSpec> tensors;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    for (MatrixSpec& spec : declare_layer(config, layer)) {
      for (TensorSpec& part : spec.parts) tensors.push_back(std::move(part));
    }
  }
  tensors.push_back({kEmbedding, {config.vocab, config.hidden}});
  tensors.push_back({kFinalNorm, {config.hidden}});
  if (!config.tied_embeddings) tensors.push_back({kHead, {config.vocab, config.hidden}});
  return tensors;
}

}  // namespace winnow::model
