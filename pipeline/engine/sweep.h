// The layer sweep: one pass over the layers carries the base and every lane. Exact, not an
// approximation.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/error.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"
#include "pipeline/engine/layer_windows.h"
#include "pipeline/engine/signals/options.h"
#include "pipeline/engine/signals/values.h"

namespace winnow::engine {

class CachedPrefix;  // pipeline/engine/cached_prefix.h

// What one setting of the layers costs on one example.
struct Score {
  double nll_nats = 0.0;              // mean over the answer tokens
  bool exact_match = false;           // every answer token is the argmax: greedy decoding reproduces the answer
  double token_accuracy = 0.0;        // share of answer tokens that are the argmax
  std::vector<float> token_nll_nats;  // (answer_tokens), only when asked for
  // Mean over the answer tokens of KL(p_base || p_this) over the whole vocabulary, natural log, when asked for; 0 for
  // the base itself.
  double kl_nats = 0.0;
  SignalValues signals = {};  // of the layer in which a variant first differs from the base, when asked for
};

struct SweepRequest {
  std::span<const int32_t> tokens;  // (T), answer included
  int64_t answer_start = 0;         // a: first scored token, 1 <= a < T
  LayerWindows base;                // (n_layers), for this example
  std::vector<LayerWindows> variants;
  bool per_token = false;
  bool with_kl = false;
  SignalOptions signals = {};  // those of layers not together with a prefix; KL is with_kl's matter
  // Rows that are not computed, as they see everything under the base and all variants: their keys, values and scores
  // are in `prefix`, which only the sweep itself needs. cached_rows() of pipeline/engine/cached_prefix.h, or 0.
  int64_t prefix_rows = 0;
  const CachedPrefix* prefix = nullptr;
  // Tokens of the sequence on whose length some rotary embeddings depend; 0: all of `tokens` but the last.
  int64_t sequence_length = 0;
};

struct SweepResult {
  Score base;
  std::vector<Score> variants;  // in the order of the request
};

// Called between layers; returning true makes the sweep throw Interrupted.
using StopCheck = std::function<bool()>;
struct Interrupted : Unwinding {};

// Work of a sweep, for the cost model. Pure arithmetic.
struct SweepPlan {
  int64_t n_rows =
      0;  // of the base, not padded: T - 1 (the last token predicts nothing), or T (with the row of the last token)
  int64_t padded_rows = 0;      // end of the base's rows, multiple of the row tile
  int64_t lane_first_row = 0;   // R, the least of the lanes; padded_rows when no row of any differs from the base
  int64_t first_score_row = 0;  // tile that holds row a - 1
  int64_t n_lanes = 0;          // that differ from the base in a row that is computed
  int64_t row_layers = 0;       // sum over layers of rows computed
  int64_t attention_pairs = 0;  // sum over layers of (row, key) pairs computed
};
SweepPlan plan_sweep(const model::ModelConfig& config, const SweepRequest& request, int64_t row_tile);
// Backend memory of one sweep over all of the requests, without the weights, bytes.
int64_t predict_sweep_bytes(const model::ModelConfig& config, const kernels::Ops& ops,
                            std::span<const SweepRequest> requests);
// The different attention calls that a sweep over the request makes, without memory: Ops::prepare_attention.
std::vector<kernels::AttentionCall> attention_shapes(const model::ModelConfig& config, const SweepRequest& request,
                                                     int64_t row_tile);

// Sweeps all requests together: their rows are stacked, their results are what each alone would give, bit for bit.
// Throws Interrupted.
std::vector<SweepResult> sweep(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                               std::span<const SweepRequest> requests, const StopCheck& stop);
// One request. Throws Error(kBadData) when an NLL is not finite, naming the layer; Interrupted.
SweepResult sweep(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                  const SweepRequest& request, const StopCheck& stop);
// Throws Error(kBadData) when an NLL is not finite, naming the layer.
void check_finite(const SweepRequest& request, const SweepResult& result);

}  // namespace winnow::engine
