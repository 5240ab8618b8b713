#include "pipeline/engine/layer_signals.h"

#include <algorithm>
#include <cmath>

#include "model/layer.h"

namespace winnow::engine {

namespace {

// exp(lse of set `part` - lse of set `whole`), summed over rows and heads of a key head; (n_kv_heads).
class Shares {
 public:
  Shares(kernels::Backend& backend, const kernels::HeadShape& heads, const LayerAttention& attention, int64_t first_row,
         int64_t end_row)
      : backend_(backend), heads_(heads), attention_(attention), first_row_(first_row), n_rows_(end_row - first_row) {}

  // sets: those of one row after another, n_sets each.
  void compute(const std::vector<kernels::KeySet>& sets) {
    n_sets_ = static_cast<int64_t>(sets.size()) / n_rows_;
    lse_.resize(sets.size() * static_cast<std::size_t>(heads_.n_heads));
    backend_.attention_lse({.q = kernels::row_pointer(attention_.q, backend_.activation_dtype(),
                                                      first_row_ - attention_.first_row, heads_.q_dim()),
                            .keys = attention_.keys,
                            .n_rows = n_rows_,
                            .n_sets = n_sets_,
                            .sets = sets,
                            .lse = lse_},
                           heads_);
  }
  // Mean over the rows and the query heads of each key head.
  std::vector<double> means(int64_t part, int64_t whole) const {
    const int64_t group = heads_.n_heads / heads_.n_kv_heads;
    std::vector<double> means(static_cast<std::size_t>(heads_.n_kv_heads), 0.0);
    for (int64_t row = 0; row < n_rows_; ++row) {
      for (int64_t head = 0; head < heads_.n_heads; ++head) {
        means[static_cast<std::size_t>(head / group)] += std::exp(lse(row, part, head) - lse(row, whole, head));
      }
    }
    for (double& mean : means) mean /= static_cast<double>(n_rows_ * group);
    return means;
  }
  double mean(int64_t part, int64_t whole) const {
    double sum = 0.0;
    for (const double of_head : means(part, whole)) sum += of_head;
    return sum / static_cast<double>(heads_.n_kv_heads);
  }

 private:
  double lse(int64_t row, int64_t set, int64_t head) const {
    return lse_[static_cast<std::size_t>((row * n_sets_ + set) * heads_.n_heads + head)];
  }

  kernels::Backend& backend_;
  const kernels::HeadShape& heads_;
  const LayerAttention& attention_;
  int64_t first_row_;
  int64_t n_rows_;
  int64_t n_sets_ = 0;
  std::vector<double> lse_;  // (rows, sets, heads)
};

kernels::KeySet key_set(int64_t sinks, int64_t begin, int64_t end) {
  return {static_cast<int32_t>(sinks), static_cast<int32_t>(begin), static_cast<int32_t>(std::max(begin, end))};
}

// Keys up to row t: the sinks, and the band from `begin` on.
kernels::KeySet sinks_and_band(int64_t sinks, int64_t begin, int64_t t) {
  const int64_t first = std::min(sinks, t + 1);
  return key_set(first, std::max(begin, first), t + 1);
}

}  // namespace

std::string Signals::name() const {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ",") + part; };
  if (kl) add("kl");
  if (layer.removed_rows) {
    const bool is_all = *layer.removed_rows == LayerSignalOptions::kAllRows;
    add("sensitivity:" + (is_all ? "all" : std::to_string(*layer.removed_rows)));
  }
  if (layer.mass) add("mass");
  if (layer.lazy) {
    add("lazy:" + std::to_string(layer.lazy->sinks) + ":" + std::to_string(layer.lazy->recent) + ":" +
        std::to_string(layer.lazy->last));
  }
  return text;
}

int64_t signal_slots(const LayerSignalOptions& options, int64_t n_kv_heads) {
  return options.any() ? 3 + n_kv_heads : 0;
}

std::vector<double> to_slots(const LayerSignals& signals, int64_t n_slots) {
  std::vector<double> slots{signals.nll_removed, signals.lazy_ratio, signals.lazy_ratio_compat};
  slots.insert(slots.end(), signals.mass_outside.begin(), signals.mass_outside.end());
  slots.resize(static_cast<std::size_t>(n_slots), 0.0);
  return slots;
}

LayerSignals from_slots(std::span<const double> slots) {
  LayerSignals signals{
      .nll_removed = slots[0], .mass_outside = {}, .lazy_ratio = slots[1], .lazy_ratio_compat = slots[2]};
  signals.mass_outside.assign(slots.begin() + 3, slots.end());
  return signals;
}

void measure_attention(kernels::Backend& backend, const kernels::HeadShape& heads, const LayerAttention& attention,
                       const kernels::Window& window, const LayerSignalOptions& options, LayerSignals& signals) {
  if (options.mass) {
    // The window itself, also where tail rows or full decode spare some rows: what it would cost them.
    const kernels::Window everywhere{.keys = window.keys, .sinks = window.sinks};
    std::vector<kernels::KeySet> sets;
    for (int64_t t = attention.answer_start - 1; t < attention.n_tokens - 1; ++t) {
      sets.push_back(key_set(0, std::min(window.sinks, t + 1), kernels::band_start(everywhere, t)));
      sets.push_back(key_set(0, 0, t + 1));
    }
    Shares shares(backend, heads, attention, attention.answer_start - 1, attention.n_tokens - 1);
    shares.compute(sets);
    signals.mass_outside = shares.means(0, 1);
  }
  if (!options.lazy || attention.n_tokens < options.lazy->least_tokens()) return;
  const LazyWindow& lazy = *options.lazy;
  const int64_t end = attention.n_tokens;
  const int64_t first = std::max<int64_t>(0, end - lazy.last);
  std::vector<kernels::KeySet> sets;
  for (int64_t t = first; t < end; ++t) {
    sets.push_back(sinks_and_band(lazy.sinks, t - lazy.recent + 1, t));
    sets.push_back(key_set(lazy.sinks, end - lazy.recent, end));
    sets.push_back(key_set(0, 0, t + 1));
  }
  Shares shares(backend, heads, attention, first, end);
  shares.compute(sets);
  signals.lazy_ratio = shares.mean(0, 2);
  signals.lazy_ratio_compat = shares.mean(1, 2);
}

}  // namespace winnow::engine
