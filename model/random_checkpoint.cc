#include "model/random_checkpoint.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "model/config.h"
#include "model/declared_tensors.h"
#include "model/families.h"
#include "model/safetensors_file.h"

namespace winnow::model {

namespace {

using Json = nlohmann::ordered_json;

// Uniform in [-1, 1), a multiple of 2^-23: exact in float32.
float uniform(SplitMix64& random) {
  return static_cast<float>(static_cast<int64_t>(random.next() >> 40) - (1 << 23)) * 0x1p-23F;
}

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
  float center;
  float spread;
};

Json config_json(const RandomCheckpoint& s);

// All tensors of a family with experts, as config.json declares them.
std::vector<Tensor> declare_with_experts(const RandomCheckpoint& s) {
  std::vector<Tensor> tensors;
  for (const TensorSpec& spec : declared_tensors(parse_config(config_json(s).dump(), "random checkpoint"))) {
    const bool is_vector = spec.shape.size() == 1 || spec.shape.front() == 1;
    if (spec.name == kEmbedding) {
      tensors.push_back({spec.name, spec.shape, 0.0F, 1.0F});
    } else if (is_vector) {
      const bool is_norm = spec.name.ends_with("norm.weight");
      tensors.push_back({spec.name, spec.shape, is_norm ? 1.0F : 0.0F, 0.25F});
    } else {
      tensors.push_back(
          {spec.name, spec.shape, 0.0F, static_cast<float>(std::sqrt(3.0 / static_cast<double>(spec.shape.back())))});
    }
  }
  return tensors;
}

std::vector<Tensor> declare(const RandomCheckpoint& s) {
  const Family* family = find_family(s.model_type);
  if (family == nullptr) fail(ExitCode::kInternal, "random checkpoint: unknown family " + s.model_type);
  if (!family->experts.n_experts_keys.empty()) return declare_with_experts(s);
  std::vector<Tensor> tensors;
  const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
    // A uniform variable on [-a, a] has the variance a^2 / 3.
    tensors.push_back(
        {name + ".weight", {out, in}, 0.0F, static_cast<float>(std::sqrt(3.0 / static_cast<double>(in)))});
  };
  const auto norm = [&](const std::string& name, int64_t n) {
    tensors.push_back({name + ".weight", {n}, 1.0F, 0.25F});
  };
  const int64_t q_dim = s.n_heads * s.head_dim;
  const int64_t kv_dim = s.n_kv_heads * s.head_dim;
  tensors.push_back({"model.embed_tokens.weight", {s.vocab, s.hidden}, 0.0F, 1.0F});
  for (int64_t layer = 0; layer < s.n_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    norm(prefix + "input_layernorm", s.hidden);
    linear(prefix + "self_attn.q_proj", q_dim, s.hidden);
    linear(prefix + "self_attn.k_proj", kv_dim, s.hidden);
    linear(prefix + "self_attn.v_proj", kv_dim, s.hidden);
    linear(prefix + "self_attn.o_proj", s.hidden, q_dim);
    if (family->qkv_bias_always) {
      tensors.push_back({prefix + "self_attn.q_proj.bias", {q_dim}, 0.0F, 0.5F});
      tensors.push_back({prefix + "self_attn.k_proj.bias", {kv_dim}, 0.0F, 0.5F});
      tensors.push_back({prefix + "self_attn.v_proj.bias", {kv_dim}, 0.0F, 0.5F});
    }
    if (family->qk_norm != QkNorm::kNone) {
      // Larger than 1, so that attention picks keys out and windows matter.
      tensors.push_back({prefix + "self_attn.q_norm.weight", {s.head_dim}, 1.5F, 0.25F});
      tensors.push_back({prefix + "self_attn.k_norm.weight", {s.head_dim}, 1.5F, 0.25F});
    }
    if (!family->names.sink_logits.empty()) {
      tensors.push_back({prefix + std::string(family->names.sink_logits), {s.n_heads}, 0.0F, 3.0F});
    }
    norm(prefix + "post_attention_layernorm", s.hidden);
    linear(prefix + "mlp.gate_proj", s.ffn, s.hidden);
    linear(prefix + "mlp.up_proj", s.ffn, s.hidden);
    linear(prefix + "mlp.down_proj", s.hidden, s.ffn);
  }
  norm("model.norm", s.hidden);
  if (!s.tied_embeddings) linear("lm_head", s.vocab, s.hidden);
  return tensors;
}

Json config_json(const RandomCheckpoint& s) {
  Json json = {{"model_type", s.model_type},
               {"num_hidden_layers", s.n_layers},
               {"hidden_size", s.hidden},
               {"num_attention_heads", s.n_heads},
               {"num_key_value_heads", s.n_kv_heads},
               {"head_dim", s.head_dim},
               {"intermediate_size", s.ffn},
               {"vocab_size", s.vocab},
               {"tie_word_embeddings", s.tied_embeddings},
               {"hidden_act", "silu"},
               {"rms_norm_eps", 1e-6},
               {"rope_theta", 10000.0},
               {"sliding_window", nullptr},
               {"max_position_embeddings", 1 << 20},
               {"torch_dtype", s.dtype == kernels::DType::kBf16 ? "bfloat16" : "float32"}};
  const ExpertsFamily& experts = find_family(s.model_type)->experts;
  if (experts.n_experts_keys.empty()) return json;
  json[first_word(experts.n_experts_keys)] = s.n_experts;
  json[first_word(experts.top_k_keys)] = s.top_k;
  json[experts.ffn == 0 ? "intermediate_size" : "moe_intermediate_size"] = s.expert_ffn;
  return json;
}

void write_tensor(std::ofstream& file, const Tensor& tensor, int64_t count, kernels::DType dtype, SplitMix64& random) {
  std::vector<char> bytes(static_cast<std::size_t>(count * kernels::size_bytes(dtype)));
  for (int64_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<uint32_t>(tensor.center + tensor.spread * uniform(random));
    // bfloat16 is the upper half of float32; truncated, as any value in the range will do.
    if (dtype == kernels::DType::kBf16) {
      const auto upper = static_cast<uint16_t>(bits >> 16);
      std::memcpy(bytes.data() + 2 * i, &upper, sizeof upper);
    } else {
      std::memcpy(bytes.data() + 4 * i, &bits, sizeof bits);
    }
  }
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

void write_random_checkpoint(const std::filesystem::path& directory, const RandomCheckpoint& shape) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  std::ofstream(directory / "config.json") << config_json(shape).dump(2) << '\n';

  const std::vector<Tensor> tensors = declare(shape);
  std::vector<int64_t> counts;
  std::vector<TensorEntry> entries;
  for (const Tensor& tensor : tensors) {
    int64_t count = 1;
    for (const int64_t extent : tensor.shape) count *= extent;
    counts.push_back(count);
    entries.push_back({tensor.name, shape.dtype == kernels::DType::kBf16 ? "BF16" : "F32", tensor.shape,
                       count * kernels::size_bytes(shape.dtype)});
  }
  const std::string head = safetensors_head(entries);
  std::ofstream file(directory / "model.safetensors", std::ios::binary);
  file.write(head.data(), static_cast<std::streamsize>(head.size()));
  SplitMix64 random(shape.seed);
  for (std::size_t i = 0; i < tensors.size(); ++i) write_tensor(file, tensors[i], counts[i], shape.dtype, random);
  file.flush();
  if (!file) fail(ExitCode::kCannotCreate, "cannot write a checkpoint to " + directory.string());
}

}  // namespace winnow::model
