#include "results/evaluation/serving_cost.h"

#include <algorithm>

namespace winnow::evaluation {
namespace {

// Sum over rows begin to end - 1 of the keys that row t sees: min(t + 1, most).
double visible_pairs(double begin, double end, double most) {
  if (end <= begin) return 0.0;
  const double bend = std::clamp(most, begin, end);  // rows from here on see `most`
  return (bend * (bend + 1.0) - begin * (begin + 1.0)) / 2.0 + (end - bend) * most;
}

}  // namespace

double kv_cache_bytes(const ServedModel& model, std::span<const ServedWindow> windows, int64_t n_tokens) {
  double bytes = 0.0;
  for (const ServedWindow& window : windows) {
    const auto kept =
        static_cast<double>(window.decode_full ? n_tokens : std::min(n_tokens, window.keys + window.sinks));
    const double rows = kept + window.full_share * (static_cast<double>(n_tokens) - kept);
    bytes += rows * static_cast<double>(2 * model.n_kv_heads *
                                        kv_head_bytes(window.kv, model.head_dim, model.kv_element_bytes));
  }
  return bytes;
}

double prefill_flop(const ServedModel& model, std::span<const ServedWindow> windows, int64_t n_tokens) {
  const auto n = static_cast<double>(n_tokens);
  double pairs = 0.0;
  for (const ServedWindow& window : windows) {
    const double most = static_cast<double>(window.keys) + static_cast<double>(window.sinks);
    const double first = window.tail_rows < 0 ? 0.0 : std::max(0.0, n - static_cast<double>(window.tail_rows));
    const double of_window = visible_pairs(0.0, first, n) + visible_pairs(first, n, most);
    pairs += of_window + window.full_share * (visible_pairs(0.0, n, n) - of_window);
  }
  const auto q_dim = static_cast<double>(model.n_heads * model.head_dim);
  const auto kv_dim = static_cast<double>(model.n_kv_heads * model.head_dim);
  const auto hidden = static_cast<double>(model.hidden);
  const double weights = hidden * (2.0 * q_dim + 2.0 * kv_dim + 3.0 * static_cast<double>(model.ffn));
  return 2.0 * n * weights * static_cast<double>(model.n_layers) + 4.0 * q_dim * pairs +
         2.0 * hidden * static_cast<double>(model.vocab);
}

}  // namespace winnow::evaluation
