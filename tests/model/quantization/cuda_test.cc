// Quantised weights on the GPU: the values that the CPU reads, rounded to bfloat16. Skipped where there is no GPU.

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "kernels/cuda/cuda.h"
#include "tests/model/quantization/quantized_files.h"

namespace winnow::model {
namespace {

using testing::quantized_path;
using testing::read_json;

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
      std::string found(static_cast<std::size_t>(size), '\0');
      ASSERT_EQ(cudaMemcpy(found.data(), matrix.data, found.size(), cudaMemcpyDeviceToHost), cudaSuccess);
      EXPECT_EQ(sha256_of(found), expected.at("bf16").get<std::string>()) << name << ", " << key;
      ++n_compared;
    }
  }
  EXPECT_GT(n_compared, 200U);
}

}  // namespace
}  // namespace winnow::model
