// Layers that go through a backend's memory: the values of those that stay there.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/random_checkpoint.h"
#include "model/weights.h"
#include "tests/model/packing_cpu.h"
#include "tests/model/quantization/quantized_files.h"
#include "tests/scratch.h"

namespace winnow::model {
namespace {

using testing::LateCpu;
using testing::quantized_path;

std::string bytes_of(const kernels::Matrix& matrix) {
  if (!matrix) return "";
  return {static_cast<const char*>(matrix.data),
          static_cast<std::size_t>(matrix.rows * matrix.cols * size_bytes(matrix.dtype))};
}

std::vector<std::string> layer_bytes(const LayerWeights& layer) {
  std::vector<std::string> all;
  for (const kernels::Matrix& matrix :
       {layer.attention_norm.weight, layer.q, layer.q_bias, layer.kv, layer.kv_bias, layer.q_norm.norm.weight,
        layer.k_norm.norm.weight, layer.o, layer.mlp_norm.weight, layer.gate_up, layer.down, layer.experts.gate_up,
        layer.experts.down}) {
    all.push_back(bytes_of(matrix));
  }
  return all;
}

// Expects the layers of a model in every residency, in the order of passes and out of it.
void expect_same_layers(const std::string& name, const ModelConfig& config, const Checkpoint& checkpoint) {
  LateCpu cpu;
  ModelWeights resident(config, checkpoint, cpu, Loading::kLater);
  resident.load();
  std::vector<std::vector<std::string>> expected;
  for (int64_t index = 0; index < config.n_layers; ++index) {
    expected.push_back(layer_bytes(resident.layer(index)));
    EXPECT_FALSE(expected.back()[1].empty());
  }
  for (int64_t n_kept = 0; n_kept < config.n_layers; ++n_kept) {
    for (const int64_t n_buffers : {1, 2, 3}) {
      for (const bool is_staged : {true, false}) {
        std::vector<std::byte> memory;  // goes after the weights
        const Residency residency{.n_layers = config.n_layers, .n_kept = n_kept, .n_buffers = n_buffers};
        const int64_t before = cpu.allocated_bytes();
        ModelWeights streamed(config, checkpoint, cpu, Loading::kLater, residency);
        EXPECT_EQ(cpu.allocated_bytes() - before, ModelWeights::predicted_bytes(config, checkpoint, cpu, residency));
        streamed.load();
        if (is_staged) {
          memory.resize(static_cast<std::size_t>(streamed.staged_bytes()) + WeightTransport::kAlignment);
          for (int64_t i = 0; i < config.n_layers - n_kept; ++i) streamed.stage(i, memory);
          streamed.stage_from(memory);
        }
        std::vector<int64_t> order;
        for (int64_t i = 0; i < 2 * config.n_layers; ++i) order.push_back(i % config.n_layers);
        for (const int64_t index : {int64_t{0}, config.n_layers - 1, config.n_layers - 1, int64_t{0}, int64_t{1}}) {
          order.push_back(index);
        }
        for (const int64_t index : order) {
          EXPECT_EQ(layer_bytes(streamed.layer(index)), expected[static_cast<std::size_t>(index)])
              << name << ", layer " << index << ", " << n_kept << " kept, " << n_buffers << " buffers, "
              << (is_staged ? "staged" : "from the map");
        }
      }
    }
  }
}

TEST(Streaming, LayersAreThoseThatStay) {
  const ScratchDirectory scratch;
  for (const char* family : {"qwen3", "qwen2", "qwen3_moe", "gpt_oss"}) {
    const auto path = scratch.path() / family;
    write_random_checkpoint(path, {.model_type = family, .n_layers = 5, .hidden = 64, .n_heads = 4, .head_dim = 16});
    const ModelConfig config = read_config(path);
    expect_same_layers(family, config, Checkpoint(path, config.quantization));
  }
}

TEST(Streaming, QuantizedLayersAreThoseThatStay) {
  for (const char* name : {"fp8_block", "fp8_channel", "fp8_tensor", "int4_packed", "awq", "gptq_act_order", "nf4"}) {
    const ModelConfig config = read_config(quantized_path(name));
    expect_same_layers(name, config, Checkpoint(quantized_path(name), config.quantization));
  }
}

// FP8 weights wait in the host's memory as they are on disk, near enough: a byte each, and scales.
TEST(Streaming, PackedWeightsAreStagedPacked) {
  LateCpu cpu;
  const ModelConfig config = read_config(quantized_path("fp8_channel"));
  const Checkpoint checkpoint(quantized_path("fp8_channel"), config.quantization);
  const Residency residency{.n_layers = config.n_layers, .n_buffers = 2};
  const ModelWeights streamed(config, checkpoint, cpu, Loading::kLater, residency);
  const int64_t layers = ModelWeights::predicted_bytes(config, checkpoint, cpu) -
                         ModelWeights::predicted_bytes(config, checkpoint, cpu, Residency{0, 0, 0});
  EXPECT_GT(streamed.staged_bytes(), 0);
  EXPECT_LT(streamed.staged_bytes(), layers / 2);
}

TEST(Streaming, MemoryThatIsTooSmallIsRefused) {
  const ScratchDirectory scratch;
  write_random_checkpoint(scratch.path(), {.model_type = "llama"});
  const ModelConfig config = read_config(scratch.path());
  const Checkpoint checkpoint(scratch.path());
  LateCpu cpu;
  ModelWeights streamed(config, checkpoint, cpu, Loading::kLater, Residency{.n_layers = 4, .n_buffers = 2});
  const std::vector<std::byte> memory(static_cast<std::size_t>(streamed.staged_bytes()) - 1);
  try {
    streamed.stage_from(memory);
    FAIL() << "nothing thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kInternal);
  }
}

}  // namespace
}  // namespace winnow::model
