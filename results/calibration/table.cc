#include "results/calibration/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "base/strings.h"
#include "base/terminal_table.h"
#include "results/calibration/heads.h"
#include "results/race/text.h"
#include "results/stats/resampling.h"

namespace winnow::calibration {
namespace {

constexpr int kBarColumns = 11;

// The paper's figures (arXiv 2606.27791): Qwen3-4B-Thinking-2507, 36 layers, K = 9, long against short prompts.
constexpr const char* kPaperRho = "0.306";
constexpr const char* kPaperOverlap = "3 of 9";
constexpr const char* kPaperJaccard = "0.2";
constexpr const char* kPaperMagnitude = "85.6x";

std::string text_of(const stats::Figure& figure, const char* format = "{:.3f}") {
  return figure.defined() ? number(figure.value, format) : "n/a (" + figure.status + ")";
}

std::string text_of(const stats::Estimate& estimate) {
  if (!estimate.value.defined()) return text_of(estimate.value);
  const std::string value = text_of(estimate.value);
  if (!estimate.ci_low.defined()) return value + ", interval n/a (" + estimate.ci_low.status + ")";
  if (!estimate.ci_high.defined()) return value + ", interval n/a (" + estimate.ci_high.status + ")";
  return value + " " + bracketed(text_of(estimate.ci_low), text_of(estimate.ci_high));
}

// value / largest of kBarColumns columns; negative values have no bar.
std::string bar(double value, double largest, const TableStyle& style) {
  const double columns = largest > 0.0 ? std::max(0.0, value / largest * kBarColumns) : 0.0;
  if (!style.utf8_bars) return std::string(static_cast<std::size_t>(std::lround(columns)), '#');
  // U+2588 is a full block, U+2589 .. U+258F are seven to one eighths.
  const auto eighths = static_cast<int>(std::lround(8.0 * columns));
  std::string text;
  for (int i = 0; i < eighths / 8; ++i) text += "\xE2\x96\x88";
  if (eighths % 8 != 0) {
    text += "\xE2\x96";
    text += static_cast<char>(0x90 - eighths % 8);
  }
  return text;
}

std::string count_of_examples(const Measurement& m) {
  return std::to_string(m.n_examples()) + (m.n_examples() == 1 ? " example" : " examples");
}

bool exact_match_is_near_zero(const Measurement& m) { return stats::mean_of(m.exact_match_base) < kNearZeroExactMatch; }

std::size_t row_of_budget(const Ranking& ranking, int64_t k) {
  const auto found = std::find(ranking.budget.begin(), ranking.budget.end(), k);
  return static_cast<std::size_t>(found - ranking.budget.begin());
}

// ---- blocks ---------------------------------------------------------------------------------------------------------

std::string base_block(const Results& results) {
  const Measurement& m = results.calibration;
  std::string text =
      wrapped("Base: NLL " + number(stats::mean_of(m.nll_base), "{:.4g}") + " nats per token, exact match " +
                  percent(stats::mean_of(m.exact_match_base)) + ", token accuracy " +
                  percent(stats::mean_of(m.token_accuracy_base)) + " (" + count_of_examples(m) + ")",
              2);
  if (exact_match_is_near_zero(m)) {
    text += wrapped(
        "Exact match is near 0 under the base already (long free answers?), so its drop says little about a "
        "layer: go by token accuracy.",
        2);
  }
  return text;
}

std::vector<std::string> ranking_row(const Ranking& r, int64_t column, const std::vector<std::string>& drops,
                                     const std::string& p_top_k) {
  const auto c = static_cast<std::size_t>(column);
  const std::string interval =
      std::isnan(r.ci_low[c]) ? "n/a" : bracketed(right(number(r.ci_low[c]), 9), right(number(r.ci_high[c]), 9));
  const std::string ranks =
      std::isnan(r.rank_low[c]) ? "n/a" : number(r.rank_low[c], "{:.0f}") + "-" + number(r.rank_high[c], "{:.0f}");
  return {std::to_string(r.rank[c]),
          std::to_string(r.layer[c]),
          number(r.mean_delta_nll[c]),
          interval,
          drops[0],
          drops[1],
          ranks,
          p_top_k};
}

std::string ranking_block(const Results& results, const TableStyle& style) {
  const Ranking& r = results.statistics.ranking;
  const int64_t k = results.statistics.options.top_k;
  const bool accuracy_first = exact_match_is_near_zero(results.calibration);
  const std::string heads[] = {"EM drop", "acc drop"};
  constexpr auto kRight = TerminalTable::Column::Align::kRight;
  TerminalTable table({{kRight, 4},
                       {kRight, 7},
                       {kRight, 11},
                       {kRight, 24},
                       {kRight, 10},
                       {kRight, 10},
                       {kRight, 10},
                       {kRight, 11},
                       {}});
  table.add({"rank", "layer", "delta NLL", "95 % interval", heads[accuracy_first ? 1 : 0],
             heads[accuracy_first ? 0 : 1], "rank 95 %", std::string("P(top ").append(std::to_string(k)).append(")")});
  const double largest = *std::max_element(r.mean_delta_nll.begin(), r.mean_delta_nll.end());
  const auto budget = static_cast<int64_t>(row_of_budget(r, k));
  for (const int64_t column : r.order()) {
    const auto c = static_cast<std::size_t>(column);
    std::vector<std::string> drops = {percent(r.exact_match_drop[c]), percent(r.token_accuracy_drop[c])};
    if (accuracy_first) std::swap(drops[0], drops[1]);
    const std::string p = number(r.p_top_k(budget, column), "{:.3f}");
    std::vector<std::string> cells = ranking_row(r, column, drops, p);
    cells.push_back("  " + bar(r.mean_delta_nll[c], largest, style));
    table.add(std::move(cells));
  }
  std::string text = table.text();
  text += wrapped(
      "delta NLL: nats per token that windowing the layer costs, mean over examples. EM, acc drop: exact "
      "match and token accuracy that it costs.",
      2);
  if (!r.spread_status.empty()) text += "Intervals and P(top K): n/a (" + r.spread_status + ")\n";
  const auto equal = [&](double value) { return value == r.mean_delta_nll.front(); };
  if (r.layer.size() > 1 && std::all_of(r.mean_delta_nll.begin(), r.mean_delta_nll.end(), equal)) {
    text += "All mean deltas are equal: the order is that of the layer indices and means nothing.\n";
  }
  return text;
}

// A row of figures for each layer; means(measurement, layer) has one for each head.
template <typename Means>
std::string layers_text(const Measurement& m, const std::vector<std::string>& heads, const Means& means) {
  std::vector<TerminalTable::Column> columns = {{.align = TerminalTable::Column::Align::kRight, .width = 7}};
  columns.resize(1 + heads.size(), {.align = TerminalTable::Column::Align::kRight, .width = 12});
  TerminalTable table(columns);
  std::vector<std::string> head = {"layer"};
  head.insert(head.end(), heads.begin(), heads.end());
  table.add(std::move(head));
  for (int64_t l = 0; l < m.n_layers(); ++l) {
    std::vector<std::string> cells = {std::to_string(m.layer[static_cast<std::size_t>(l)])};
    for (const double mean : means(m, l)) cells.push_back(number(mean));
    table.add(std::move(cells));
  }
  return table.text();
}

// What each window costs in each layer, where there are several.
std::string windows_block(const Measurement& m) {
  std::vector<std::string> heads;
  for (const int64_t window : m.by_window.window) heads.push_back(std::to_string(window));
  return wrapped("Mean delta NLL of each layer under each window; winnow plan chooses among them", 2) +
         layers_text(m, heads, mean_delta_nll_by_window);
}

// The same of each setting, where there are several types of keys and values: a table for each type.
std::string settings_block(const Measurement& m) {
  const FiguresBySetting& figures = m.by_setting;
  std::string text = wrapped(
      "Mean delta NLL of each layer under each window and type of keys and values; winnow plan chooses among them", 2);
  for (const KvType type : kKvTypes) {
    std::vector<std::string> heads;
    std::vector<std::size_t> columns;
    for (std::size_t s = 0; s < figures.kv.size(); ++s) {
      if (figures.kv[s] != type) continue;
      heads.push_back(figures.window[s] == 0 ? "full" : std::to_string(figures.window[s]));
      columns.push_back(s);
    }
    if (heads.empty()) continue;
    text += std::string(kv_type_name(type)) + "\n" + layers_text(m, heads, [&](const Measurement& of, int64_t layer) {
              const std::vector<double> all = mean_delta_nll_by_setting(of, layer);
              std::vector<double> means;
              for (const std::size_t s : columns) means.push_back(all[s]);
              return means;
            });
  }
  return text;
}

std::string answer_line(const Statistics& statistics) {
  const std::vector<int64_t> keep = layers_to_keep(statistics);
  const auto n_layers = statistics.ranking.layer.size();
  return wrapped("Keep full attention in layers " + joined(keep) + " (" + std::to_string(keep.size()) + " of " +
                     std::to_string(n_layers) + " measured); window the rest.",
                 2);
}

std::string figure_line(const char* label, const char* paper, const std::string& here) {
  return wrapped("  " + left(label, 30) + left(paper, 10) + here, 42);
}

std::string deconfounding_block(const std::string& name, const Deconfounding& d, const Results& results) {
  const Measurement& control = results.controls.at(name);
  const std::string k = std::to_string(d.top_k);
  std::string text = wrapped("De-confounding against control " + name + " (" + count_of_examples(control) + ", " +
                                 std::to_string(d.n_paired) +
                                 " paired): low rho and overlap mean that the ranking is about long context",
                             2);
  text += figure_line("", "paper", "here");
  text += figure_line("Spearman rho of mean deltas", kPaperRho, text_of(d.spearman_rho));
  text += figure_line("  permutation p", "", text_of(d.spearman_p, "{:.4f}"));
  text += figure_line("overlap of the top K", kPaperOverlap,
                      d.overlap.defined() ? text_of(d.overlap, "{:.0f}") + " of " + k : text_of(d.overlap));
  text += figure_line("Jaccard of the top K", kPaperJaccard, text_of(d.jaccard));
  text += figure_line("mean |delta|, long / control", kPaperMagnitude,
                      text_of(d.magnitude_ratio, "{:.3g}") + (d.magnitude_ratio.defined() ? "x" : ""));
  return text;
}

std::string reliability_block(const Reliability& r, bool accuracy_first) {
  std::string rhos[] = {figure_line("rho with exact-match drop", "", text_of(r.rho_exact_match)),
                        figure_line("rho with token-accuracy drop", "", text_of(r.rho_token_accuracy))};
  if (accuracy_first) std::swap(rhos[0], rhos[1]);
  return "Reliability\n" + figure_line("split-half (Spearman-Brown)", "", text_of(r.split_half)) + rhos[0] + rhos[1];
}

std::string signals_block(const SignalComparison& c) {
  std::string text = wrapped("Signals: rho with delta NLL over layers; share of the best delta NLL that the top " +
                                 std::to_string(c.top_k) + " keep on examples the signal has not seen",
                             2);
  TerminalTable table({{.width = 18}, {.width = 9}, {.width = 19}, {.width = 10}, {}});
  table.add({"  signal", "rho", "95 % interval", "transfer", "95 % of splits"});
  for (std::size_t s = 0; s < c.signal.size(); ++s) {
    const auto row = static_cast<int64_t>(s);
    const auto interval = [](double low, double high) {
      return std::isnan(low) ? std::string() : bracketed(number(low, "{:.3f}"), number(high, "{:.3f}"));
    };
    table.add({"  " + c.signal[s], number(c.rho(row, 0), "{:.3f}"),
               interval(c.rho_ci_low(row, 0), c.rho_ci_high(row, 0)), number(c.transfer[s], "{:.3f}"),
               interval(c.transfer_low[s], c.transfer_high[s])});
  }
  text += table.text();
  for (const std::string& status : {c.rho_status, c.transfer_status}) {
    if (!status.empty()) text += wrapped("  n/a: " + status, 4);
  }
  text += figure_line("partial rho with exact match", "", text_of(c.partial_rho_exact_match));
  text += figure_line("partial rho with accuracy", "", text_of(c.partial_rho_accuracy));
  return text +
         wrapped("  partial: of delta NLL with the drop, given generic sensitivity (the layer's attention removed)", 4);
}

}  // namespace

std::vector<int64_t> layers_to_keep(const Statistics& statistics) {
  std::vector<int64_t> keep;
  for (std::size_t c = 0; c < statistics.ranking.layer.size(); ++c) {
    if (statistics.ranking.rank[c] <= statistics.options.top_k) keep.push_back(statistics.ranking.layer[c]);
  }
  std::sort(keep.begin(), keep.end());
  return keep;
}

std::string to_table(const Results& results, const TableStyle& style) {
  const Statistics& statistics = results.statistics;
  std::string text = base_block(results) + "\n" + ranking_block(results, style) + "\n" + answer_line(statistics);
  if (results.race) text += "\n" + race::to_block(*results.race);
  if (results.calibration.by_setting.n_settings() > 0) {
    text += "\n" + settings_block(results.calibration);
  } else if (results.calibration.by_window.n_windows() > 0) {
    text += "\n" + windows_block(results.calibration);
  }
  if (statistics.heads) text += "\n" + heads_block(results);
  for (const auto& [name, figures] : statistics.deconfounding) {
    text.append("\n").append(deconfounding_block(name, figures, results));
  }
  text += "\n" + reliability_block(statistics.reliability, exact_match_is_near_zero(results.calibration));
  return statistics.signals ? text + "\n" + signals_block(*statistics.signals) : text;
}

}  // namespace winnow::calibration
