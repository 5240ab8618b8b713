// Greedy generation with the cache that a model would be served with: a layer with full attention keeps the keys
// and values of all rows, a windowed one those of its window and of the sinks, in memory of that size. What a layer
// with a type of keys and values keeps is packed in it, and unpacked one layer at a time to be read.
//
// Arithmetic is the sweep's: on a CPU a generated token is, bit for bit, the argmax of the sweep over the same tokens.
// What one sequence gives does not depend on those that are generated beside it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"
#include "pipeline/engine/sweep.h"

namespace winnow::engine {

struct GenerationRequest {
  std::span<const int32_t> prompt;  // at least one token; row prompt.size() - 1 chooses the first new one
  LayerWindows windows;             // (n_layers); rows from prompt.size() on are those of new tokens. All rows read
                                    // rounded keys where a layer has any
  int64_t max_new_tokens = 0;       // >= 1
  std::string name;                 // for messages

  // Returns the tokens of the longest sequence that can come of it: what some rotary embeddings depend on.
  int64_t sequence_length() const { return static_cast<int64_t>(prompt.size()) + max_new_tokens; }
};

// One continuation.
struct Generated {
  std::vector<int32_t> tokens;  // the stop token, if any, is the last
  bool stopped = false;         // by a stop token; else max_new_tokens was reached
  int64_t cache_bytes = 0;      // keys and values of all layers, as allocated
};

struct GenerationReport {
  std::vector<Generated> texts;  // in the order of the requests
  int64_t prompt_tokens = 0;     // computed together: all prompts
  double prefill_seconds = 0.0;
  int64_t decoded_tokens = 0;  // those after the first of each continuation: the first is the prefill's
  double decode_seconds = 0.0;
  double decoded_tokens_per_second() const {
    return decode_seconds > 0.0 ? static_cast<double>(decoded_tokens) / decode_seconds : 0.0;
  }
};

// Continues all prompts, together. Throws Error(kBadData), naming the request, where a logit is not finite;
// Interrupted.
GenerationReport generate(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                          std::span<const GenerationRequest> requests, std::span<const int32_t> stop_tokens,
                          const StopCheck& stop);
// Returns the most backend memory that generate() takes without the weights, bytes.
int64_t predict_generation_bytes(const model::ModelConfig& config, const kernels::Ops& ops,
                                 std::span<const GenerationRequest> requests);

// Returns true if a continuation is the reference answer: its first tokens are the answer's, up to the answer's end or
// its first stop token, after which a served model writes nothing.
bool matches_answer(std::span<const int32_t> generated, std::span<const int32_t> answer,
                    std::span<const int32_t> stop_tokens);

}  // namespace winnow::engine
