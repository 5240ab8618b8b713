#include "results/calibration/heads.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "base/strings.h"
#include "base/terminal_table.h"
#include "results/calibration/json.h"
#include "results/stats/correlation.h"
#include "results/stats/resampling.h"

namespace winnow::calibration {
namespace {

constexpr std::size_t kRowsShown = 16;

// The three columns of every head, (examples, layers * heads). The base has full attention in all of them.
Columns columns_of_heads(const Measurement& m) {
  const FiguresByHead& figures = m.by_head;
  const int64_t n_columns = m.n_layers() * figures.n_heads;
  Columns c{stats::Table<double>(m.n_examples(), n_columns), stats::Table<double>(m.n_examples(), n_columns),
            stats::Table<double>(m.n_examples(), n_columns)};
  for (int64_t e = 0; e < m.n_examples(); ++e) {
    for (int64_t i = 0; i < n_columns; ++i) {
      const int64_t layer = i / figures.n_heads;
      const int64_t head = i % figures.n_heads;
      const int64_t cell = e * m.n_layers() + layer;
      c.delta_nll(e, i) = m.delta_nll_by_head(e, layer, head);
      c.exact_match_drop(e, i) = m.exact_match_base[stats::at(e)] - figures.exact_match(cell, head) + 0.0;
      c.token_accuracy_drop(e, i) = m.token_accuracy_base[stats::at(e)] - figures.token_accuracy(cell, head) + 0.0;
    }
  }
  return c;
}

// What stands for a layer in its heads' means: their sum, or the largest.
enum class Of { kSum, kLargest };

std::vector<double> of_layers(std::span<const double> means, int64_t n_heads, Of of) {
  std::vector<double> values;
  for (std::size_t begin = 0; begin < means.size(); begin += stats::at(n_heads)) {
    double sum = 0.0;
    double largest = means[begin];
    for (const double mean : means.subspan(begin, stats::at(n_heads))) {
      sum += mean;
      largest = std::max(largest, mean);
    }
    values.push_back(of == Of::kSum ? sum : largest);
  }
  return values;
}

stats::Estimate rho_with_layers(const stats::Table<double>& layers, const stats::Table<double>& heads, Of of,
                                const StatisticsOptions& options) {
  const int64_t n_heads = heads.cols / layers.cols;
  const auto rho_of = [&](std::span<const int64_t> rows) {
    return stats::spearman(stats::mean_of_rows(layers, rows), of_layers(stats::mean_of_rows(heads, rows), n_heads, of));
  };
  const std::optional<double> rho = rho_of(stats::iota(layers.rows));
  if (!rho) {
    const std::string why = layers.cols < 2 ? "one layer" : "all layers are equal, or what their heads cost is";
    return stats::with_undefined_interval(stats::Figure::undefined(why), why);
  }
  if (layers.rows < 2) return stats::with_undefined_interval(stats::Figure::of(*rho), "one example");
  stats::Spread spread;
  for (int64_t r = 0; r < options.n_resamples; ++r) {
    spread.add(rho_of(stats::draw_rows(layers.rows, options.seed, r)));
  }
  return spread.around(stats::Figure::of(*rho));
}

std::string rho_text(const stats::Estimate& estimate) {
  if (!estimate.value.defined()) return "n/a (" + estimate.value.status + ")";
  const std::string value = number(estimate.value.value, "{:.3f}");
  if (!estimate.ci_low.defined() || !estimate.ci_high.defined()) return value;
  return value + " " + bracketed(number(estimate.ci_low.value, "{:.3f}"), number(estimate.ci_high.value, "{:.3f}"));
}

}  // namespace

std::optional<HeadStatistics> compare_heads(const Measurement& m, const Columns& columns,
                                            const StatisticsOptions& options) {
  const int64_t n_heads = m.by_head.n_heads;
  if (n_heads == 0) return std::nullopt;
  const Columns of_heads = columns_of_heads(m);
  std::vector<int64_t> numbers;
  for (const int64_t layer : m.layer) {
    for (int64_t head = 0; head < n_heads; ++head) numbers.push_back(layer * n_heads + head);
  }
  StatisticsOptions wanted = options;
  wanted.top_k *= n_heads;
  HeadStatistics heads;
  heads.n_heads = n_heads;
  heads.ranking = rank_columns(numbers, of_heads, wanted);
  heads.layer_sum = of_layers(heads.ranking.mean_delta_nll, n_heads, Of::kSum);
  heads.layer_largest = of_layers(heads.ranking.mean_delta_nll, n_heads, Of::kLargest);
  heads.rho_sum = rho_with_layers(columns.delta_nll, of_heads.delta_nll, Of::kSum, options);
  heads.rho_largest = rho_with_layers(columns.delta_nll, of_heads.delta_nll, Of::kLargest, options);
  return heads;
}

std::string heads_block(const Results& results) {
  const HeadStatistics& heads = *results.statistics.heads;
  const Ranking& r = heads.ranking;
  const std::vector<int64_t> order = r.order();
  const std::size_t n_shown = std::min(order.size(), kRowsShown);
  const auto count = [](auto n) { return std::to_string(n); };
  std::string text = wrapped("Key heads, each windowed alone with the query heads that share it: the " +
                                 count(n_shown) + " of " + count(order.size()) + " that cost most",
                             2);
  constexpr auto kRight = TerminalTable::Column::Align::kRight;
  TerminalTable table(
      {{kRight, 4}, {kRight, 7}, {kRight, 6}, {kRight, 11}, {kRight, 24}, {kRight, 10}, {kRight, 10}, {kRight, 10}});
  table.add({"rank", "layer", "head", "delta NLL", "95 % interval", "EM drop", "acc drop", "rank 95 %"});
  for (std::size_t i = 0; i < n_shown; ++i) {
    const std::size_t c = stats::at(order[i]);
    const bool has_spread = !std::isnan(r.ci_low[c]);
    table.add({count(r.rank[c]), count(r.layer[c] / heads.n_heads), count(r.layer[c] % heads.n_heads),
               number(r.mean_delta_nll[c]),
               has_spread ? bracketed(right(number(r.ci_low[c]), 9), right(number(r.ci_high[c]), 9)) : "n/a",
               percent(r.exact_match_drop[c]), percent(r.token_accuracy_drop[c]),
               has_spread ? number(r.rank_low[c], "{:.0f}") + "-" + number(r.rank_high[c], "{:.0f}") : "n/a"});
  }
  text += table.text();
  const auto sum_of = [](const std::vector<double>& values) {
    double sum = 0.0;
    for (const double value : values) sum += value;
    return sum;
  };
  const auto line = [](const char* label, const std::string& value) {
    return wrapped("  " + left(label, 40) + value, 42);
  };
  text += "Over layers, the layer's own delta NLL with its heads'\n";
  text += line("rho with the sum of its heads", rho_text(heads.rho_sum));
  text += line("rho with the largest of its heads", rho_text(heads.rho_largest));
  text += line("all heads alone / all layers alone",
               number(sum_of(heads.layer_sum) / sum_of(results.statistics.ranking.mean_delta_nll), "{:.3g}"));
  return text;
}

Json heads_object(const Results& results) {
  const HeadStatistics& heads = *results.statistics.heads;
  const Ranking& r = heads.ranking;
  Json object = {{"n_kv_heads", heads.n_heads}};
  object["heads"] = Json::array();
  for (const int64_t column : r.order()) {
    const std::size_t c = stats::at(column);
    Json head = {{"rank", r.rank[c]},
                 {"layer", r.layer[c] / heads.n_heads},
                 {"kv_head", r.layer[c] % heads.n_heads},
                 {"mean_delta_nll", r.mean_delta_nll[c]}};
    put_spread_and_drops(r, c, head);
    object["heads"].push_back(std::move(head));
  }
  object["layers"] = Json::array();
  for (std::size_t l = 0; l < heads.layer_sum.size(); ++l) {
    object["layers"].push_back({{"layer", results.calibration.layer[l]},
                                {"sum_delta_nll", heads.layer_sum[l]},
                                {"largest_delta_nll", heads.layer_largest[l]}});
  }
  const auto put = [&](const std::string& name, const stats::Estimate& estimate) {
    const auto one = [&](const std::string& key, const stats::Figure& figure) {
      object[key] = figure.defined() ? Json(figure.value) : Json(nullptr);
      if (!figure.defined()) object[key + "_status"] = figure.status;
    };
    one(name, estimate.value);
    one(name + "_ci_low", estimate.ci_low);
    one(name + "_ci_high", estimate.ci_high);
  };
  put("rho_sum", heads.rho_sum);
  put("rho_largest", heads.rho_largest);
  if (!r.spread_status.empty()) object["spread_status"] = r.spread_status;
  return object;
}

}  // namespace winnow::calibration
