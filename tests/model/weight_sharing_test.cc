// Weights that one rank reads and another is sent.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "model/random_checkpoint.h"
#include "model/weights.h"
#include "tests/model/packing_cpu.h"
#include "tests/model/quantization/quantized_files.h"
#include "tests/scratch.h"

namespace winnow::model {
namespace {

using testing::PackingCpu;
using testing::quantized_path;

// Two ranks of one host in one process: what the first shares is kept, and given to the second.
class Pieces {
 public:
  class Rank final : public WeightSharing {
   public:
    Rank(Pieces& pieces, bool reads) : pieces_(pieces), reads_(reads) {}
    bool reads() const override { return reads_; }
    void share(std::span<std::byte> memory) override {
      if (reads_) {
        pieces_.kept_.emplace_back(memory.begin(), memory.end());
        return;
      }
      ASSERT_LT(n_taken_, pieces_.kept_.size());
      const std::vector<std::byte>& piece = pieces_.kept_[n_taken_++];
      ASSERT_EQ(piece.size(), memory.size());
      std::ranges::copy(piece, memory.begin());
    }
    void finish() override { is_finished_ = true; }
    bool is_finished() const { return is_finished_; }
    std::size_t n_taken() const { return n_taken_; }

   private:
    Pieces& pieces_;
    bool reads_;
    bool is_finished_ = false;
    std::size_t n_taken_ = 0;
  };
  std::size_t size() const { return kept_.size(); }
  int64_t size_bytes() const {
    int64_t total = 0;
    for (const auto& piece : kept_) total += static_cast<int64_t>(piece.size());
    return total;
  }

 private:
  std::vector<std::vector<std::byte>> kept_;
};

class WeightSharingTest : public ::testing::Test {
 protected:
  void expect_equal(const kernels::Matrix& found, const kernels::Matrix& expected) {
    ASSERT_EQ(static_cast<bool>(found), static_cast<bool>(expected));
    EXPECT_EQ(found.dtype, expected.dtype);
    EXPECT_EQ(found.rows, expected.rows);
    EXPECT_EQ(found.cols, expected.cols);
    if (!found) return;
    const auto size = static_cast<std::size_t>(found.rows * found.cols * size_bytes(found.dtype));
    EXPECT_EQ(std::memcmp(found.data, expected.data, size), 0);
  }
  void expect_equal(const LayerWeights& found, const LayerWeights& expected) {
    EXPECT_EQ(found.q_norm.norm.shape.eps, expected.q_norm.norm.shape.eps);
    EXPECT_EQ(found.k_norm.norm.shape.eps, expected.k_norm.norm.shape.eps);
    expect_equal(found.q_norm.norm.weight, expected.q_norm.norm.weight);
    expect_equal(found.k_norm.norm.weight, expected.k_norm.norm.weight);
    for (const auto norm : {&LayerWeights::attention_norm, &LayerWeights::mlp_norm}) {
      expect_equal((found.*norm).weight, (expected.*norm).weight);
    }
    using Member = kernels::Matrix LayerWeights::*;
    for (const Member member : {&LayerWeights::q, &LayerWeights::q_bias, &LayerWeights::kv, &LayerWeights::kv_bias,
                                &LayerWeights::o, &LayerWeights::o_bias, &LayerWeights::gate_up,
                                &LayerWeights::gate_up_bias, &LayerWeights::down, &LayerWeights::down_bias}) {
      expect_equal(found.*member, expected.*member);
    }
  }

