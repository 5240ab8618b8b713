// The prompts of a generation: their rows through all layers, and what their caches keep.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "pipeline/engine/forward.h"
#include "pipeline/engine/generation.h"
#include "pipeline/engine/kv_cache.h"
#include "pipeline/engine/pass_buffers.h"

namespace winnow::engine {

// Every buffer of a group of prompts.
struct PrefillBuffers {
  PrefillBuffers(const kernels::Ops& ops, const model::ModelConfig& config,
                 std::span<const GenerationRequest> requests);

  PassBuffers list;
  PassBuffers::IntegersId tokens;     // of all rows, -1 where padded
  PassBuffers::IntegersId positions;  // of all rows
  PassBuffers::RowsId stack;          // residual, of all rows
  PassBuffers::RowsId q, attention;   // of a chunk
  PassBuffers::KeysId keys;           // of a chunk and what it sees, where the cache has no room for them
};

// Some prompts, layer after layer. Within a layer a prompt goes in chunks of rows, so that a windowed layer holds the
// keys of its window, of the sinks and of one chunk, never of the whole prompt. One layer at a time does where the
// cache cannot be computed in: with tail rows, whose prompt sees everything, and in a layer with full attention whose
// cache is packed.
class Prefill {
 public:
  Prefill(Forward& forward, std::span<const GenerationRequest> requests, std::span<const SequenceCache* const> caches);
  // Fills the caches. Throws Interrupted.
  void run(const StopCheck& stop);
  // Returns the residual row that left the last layer at a prompt's last token.
  kernels::ConstRows last_row(std::size_t prompt) const;

  // Returns ranges of requests whose rows go together: as many as the backend likes to stack.
  static std::vector<std::pair<std::size_t, std::size_t>> groups(const kernels::Ops& ops,
                                                                 std::span<const GenerationRequest> requests);
  // Returns the backend memory of the largest of those groups, bytes.
  static int64_t predicted_bytes(const kernels::Ops& ops, const model::ModelConfig& config,
                                 std::span<const GenerationRequest> requests);

 private:
  struct Prompt {
    const GenerationRequest* request = nullptr;
    const SequenceCache* cache = nullptr;
    int64_t n_rows = 0;
    int64_t padded_rows = 0;
    int64_t at = 0;  // in the stack
    int64_t last_tile(int64_t tile) const { return padded_rows - tile; }
  };
  // Rows [first_row, end_row) of a prompt, and where their keys are for a layer.
  struct Chunk {
    int64_t first_row = 0;
    int64_t end_row = 0;
    kernels::KvRows prefix;  // the sinks, where they are apart
    kernels::KvRows own;     // from the first row that the chunk sees to its end
  };

  void make_tables();
  void run_prompt(const Prompt& prompt, int64_t layer, const model::LayerWeights& weights);
  void run_chunk(const Prompt& prompt, const Chunk& chunk, int64_t layer, const model::LayerWeights& weights);
  Chunk place_chunk(const Prompt& prompt, int64_t layer, int64_t first_row);
  void load_seen(const Prompt& prompt, const Chunk& chunk, int64_t layer);
  void keep(const Prompt& prompt, const Chunk& chunk, int64_t layer);
  auto at(auto buffer) const { return buffers_.list.at(buffer); }

  Forward& forward_;
  PrefillBuffers buffers_;
  std::vector<Prompt> prompts_;
  int64_t stack_rows_ = 0;
};

}  // namespace winnow::engine
