#include "pipeline/engine/cached_prefix.h"

#include <algorithm>

#include "base/error.h"
#include "model/layer.h"
#include "pipeline/engine/sweep_layout.h"

namespace winnow::engine {

int64_t cached_rows(int64_t n_tokens, const kernels::Window& narrowest, int64_t row_tile) {
  const int64_t n_rows = n_tokens - 1;  // the last token predicts nothing
  const int64_t last_tile = round_up(n_rows, row_tile) - row_tile;
  return std::min(round_down(kernels::first_affected_row(narrowest), row_tile), last_tile);
}

int64_t CachedPrefix::size_bytes(const model::ModelConfig& config, const kernels::Backend& backend, int64_t n_rows) {
  return config.n_layers * backend.kv_bytes(n_rows, config.heads);
}

// One pass of the first rows, which ends where the last layer's keys and values are there: beyond, only rows that
// predict answer tokens are wanted, and most often there are none.
class CachedPrefix::Pass {
 public:
  Pass(kernels::Backend& backend, const model::ModelConfig& config, model::ModelWeights& weights,
       const SweepRequest& request);
  // Calls `keep` with the keys and values of each layer.
  template <typename Keep>
  void run(const Keep& keep, const StopCheck& stop);
  // Scores of rows [a - 1, n_rows). After run().
  std::vector<RowScore> scores();

  static int64_t workspace_bytes(const model::ModelConfig& config, const kernels::Backend& backend, int64_t n_rows);

 private:
  void run_attention(const model::LayerWeights& weights, void* kv, int64_t first_row);
  void* residual(int64_t row) const {
    return kernels::row_pointer(stack_->data(), backend_.residual_dtype(), row, config_.hidden);
  }
  bool is_scored() const { return request_.answer_start - 1 < n_rows_; }

