#include "jobs/cli/commands/source_model.h"

#include <charconv>
#include <iterator>
#include <string>
#include <system_error>

#include "base/error.h"
#include "base/text_file.h"
#include "model/config.h"
#include "model/families.h"

namespace winnow::commands {
namespace {

// The shortest number that a float stands for: 1e-06, not 9.99999997e-07.
double shortest(float value) {
  char text[32];
  const auto end = std::to_chars(std::begin(text), std::end(text), value).ptr;
  double number = 0.0;
  std::from_chars(std::begin(text), end, number);
  return number;
}

// What winnow knows of the checkpoint behind config.json.
serving::ModelShape read_shape(const std::string& text, const std::string& origin) {
  const model::ModelConfig config = model::parse_config(text, origin);
  const model::RopeConfig& rope = config.rope_of(0);
  return {.n_layers = config.n_layers,
          .hidden = config.hidden,
          .ffn = config.ffn,
          .vocab = config.vocab,
          .n_heads = config.heads.n_heads,
          .n_kv_heads = config.heads.n_kv_heads,
          .head_dim = config.heads.head_dim,
          .max_positions = config.max_positions,
          .norm_eps = shortest(config.norm.eps),
          .rope_theta = rope.theta,
          .has_scaled_rope = rope.type != model::RopeConfig::Type::kDefault,
          .tied_embeddings = config.tied_embeddings,
          .qkv_bias = config.qkv_bias,
          .o_bias = config.o_bias,
          .mlp_bias = config.mlp_bias,
          .n_experts = config.experts.router.n_experts,
          .top_k = config.experts.router.top_k,
          .expert_ffn = config.experts.ffn,
          .normalised_experts = config.experts.router.normalised,
          .expert_layers = config.experts.layers,
          .kv_element_bytes = config.checkpoint_dtype == kernels::DType::kF32 ? 4 : 2};
}

}  // namespace

serving::SourceModel source_model(const std::filesystem::path& model) {
  const std::filesystem::path config = model / "config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(config, ignored)) {
    fail(ExitCode::kNoInput, config.string() + ": not there; give the checkpoint with --model DIR");
  }
  const std::string text = read_text(config, kMaxConfigBytes);
  return {text, config.string(), [text, origin = config.string()] { return read_shape(text, origin); }};
}

}  // namespace winnow::commands
