#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/simd.h"

namespace winnow::cpu {

namespace {

// silu(g) * u, silu(g) = g / (1 + exp(-g)). Far below zero the exponential is capped where silu is 0 to float32.
inline VecF gated(VecF gate, VecF up) { return gate / (1.0F + exp2(min(gate * -kLog2E, broadcast(126.0F)))) * up; }

void swiglu_row(const float* gate, const float* up, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) store(out + i, gated(load(gate + i), load(up + i)));
  if (i < n) store_part(out + i, gated(load_part(gate + i, n - i), load_part(up + i, n - i)), n - i);
}

}  // namespace

void CpuBackend::swiglu(const void* gate_up, void* out, int64_t n_rows, int64_t ffn) {
  const auto* from = static_cast<const float*>(gate_up);
  auto* to = static_cast<float*>(out);
  pool_.run(n_rows / kRowTile, [&](int64_t tile, int) {
    for (int64_t row = tile * kRowTile; row < (tile + 1) * kRowTile; ++row) {
      const float* gate = from + row * 2 * ffn;
      swiglu_row(gate, gate + ffn, ffn, to + row * ffn);
    }
  });
}

}  // namespace winnow::cpu
