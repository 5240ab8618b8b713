#include "model/checkpoint_check.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <set>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "kernels/convert.h"
#include "model/declared_tensors.h"
#include "model/families.h"

namespace winnow::model {

namespace {

constexpr int64_t kPiece = 4096;  // values that are computed at a time

bool same_values(const kernels::HostTensor& a, const kernels::HostTensor& b) {
  float of_a[kPiece];
  float of_b[kPiece];
  for (int64_t at = 0; at < a.count(); at += kPiece) {
    const int64_t n = std::min(kPiece, a.count() - at);
    kernels::read_float32(a, at, n, of_a);
    kernels::read_float32(b, at, n, of_b);
    if (!std::equal(of_a, of_a + n, of_b)) return false;
  }
  return true;
}

bool same_bytes(const kernels::HostTensor& a, const kernels::HostTensor& b) {
  if (a.values || b.values) return same_values(a, b);
  return a.dtype == b.dtype &&
         std::memcmp(a.data, b.data, static_cast<std::size_t>(a.count() * kernels::size_bytes(a.dtype))) == 0;
}

// GPTQ's programs give every layer a bias, zeros where the model has none.
bool is_empty_bias(const std::string& name, const kernels::HostTensor& tensor, const Checkpoint& checkpoint) {
  constexpr std::string_view kBias = ".bias";
  if (!name.ends_with(kBias) || tensor.dtype == kernels::DType::kOther) return false;
  const auto weight = checkpoint.tensors().find(name.substr(0, name.size() - kBias.size()) + ".weight");
  if (weight == checkpoint.tensors().end() || !weight->second.values) return false;
  std::vector<float> values(static_cast<std::size_t>(tensor.count()));
  kernels::read_float32(tensor, 0, tensor.count(), values.data());
  return std::ranges::all_of(values, [](float value) { return value == 0.F; });
}

// Whether the tensor is of a layer after the last, which predicts more tokens at a time and is not part of the model.
bool is_of_mtp(const std::string& name, const ModelConfig& config) {
  constexpr std::string_view kLayers = "model.layers.";
  int64_t layer = -1;
  if (name.starts_with(kLayers)) std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), layer);
  if (layer >= config.n_layers && layer - config.n_layers < config.n_mtp_layers) return true;
  return config.family->does_read("moe_num_experts") && name.starts_with("model.mtp_");
}

void find_undeclared(const ModelConfig& config, const Checkpoint& checkpoint, const std::set<std::string>& declared,
                     const auto& add) {
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const bool is_of_model = name.starts_with("model.") || name.starts_with("lm_head.");
    // Old Llama checkpoints carry the rotary frequencies, which config.json determines.
    if (!is_of_model || declared.contains(name) || name.ends_with("rotary_emb.inv_freq")) continue;
    if (is_empty_bias(name, tensor, checkpoint) || is_of_mtp(name, config)) continue;
    add([&, label = tensor.name] {
      return label + ": expected none of that name in family " + config.model_type + " with " +
             std::to_string(config.n_layers) + " layers, found one: winnow would leave it out";
    });
  }
}

// The bits of an element's exponent, all of which are set in infinity and NaN alone; and those of its fraction.
template <class Bits>
struct Format {
  Bits exponent;
  Bits fraction;
};

template <class Bits>
std::optional<std::string> not_finite(const kernels::HostTensor& tensor, Format<Bits> format) {
  const int64_t n = tensor.count();
  for (int64_t i = 0; i < n; ++i) {
    Bits bits = 0;
    std::memcpy(&bits, tensor.data + i * static_cast<int64_t>(sizeof(Bits)), sizeof(Bits));
    if ((bits & format.exponent) != format.exponent) continue;
    const char* value = (bits & format.fraction) == 0 ? "infinite" : "NaN";
    return tensor.name + ": element " + std::to_string(i) + " of " + std::to_string(n) + " is " + value;
  }
  return std::nullopt;
}

std::optional<std::string> not_finite_value(const kernels::HostTensor& tensor) {
  float values[kPiece];
  for (int64_t at = 0; at < tensor.count(); at += kPiece) {
    const int64_t n = std::min(kPiece, tensor.count() - at);
    kernels::read_float32(tensor, at, n, values);
    for (int64_t i = 0; i < n; ++i) {
      if (std::isfinite(values[i])) continue;
      return tensor.name + ": element " + std::to_string(at + i) + " of " + std::to_string(tensor.count()) +
             " stands for " + (std::isnan(values[i]) ? "NaN" : "infinity");
    }
  }
  return std::nullopt;
}

std::optional<std::string> not_finite(const kernels::HostTensor& tensor) {
  if (tensor.values) return not_finite_value(tensor);
  switch (tensor.dtype) {
    case kernels::DType::kF32:
      return not_finite<uint32_t>(tensor, {0x7F800000U, 0x007FFFFFU});
    case kernels::DType::kBf16:
      return not_finite<uint16_t>(tensor, {0x7F80U, 0x007FU});
    case kernels::DType::kF16:
      return not_finite<uint16_t>(tensor, {0x7C00U, 0x03FFU});
    case kernels::DType::kOther:
      break;
  }
  return std::nullopt;
}

}  // namespace

CheckpointFaults find_faults(const ModelConfig& config, const Checkpoint& checkpoint, std::size_t most) {
  CheckpointFaults faults;
  const auto add = [&](const auto& line) {
    if (faults.lines.size() < most) faults.lines.push_back(one_line(line()));
    ++faults.count;
  };
  std::set<std::string> declared = {kHead};
  const auto require = [&](const TensorSpec& spec) {
    if (checkpoint.has(spec.name, spec.shape)) return;
    add([&] {
      try {
        checkpoint.get(spec.name, spec.shape);
      } catch (const Error& error) {
        return std::string(error.what());
      }
      return std::string();
    });
  };
  for (const TensorSpec& spec : declared_tensors(config)) {
    require(spec);
    declared.insert(spec.name);
  }
  const bool has_both = config.tied_embeddings && checkpoint.contains(kHead);
  if (has_both) require({kHead, {config.vocab, config.hidden}});
  find_undeclared(config, checkpoint, declared, add);
  // With both there Transformers 5 unties them, older versions and vLLM take the embedding: where they differ nobody
  // can say which model is meant.
  if (has_both && faults.count == 0) {
    const kernels::HostTensor& head = checkpoint.get(kHead, {config.vocab, config.hidden});
    if (!same_bytes(checkpoint.get(kEmbedding, {config.vocab, config.hidden}), head)) {
      add([&] {
        return head.name + ": expected the values of " + kEmbedding +
               ", as config.json says tie_word_embeddings, found others; remove this tensor or set "
               "tie_word_embeddings to false";
      });
    }
  }
  return faults;
}

void require_model(const ModelConfig& config, const Checkpoint& checkpoint) {
  const CheckpointFaults faults = find_faults(config, checkpoint, 1);
  if (!faults.lines.empty()) fail(ExitCode::kBadData, faults.lines.front());
}

int64_t count_mtp_tensors(const ModelConfig& config, const Checkpoint& checkpoint) {
  return std::ranges::count_if(checkpoint.tensors(), [&](const auto& entry) { return is_of_mtp(entry.first, config); });
}

std::optional<std::string> find_not_finite(const ModelConfig& config, const Checkpoint& checkpoint) {
  for (const TensorSpec& spec : declared_tensors(config)) {
    if (auto found = not_finite(checkpoint.get(spec.name, spec.shape))) return found;
  }
  return std::nullopt;
}

}  // namespace winnow::model
