#include "pipeline/engine/forward.h"

#include <algorithm>

namespace winnow::engine {

Forward::Forward(kernels::Ops& on, const model::ModelConfig& of_model, model::ModelWeights& with, int64_t n_positions)
    : ops(on), config(of_model), weights(with), decoder(on, of_model), rotary(on, of_model, with, n_positions) {}

int64_t Forward::predicted_bytes(const kernels::Ops& on, const model::ModelConfig& of_model, int64_t n_positions,
                                 int64_t most_rows) {
  return model::DecoderLayer::workspace_bytes(on, of_model) + RotaryTable::bytes(of_model, n_positions) +
         on.device().workspace_bytes(most_rows, of_model.hidden, of_model.vocab, of_model.heads);
}

void Forward::embed(const int32_t* tokens, void* rows, int64_t n_rows) {
  ops.embed(weights.embedding(), tokens, rows, n_rows);
}

int64_t Forward::normed_rows(const kernels::Ops& on, int64_t n_rows) {
  return std::min(n_rows, on.device().chunk_rows());
}

void Forward::score(const void* rows, std::span<const int32_t> targets, void* normed, const kernels::TokenScores& out) {
  const auto n_rows = static_cast<int64_t>(targets.size());
  for (int64_t row = 0; row < n_rows; row += ops.device().chunk_rows()) {
    const int64_t n = std::min(ops.device().chunk_rows(), n_rows - row);
    ops.rms_norm(kernels::row_pointer(rows, ops.device().residual_dtype(), row, config.hidden), weights.final_norm(),
                 config.rms_eps, normed, n);
    kernels::TokenScores part{out.nll_nats + row, out.is_argmax + row};
    if (out.argmax != nullptr) part.argmax = out.argmax + row;
    if (out.kl_nats != nullptr) {
      part.kl_nats = out.kl_nats + row;
      part.reference = {out.reference.x,
                        out.reference.tiles.subspan(static_cast<std::size_t>(row / ops.device().row_tile()))};
    }
    ops.token_nll(normed, weights.head(), targets.subspan(static_cast<std::size_t>(row), static_cast<std::size_t>(n)),
                  n, part);
  }
}

}  // namespace winnow::engine
