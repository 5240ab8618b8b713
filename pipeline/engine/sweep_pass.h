// The sweep's one pass over the layers (pipeline/engine/sweep_pass.cc) and the scores of the rows that leave it
// (pipeline/engine/sweep_pass_scores.cc).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "pipeline/engine/forward.h"
#include "pipeline/engine/pass_buffers.h"
#include "pipeline/engine/signals/functions.h"
#include "pipeline/engine/sweep.h"
#include "pipeline/engine/sweep_layout.h"

namespace winnow::engine {

// The variable of the signal "sensitivity" whose value is the score of a lane.
inline constexpr const char* kNllRemoved = "nll_removed";

// Takes the keys and values of a base's rows, layer by layer, in place of the sweep's own memory: of one request.
struct KvSink {
  std::function<void*(int64_t layer)> place;  // where they are written, Device::kv_bytes() of the rows
  std::function<void(int64_t layer)> done;    // called when the layer's operations have been asked for
};

// Every buffer of a sweep.
struct SweepBuffers {
  using Id = PassBuffers::Id;
  SweepBuffers(const kernels::Ops& ops, const model::ModelConfig& config, const SweepLayout& layout,
               std::span<const SweepRequest> requests, const KvSink* sink);

  PassBuffers list;
  Id positions;             // of the stack's rows, then of the scored rows
  Id tokens;                // of the bases' rows, -1 where padded
  Id stack;                 // residual
  Id scored;                // residual rows that leave the last layer
  Id normed;                // a chunk of them
  Id reference;             // the bases' scored rows, normed; for KL only
  Id base_q, base_kv;       // of the bases' rows
  Id group_q, group_kv;     // of a group of lanes
  Id attention;             // of the bases or of a group
  Id hidden;                // a chunk of residual rows; where a signal needs hidden states
  std::vector<Id> fetched;  // by request: a layer of its prefix, where that is in the host's memory
};

// One pass over the layers. The stack holds the bases and then the lanes in the order of their birth. At layer l
//   - the bases and the lanes born before run the layer, each with its own window for l;
//   - the lanes born at l copy the base's residual rows and attend with the base's own queries, keys and values,
//     which their windows have not touched yet.
// After the last layer only the rows that predict answer tokens are wanted: they are gathered into `scored_` first.
class SweepPass {
 public:
  SweepPass(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
            std::span<const SweepRequest> requests, const KvSink* sink = nullptr);
  // Throws Interrupted.
  std::vector<SweepResult> run(const StopCheck& stop);
  // Backend memory that this takes, bytes.
  static int64_t predicted_bytes(const kernels::Ops& ops, const model::ModelConfig& config,
                                 std::span<const SweepRequest> requests, const KvSink* sink = nullptr);

  // The two halves of run(), for those who want rows and no results.
  struct RowScores {
    std::vector<double> nll;    // (scored rows), nats
    std::vector<uint8_t> hits;  // (scored rows)
    std::vector<double> kl;     // (scored rows), nats; empty where no request wants it
  };
  void run_layers(const StopCheck& stop);
  RowScores score_rows();
  // The rows of RowScores that are those of a request's base.
  const Rows& base_scored(std::size_t request) const { return layout_.segments[request].scored; }

 private:
  void run_layer(int64_t layer);
  void run_bases(const model::LayerWeights& weights, int64_t layer);
  void run_lanes(const model::LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end);
  void run_removed(const model::LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end);
  void measure_signals_of(const model::LayerWeights& weights, int64_t layer);
  HiddenRows hidden_rows() const;
  std::size_t group_end(std::size_t begin, std::size_t n_active) const;
  void fork_lanes(int64_t layer);
  void gather_scored(int64_t layer);
  void keep_base_rows();
  std::vector<int32_t> targets() const;
  std::vector<int32_t> reference_tiles() const;
  std::vector<SweepResult> results_of(const RowScores& scores) const;
  Score score_segment(const Segment& segment, const RowScores& scores) const;

  bool is_last(int64_t layer) const { return layout_.is_last(layer); }
  std::span<const Segment> bases() const { return std::span(layout_.segments).first(requests_.size()); }
  void* at(PassBuffers::Id buffer, int64_t row = 0) const { return buffers_.list.at(buffer, row); }
  // Residual rows of the stack, or of the rows that leave the last layer.
  void* residual(int64_t row) const { return at(buffers_.stack, row); }
  void* scored(int64_t row) const { return at(buffers_.scored, row); }
  // Where the rows that leave a layer are.
  void* outgoing(const Segment& segment, int64_t layer) const {
    return is_last(layer) ? scored(segment.scored.at) : residual(segment.residual.at);
  }
  // The bases' keys and values in the layer at hand.
  void* base_keys(int64_t row) const {
    return static_cast<std::byte*>(base_keys_) + ops_.device().kv_bytes(row, config_.heads);
  }
  kernels::RowAngles angles() const { return forward_.rotary.angles(buffers_.list.integers_at(buffers_.positions)); }
  kernels::RowAngles residual_angles(int64_t row) const { return angles().from(row); }
  kernels::RowAngles scored_angles(int64_t row) const { return angles().from(layout_.stack_rows + row); }

  void make_tables();
  // Keys of the rows before the base's own, of the layer at hand.
  void fetch_prefixes(int64_t layer);
  void set_prefix(kernels::AttentionCall& call, std::size_t request) const {
    if (call.prefix.n_rows > 0) call.prefix.data = prefix_keys_[request];
  }

  kernels::Ops& ops_;
  const model::ModelConfig& config_;
  model::ModelWeights& weights_;
  std::span<const SweepRequest> requests_;
  const KvSink* sink_;
  const SweepLayout layout_;
  Forward forward_;
  SweepBuffers buffers_;
  std::unique_ptr<kernels::Buffer> hidden_on_host_;  // twice the rows of `hidden`; where a signal needs it
  void* base_keys_ = nullptr;
  std::vector<std::vector<SignalValues>> signals_;  // (requests, variants), as far as asked for
  std::vector<void*> prefix_keys_;                  // by request, null without a prefix
};

}  // namespace winnow::engine
