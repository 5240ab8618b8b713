// The sweep's one pass over the layers (pipeline/engine/sweep_pass.cc) and the scores of the rows that leave it
// (pipeline/engine/sweep_pass_scores.cc).
#pragma once

#include <functional>
#include <map>
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
  std::function<kernels::KvSpan(int64_t layer)> place;  // where they are written
  std::function<void(int64_t layer)> done;              // called when the layer's operations have been asked for
};

// Every buffer of a sweep.
struct SweepBuffers {
  using RowsId = PassBuffers::RowsId;
  using KeysId = PassBuffers::KeysId;
  SweepBuffers(const kernels::Ops& ops, const model::ModelConfig& config, const SweepLayout& layout,
               std::span<const SweepRequest> requests, const KvSink* sink);

  PassBuffers list;
  PassBuffers::IntegersId positions;  // of the stack's rows, then of the scored rows
  PassBuffers::IntegersId tokens;     // of the bases' rows, -1 where padded
  RowsId stack;                       // residual
  RowsId scored;                      // residual rows that leave the last layer
  RowsId normed;                      // a chunk of them
  RowsId reference;                   // the bases' scored rows, normed; for KL only
  RowsId base_q;                      // of the bases' rows
  KeysId base_kv;                     // of the bases' rows
  RowsId group_q;                     // of a group of lanes
  KeysId group_kv;                    // of a group of lanes
  RowsId attention;                   // of the bases or of a group
  RowsId hidden;                      // a chunk of residual rows; where a signal needs hidden states
  RowsId edge;                  // of the bases, a tile each: the one in which a base's rows begin to read rounded keys
  std::vector<KeysId> fetched;  // by request: a layer of its prefix, where that is in the host's memory
  std::map<KvType, KeysId> rounded;  // by type that a setting has: the bases' rows, then those of all prefixes
};

// One pass over the layers. The stack holds the bases and then the lanes in the order of their fork layers. At layer l
//   - the bases and the lanes that forked before run the layer, each with its own window for l;
//   - the lanes that fork at l copy the base's residual rows and attend with the base's own queries, keys and values,
//     which their windows have not touched yet; where a lane has other positions in l, it turns its own.
// Whoever has a type of keys and values in l reads them rounded: the bases' are rounded beside, as each of their lanes
// may have another type, a lane's own in place, as nobody else reads them. After the last layer only the rows that
// predict answer tokens are wanted: they are gathered into `scored_` first.
class SweepPass {
 public:
  SweepPass(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
            std::span<const SweepRequest> requests, const KvSink* sink = nullptr);
  // Runs the pass and returns the results. Throws Interrupted.
  std::vector<SweepResult> run(const StopCheck& stop);
  // Returns the backend memory that this takes, bytes.
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
  // Returns the rows of RowScores that are those of a request's base.
  const PlacedRows& base_scored(std::size_t request) const { return layout_.segments[request].scored; }

 private:
  void run_layer(int64_t layer);
  void turn_bases(const model::LayerWeights& weights, int64_t layer);
  void round_base_keys(int64_t layer);
  void add_base_calls(const Segment& base, const model::LayerWeights& weights, int64_t layer,
                      std::vector<kernels::AttentionCall>& calls) const;
  void run_bases(const model::LayerWeights& weights, int64_t layer);
  void run_lanes(const model::LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end);
  void run_removed(const model::LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end);
  void measure_signals_of(const model::LayerWeights& weights, int64_t layer);
  void fork_lanes(int64_t layer);
  void gather_scored(int64_t layer);
  void keep_base_rows();
  std::vector<int32_t> targets() const;
  std::vector<int32_t> reference_tiles() const;
  std::vector<SweepResult> results_of(const RowScores& scores) const;
  Score score_segment(const Segment& segment, const RowScores& scores) const;

  bool is_last(int64_t layer) const { return layout_.is_last(layer); }
  std::span<const Segment> bases() const { return std::span(layout_.segments).first(requests_.size()); }
  auto at(auto buffer) const { return buffers_.list.at(buffer); }
  // Return residual rows of the stack, and of the rows that leave the last layer.
  kernels::Rows residual(int64_t first, int64_t n) const { return at(buffers_.stack).slice(first, n); }
  kernels::Rows scored(int64_t first, int64_t n) const { return at(buffers_.scored).slice(first, n); }
  // Returns where the rows of segments [first, last] that leave a layer are.
  kernels::Rows outgoing(const Segment& first, const Segment& last, int64_t layer) const {
    const int64_t begin = layout_.outgoing(first, layer).at;
    const int64_t n = layout_.outgoing(last, layer).end() - begin;
    return is_last(layer) ? scored(begin, n) : residual(begin, n);
  }
  kernels::Rows outgoing(const Segment& segment, int64_t layer) const { return outgoing(segment, segment, layer); }
  // Returns a base's keys and values in the layer at hand, as the layer computed them or as a cache of that type keeps
  // them.
  kernels::KvSpan base_keys(const Segment& base, KvType type = KvType::kStored) const {
    const kernels::KvSpan all = type == KvType::kStored ? base_keys_ : at(buffers_.rounded.at(type));
    return all.slice(base.residual.at, base.residual.n_rows);
  }
  void round_lane_keys(std::size_t begin, std::size_t end, int64_t layer);
  void restore_unrounded_rows(std::size_t begin, std::size_t end, int64_t layer);
  // Return the angles of residual and scored rows from one on, for segments with that setting.
  model::LayerAngles residual_angles(const model::LayerWeights& weights, const LayerWindow& setting,
                                     int64_t row) const {
    return forward_.rotary.angles(at(buffers_.positions), rope_of(setting, weights)).from(row);
  }
  model::LayerAngles scored_angles(const model::LayerWeights& weights, const LayerWindow& setting, int64_t row) const {
    return residual_angles(weights, setting, layout_.stack_rows + row);
  }

  void make_tables();
  // Brings the keys of the rows before the bases' own, of the layer at hand.
  void fetch_prefixes(int64_t layer);
  // Returns them, as base_keys() does.
  kernels::KvSpan prefix_keys(std::size_t request, KvType type) const;
  void set_prefix(kernels::AttentionCall& call, std::size_t request, KvType type) const {
    if (call.prefix.n_rows() > 0) call.prefix.kv = prefix_keys(request, type);
  }

  kernels::Ops& ops_;
  const model::ModelConfig& config_;
  model::ModelWeights& weights_;
  std::span<const SweepRequest> requests_;
  const KvSink* sink_;
  const SweepLayout layout_;
  HostResults signal_results_;
  Forward forward_;
  SweepBuffers buffers_;
  kernels::KvSpan base_keys_;  // the bases', in the layer at hand
  // Of variants, whose operations may be under way: nothing waits for them before the last layer.
  struct UnfinishedSignal {
    std::size_t request;
    std::size_t variant;
    SignalFinish finish;
  };
  std::vector<UnfinishedSignal> unfinished_signals_;
  std::vector<std::vector<SignalValues>> signals_;  // (requests, variants), as far as asked for
  std::vector<kernels::KvSpan> prefix_keys_;        // by request, empty without a prefix
};

}  // namespace winnow::engine
