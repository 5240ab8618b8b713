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

// Figures of one setting of the layers on one example.
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

  int64_t whole_length() const {
    return sequence_length > 0 ? sequence_length : static_cast<int64_t>(tokens.size()) - 1;
  }
};

struct SweepResult {
  Score base;
  std::vector<Score> variants;  // in the order of the request
};

// Called between layers; returning true makes the sweep throw Interrupted.
using StopCheck = std::function<bool()>;
struct Interrupted : Unwinding {};

// Returns the backend memory of one sweep over all of the requests, without the weights, bytes.
int64_t predict_sweep_bytes(const model::ModelConfig& config, const kernels::Ops& ops,
                            std::span<const SweepRequest> requests);

// Sweeps all requests together: their rows are stacked, and their results are bit for bit what each alone would give.
// Throws Interrupted.
std::vector<SweepResult> sweep(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                               std::span<const SweepRequest> requests, const StopCheck& stop);
// Sweeps one request. Throws Error(kBadData) when an NLL is not finite, naming the layer, and Interrupted.
SweepResult sweep(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                  const SweepRequest& request, const StopCheck& stop);
// Throws Error(kBadData) when an NLL is not finite, naming the layer.
void check_finite(const SweepRequest& request, const SweepResult& result);

}  // namespace winnow::engine
