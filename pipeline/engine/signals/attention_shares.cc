#include "pipeline/engine/signals/attention_shares.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "model/layer.h"

namespace winnow::engine {

namespace {

// Returns the elements of a float32 vector of the backend; waits for them.
std::vector<float> on_host(kernels::Ops& ops, const kernels::Matrix& vector) {
  if (!vector) return {};
  const auto* values = vector.as<float>();
  const auto bytes = std::as_bytes(std::span(values, static_cast<std::size_t>(vector.rows)));
  const auto memory = ops.device().allocate_host(static_cast<int64_t>(bytes.size()), "sink logits");
  ops.copy_async(bytes, memory->bytes());
  ops.device().synchronize();
  const auto copied = memory->as<float>();
  return {copied.begin(), copied.end()};
}

}  // namespace

AttentionShares::AttentionShares(const LayerState& state, int64_t first_row, int64_t end_row)
    : state_(state), first_row_(first_row), n_rows_(end_row - first_row) {}

void AttentionShares::compute(const std::vector<kernels::KeySet>& sets) {
  const kernels::HeadShape& heads = state_.config.heads;
  n_sets_ = static_cast<int64_t>(sets.size()) / n_rows_;
  lse_.resize(sets.size() * static_cast<std::size_t>(heads.n_heads));
  state_.ops.attention_lse(
      {.q = state_.q.slice(first_row_ - state_.first_row, n_rows_), .keys = state_.keys, .sets = sets, .lse = lse_},
      heads);
  sink_logits_ = on_host(state_.ops, state_.weights.sink_logits);
}

std::vector<double> AttentionShares::means(int64_t part, int64_t whole) const {
  const kernels::HeadShape& heads = state_.config.heads;
  const int64_t group = heads.n_heads / heads.n_kv_heads;
  std::vector<double> means(static_cast<std::size_t>(heads.n_kv_heads), 0.0);
  for (int64_t row = 0; row < n_rows_; ++row) {
    for (int64_t head = 0; head < heads.n_heads; ++head) {
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
  return sum / static_cast<double>(state_.config.heads.n_kv_heads);
}

double AttentionShares::lse(int64_t row, int64_t set, int64_t head) const {
  return lse_[static_cast<std::size_t>((row * n_sets_ + set) * state_.config.heads.n_heads + head)];
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
