// Experts in tensors that have all of them, as gpt-oss and Transformers' modules have them: what becomes of their rows,
// and what is refused.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/convert.h"
#include "kernels/cpu/cpu.h"
#include "model/checkpoint_check.h"
#include "model/families.h"
#include "model/random_checkpoint.h"
#include "model/weight_parts.h"
#include "model/weights.h"
#include "tests/model/model_files.h"
#include "tests/scratch.h"

namespace winnow::model {
namespace {

using testing::expect_error;
using testing::TempDir;

constexpr int64_t kHidden = 40;
constexpr int64_t kFfn = 72;  // more rows than are read together
constexpr int64_t kExperts = 3;
constexpr const char* kGateUp = "model.layers.1.mlp.experts.gate_up_proj";
constexpr const char* kDown = "model.layers.1.mlp.experts.down_proj";

class FusedExperts : public ::testing::Test {
 protected:
  void SetUp() override {
    write_random_checkpoint(dir_.path(), {.model_type = "gpt_oss",
                                          .n_layers = 2,
                                          .hidden = kHidden,
                                          .head_dim = 8,
                                          .n_experts = kExperts,
                                          .top_k = 2,
                                          .expert_ffn = kFfn});
    open();
  }
  void open() {
    config_ = read_config(dir_.path());
    checkpoint_ = std::make_unique<Checkpoint>(dir_.path());
  }
  std::vector<float> values_of(const std::string& name) const {
    const kernels::HostTensor& tensor = checkpoint_->tensors().at(name);
    std::vector<float> values(static_cast<std::size_t>(tensor.count()));
    kernels::read_float32(tensor, 0, tensor.count(), values.data());
    return values;
  }

  TempDir dir_;
  ModelConfig config_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<kernels::Ops> ops_ = cpu::make_cpu_backend({.n_threads = 2});
};

TEST_F(FusedExperts, RowsAreTurnedAndTakenApart) {
  ModelWeights weights(config_, *checkpoint_, *ops_);
  const kernels::Experts& experts = weights.layer(1).experts;
  ASSERT_EQ(experts.gate_up.rows, kExperts * 2 * kFfn);
  ASSERT_EQ(experts.gate_up.cols, kHidden);
  ASSERT_EQ(experts.down.rows, kExperts * kHidden);
  ASSERT_EQ(experts.down.cols, kFfn);
  ASSERT_EQ(experts.gate_up_bias.rows, kExperts * 2 * kFfn);
  ASSERT_EQ(experts.down_bias.rows, kExperts * kHidden);
  const std::vector<float> gate_up = values_of(kGateUp);  // (kExperts, kHidden, 2 * kFfn), gate and up in turn
  const std::vector<float> gate_up_bias = values_of(std::string(kGateUp) + "_bias");
  const std::vector<float> down = values_of(kDown);  // (kExperts, kFfn, kHidden)
  const std::vector<float> down_bias = values_of(std::string(kDown) + "_bias");
  const auto at = [](const std::vector<float>& values, int64_t i) { return values[static_cast<std::size_t>(i)]; };
  for (int64_t e = 0; e < kExperts; ++e) {
    for (int64_t row = 0; row < 2 * kFfn; ++row) {
      const int64_t there = row < kFfn ? 2 * row : 2 * (row - kFfn) + 1;
      const int64_t here = e * 2 * kFfn + row;
      ASSERT_EQ(experts.gate_up_bias.as<float>()[here], at(gate_up_bias, e * 2 * kFfn + there)) << e << " " << row;
      for (int64_t col = 0; col < kHidden; ++col) {
        ASSERT_EQ(experts.gate_up.as<float>()[here * kHidden + col],
                  at(gate_up, (e * kHidden + col) * 2 * kFfn + there))
            << e << " " << row << " " << col;
      }
    }
    for (int64_t row = 0; row < kHidden; ++row) {
      ASSERT_EQ(experts.down_bias.as<float>()[e * kHidden + row], at(down_bias, e * kHidden + row)) << e << " " << row;
      for (int64_t col = 0; col < kFfn; ++col) {
        ASSERT_EQ(experts.down.as<float>()[(e * kHidden + row) * kFfn + col],
                  at(down, (e * kFfn + col) * kHidden + row))
            << e << " " << row << " " << col;
      }
    }
  }
}

TEST_F(FusedExperts, AnyRangeIsAPieceOfTheWhole) {
  for (const MatrixSpec& spec : declare_layer(config_, 1)) {
    for (const PartSpec& part : spec.parts) {
      if (!part.fused) continue;
      const kernels::HostTensor tensor = part_of(*checkpoint_, part);
      std::vector<float> whole(static_cast<std::size_t>(tensor.count()));
      kernels::read_float32(tensor, 0, tensor.count(), whole.data());
      for (const int64_t first : {int64_t{0}, int64_t{7}, tensor.count() / 2 - 3}) {
        const int64_t count = std::min<int64_t>(tensor.count() - first, 33 * tensor.cols() / 2);
        std::vector<float> piece(static_cast<std::size_t>(count));
        kernels::read_float32(tensor, first, count, piece.data());
        EXPECT_EQ(std::memcmp(piece.data(), whole.data() + first, piece.size() * sizeof(float)), 0)
            << part.tensor.name << " of expert " << part.fused->expert << " from " << first;
      }
    }
  }
}

TEST_F(FusedExperts, TensorsOfAnotherShapeAreRefused) {
  // As many experts as config.json says, and as wide.
  std::string text = config_.text;
  const auto change = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    changed.replace(changed.find(from), from.size(), to);
    dir_.write("config.json", changed);
    open();
  };
  change("\"num_local_experts\": 3", "\"num_local_experts\": 4");
  expect_error(ExitCode::kBadData, {"model.layers.0.mlp.", "expected shape [4,"},
               [&] { ModelWeights(config_, *checkpoint_, *ops_); });
  change("\"intermediate_size\": 72", "\"intermediate_size\": 64");
  expect_error(ExitCode::kBadData, {"model.layers.0.mlp.experts.", "expected shape [3,40,128]", "found [3,40,144]"},
               [&] { ModelWeights(config_, *checkpoint_, *ops_); });
}

// A checkpoint with the names of model hubs, and the same with those of Transformers' modules.
class ModuleNames : public ::testing::TestWithParam<const char*> {
 protected:
  using Stored = std::map<std::string, std::pair<std::vector<int64_t>, std::string>>;

