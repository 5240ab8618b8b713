#include "pipeline/engine/signals/attention_shares.h"

#include <algorithm>
#include <cmath>
#include <span>

namespace winnow::engine {

AttentionShares::AttentionShares(const LayerState& state, int64_t first_row, int64_t end_row,
                                 const std::vector<kernels::KeySet>& sets)
    : heads_(state.config.heads), n_rows_(end_row - first_row), n_sets_(static_cast<int64_t>(sets.size()) / n_rows_) {
  const std::span<double> lse = state.results.take<double>(sets.size() * static_cast<std::size_t>(heads_.n_heads));
  state.ops.attention_lse(
      {.q = state.q.slice(first_row - state.first_row, n_rows_), .keys = state.keys, .sets = sets, .lse = lse}, heads_);
  lse_ = lse;
  const kernels::Matrix& of_heads = state.weights.sink_logits;
  if (!of_heads) return;
  const auto n_heads = static_cast<std::size_t>(of_heads.rows);
  const std::span<float> sink_logits = state.results.take<float>(n_heads);
  state.ops.copy_async(std::as_bytes(std::span(of_heads.as<float>(), n_heads)), std::as_writable_bytes(sink_logits));
  sink_logits_ = sink_logits;
}

std::vector<double> AttentionShares::means(int64_t part, int64_t whole) const {
  const int64_t group = heads_.n_heads / heads_.n_kv_heads;
  std::vector<double> means(static_cast<std::size_t>(heads_.n_kv_heads), 0.0);
  for (int64_t row = 0; row < n_rows_; ++row) {
    for (int64_t head = 0; head < heads_.n_heads; ++head) {
      means[static_cast<std::size_t>(head / group)] +=
          std::exp(lse(row, part, head) - log_denominator(row, whole, head));
    }
  }
  for (double& mean : means) mean /= static_cast<double>(n_rows_ * group);
  return means;
}

double AttentionShares::mean(int64_t part, int64_t whole) const {
  double sum = 0.0;
  for (const double of_head : means(part, whole)) sum += of_head;
  return sum / static_cast<double>(heads_.n_kv_heads);
}

double AttentionShares::lse(int64_t row, int64_t set, int64_t head) const {
  return lse_[static_cast<std::size_t>((row * n_sets_ + set) * heads_.n_heads + head)];
}

double AttentionShares::log_denominator(int64_t row, int64_t set, int64_t head) const {
  const double of_keys = lse(row, set, head);
  if (sink_logits_.empty()) return of_keys;
  const auto sink = static_cast<double>(sink_logits_[static_cast<std::size_t>(head)]);
  const auto [low, high] = std::minmax(of_keys, sink);
  return high + std::log1p(std::exp(low - high));
}

kernels::KeySet key_set(int64_t sinks, int64_t begin, int64_t end) {
  return {static_cast<int32_t>(sinks), static_cast<int32_t>(begin), static_cast<int32_t>(std::max(begin, end))};
}

}  // namespace winnow::engine
