// Layers that go through the GPU: the bits of those that stay there. Skipped where there is no GPU.

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "model/weights.h"
#include "tests/model/quantization/quantized_files.h"
#include "tests/small_model.h"

namespace winnow::model {
namespace {

using testing::quantized_path;

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};

// Memory of the host for layers, which is locked as a run's is. It goes after the weights that are copied from it.
class Staged {
 public:
  void hold(kernels::Device& device, ModelWeights& weights) {
    const auto size = static_cast<std::size_t>(weights.staged_bytes());
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(4096, (size + 4095) / 4096 * 4096)));
    const std::span<std::byte> bytes(memory_.get(), size);
    pin_ = device.pin(bytes);
    const auto n = static_cast<int64_t>(weights.residency().streamed().size());
    for (int64_t i = 0; i < n; ++i) weights.stage(i, bytes);
    weights.stage_from(bytes);
  }

 private:
  std::unique_ptr<std::byte, Free> memory_;
  std::shared_ptr<void> pin_;
};

std::string device_bytes(const kernels::Matrix& matrix) {
  if (!matrix) return "";
  std::string bytes(static_cast<std::size_t>(matrix.rows * matrix.cols * size_bytes(matrix.dtype)), '\0');
  EXPECT_EQ(cudaMemcpy(bytes.data(), matrix.data, bytes.size(), cudaMemcpyDeviceToHost), cudaSuccess);
  return bytes;
}

std::string layer_bytes(kernels::Ops& ops, ModelWeights& weights, int64_t index) {
  const LayerWeights& layer = weights.layer(index);
  ops.device().synchronize();
  std::string all;
  for (const kernels::Matrix& matrix : {layer.attention_norm.weight, layer.q, layer.q_bias, layer.kv, layer.o,
                                        layer.mlp_norm.weight, layer.gate_up, layer.down}) {
    all += device_bytes(matrix);
  }
  return all;
}

TEST(StreamingCuda, LayersAreThoseThatStay) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  for (const char* name : {"fp8_block", "fp8_channel", "fp8_tensor", "int8_channel", "int4_packed", "int4_zero_points",
                           "awq", "gptq", "nf4"}) {
    const auto gpu = cuda::make_cuda_backend({});
    const ModelConfig config = read_config(quantized_path(name));
    const Checkpoint checkpoint(quantized_path(name), config.quantization);
    ModelWeights resident(config, checkpoint, *gpu, Loading::kLater);
    resident.load();
    for (const bool is_staged : {true, false}) {
      for (const int64_t n_buffers : {1, 2, 3}) {
        const Residency residency{.n_layers = config.n_layers, .n_buffers = n_buffers};
        Staged staged;
        ModelWeights streamed(config, checkpoint, *gpu, Loading::kLater, residency);
        streamed.load();
        if (is_staged) staged.hold(gpu->device(), streamed);
        for (int64_t i = 0; i < 3 * config.n_layers; ++i) {
          const int64_t index = i % config.n_layers;
          EXPECT_EQ(layer_bytes(*gpu, streamed, index), layer_bytes(*gpu, resident, index)) << name << index;
        }
      }
    }
  }
}

// The work of a layer is long beside its copy here, and nobody waits in between: a copy that did not wait for the
// operations on what it replaces, or operations that did not wait for it, would show in the figures.
TEST(StreamingCuda, SweepsHaveTheSameBits) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  const Model model({.model_type = "qwen3",
                     .n_layers = 9,
                     .hidden = 1024,
                     .n_heads = 8,
                     .n_kv_heads = 4,
                     .head_dim = 128,
                     .ffn = 3072,
                     .vocab = 512});
  const std::vector<int32_t> tokens = random_tokens(4200, 512, 5);
  for (const int64_t first_row : {int64_t{0}, int64_t{4100 - 64}}) {
    const engine::SweepRequest request =
        drop_one(tokens, 4100, {256, 4, first_row, kernels::kNoLimit}, model.config.n_layers);
    const auto gpu = cuda::make_cuda_backend({});
    ModelWeights resident(model.config, *model.checkpoint, *gpu, Loading::kLater);
    resident.load();
    const engine::SweepResult expected = engine::sweep(*gpu, model.config, resident, request, {});
    for (const Residency& residency :
         {Residency{.n_layers = 9, .n_buffers = 2}, Residency{.n_layers = 9, .n_buffers = 3},
          Residency{.n_layers = 9, .n_kept = 4, .n_buffers = 2}}) {
      for (const bool is_staged : {true, false}) {
        Staged staged;
        ModelWeights streamed(model.config, *model.checkpoint, *gpu, Loading::kLater, residency);
        streamed.load();
        if (is_staged) staged.hold(gpu->device(), streamed);
        for (int pass = 0; pass < 3; ++pass) {
          const engine::SweepResult found = engine::sweep(*gpu, model.config, streamed, request, {});
          const std::string what =
              std::to_string(residency.n_kept) + (is_staged ? " staged " : " mapped ") + std::to_string(pass);
          expect_same(found.base, expected.base, what);
          for (std::size_t v = 0; v < found.variants.size(); ++v) {
            expect_same(found.variants[v], expected.variants[v], what);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace winnow::model
