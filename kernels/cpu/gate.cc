#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

void CpuBackend::do_gate(kernels::ConstRows gate_up, kernels::Activation activation, kernels::Rows out) {
  const auto* from = gate_up.as<float>();
  auto* to = out.as<float>();
  const int64_t ffn = out.cols;
  pool_.run(out.n_rows / kRowTile, [&](int64_t tile, int) {
    for (int64_t row = tile * kRowTile; row < (tile + 1) * kRowTile; ++row) {
      const float* gate = from + row * 2 * ffn;
      kernels_.gate_row(gate, gate + ffn, ffn, activation, to + row * ffn);
    }
  });
}

}  // namespace winnow::cpu
