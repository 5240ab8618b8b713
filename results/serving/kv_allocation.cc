#include "results/serving/kv_allocation.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace winnow::serving {
namespace {

int64_t blocks(int64_t tokens, int64_t size) { return (tokens + size - 1) / size; }
int64_t padded(int64_t tokens, int64_t size) { return blocks(tokens, size) * size; }

// Defaults of the engines: tokens of a block, a page or a step of growth, and of a chunk of a prompt.
constexpr int64_t kVllmBlock = 16;
constexpr int64_t kVllmChunk = 8192;
constexpr int64_t kVllmSteps = 2;  // at a time: the next one is scheduled before the last one's blocks are free
constexpr int64_t kSglangPage = 1;
constexpr int64_t kSglangChunk = 8192;
constexpr int64_t kLlamaCppPad = 256;
constexpr int64_t kLlamaCppChunk = 512;
constexpr int64_t kMlxStep = 256;
constexpr int64_t kMlxChunk = 2048;
constexpr int64_t kTrtllmBlock = 32;
constexpr int64_t kTrtllmChunk = 8192;

// Layers of each window; 0: full attention.
std::map<int64_t, int64_t> layers_by_window(std::span<const int64_t> windows) {
  std::map<int64_t, int64_t> counts;
  for (const int64_t window : windows) ++counts[window];
  return counts;
}

// vLLM's hybrid manager: the layers of each kind are cut into groups of one size, the last of each kind padded, and all
// groups take blocks from one pool. The size is that of the smallest kind, or of the largest where that is less than
// 1.5 times as large.
double vllm_tokens(const std::map<int64_t, int64_t>& layers, const KvDemand& demand, int64_t chunk) {
  int64_t least = 0;
  int64_t most = 0;
  for (const auto& [window, count] : layers) {
    least = least == 0 ? count : std::min(least, count);
    most = std::max(most, count);
  }
  const int64_t group = 2 * most < 3 * least ? most : least;
  int64_t tokens = 0;
  for (const auto& [window, count] : layers) {
    const int64_t held =
        window == 0 ? demand.max_seq_len : std::min(window - 1 + kVllmSteps * chunk, demand.max_seq_len);
    // A window need not begin where a block does.
    const int64_t n_blocks = blocks(held, kVllmBlock) + (window == 0 ? 0 : 1);
    tokens += padded(count, group) * n_blocks * kVllmBlock;
  }
  return static_cast<double>(tokens) * static_cast<double>(demand.concurrency);
}

// Two pools: the second holds a share of the first's tokens.
double sglang_tokens(const std::map<int64_t, int64_t>& layers, const KvDemand& demand, int64_t chunk) {
  double tokens = 0.0;
  for (const auto& [window, count] : layers) {
    const double share = window == 0 ? 1.0 : sglang_pool_ratio(window, demand.max_seq_len, chunk);
    tokens += share * static_cast<double>(count * padded(demand.max_seq_len, kSglangPage));
  }
  return tokens * static_cast<double>(demand.concurrency);
}

// Tokens that a layer holds of one sequence where nothing is shared between layers.
int64_t tokens_of_layer(std::string_view engine, int64_t window, int64_t n_tokens, int64_t chunk) {
  if (engine == "llamacpp") {
    const int64_t all = padded(n_tokens, kLlamaCppPad);
    return window == 0 ? all : padded(std::min(all, window + chunk), kLlamaCppPad);
  }
  if (engine == "mlx") {
    // While a prompt is processed, a rotating cache holds the window before the chunk as well as the chunk.
    return window == 0 ? padded(n_tokens, kMlxStep) : std::min(n_tokens, window - 1 + chunk);
  }
  if (engine == "trtllm") {
    if (window == 0 || window >= n_tokens) return padded(n_tokens, kTrtllmBlock);
    return std::min(padded(n_tokens, kTrtllmBlock), padded(window + chunk, kTrtllmBlock) + kTrtllmBlock);
  }
  // Transformers keeps the window; SWAA keeps all.
  if (engine == "swaa" || window == 0) return n_tokens;
  return std::min(n_tokens, window);
}

int64_t default_chunk(std::string_view engine) {
  if (engine == "vllm") return kVllmChunk;
  if (engine == "sglang") return kSglangChunk;
  if (engine == "llamacpp") return kLlamaCppChunk;
  if (engine == "mlx") return kMlxChunk;
  return engine == "trtllm" ? kTrtllmChunk : 0;
}

// What the engine keeps a key or value in, unless it is told otherwise: where a checkpoint is in float32, these take
// half precision all the same.
int64_t element_bytes(std::string_view engine, const KvShape& shape) {
  const bool is_half = engine == "llamacpp" || engine == "vllm" || engine == "sglang";
  return is_half ? 2 : shape.element_bytes;
}

double allocated_tokens(std::string_view engine, const std::map<int64_t, int64_t>& layers, const KvDemand& demand) {
  const int64_t chunk = demand.chunk > 0 ? demand.chunk : default_chunk(engine);
  if (engine == "vllm") return vllm_tokens(layers, demand, chunk);
  if (engine == "sglang") return sglang_tokens(layers, demand, chunk);
  double tokens = 0.0;
  for (const auto& [window, count] : layers) {
    tokens += static_cast<double>(count * tokens_of_layer(engine, window, demand.max_seq_len, chunk));
  }
  return tokens * static_cast<double>(demand.concurrency);
}

}  // namespace

KvAllocation kv_allocation(std::string_view engine, std::span<const int64_t> windows, const KvShape& shape,
                           const KvDemand& demand) {
  const double token_bytes =
      2.0 * static_cast<double>(shape.n_kv_heads * shape.head_dim * element_bytes(engine, shape));
  double ideal = 0.0;
  for (const int64_t window : windows) {
    ideal += static_cast<double>(window == 0 ? demand.max_seq_len : std::min(window, demand.max_seq_len));
  }
  const std::map<int64_t, int64_t> all_full = {{0, static_cast<int64_t>(windows.size())}};
  return {.ideal_bytes = ideal * static_cast<double>(demand.concurrency) * token_bytes,
          .allocated_bytes = allocated_tokens(engine, layers_by_window(windows), demand) * token_bytes,
          .full_bytes = allocated_tokens(engine, all_full, demand) * token_bytes};
}

double sglang_pool_ratio(int64_t window, int64_t max_seq_len, int64_t chunk) {
  const int64_t held = window + kSglangPage + (chunk > 0 ? chunk : kSglangChunk);
  if (held >= max_seq_len) return 1.0;
  return std::ceil(100.0 * static_cast<double>(held) / static_cast<double>(max_seq_len)) / 100.0;
}

}  // namespace winnow::serving
