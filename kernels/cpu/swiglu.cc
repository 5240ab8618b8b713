#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

void CpuBackend::swiglu(const void* gate_up, void* out, int64_t n_rows, int64_t ffn) {
  const auto* from = static_cast<const float*>(gate_up);
  auto* to = static_cast<float*>(out);
  pool_.run(n_rows / kRowTile, [&](int64_t tile, int) {
    for (int64_t row = tile * kRowTile; row < (tile + 1) * kRowTile; ++row) {
      const float* gate = from + row * 2 * ffn;
      kernels_.swiglu_row(gate, gate + ffn, ffn, to + row * ffn);
    }
  });
}

}  // namespace winnow::cpu
