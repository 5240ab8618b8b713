#include "results/serving/kv_allocation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

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

// Keys and values of one token in one layer.
int64_t token_bytes(KvType type, const KvShape& shape) {
  return 2 * shape.n_kv_heads * kv_head_bytes(type, shape.head_dim, shape.element_bytes);
}

// vLLM: all blocks have as many bytes as those of the widest type: one of a type that is a whole number of times
// smaller holds as many times more tokens, one of another is padded (unify_kv_cache_spec_page_size).
int64_t vllm_layer_bytes(const KvKind& kind, KvType widest, const KvShape& shape, int64_t n_tokens, int64_t chunk) {
  const int64_t block_bytes = kVllmBlock * token_bytes(widest, shape);
  const int64_t own_bytes = kVllmBlock * token_bytes(kind.type, shape);
  const int64_t size = block_bytes % own_bytes == 0 ? kVllmBlock * (block_bytes / own_bytes) : kVllmBlock;
  const int64_t held = kind.window == 0 ? n_tokens : std::min(kind.window - 1 + kVllmSteps * chunk, n_tokens);
  // A window need not begin where a block does.
  return (blocks(held, size) + (kind.window == 0 ? 0 : 1)) * block_bytes;
}

// The second of two pools holds a share of the first's tokens, in hundredths.
constexpr int64_t kSglangShares = 100;

int64_t sglang_share(int64_t window, int64_t max_seq_len, int64_t chunk) {
  const int64_t held = window + kSglangPage + chunk;
  if (held >= max_seq_len) return kSglangShares;
  return static_cast<int64_t>(std::ceil(100.0 * static_cast<double>(held) / static_cast<double>(max_seq_len)));
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

KvLayers count_layers(std::span<const int64_t> windows, std::span<const KvType> kv) {
  std::map<KvKind, int64_t> counts;
  for (std::size_t layer = 0; layer < windows.size(); ++layer) {
    ++counts[{windows[layer], kv.empty() ? KvType::kStored : kv[layer]}];
  }
  return {counts.begin(), counts.end()};
}

}  // namespace

KvRule::KvRule(std::string_view engine, const KvShape& shape, const KvDemand& demand)
    : engine_(engine), shape_(shape), demand_(demand) {
  shape_.element_bytes = element_bytes(engine, shape);
  if (demand_.chunk <= 0) demand_.chunk = default_chunk(engine);
}

bool KvRule::is_sum() const { return engine_ != "vllm"; }

double KvRule::bytes(int64_t units) const {
  const auto of_one = static_cast<double>(units) / (engine_ == "sglang" ? static_cast<double>(kSglangShares) : 1.0);
  return of_one * static_cast<double>(demand_.concurrency);
}

KvType KvRule::wider(KvType a, KvType b) const { return token_bytes(a, shape_) < token_bytes(b, shape_) ? b : a; }

int64_t KvRule::units(const KvKind& kind, KvType widest) const {
  const int64_t n_tokens = demand_.max_seq_len;
  if (engine_ == "vllm") return vllm_layer_bytes(kind, widest, shape_, n_tokens, demand_.chunk);
  if (engine_ == "sglang") {
    const int64_t share = kind.window == 0 ? kSglangShares : sglang_share(kind.window, n_tokens, demand_.chunk);
    return share * padded(n_tokens, kSglangPage) * token_bytes(kind.type, shape_);
  }
  return tokens_of_layer(engine_, kind.window, n_tokens, demand_.chunk) * token_bytes(kind.type, shape_);
}

// vLLM's hybrid manager: the layers of each kind are cut into groups of one size, the last of each kind padded, and all
// groups take blocks from one pool. The size is that of the smallest kind, or of the largest where that is less than
// 1.5 times as large.
int64_t KvRule::units(const KvLayers& layers) const {
  int64_t least = 0;
  int64_t most = 0;
  std::optional<KvType> widest;
  for (const auto& [kind, count] : layers) {
    if (count == 0) continue;
    least = least == 0 ? count : std::min(least, count);
    most = std::max(most, count);
    widest = widest ? wider(*widest, kind.type) : kind.type;
  }
  const int64_t group = is_sum() ? 1 : 2 * most < 3 * least ? most : least;
  int64_t sum = 0;
  for (const auto& [kind, count] : layers) {
    if (count > 0) sum += padded(count, group) * units(kind, *widest);
  }
  return sum;
}

KvAllocation kv_allocation(std::string_view engine, std::span<const int64_t> windows, const KvShape& shape,
                           const KvDemand& demand, std::span<const KvType> kv) {
  const KvRule rule(engine, shape, demand);
  KvShape kept = shape;
  kept.element_bytes = element_bytes(engine, shape);
  const KvLayers layers = count_layers(windows, kv);
  double ideal = 0.0;
  for (const auto& [kind, count] : layers) {
    const int64_t held = kind.window == 0 ? demand.max_seq_len : std::min(kind.window, demand.max_seq_len);
    ideal += static_cast<double>(count * held * token_bytes(kind.type, kept));
  }
  const KvLayers all_full = {{{}, static_cast<int64_t>(windows.size())}};
  return {.ideal_bytes = ideal * static_cast<double>(demand.concurrency),
          .allocated_bytes = rule.bytes(rule.units(layers)),
          .full_bytes = rule.bytes(rule.units(all_full))};
}

double sglang_pool_ratio(int64_t window, int64_t max_seq_len, int64_t chunk) {
  const int64_t share = sglang_share(window, max_seq_len, chunk > 0 ? chunk : kSglangChunk);
  return static_cast<double>(share) / static_cast<double>(kSglangShares);
}

}  // namespace winnow::serving
