// parse_config on any text: it throws Error or returns a configuration that keeps what model/config.h promises.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "model/config.h"
#include "model/rope.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const winnow::model::ModelConfig& config) {
  const winnow::kernels::HeadShape& heads = config.heads;
  require(config.family != nullptr && !config.model_type.empty());
  require(config.n_layers > 0 && config.hidden > 0 && config.ffn > 0 && config.vocab > 0 && config.max_positions > 0);
  require(heads.n_heads > 0 && heads.n_kv_heads > 0 && heads.n_heads % heads.n_kv_heads == 0);
  require(heads.head_dim > 0 && heads.head_dim % 2 == 0 && heads.scale > 0.0F);
  require(heads.q_dim() < int64_t{1} << 31 && config.norm.eps > 0.0F);
  require(config.native_window.has_value() == !config.native_window_layers.empty());
  require(config.windowed_rope.value_or(0) >= 0);
  require(config.windowed_rope.value_or(0) < static_cast<int64_t>(config.ropes.size()));
  if (config.native_window) {
    require(*config.native_window > 0);
    require(static_cast<int64_t>(config.native_window_layers.size()) == config.n_layers);
  }
  if (heads.head_dim > 1024) return;
  require(static_cast<int64_t>(winnow::model::rope_table(config.ropes.front(), heads.head_dim, 3).size()) ==
          3 * heads.head_dim);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  try {
    check(winnow::model::parse_config(std::string(reinterpret_cast<const char*>(data), size), "input"));
  } catch (const winnow::Error& error) {
    require(error.code() == winnow::ExitCode::kBadData);
  }
  return 0;
}
