// Times the mixture of experts of the CUDA backend at the shape of Qwen3-30B-A3B: prints rows and milliseconds, a line
// for each number of rows on the command line. experts_speed.py runs it.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"

namespace {

using winnow::kernels::DType;

constexpr int64_t kHidden = 2048;
constexpr int64_t kFfn = 768;
constexpr int64_t kExperts = 128;
constexpr int kCalls = 20;

// Random bfloat16 values between -0.03 and 0.03, as many as asked for.
std::unique_ptr<winnow::kernels::Buffer> random_bf16(winnow::kernels::Device& device, int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<uint16_t> values(static_cast<std::size_t>(count));
  for (uint16_t& value : values) value = static_cast<uint16_t>((generator() & 0x80FFU) | 0x3C00U);
  auto buffer = device.allocate(count * 2, "a benchmark");
  device.synchronize();
  WINNOW_CUDA_CHECK(cudaMemcpy(buffer->data(), values.data(), values.size() * 2, cudaMemcpyHostToDevice));
  WINNOW_CUDA_CHECK(cudaDeviceSynchronize());
  return buffer;
}

void measure(int argc, char** argv) {
  const auto ops = winnow::cuda::make_cuda_backend({});
  winnow::kernels::Device& device = ops->device();
  const auto router = random_bf16(device, kExperts * kHidden, 1);
  const auto gate_up = random_bf16(device, kExperts * 2 * kFfn * kHidden, 2);
  const auto down = random_bf16(device, kExperts * kHidden * kFfn, 3);
  for (int a = 1; a < argc; ++a) {
    const int64_t n_rows = std::max(std::atoll(argv[a]), 1LL);
    const auto x = random_bf16(device, n_rows * kHidden, 4);
    const auto out = device.allocate(n_rows * kHidden * 2, "a benchmark");
    const auto run = [&] {
      ops->experts(x->rows(DType::kBf16, kHidden),
                   {.weight = {router->data(), DType::kBf16, kExperts, kHidden},
                    .bias = {},
                    .correction = {},
                    .shape = {.n_experts = kExperts, .top_k = 8, .normalised = true}},
                   {.gate_up = {gate_up->data(), DType::kBf16, kExperts * 2 * kFfn, kHidden},
                    .gate_up_bias = {},
                    .down = {down->data(), DType::kBf16, kExperts * kHidden, kFfn},
                    .down_bias = {}},
                   winnow::kernels::Activation::kSilu, out->rows(DType::kBf16, kHidden));
    };
    for (int i = 0; i < 3; ++i) run();
    device.record_event(0);
    for (int i = 0; i < kCalls; ++i) run();
    device.record_event(1);
    std::printf("%lld %.4f\n", static_cast<long long>(n_rows), device.elapsed_seconds(0, 1) * 1e3 / kCalls);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    measure(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "experts_speed: %s\n", error.what());
    return 1;
  }
  return 0;
}
