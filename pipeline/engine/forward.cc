#include "pipeline/engine/forward.h"

#include <algorithm>

namespace winnow::engine {

Forward::Forward(kernels::Ops& on, const model::ModelConfig& of_model, model::ModelWeights& with,
                 std::span<const TurnedSequence> sequences)
    : ops(on), config(of_model), weights(with), decoder(on, of_model), rotary(on, of_model, with, sequences) {}

int64_t Forward::predicted_bytes(const kernels::Ops& on, const model::ModelConfig& of_model,
                                 std::span<const TurnedSequence> sequences, int64_t most_rows) {
  return model::DecoderLayer::workspace_bytes(on, of_model) + RotaryTable::bytes(of_model, sequences) +
         on.device().workspace_bytes(most_rows, of_model.hidden, of_model.vocab, of_model.heads);
}

void Forward::embed(std::span<const int32_t> tokens, kernels::Rows rows) {
  ops.embed(weights.embedding(), tokens, config.embedding_scale, rows);
}

int64_t Forward::normed_rows(const kernels::Ops& on, int64_t n_rows) {
  return std::min(n_rows, on.device().chunk_rows());
}

void Forward::score(kernels::ConstRows rows, std::span<const int32_t> targets, kernels::Rows normed,
                    const kernels::TokenScores& out) {
  for (int64_t row = 0; row < rows.n_rows; row += ops.device().chunk_rows()) {
    const int64_t n = std::min(ops.device().chunk_rows(), rows.n_rows - row);
    const kernels::Rows chunk = normed.slice(0, n);
    ops.norm(rows.slice(row, n), weights.final_norm(), chunk);
    const auto part = [&](auto values) {
      return values.empty() ? values : values.subspan(static_cast<std::size_t>(row), static_cast<std::size_t>(n));
    };
    kernels::TokenScores scores{.nll_nats = part(out.nll_nats),
                                .is_argmax = part(out.is_argmax),
                                .kl_nats = part(out.kl_nats),
                                .argmax = part(out.argmax)};
    if (!out.kl_nats.empty()) {
      const auto first_tile = static_cast<std::size_t>(row / ops.device().row_tile());
      scores.reference = {out.reference.x, out.reference.tiles.subspan(first_tile)};
    }
    ops.token_nll(chunk, weights.head(), config.logits, part(targets), scores);
  }
}

}  // namespace winnow::engine
