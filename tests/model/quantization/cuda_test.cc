// Quantised weights on the GPU: the values that the CPU reads, rounded to bfloat16. Skipped where there is no GPU.

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "kernels/convert.h"
#include "kernels/cuda/cuda.h"
#include "model/quantization/combine.h"
#include "model/weights.h"
#include "tests/model/quantization/quantized_files.h"

namespace winnow::model {
namespace {

using testing::quantized_path;
using testing::read_json;

std::string device_bytes(const void* data, int64_t size_bytes) {
  std::string bytes(static_cast<std::size_t>(size_bytes), '\0');
  EXPECT_EQ(cudaMemcpy(bytes.data(), data, bytes.size(), cudaMemcpyDeviceToHost), cudaSuccess);
  return bytes;
}

std::string device_bytes(const kernels::Matrix& matrix) {
  return matrix ? device_bytes(matrix.data, matrix.rows * matrix.cols * size_bytes(matrix.dtype)) : "";
}

// Two ranks in one process: what one shares is kept, and given to the other.
class DevicePieces final : public WeightSharing {
 public:
  explicit DevicePieces(kernels::Device& device) : device_(device) {}
  bool reads() const override { return reads_; }
  void share(std::span<std::byte> memory) override {
    if (reads_) {
      device_.synchronize();
      kept_.push_back(device_bytes(memory.data(), static_cast<int64_t>(memory.size())));
      return;
    }
    ASSERT_LT(n_taken_, kept_.size());
    const std::string& piece = kept_[n_taken_++];
    ASSERT_EQ(piece.size(), memory.size());
    EXPECT_EQ(cudaMemcpy(memory.data(), piece.data(), piece.size(), cudaMemcpyHostToDevice), cudaSuccess);
  }
  void finish() override {}
  void become_the_other() { reads_ = false; }
  int64_t size_bytes() const {
    int64_t total = 0;
    for (const std::string& piece : kept_) total += static_cast<int64_t>(piece.size());
    return total;
  }

 private:
  kernels::Device& device_;
  bool reads_ = true;
  std::vector<std::string> kept_;
  std::size_t n_taken_ = 0;
};

TEST(QuantizedCuda, WeightsAreTheGoldensInBfloat16) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  const auto gpu = cuda::make_cuda_backend({});
  std::size_t n_compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(quantized_path(""))) {
    if (entry.path().extension() != ".json") continue;
    const std::string name = entry.path().stem();
    const ModelConfig config = read_config(quantized_path(name));
    const Checkpoint checkpoint(quantized_path(name), config.quantization);
    const nlohmann::json golden = read_json(entry.path());  // outlives its items
    for (const auto& [key, expected] : golden.at("values").items()) {
      const kernels::HostTensor& tensor = checkpoint.tensors().at(key);
      const int64_t size = gpu->device().weight_bytes(tensor, kernels::WeightUse::kLinear);
      ASSERT_EQ(size, 2 * tensor.count());
      const auto memory = gpu->device().allocate(size, "a weight");
      const kernels::Matrix matrix = gpu->device().load(tensor, kernels::WeightUse::kLinear, memory->bytes());
      gpu->device().synchronize();
      // Experts that are one tensor have more values than the rows and columns of a matrix say.
      EXPECT_EQ(sha256_of(device_bytes(matrix.data, size)), expected.at("bf16").get<std::string>())
          << name << ", " << key;
      ++n_compared;
    }
  }
  EXPECT_GT(n_compared, 200U);
}