  void SetUp() override {
    write_random_checkpoint(hub_.path(), {.model_type = GetParam(), .n_layers = 3});
    config_ = read_config(hub_.path());
    const Checkpoint hub(hub_.path());
    for (const auto& [name, tensor] : hub.tensors()) {
      const std::string bytes(reinterpret_cast<const char*>(tensor.data), static_cast<std::size_t>(2 * tensor.count()));
      if (name.find(names().each) == std::string::npos || name.find("shared") != std::string::npos) {
        stored_[name_in_modules(name)] = {tensor.shape, bytes};
      }
    }
    for (int64_t layer = 0; layer < config_.n_layers; ++layer) {
      if (config_.experts.of_layer(layer)) join_experts(hub, "model.layers." + std::to_string(layer) + ".");
    }
  }

  const ExpertsFamily& names() const { return config_.family->experts; }

  std::string name_in_modules(std::string name) const {
    const std::string correction(names().correction);
    const std::string of_family = config_.model_type;
    const std::string in_modules = of_family == "minimax_m2" ? "mlp.e_score_correction_bias"
                                   : of_family == "glm4_moe" ? "mlp.gate.e_score_correction_bias"
                                                             : "mlp.gate.moe_statics.e_score_correction_bias";
    for (const auto& [from, to] : {std::pair(std::string(names().router) + ".weight", std::string("mlp.gate.weight")),
                                   std::pair(correction, in_modules)}) {
      if (!from.empty() && name.ends_with("." + from)) name.replace(name.size() - from.size(), from.size(), to);
    }
    return name;
  }

  void join_experts(const Checkpoint& hub, const std::string& layer) {
    const int64_t n_experts = config_.experts.router.n_experts;
    const int64_t ffn = config_.experts.ffn;
    std::string gate_up;
    std::string down;
    for (int64_t e = 0; e < n_experts; ++e) {
      const auto append = [&](std::string_view end, std::string& to) {
        const kernels::HostTensor& tensor = hub.tensors().at(layer + std::string(names().each) + "." +
                                                             std::to_string(e) + "." + std::string(end) + ".weight");
        to.append(reinterpret_cast<const char*>(tensor.data), static_cast<std::size_t>(2 * tensor.count()));
      };
      append(names().gate, gate_up);
      append(names().up, gate_up);
      append(names().down, down);
    }
    stored_[layer + "mlp.experts.gate_up_proj"] = {{n_experts, 2 * ffn, config_.hidden}, gate_up};
    stored_[layer + "mlp.experts.down_proj"] = {{n_experts, config_.hidden, ffn}, down};
  }

  void write() const {
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    std::string data;
    for (const auto& [name, tensor] : stored_) {
      const auto& [shape, bytes] = tensor;
      header[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {data.size(), data.size() + bytes.size()}}};
      data += bytes;
    }
    modules_.write("model.safetensors", testing::safetensors_image(header.dump(), data));
  }

  TempDir modules_;
  ScratchDirectory hub_;
  ModelConfig config_;
  Stored stored_;
};

TEST_P(ModuleNames, AreReadAsThoseOfTheHub) {
  write();
  const Checkpoint hub(hub_.path());
  const Checkpoint modules(modules_.path(), {}, config_.family);
  require_model(config_, modules);
  ASSERT_EQ(modules.tensors().size(), hub.tensors().size());
  for (const auto& [name, tensor] : hub.tensors()) {
    const kernels::HostTensor& found = modules.get(name, tensor.shape);
    EXPECT_EQ(std::memcmp(found.data, tensor.data, static_cast<std::size_t>(2 * tensor.count())), 0) << name;
  }
}

TEST_P(ModuleNames, OfAnotherShapeAreRefused) {
  auto& [shape, bytes] = stored_.at("model.layers.2.mlp.experts.down_proj");
  shape = {shape[0] / 2, shape[1] * 2, shape[2]};
  write();
  expect_error(ExitCode::kBadData, {"model.layers.2.mlp.experts.down_proj", "expert 0", "expected shape"},
               [&] { require_model(config_, Checkpoint(modules_.path(), {}, config_.family)); });
  shape = {shape[0] * shape[1], shape[2]};
  write();
  expect_error(ExitCode::kBadData, {"model.layers.2." + std::string(names().each) + ".0." + std::string(names().down)},
               [&] { require_model(config_, Checkpoint(modules_.path(), {}, config_.family)); });
}

INSTANTIATE_TEST_SUITE_P(Families, ModuleNames,
                         ::testing::Values("qwen3_moe", "mixtral", "olmoe", "glm4_moe", "minimax_m2", "ernie4_5_moe"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace winnow::model
