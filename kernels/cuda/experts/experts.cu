#include <algorithm>
#include <cstddef>
#include <string>
#include <type_traits>

#include "base/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/experts/grouped_product.cuh"
#include "kernels/cuda/experts/routing.cuh"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

// Rows that are computed at a time: enough for each of many experts to have some hundred.
constexpr int64_t kMostRows = 8192;
constexpr int kSumThreads = 256;
constexpr int64_t kAlignment = 256;

// The memory of a call. Laid out from null it tells its size.
struct ExpertsMemory {
  ExpertsMemory(std::byte* memory, int64_t n_rows, int64_t hidden, int64_t ffn, const kernels::RouterShape& shape) {
    const int64_t n_slots = n_rows * shape.top_k;
    const auto take = [&](auto*& part, int64_t count) {
      if (memory != nullptr) part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(memory + size_bytes);
      const int64_t bytes = count * static_cast<int64_t>(sizeof *part);
      size_bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    };
    routing.n_tiles = most_expert_tiles(n_slots, shape.n_experts);
    take(logits, n_rows * shape.n_experts);
    take(routing.chosen, n_slots);
    take(routing.weights, n_slots);
    take(routing.places, n_slots);
    take(routing.rows, n_slots);
    take(routing.counts, shape.n_experts);
    take(routing.firsts, shape.n_experts);
    take(routing.tiles, routing.n_tiles);
    take(gated, n_slots * ffn);
    take(results, n_slots * hidden);
  }

  float* logits = nullptr;  // (n_rows, n_experts)
  Routing routing{};
  Bf16* gated = nullptr;     // (n_slots, ffn), by place
  float* results = nullptr;  // (n_slots, hidden), by place
  int64_t size_bytes = 0;
};

// out[row] = sum over its slots, in their order, of weight * result; a thread has 8 columns.
__global__ void sum_kernel(const Float8* results, const int* places, const float* weights, int top_k, int64_t n,
                           int row_vectors, Bf16x8* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  if (i >= n) return;
  const int64_t row = i / row_vectors;
  const int64_t column = i % row_vectors;
  float sum[8] = {};
  for (int64_t slot = row * top_k; slot < (row + 1) * top_k; ++slot) {
    const float weight = weights[slot];
    float result[8];
    results[static_cast<int64_t>(places[slot]) * row_vectors + column].to_float(result);
#pragma unroll
    for (int e = 0; e < 8; ++e) sum[e] += weight * result[e];
  }
  out[i] = Bf16x8::from_float(sum);
}

void require_router(int64_t hidden, int64_t ffn, const kernels::RouterShape& shape) {
  const auto require = [](bool holds, const char* what, int64_t value) {
    if (holds) return;
    fail(ExitCode::kUnavailable, std::string("the GPU backend takes ") + what + ", the model has " +
                                     std::to_string(value) + "; use --device cpu");
  };
  require(shape.n_experts <= kMaxExperts, "up to 512 experts a layer", shape.n_experts);
  require(shape.top_k <= kMaxChosen, "up to 32 experts a token", shape.top_k);
  require(hidden % 8 == 0, "a hidden_size that is a multiple of 8", hidden);
  require(ffn % 8 == 0, "experts with an intermediate size that is a multiple of 8", ffn);
}

}  // namespace

int64_t CudaBackend::experts_bytes(int64_t n_rows, int64_t hidden, int64_t ffn,
                                   const kernels::RouterShape& shape) const {
  require_router(hidden, ffn, shape);
  return ExpertsMemory(nullptr, std::min(n_rows, kMostRows), hidden, ffn, shape).size_bytes;
}

void CudaBackend::do_experts(kernels::ConstRows x, const kernels::Router& router, const kernels::Experts& experts,
                             kernels::Activation activation, kernels::Rows out) {
  const int64_t hidden = x.cols;
  const int64_t ffn = experts.down.cols;
  const kernels::RouterShape& shape = router.shape;
  const int64_t size_bytes = experts_bytes(x.n_rows, hidden, ffn, shape);
  if (!experts_memory_ || experts_memory_->size_bytes() < size_bytes) {
    experts_memory_.reset();
    experts_memory_ = allocate(size_bytes, "mixtures of experts");
  }
  for (int64_t first = 0; first < x.n_rows; first += kMostRows) {
    const kernels::ConstRows rows = x.slice(first, std::min(kMostRows, x.n_rows - first));
    const ExpertsMemory memory(experts_memory_->bytes().data(), rows.n_rows, hidden, ffn, shape);
    const Routing& routing = memory.routing;
    const auto product = [&](const ExpertTile* tiles, int64_t n_tiles, const Bf16* from, const int* from_rows,
                             const kernels::Matrix& weight, const kernels::Matrix& bias, int64_t n_out) {
      return GroupedProduct{.tiles = tiles,
                            .n_tiles = n_tiles,
                            .n_rows = rows.n_rows,
                            .x = from,
                            .rows = from_rows,
                            .weight = weight.as<Bf16>(),
                            .bias = bias.as<Bf16>(),
                            .n_in = static_cast<int>(weight.cols),
                            .n_out = static_cast<int>(n_out)};
    };
    const auto* from = rows.as<Bf16>();
    const int64_t n_tiles = (rows.n_rows + kExpertTileRows - 1) / kExpertTileRows;
    grouped_product(product(nullptr, n_tiles, from, nullptr, router.weight, {}, shape.n_experts), memory.logits,
                    stream_);
    route(memory.logits, rows.n_rows, router, routing, stream_);
    gated_grouped_product(
        product(routing.tiles, routing.n_tiles, from, routing.rows, experts.gate_up, experts.gate_up_bias, ffn),
        activation, memory.gated, stream_);
    grouped_product(
        product(routing.tiles, routing.n_tiles, memory.gated, nullptr, experts.down, experts.down_bias, hidden),
        memory.results, stream_);
    const int64_t n = rows.count() / 8;
    sum_kernel<<<static_cast<unsigned>((n + kSumThreads - 1) / kSumThreads), kSumThreads, 0, stream_>>>(
        reinterpret_cast<const Float8*>(memory.results), routing.places, routing.weights, static_cast<int>(shape.top_k),
        n, static_cast<int>(hidden / 8), out.slice(first, rows.n_rows).as<Bf16x8>());
    WINNOW_CUDA_CHECK_LAUNCH();
  }
}

}  // namespace winnow::cuda