  ScratchDirectory directory_;
  std::unique_ptr<kernels::Ops> ops_ = cpu::make_cpu_backend({.n_threads = 2});
};

TEST_F(WeightSharingTest, WhoDoesNotReadHasTheSameWeights) {
  for (const char* family : {"qwen3", "qwen2"}) {
    for (const bool tied : {true, false}) {
      // The CPU keeps one layer: a model of one layer is kept whole, as every model is on a GPU.
      const auto path = directory_.path() / (std::string(family) + (tied ? "-tied" : ""));
      write_random_checkpoint(path, {.model_type = family, .n_layers = 1, .tied_embeddings = tied});
      const ModelConfig config = read_config(path);
      const Checkpoint checkpoint(path);
      Pieces pieces;
      Pieces::Rank reader(pieces, true);
      Pieces::Rank other(pieces, false);
      ModelWeights expected(config, checkpoint, *ops_);
      ModelWeights read(config, checkpoint, *ops_, Loading::kLater);
      ModelWeights sent(config, checkpoint, *ops_, Loading::kLater);
      const int64_t predicted = ModelWeights::predicted_bytes(config, checkpoint, *ops_);
      EXPECT_EQ(read.load(&reader), predicted);
      EXPECT_EQ(sent.load(&other), predicted);
      EXPECT_EQ(other.n_taken(), pieces.size());
      EXPECT_TRUE(reader.is_finished() && other.is_finished());
      expect_equal(read.layer(0), expected.layer(0));
      expect_equal(sent.layer(0), expected.layer(0));
      expect_equal(sent.embedding(), expected.embedding());
      expect_equal(sent.final_norm().weight, expected.final_norm().weight);
      expect_equal(sent.head(), expected.head());
    }
  }
}

TEST_F(WeightSharingTest, PackedWeightsAreSentPackedAndUnpackedByEveryRank) {
  for (const char* name : {"fp8_block", "fp8_ceil_block", "fp8_channel", "fp8_tensor", "int4_packed", "awq", "gptq"}) {
    const ModelConfig config = read_config(quantized_path(name));
    const Checkpoint checkpoint(quantized_path(name), config.quantization);
    Pieces pieces;
    Pieces::Rank reader(pieces, true);
    Pieces::Rank other(pieces, false);
    PackingCpu of_reader;
    PackingCpu of_other;
    ModelWeights expected(config, checkpoint, *ops_);
    ModelWeights read(config, checkpoint, of_reader, Loading::kLater);
    ModelWeights sent(config, checkpoint, of_other, Loading::kLater);
    const int64_t loaded = read.load(&reader);
    EXPECT_EQ(sent.load(&other), loaded);
    EXPECT_EQ(other.n_taken(), pieces.size());
    // Less than half of float32, although norms and the scales of small blocks are sent too.
    EXPECT_LT(pieces.size_bytes(), loaded / 2) << name;
    ASSERT_EQ(checkpoint.weight_formats().size(), 1U);
    const int64_t n_fp8 = checkpoint.weight_formats().begin()->second;
    EXPECT_EQ(of_reader.n_packed(), n_fp8) << name;
    EXPECT_EQ(of_other.n_packed(), 0) << name;
    EXPECT_EQ(of_reader.n_unpacked(), n_fp8) << name;
    EXPECT_EQ(of_other.n_unpacked(), n_fp8) << name;
    for (int64_t layer = 0; layer < config.n_layers; ++layer) {
      expect_equal(read.layer(layer), expected.layer(layer));
      expect_equal(sent.layer(layer), expected.layer(layer));
    }
    EXPECT_EQ(of_reader.allocated_bytes(), ModelWeights::predicted_bytes(config, checkpoint, of_reader)) << name;
  }
}

TEST_F(WeightSharingTest, LoadingLaterIsLoading) {
  write_random_checkpoint(directory_.path(), {.model_type = "llama"});
  const ModelConfig config = read_config(directory_.path());
  const Checkpoint checkpoint(directory_.path());
  ModelWeights expected(config, checkpoint, *ops_);
  ModelWeights later(config, checkpoint, *ops_, Loading::kLater);
  EXPECT_GT(later.load(), 0);
  expect_equal(later.final_norm().weight, expected.final_norm().weight);
  for (const int64_t index : {2, 0, 1}) expect_equal(later.layer(index), expected.layer(index));
}

}  // namespace
}  // namespace winnow::model