  kernels::Backend& backend_;
  const model::ModelConfig& config_;
  model::ModelWeights& weights_;
  const SweepRequest& request_;
  int64_t n_rows_;
  int64_t first_tile_;  // first row of the tile that holds row a - 1
  model::DecoderLayer decoder_;
  std::unique_ptr<kernels::Buffer> rope_memory_;
  std::unique_ptr<kernels::Buffer> positions_;
  std::unique_ptr<kernels::Buffer> tokens_;
  std::unique_ptr<kernels::Buffer> stack_;      // (n_rows, hidden) residual
  std::unique_ptr<kernels::Buffer> q_;          // (n_rows, q_dim)
  std::unique_ptr<kernels::Buffer> attention_;  // (n_rows, q_dim)
  kernels::RowAngles angles_;
};

int64_t CachedPrefix::Pass::workspace_bytes(const model::ModelConfig& config, const kernels::Backend& backend,
                                            int64_t n_rows) {
  const kernels::HeadShape& heads = config.heads;
  const int64_t row = config.hidden * winnow::kernels::size_bytes(backend.residual_dtype()) +
                      2 * heads.q_dim() * winnow::kernels::size_bytes(backend.activation_dtype()) +
                      heads.head_dim * static_cast<int64_t>(sizeof(float)) + 2 * static_cast<int64_t>(sizeof(int32_t));
  return n_rows * row + model::DecoderLayer::workspace_bytes(backend, config) +
         backend.chunk_rows() * config.hidden * winnow::kernels::size_bytes(backend.activation_dtype()) +
         backend.workspace_bytes(n_rows, config.hidden, config.vocab, heads);
}

int64_t CachedPrefix::workspace_bytes(const model::ModelConfig& config, const kernels::Backend& backend, int64_t n_rows,
                                      Place place) {
  return Pass::workspace_bytes(config, backend, n_rows) +
         (place == Place::kHost ? backend.kv_bytes(n_rows, config.heads) : 0);
}

CachedPrefix::Pass::Pass(kernels::Backend& backend, const model::ModelConfig& config, model::ModelWeights& weights,
                         const SweepRequest& request)
    : backend_(backend),
      config_(config),
      weights_(weights),
      request_(request),
      n_rows_(request.prefix_rows),
      first_tile_((request.answer_start - 1) / backend.row_tile() * backend.row_tile()),
      decoder_(backend, config) {
  const kernels::HeadShape& heads = config.heads;
  const std::span<const float> table = weights.rotary_table(n_rows_);
  const kernels::HostTensor host{reinterpret_cast<const std::byte*>(table.data()),
                                 kernels::DType::kF32,
                                 {n_rows_, heads.head_dim},
                                 "rotary table"};
  rope_memory_ = backend.allocate(host.count() * static_cast<int64_t>(sizeof(float)), "the rotary table");
  angles_.cos_sin = backend.load(host, kernels::WeightUse::kTable, rope_memory_->data());
  std::vector<int32_t> positions(static_cast<std::size_t>(n_rows_));
  for (std::size_t r = 0; r < positions.size(); ++r) positions[r] = static_cast<int32_t>(r);
  positions_ = backend.upload(positions, "the rows' positions");
  angles_.positions = static_cast<const int32_t*>(positions_->data());
  tokens_ = backend.upload(request.tokens.first(positions.size()), "token ids");
  const int64_t query_bytes = n_rows_ * heads.q_dim() * winnow::kernels::size_bytes(backend.activation_dtype());
  stack_ = backend.allocate(n_rows_ * config.hidden * winnow::kernels::size_bytes(backend.residual_dtype()),
                            "the prefix's rows");
  q_ = backend.allocate(query_bytes, "the prefix's queries");
  attention_ = backend.allocate(query_bytes, "attention's output");
}

// The rest of a layer for the rows from first_row on, whose queries are there.
void CachedPrefix::Pass::run_attention(const model::LayerWeights& weights, void* kv, int64_t first_row) {
  const auto rows_of = [&](const std::unique_ptr<kernels::Buffer>& buffer) {
    return kernels::row_pointer(buffer->data(), backend_.activation_dtype(), first_row, config_.heads.q_dim());
  };
  const kernels::AttentionCall call{.q = rows_of(q_),
                                    .out = rows_of(attention_),
                                    .first_row = first_row,
                                    .n_rows = n_rows_ - first_row,
                                    .n_tokens = n_rows_,
                                    .prefix = {},
                                    .own = {kv, 0, n_rows_},
                                    .window = kernels::full_attention()};
  backend_.attention({&call, 1}, config_.heads);
  decoder_.finish(weights, call.out, residual(first_row), call.n_rows);
}

template <typename Keep>
void CachedPrefix::Pass::run(const Keep& keep, const StopCheck& stop) {
  backend_.embed(weights_.embedding(), static_cast<const int32_t*>(tokens_->data()), stack_->data(), n_rows_);
  for (int64_t layer = 0; layer < config_.n_layers; ++layer) {
    const model::LayerWeights& weights = weights_.layer(layer);
    const bool is_last = layer == config_.n_layers - 1;
    keep(layer, [&](void* kv) {
      decoder_.attention_input(weights, stack_->data(), angles_, n_rows_, kv, is_last ? nullptr : q_->data());
      if (!is_last) {
        run_attention(weights, kv, 0);
      } else if (is_scored()) {
        void* q = kernels::row_pointer(q_->data(), backend_.activation_dtype(), first_tile_, config_.heads.q_dim());
        decoder_.attention_input(weights, residual(first_tile_), angles_.from(first_tile_), n_rows_ - first_tile_,
                                 nullptr, q);
        run_attention(weights, kv, first_tile_);
      }
    });
    if (stop && stop()) throw Interrupted{};
  }
}

std::vector<RowScore> CachedPrefix::Pass::scores() {
  std::vector<RowScore> scores;
  if (!is_scored()) return scores;
  const auto n_rows = static_cast<std::size_t>(n_rows_ - first_tile_);
  std::vector<int32_t> targets(n_rows, -1);
  for (int64_t row = request_.answer_start - 1; row < n_rows_; ++row) {
    targets[static_cast<std::size_t>(row - first_tile_)] = request_.tokens[static_cast<std::size_t>(row + 1)];
  }
  std::vector<double> nll(n_rows, 0.0);
  std::vector<uint8_t> hits(n_rows, 0);
  const int64_t chunk = backend_.chunk_rows();
  const auto normed = backend_.allocate(
      chunk * config_.hidden * winnow::kernels::size_bytes(backend_.activation_dtype()), "the prefix's final rows");
  for (int64_t at = 0; at < n_rows_ - first_tile_; at += chunk) {
    const int64_t n = std::min(chunk, n_rows_ - first_tile_ - at);
    backend_.rms_norm(residual(first_tile_ + at), weights_.final_norm(), config_.rms_eps, normed->data(), n);
    backend_.token_nll(normed->data(), weights_.head(),
                       std::span(targets).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n)), n,
                       {nll.data() + at, hits.data() + at});
  }
  backend_.synchronize();
  for (int64_t row = request_.answer_start - 1; row < n_rows_; ++row) {
    const auto at = static_cast<std::size_t>(row - first_tile_);
    scores.push_back({nll[at], hits[at] != 0});
  }
  return scores;
}

