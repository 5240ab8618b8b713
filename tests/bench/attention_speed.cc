// Times the kernels of attention that a GPU has, each on the same calls in the same run, and prints a Markdown table:
// milliseconds and TFLOP/s of the pairs that rows see. cuDNN's plans are built before its calls are timed.
//
//   attention_speed            the shapes of Qwen3-4B, Qwen2.5-Coder-0.5B, SmolLM2, Phi-3 and Gemma 3
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"
#include "kernels/window.h"

namespace {

using winnow::cuda::CudaOptions;
using winnow::kernels::AttentionCall;
using winnow::kernels::DType;

constexpr int kRepeats = 5;
constexpr int kCallsARepeat = 10;

// Rows [split, n_tokens) of n_lanes sequences that share what is before: a lane of the tail sweep, or with split 0 a
// whole sequence.
struct Case {
  const char* name;
  int64_t n_tokens;
  int64_t split;
  int64_t window;  // 0: none
  int64_t n_heads;
  int64_t n_kv_heads;
  int64_t head_dim;
  int64_t n_lanes = 1;
};

constexpr std::array<Case, 16> kCases = {{
    {"Qwen3-4B, T = 16384", 16384, 0, 0, 32, 8, 128},
    {"Qwen3-4B, T = 24576", 24576, 0, 0, 32, 8, 128},
    {"Qwen3-4B, T = 16384, W = 2048", 16384, 0, 2048, 32, 8, 128},
    {"Qwen3-4B, 1 lane of 384 rows at 20k", 20352, 19968, 0, 32, 8, 128, 1},
    {"Qwen3-4B, 16 lanes of 384 rows at 20k", 20352, 19968, 0, 32, 8, 128, 16},
    {"Qwen3-4B, 16 lanes, W = 2048", 20352, 19968, 2048, 32, 8, 128, 16},
    {"Qwen2.5-0.5B, T = 16384", 16384, 0, 0, 14, 2, 64},
    {"Qwen2.5-0.5B, T = 24576", 24576, 0, 0, 14, 2, 64},
    {"Qwen2.5-0.5B, T = 16384, W = 2048", 16384, 0, 2048, 14, 2, 64},
    {"Qwen2.5-0.5B, 1 lane of 384 rows at 20k", 20352, 19968, 0, 14, 2, 64, 1},
    {"Qwen2.5-0.5B, 16 lanes of 384 rows at 20k", 20352, 19968, 0, 14, 2, 64, 16},
    {"Qwen2.5-0.5B, 1 lane, W = 2048", 20352, 19968, 2048, 14, 2, 64, 1},
    {"Qwen2.5-0.5B, 16 lanes, W = 2048", 20352, 19968, 2048, 14, 2, 64, 16},
    {"SmolLM2-135M, T = 8192, W = 512", 8192, 0, 512, 9, 3, 64},
    {"Phi-3 mini, T = 16384", 16384, 0, 0, 32, 32, 96},
    {"Gemma 3 270M, T = 16384", 16384, 0, 0, 4, 1, 256},
}};

constexpr int64_t kDrawn = 1 << 20;  // values that are drawn, and repeated: drawing takes longer than the attention

// Random bfloat16 values about 1, as many as asked for.
std::unique_ptr<winnow::kernels::Buffer> random_bf16(winnow::kernels::Device& device, int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<uint16_t> values(static_cast<std::size_t>(std::min(count, kDrawn)));
  for (uint16_t& value : values) value = static_cast<uint16_t>((generator() & 0x80FFU) | 0x3F00U);
  auto buffer = device.allocate(count * 2, "a benchmark");
  device.synchronize();
  for (int64_t first = 0; first < count; first += kDrawn) {
    const auto n_bytes = static_cast<std::size_t>(std::min(count - first, kDrawn) * 2);
    void* to = static_cast<uint16_t*>(buffer->data()) + first;
    WINNOW_CUDA_CHECK(cudaMemcpy(to, values.data(), n_bytes, cudaMemcpyHostToDevice));
  }
  WINNOW_CUDA_CHECK(cudaDeviceSynchronize());
  return buffer;
}

double milliseconds(winnow::kernels::Ops& ops, const Case& c) {
  winnow::kernels::Device& device = ops.device();
  const winnow::kernels::HeadShape heads{.n_heads = c.n_heads,
                                         .n_kv_heads = c.n_kv_heads,
                                         .head_dim = c.head_dim,
                                         .scale = 1.F / static_cast<float>(c.head_dim)};
  const int64_t n_rows = c.n_tokens - c.split;
  const auto prefix = random_bf16(device, std::max<int64_t>(c.split, 128) * 2 * heads.kv_dim(), 1);
  const auto own = random_bf16(device, c.n_lanes * n_rows * 2 * heads.kv_dim(), 2);
  const auto q = random_bf16(device, c.n_lanes * n_rows * heads.q_dim(), 3);
  const auto out = device.allocate(c.n_lanes * n_rows * heads.q_dim() * 2, "a benchmark");
  std::vector<AttentionCall> calls;
  for (int64_t lane = 0; lane < c.n_lanes; ++lane) {
    AttentionCall call{.q = q->rows(DType::kBf16, heads.q_dim()).slice(lane * n_rows, n_rows),
                       .out = out->rows(DType::kBf16, heads.q_dim()).slice(lane * n_rows, n_rows),
                       .first_row = c.split,
                       .n_tokens = c.n_tokens,
                       .prefix = {},
                       .own = {device.kv_span(own->bytes(), heads).slice(lane * n_rows, n_rows), c.split},
                       .window = {}};
    if (c.split > 0) call.prefix = {device.kv_span(prefix->bytes(), heads), 0};
    if (c.window > 0) call.window.keys = c.window;
    calls.push_back(call);
  }
  for (int i = 0; i < 3; ++i) ops.attention(calls, heads);
  std::vector<double> times;
  for (int r = 0; r < kRepeats; ++r) {
    device.record_event(0);
    for (int i = 0; i < kCallsARepeat; ++i) ops.attention(calls, heads);
    device.record_event(1);
    times.push_back(device.elapsed_seconds(0, 1) * 1e3 / kCallsARepeat);
  }
  std::sort(times.begin(), times.end());
  return times[kRepeats / 2];
}

double flop(const Case& c) {
  winnow::kernels::Window window{};
  if (c.window > 0) window.keys = c.window;
  const int64_t pairs = winnow::kernels::attention_pairs(window, c.split, c.n_tokens);
  return 4.0 * static_cast<double>(pairs * c.n_heads * c.head_dim * c.n_lanes);
}

void measure() {
  using Attention = CudaOptions::Attention;
  const std::array<std::pair<const char*, Attention>, 3> paths = {
      {{"hopper", Attention::kHopper}, {"cuDNN", Attention::kCudnn}, {"own", Attention::kBuiltin}}};
  std::printf("| calls |");
  for (const auto& [name, path] : paths) std::printf(" %s, ms | TFLOP/s |", name);
  std::printf(" hopper : cuDNN |\n|---|---|---|---|---|---|---|---|\n");
  for (const Case& c : kCases) {
    std::printf("| %s |", c.name);
    std::vector<double> times;
    for (const auto& [name, path] : paths) {
      try {
        const auto ops = winnow::cuda::make_cuda_backend({.device = 0, .attention = path});
        times.push_back(milliseconds(*ops, c));
        std::printf(" %.3f | %.0f |", times.back(), flop(c) / times.back() * 1e-9);
      } catch (const winnow::Error&) {  // a path that this GPU, or this head, does not have
        times.push_back(0.0);
        std::printf(" | |");
      }
    }
    if (times[0] > 0.0 && times[1] > 0.0) std::printf(" %.2f", times[1] / times[0]);
    std::printf(" |\n");
    std::fflush(stdout);
  }
}

}  // namespace

int main() {
  try {
    measure();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "attention_speed: %s\n", error.what());
    return 1;
  }
  return 0;
}