// More than is in the GPU's memory packed, in rows that are no multiple of anything.
TEST(QuantizedCuda, ALargeFp8WeightIsTheHostsInBfloat16) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  const auto gpu = cuda::make_cuda_backend({});
  constexpr int64_t kRows = 8001;
  constexpr int64_t kCols = 9003;
  std::mt19937 generator(7);
  std::vector<unsigned char> codes(kRows * kCols);
  for (unsigned char& code : codes) {
    code = static_cast<unsigned char>(generator());
    if ((code & 0x7FU) == 0x7FU) code = 0;  // NaN, whose bits are anybody's
  }
  std::vector<float> scales(63 * 71);
  for (float& scale : scales) scale = 1e-4F * static_cast<float>(1 + generator() % 100000);
  const auto tensor = [](const auto& values, kernels::DType dtype, std::vector<int64_t> shape, const char* name,
                         const char* type) {
    const auto* data = reinterpret_cast<const std::byte*>(values.data());
    return kernels::HostTensor{
        .data = data, .dtype = dtype, .shape = std::move(shape), .name = name, .dtype_name = type};
  };
  const quantization::Tensors stored = {
      {"m.weight", tensor(codes, kernels::DType::kOther, {kRows, kCols}, "m.weight", "F8_E4M3")},
      {"m.weight_scale_inv", tensor(scales, kernels::DType::kF32, {63, 71}, "m.weight_scale_inv", "F32")}};
  const auto config =
      nlohmann::json::parse(R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})");
  const auto combined = combine(quantization::parse_scheme(ConfigFields(config, "config.json")), stored);
  const kernels::HostTensor& weight = combined.tensors.at("m.weight");
  const auto memory = gpu->device().allocate(2 * weight.count(), "a weight");
  const int64_t before = gpu->device().allocated_bytes();
  const std::string found = device_bytes(gpu->device().load(weight, kernels::WeightUse::kLinear, memory->bytes()));
  EXPECT_EQ(gpu->device().allocated_bytes(), before);
  std::vector<float> values(static_cast<std::size_t>(kCols));
  for (int64_t row = 0; row < kRows; ++row) {
    kernels::read_float32(weight, row * kCols, kCols, values.data());
    std::vector<uint16_t> expected(values.size());
    std::ranges::transform(values, expected.begin(), kernels::float_to_bfloat16);
    ASSERT_EQ(std::memcmp(found.data() + row * kCols * 2, expected.data(), expected.size() * 2), 0) << row;
  }
}

TEST(QuantizedCuda, PackedWeightsAreSentPacked) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  const auto gpu = cuda::make_cuda_backend({});
  for (const char* name : {"fp8_block", "fp8_ceil_block", "fp8_channel", "fp8_tensor", "fp8_fbgemm", "int4_packed",
                           "int4_zero_points", "awq", "gptq"}) {
    const ModelConfig config = read_config(quantized_path(name));
    const Checkpoint checkpoint(quantized_path(name), config.quantization);
    ModelWeights expected(config, checkpoint, *gpu, Loading::kLater);
    const int64_t loaded = expected.load();
    DevicePieces pieces(gpu->device());
    ModelWeights read(config, checkpoint, *gpu, Loading::kLater);
    EXPECT_EQ(read.load(&pieces), loaded) << name;
    pieces.become_the_other();
    ModelWeights sent(config, checkpoint, *gpu, Loading::kLater);
    EXPECT_EQ(sent.load(&pieces), loaded) << name;
    EXPECT_LT(pieces.size_bytes(), loaded) << name;
    using Member = kernels::Matrix LayerWeights::*;
    for (int64_t layer = 0; layer < config.n_layers; ++layer) {
      for (const Member member :
           {&LayerWeights::q, &LayerWeights::kv, &LayerWeights::o, &LayerWeights::gate_up, &LayerWeights::down}) {
        const std::string values = device_bytes(expected.layer(layer).*member);
        EXPECT_FALSE(values.empty());
        EXPECT_TRUE(device_bytes(read.layer(layer).*member) == values) << name << ", layer " << layer;
        EXPECT_TRUE(device_bytes(sent.layer(layer).*member) == values) << name << ", layer " << layer;
      }
      EXPECT_TRUE(device_bytes(sent.layer(layer).mlp_norm.weight) ==
                  device_bytes(expected.layer(layer).mlp_norm.weight));
    }
    EXPECT_TRUE(device_bytes(sent.head()) == device_bytes(expected.head()));
  }
}

}  // namespace
}  // namespace winnow::model
