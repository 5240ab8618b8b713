// The parts that every forward pass has besides its own rows: the layer's arithmetic, the rotary table, the way in
// through the embedding and the way out through the vocabulary. Sweep, prefill and generation differ in which rows they
// bring.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/weights.h"
#include "pipeline/engine/layer_windows.h"
#include "pipeline/engine/rotary_table.h"

namespace winnow::engine {

// Returns the rotary embedding of rows in a layer, index into ModelConfig::ropes.
inline int32_t rope_of(const LayerWindow& setting, const model::LayerWeights& layer) {
  return setting.rope == LayerWindow::kOwnRope ? layer.rope : setting.rope;
}

struct Forward {
  // Makes the rotary tables of the sequences. All references must outlive this, but for their list.
  Forward(kernels::Ops& on, const model::ModelConfig& of_model, model::ModelWeights& with,
          std::span<const TurnedSequence> sequences);
  // Returns the backend memory that this takes, with what operations on sequences of most_rows rows take for
  // themselves, bytes.
  static int64_t predicted_bytes(const kernels::Ops& on, const model::ModelConfig& of_model,
                                 std::span<const TurnedSequence> sequences, int64_t most_rows);

  // Sets residual rows (n_rows, hidden) from tokens (n_rows) in the backend's memory.
  void embed(std::span<const int32_t> tokens, kernels::Rows rows);
  // Applies norm and head to rows (targets, hidden) that left the last layer, chunk_rows() at a time; a target of -1
  // skips its row. normed: (normed_rows(targets), hidden) activations or more, to work in.
  void score(kernels::ConstRows rows, std::span<const int32_t> targets, kernels::Rows normed,
             const kernels::TokenScores& out);
  static int64_t normed_rows(const kernels::Ops& on, int64_t n_rows);

  kernels::Ops& ops;
  const model::ModelConfig& config;
  model::ModelWeights& weights;
  model::DecoderLayer decoder;
  RotaryTable rotary;
};

}  // namespace winnow::engine
