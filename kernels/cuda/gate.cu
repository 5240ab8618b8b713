#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/gated.cuh"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kGateThreads = 256;

template <kernels::Activation kActivation>
__global__ void gate_kernel(const Bf16x8* gate_up, Bf16x8* out, int64_t n_rows, int ffn_vectors) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kGateThreads + threadIdx.x;
  if (i >= n_rows * ffn_vectors) return;
  const int64_t row = i / ffn_vectors;
  const Bf16x8* gate = gate_up + i + row * ffn_vectors;
  float g[8];
  float u[8];
  gate[0].to_float(g);
  gate[ffn_vectors].to_float(u);
#pragma unroll
  for (int e = 0; e < 8; ++e) g[e] = gated<kActivation>(g[e], u[e]);
  out[i] = Bf16x8::from_float(g);
}

}  // namespace

void CudaBackend::do_gate(kernels::ConstRows gate_up, kernels::Activation activation, kernels::Rows out) {
  if (out.n_rows == 0) return;
  const int64_t vectors = out.count() / 8;
  const auto blocks = static_cast<unsigned>((vectors + kGateThreads - 1) / kGateThreads);
  const auto ffn_vectors = static_cast<int>(out.cols / 8);
  with_activation(activation, [&](auto kind) {
    gate_kernel<kind.value>
        <<<blocks, kGateThreads, 0, stream_>>>(gate_up.as<Bf16x8>(), out.as<Bf16x8>(), out.n_rows, ffn_vectors);
  });
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace winnow::cuda
