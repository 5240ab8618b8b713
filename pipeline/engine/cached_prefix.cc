#include "pipeline/engine/cached_prefix.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/tile.h"
#include "pipeline/engine/sweep_pass.h"

namespace winnow::engine {

using kernels::round_down;
using kernels::round_up;

int64_t cached_rows(int64_t n_tokens, const kernels::Window& narrowest, int64_t row_tile) {
  const int64_t n_rows = n_tokens - 1;  // the last token predicts nothing
  const int64_t last_tile = round_up(n_rows, row_tile) - row_tile;
  return std::min(round_down(kernels::first_affected_row(narrowest), row_tile), last_tile);
}

int64_t CachedPrefix::size_bytes(const model::ModelConfig& config, const kernels::Ops& ops, int64_t n_rows) {
  return config.n_layers * ops.device().kv_bytes(n_rows, config.heads);
}

SweepRequest prefix_request(const SweepRequest& request) {
  SweepRequest prefix;
  prefix.tokens = request.tokens.first(static_cast<std::size_t>(request.prefix_rows) + 1);
  prefix.answer_start = std::min(request.answer_start, request.prefix_rows);
  prefix.sequence_length = request.whole_length();
  prefix.base = settings_of_first_rows(request.base, request.prefix_rows);
  return prefix;
}

int64_t CachedPrefix::workspace_bytes(const model::ModelConfig& config, const kernels::Ops& ops,
                                      const SweepRequest& request, Place place) {
  const SweepRequest prefix = prefix_request(request);
  const KvSink elsewhere;
  return SweepPass::predicted_bytes(ops, config, std::span(&prefix, 1), &elsewhere) +
         (place == Place::kHost ? ops.device().kv_bytes(request.prefix_rows, config.heads) : 0);
}

CachedPrefix::CachedPrefix(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                           const SweepRequest& request, Place place, const StopCheck& stop)
    : n_rows_(request.prefix_rows),
      place_(place),
      windows_(settings_of_first_rows(request.base, request.prefix_rows)),
      first_score_row_(request.answer_start - 1) {
  const auto n_tokens = static_cast<int64_t>(request.tokens.size());
  const int64_t most = cached_rows(n_tokens, kernels::full_attention(), ops.device().row_tile());
  if (n_rows_ <= 0 || n_rows_ > most || n_rows_ % ops.device().row_tile() != 0) {
    fail(ExitCode::kInternal, "a prefix of " + std::to_string(n_rows_) + " rows does not fit the request");
  }
  const int64_t total = size_bytes(config, ops, n_rows_);
  memory_ = is_on_host() ? ops.device().allocate_host(total, "cached keys and values")
                         : ops.device().allocate(total, "cached keys and values");
  kv_ = ops.device().kv_span(memory_->bytes(), config.heads);
  std::unique_ptr<kernels::Buffer> memory_of_layer;
  kernels::KvSpan staged;  // a layer's, on its way to the host
  if (is_on_host()) {
    memory_of_layer = ops.device().allocate(layer(0).size_bytes(), "a layer of keys");
    staged = ops.device().kv_span(memory_of_layer->bytes(), config.heads);
  }
  const KvSink sink{.place = [&](int64_t index) { return staged ? staged : layer(index); },
                    .done =
                        [&](int64_t index) {
                          if (staged) ops.copy_async(staged.bytes(), layer(index).bytes());
                        }};
  const SweepRequest prefix = prefix_request(request);
  SweepPass pass(ops, config, weights, std::span(&prefix, 1), &sink);
  pass.run_layers(stop);
  if (first_score_row_ >= n_rows_) return;
  const SweepPass::RowScores scores = pass.score_rows();
  const PlacedRows& rows = pass.base_scored(0);
  for (int64_t row = first_score_row_; row < n_rows_; ++row) {
    const auto at = static_cast<std::size_t>(rows.at + row - rows.first_row);
    scores_.push_back({scores.nll[at], scores.hits[at] != 0});
  }
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
  if (!prefix) prefix = std::make_unique<CachedPrefix>(ops_, config_, weights_, request, place, stop);
  request.prefix = prefix.get();
}

}  // namespace winnow::engine
