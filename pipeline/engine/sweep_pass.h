// The sweep's one pass over the layers (pipeline/engine/sweep.cc) and the scores of the rows that leave it
// (pipeline/engine/sweep_scores.cc).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/layer.h"
#include "pipeline/engine/signals/functions.h"
#include "pipeline/engine/sweep.h"
#include "pipeline/engine/sweep_layout.h"

namespace winnow::engine {

// One pass over the layers. The stack holds the bases and then the lanes in the order of their birth. At layer l
//   - the bases and the lanes born before run the layer, each with its pattern's window for l;
//   - the lanes born at l copy the base's residual rows and attend with the base's own queries, keys and values,
//     which their windows have not touched yet.
// After the last layer only the rows that predict answer tokens are wanted: they are gathered into `scored_` first.
class SweepPass {
 public:
  SweepPass(kernels::Backend& backend, const model::ModelConfig& config, model::ModelWeights& weights,
            std::span<const SweepRequest> requests);
  std::vector<SweepResult> run(const StopCheck& stop);

  // Backend memory that a sweep of such a layout takes, bytes, but for the cached prefixes that it fetches.
  static int64_t predicted_bytes(const kernels::Backend& backend, const model::ModelConfig& config,
                                 const SweepLayout& layout);

 private:
  struct RowScores {
    std::vector<double> nll;    // (scored rows), nats
    std::vector<uint8_t> hits;  // (scored rows)
    std::vector<double> kl;     // (scored rows), nats; empty where no request wants it
  };

  void run_layer(int64_t layer);
  void run_bases(const model::LayerWeights& weights, int64_t layer);
  void run_lanes(const model::LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end);
  void run_removed(const model::LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end);
  void measure_signals_of(const model::LayerWeights& weights, int64_t layer);
  HiddenRows hidden_rows() const;
  std::size_t group_end(std::size_t begin, std::size_t n_alive) const;
  void give_birth(int64_t layer);
  void gather_scored(int64_t layer);
  void keep_base_rows();
  std::vector<int32_t> targets() const;
  std::vector<int32_t> reference_tiles() const;
  RowScores score_rows();
  std::vector<SweepResult> results_of(const RowScores& scores) const;
  Score score_segment(const Segment& segment, const RowScores& scores) const;

  bool is_last(int64_t layer) const { return layout_.is_last(layer); }
  std::span<const Segment> bases() const { return std::span(layout_.segments).first(requests_.size()); }
  // Residual rows of the stack, or of the rows that leave the last layer.
  void* residual(int64_t at) const {
    return model::row_pointer(stack_->data(), backend_.residual_dtype(), at, config_.hidden);
  }
  void* scored(int64_t at) const {
    return model::row_pointer(scored_->data(), backend_.residual_dtype(), at, config_.hidden);
  }
  // Where the rows that leave a layer are.
  void* outgoing(const Segment& segment, int64_t layer) const {
    return is_last(layer) ? scored(segment.scored.at) : residual(segment.residual.at);
  }
  void* queries(const std::unique_ptr<kernels::Buffer>& buffer, int64_t row) const {
    return model::row_pointer(buffer->data(), backend_.activation_dtype(), row, config_.heads.q_dim());
  }
  void* keys(const std::unique_ptr<kernels::Buffer>& buffer, int64_t row) const {
    return static_cast<std::byte*>(buffer->data()) + backend_.kv_bytes(row, config_.heads);
  }
  kernels::RowAngles residual_angles(int64_t at) const { return angles_.from(at); }
  kernels::RowAngles scored_angles(int64_t at) const { return angles_.from(layout_.stack_rows + at); }

  void make_tables();
  // Keys of the rows before the base's own, of the layer at hand.
  void fetch_prefixes(int64_t layer);
  void set_prefix(kernels::AttentionCall& call, std::size_t request) const {
    if (call.prefix.n_rows > 0) call.prefix.data = prefix_keys_[request];
  }

  kernels::Backend& backend_;
  const model::ModelConfig& config_;
  model::ModelWeights& weights_;
  std::span<const SweepRequest> requests_;
  const SweepLayout layout_;
  std::unique_ptr<kernels::Buffer> rope_memory_;
  std::unique_ptr<kernels::Buffer> positions_;  // (stack rows + scored rows) int32
  std::unique_ptr<kernels::Buffer> tokens_;     // (base rows) int32, -1 where padded
  kernels::RowAngles angles_;                   // of the stack's rows, then of the scored rows
  model::DecoderLayer decoder_;
  std::unique_ptr<kernels::Buffer> stack_;                 // (stack rows, hidden) residual
  std::unique_ptr<kernels::Buffer> scored_;                // (scored rows, hidden) residual
  std::unique_ptr<kernels::Buffer> final_;                 // (chunk of scored rows, hidden), normed
  std::unique_ptr<kernels::Buffer> reference_;             // (the bases' scored rows, hidden), normed; for KL only
  std::unique_ptr<kernels::Buffer> base_q_;                // (base rows, q_dim)
  std::unique_ptr<kernels::Buffer> base_kv_;               // keys and values of the bases' rows
  std::unique_ptr<kernels::Buffer> group_q_;               // (group rows, q_dim)
  std::unique_ptr<kernels::Buffer> group_kv_;              // keys and values of the group's rows
  std::unique_ptr<kernels::Buffer> attention_;             // (rows of the bases or of a group, q_dim)
  std::unique_ptr<kernels::Buffer> hidden_;                // (chunk, hidden) residual; where a signal needs it
  std::unique_ptr<kernels::Buffer> hidden_on_host_;        // twice as many
  std::vector<std::vector<SignalValues>> signals_;         // (requests, n_layers), as far as asked for
  std::vector<void*> prefix_keys_;                         // by request, null without a prefix
  std::vector<std::unique_ptr<kernels::Buffer>> fetched_;  // by request, null unless its prefix is in the host's memory
};

}  // namespace winnow::engine
