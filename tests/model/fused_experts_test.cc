// Experts in tensors that have all of them, as gpt-oss has them: what becomes of their rows, and what is refused.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/convert.h"
#include "kernels/cpu/cpu.h"
#include "model/random_checkpoint.h"
#include "model/weight_parts.h"
#include "model/weights.h"
#include "tests/model/model_files.h"

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

}  // namespace
}  // namespace winnow::model