CachedPrefix::CachedPrefix(kernels::Backend& backend, const model::ModelConfig& config, model::ModelWeights& weights,
                           const SweepRequest& request, Place place, const StopCheck& stop)
    : n_rows_(request.prefix_rows),
      layer_bytes_(backend.kv_bytes(request.prefix_rows, config.heads)),
      place_(place),
      first_score_row_(request.answer_start - 1) {
  const auto n_tokens = static_cast<int64_t>(request.tokens.size());
  const int64_t most = cached_rows(n_tokens, kernels::full_attention(), backend.row_tile());
  if (n_rows_ <= 0 || n_rows_ > most || n_rows_ % backend.row_tile() != 0) {
    fail(ExitCode::kInternal, "a prefix of " + std::to_string(n_rows_) + " rows does not fit the request");
  }
  const int64_t total = size_bytes(config, backend, n_rows_);
  memory_ = is_on_host() ? backend.allocate_host(total, "cached keys and values")
                         : backend.allocate(total, "cached keys and values");
  const std::unique_ptr<kernels::Buffer> staged =
      is_on_host() ? backend.allocate(layer_bytes_, "a layer of keys") : nullptr;
  Pass pass(backend, config, weights, request);
  pass.run(
      [&](int64_t index, const auto& compute) {
        compute(staged ? staged->data() : layer(index));
        if (staged) backend.transfer(staged->data(), layer(index), layer_bytes_);
      },
      stop);
  scores_ = pass.scores();
}

PrefixPlan plan_prefixes(std::span<const int64_t> sizes, int64_t n_ranks, const PrefixLimits& limits) {
  std::vector<std::size_t> order(sizes.size());
  for (std::size_t e = 0; e < order.size(); ++e) order[e] = e;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return sizes[a] > sizes[b]; });
  struct Load {
    int64_t work = 0;  // prefixes without a byte cost a little, too
    int64_t backend_bytes = 0;
    int64_t host_bytes = 0;
  };
  std::vector<Load> loads(static_cast<std::size_t>(n_ranks));
  PrefixPlan plan;
  plan.owner.assign(sizes.size(), 0);
  plan.place.assign(sizes.size(), std::nullopt);
  for (const std::size_t e : order) {
    const auto least =
        std::min_element(loads.begin(), loads.end(), [](const Load& a, const Load& b) { return a.work < b.work; });
    plan.owner[e] = least - loads.begin();
    least->work += sizes[e] + 1;
    if (sizes[e] == 0) continue;
    if (least->backend_bytes + sizes[e] <= limits.backend_bytes) {
      plan.place[e] = CachedPrefix::Place::kBackend;
      least->backend_bytes += sizes[e];
    } else if (least->host_bytes + sizes[e] <= limits.host_bytes) {
      plan.place[e] = CachedPrefix::Place::kHost;
      least->host_bytes += sizes[e];
    }
  }
  for (const Load& load : loads) {
    plan.backend_bytes = std::max(plan.backend_bytes, load.backend_bytes);
    plan.host_bytes = std::max(plan.host_bytes, load.host_bytes);
  }
  return plan;
}

void PrefixCache::provide(int64_t example, CachedPrefix::Place place, SweepRequest& request, const StopCheck& stop) {
  if (request.prefix_rows == 0) return;
  std::unique_ptr<CachedPrefix>& prefix = prefixes_[example];
  if (!prefix) prefix = std::make_unique<CachedPrefix>(backend_, config_, weights_, request, place, stop);
  request.prefix = prefix.get();
}

}  // namespace winnow::engine
