#include "results/campaign/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"
#include "base/json_values.h"
#include "base/terminal_table.h"
#include "base/utf8.h"
#include "results/calibration/json.h"
#include "results/calibration/table.h"
#include "results/campaign/study_table.h"

namespace winnow::campaign {
namespace {

// Longest list of layers in the table; the file and --json have all of them.
constexpr std::size_t kMostLayers = 12;

std::string fixed(double value) { return number(value, "{:.3f}"); }

std::string layer_list(const CollectedCell& cell) {
  if (!cell.summary) return "-";
  const std::vector<int64_t> keep = calibration::layers_to_keep(cell.summary->statistics);
  std::string text;
  for (std::size_t i = 0; i < keep.size(); ++i) {
    if (i == kMostLayers) return text + ",... (" + std::to_string(keep.size()) + ")";
    text += (text.empty() ? "" : ",") + std::to_string(keep[i]);
  }
  return text;
}

// ---- the table of cells ---------------------------------------------------------------------------------------------

struct TableColumn {
  std::string head;
  bool is_number;
  std::vector<std::string> lines;

  bool varies() const { return std::set<std::string>(lines.begin(), lines.end()).size() > 1; }
};

template <typename Get>
TableColumn table_column(const std::vector<CollectedCell>& cells, std::string head, bool is_number, Get get) {
  TableColumn column{std::move(head), is_number, {}};
  for (const CollectedCell& cell : cells) column.lines.push_back(get(cell));
  return column;
}

std::vector<TableColumn> table_columns(const std::vector<CollectedCell>& cells) {
  using C = const CollectedCell&;
  std::vector<TableColumn> columns = {
      table_column(cells, "model", false, [](C c) { return c.model; }),
      table_column(cells, "dataset", false, [](C c) { return c.dataset; }),
      table_column(cells, "window", true, [](C c) { return std::to_string(c.window); }),
      table_column(cells, "sinks", true, [](C c) { return std::to_string(c.sinks); }),
  };
  // Most sweeps have one of each: no column then.
  for (TableColumn& column : std::vector<TableColumn>{
           table_column(cells, "decode", false, [](C c) { return c.decode; }),
           table_column(cells, "target", false, [](C c) { return c.target.empty() ? "-" : c.target; }),
           table_column(cells, "seed", true, [](C c) { return std::to_string(c.seed); })}) {
    if (column.varies()) columns.push_back(std::move(column));
  }
  columns.push_back(table_column(cells, "state", false, [](C c) { return c.state; }));
  columns.push_back(table_column(cells, "keep full", false, layer_list));
  for (const std::string& control : axes_of(cells).controls) {
    columns.push_back(table_column(cells, "rho " + control, true, [&](C c) -> std::string {
      if (!c.summary || !c.summary->statistics.deconfounding.contains(control)) return "-";
      return fixed(c.summary->statistics.deconfounding.at(control).spearman_rho.value.value);
    }));
  }
  return columns;
}

std::string cell_block(const std::vector<CollectedCell>& cells) {
  const std::vector<TableColumn> columns = table_columns(cells);
  std::vector<TerminalTable::Column> forms;
  std::vector<std::string> head;
  for (const TableColumn& column : columns) {
    forms.push_back({column.is_number ? TerminalTable::Column::Align::kRight : TerminalTable::Column::Align::kLeft});
    head.push_back(column.head);
  }
  TerminalTable table(std::move(forms), 2);
  table.add(std::move(head));
  for (std::size_t line = 0; line < cells.size(); ++line) {
    std::vector<std::string> row;
    for (const TableColumn& column : columns) row.push_back(column.lines[line]);
    table.add(std::move(row));
  }
  return table.text();
}

std::string reason_block(const std::vector<CollectedCell>& cells) {
  std::string text;
  const auto n_done = std::count_if(cells.begin(), cells.end(), [](const auto& c) { return c.summary.has_value(); });
  if (n_done == static_cast<int64_t>(cells.size())) return "";
  text += "\n" + std::to_string(static_cast<int64_t>(cells.size()) - n_done) + " of " + std::to_string(cells.size()) +
          " without results:\n";
  for (const CollectedCell& cell : cells) {
    if (cell.summary) continue;
    text += "  " + cell.label + ": " + cell.state + (cell.reason.empty() ? "" : ": " + cell.reason) + "\n";
  }
  return text;
}

// ---- cells that are no calibrations ---------------------------------------------------------------------------------

std::string pattern_block(const std::vector<CollectedCell>& cells) {
  std::string text;
  for (const CollectedCell& cell : cells) {
    text += "\n" + cell.verb + " " + cell.label + ": " + cell.state + (cell.reason.empty() ? "" : ": " + cell.reason) +
            "\n";
    if (cell.patterns.empty()) continue;
    std::size_t width = std::string("pattern").size();
    for (const CollectedPattern& pattern : cell.patterns) width = std::max(width, one_line(pattern.name).size());
    text += "  " + left("pattern", width) + "  full layers  mean NLL  exact match  token accuracy\n";
    for (const CollectedPattern& pattern : cell.patterns) {
      text += "  " + left(pattern.name, width) + "  " + right(std::to_string(pattern.full_layers), 11) + "  " +
              right(number(pattern.nll, "{:.4f}"), 8) + "  " + right(percent(pattern.exact_match), 11) + "  " +
              right(percent(pattern.token_accuracy), 14) + "\n";
    }
  }
  return text;
}

Json pattern_objects(const CollectedCell& cell) {
  Json patterns = Json::array();
  for (const CollectedPattern& pattern : cell.patterns) {
    patterns.push_back({{"pattern", pattern.name},
                        {"full_layers", pattern.full_layers},
                        {"mean_nll", number_or_null(pattern.nll)},
                        {"mean_exact_match", number_or_null(pattern.exact_match)},
                        {"mean_token_accuracy", number_or_null(pattern.token_accuracy)}});
  }
  return patterns;
}

// ---- agreement ------------------------------------------------------------------------------------------------------

struct Range {
  std::vector<double> values;

  void add(double value) {
    if (!std::isnan(value)) values.push_back(value);
  }
  // "0.911 (0.850 to 0.950)": median and range.
  std::string text() const {
    if (values.empty()) return "n/a";
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t n = sorted.size();
    const double median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
    return fixed(median) + " (" + fixed(sorted.front()) + " to " + fixed(sorted.back()) + ")";
  }
};

// Over the pairs of one model.
struct PairSpread {
  int64_t n = 0;
  Range rho;
  Range jaccard;
};

template <typename Visit>
void for_each_pair(const std::vector<CollectedCell>& cells, const RankAgreement& agreement, Visit visit) {
  const auto n = static_cast<int64_t>(cells.size());
  for (int64_t a = 0; a < n; ++a) {
    for (int64_t b = a + 1; b < n; ++b) {
      if (agreement.between_datasets(a, b) != 0) visit(a, b, "datasets");
      if (agreement.between_windows(a, b) != 0) visit(a, b, "windows");
    }
  }
}

std::string agreement_block(const std::vector<CollectedCell>& cells, const RankAgreement& agreement) {
  std::map<std::pair<std::string, std::string>, PairSpread> spreads;
  for_each_pair(cells, agreement, [&](int64_t a, int64_t b, const char* between) {
    PairSpread& spread = spreads[{cells[static_cast<std::size_t>(a)].model, between}];
    ++spread.n;
    spread.rho.add(agreement.spearman_rho(a, b));
    spread.jaccard.add(agreement.jaccard(a, b));
  });
  if (spreads.empty()) return "";
  std::string text = "\nAgreement of rankings: median over pairs (range)\n";
  for (const auto& [key, spread] : spreads) {
    text += "  " + key.first + ", between " + key.second + " (" + std::to_string(spread.n) +
            (spread.n == 1 ? " pair" : " pairs") + "): rho " + spread.rho.text() + ", Jaccard of the top K " +
            spread.jaccard.text() + "\n";
  }
  return text;
}

// ---- JSON -----------------------------------------------------------------------------------------------------------

Json summary_object(const CellSummary& summary) {
  const calibration::Statistics& statistics = summary.statistics;
  Json object = {{"n_examples", summary.n_examples},
                 {"top_k", statistics.options.top_k},
                 {"keep_full_attention", calibration::layers_to_keep(statistics)},
                 {"nll_base", summary.nll_base},
                 {"exact_match_base", summary.exact_match_base},
                 {"token_accuracy_base", summary.token_accuracy_base}};
  object["layer"] = statistics.ranking.layer;
  object["mean_delta_nll"] = statistics.ranking.mean_delta_nll;
  object["rank"] = statistics.ranking.rank;
  object["deconfounding"] = Json::object();
  for (const auto& [name, figures] : statistics.deconfounding) {
    object["deconfounding"][name] = {{"spearman_rho", number_or_null(figures.spearman_rho.value.value)},
                                     {"spearman_ci_low", number_or_null(figures.spearman_rho.ci_low.value)},
                                     {"spearman_ci_high", number_or_null(figures.spearman_rho.ci_high.value)},
                                     {"spearman_p", number_or_null(figures.spearman_p.value)},
                                     {"overlap", number_or_null(figures.overlap.value)},
                                     {"jaccard", number_or_null(figures.jaccard.value)},
                                     {"magnitude_ratio", number_or_null(figures.magnitude_ratio.value)}};
  }
  return object;
}

Json cell_object(const CollectedCell& cell) {
  Json object = {{"cell", cell.label},
                 {"name", cell.name},
                 {"model", cell.model},
                 {"dataset", cell.dataset},
                 {"window", cell.window},
                 {"window_keys", cell.window_keys},
                 {"sinks", cell.sinks},
                 {"decode", cell.decode},
                 {"target", cell.target},
                 {"seed", cell.seed},
                 {"run_directory", cell.run_directory},
                 {"state", cell.state},
                 {"reason", cell.reason}};
  if (cell.verb != "calibrate") return object;
  object["results"] = cell.summary ? summary_object(*cell.summary) : Json(nullptr);
  Json undefined = Json::object();
  for (const auto& [name, why] : undefined_figures(cell)) undefined[name] = why;
  object["undefined_figures"] = std::move(undefined);
  return object;
}

}  // namespace

std::string to_table(const Collection& collection, const RankAgreement& agreement, const Study& study) {
  const std::string calibrations = collection.cells.empty()
                                       ? ""
                                       : cell_block(collection.cells) + reason_block(collection.cells) +
                                             agreement_block(collection.cells, agreement);
  return calibrations + pattern_block(collection.others) + study_text(study);
}

std::string to_json(const Collection& collection, const RankAgreement& agreement, const std::string& file,
                    const Study& study) {
  Json object = {{"format", kCollectionFormat},
                 {"format_version", kCollectionVersion},
                 {"sweep", collection.sweep},
                 {"file", file}};
  object["cells"] = Json::array();
  for (const CollectedCell& cell : collection.cells) object["cells"].push_back(cell_object(cell));
  for (const CollectedCell& cell : collection.others) {
    Json other = cell_object(cell);
    other["verb"] = cell.verb;
    other["patterns"] = pattern_objects(cell);
    object["others"].push_back(std::move(other));
  }
  object["agreement"] = Json::array();
  for_each_pair(collection.cells, agreement, [&](int64_t a, int64_t b, const char* between) {
    object["agreement"].push_back({{"cell", collection.cells[static_cast<std::size_t>(a)].label},
                                   {"other_cell", collection.cells[static_cast<std::size_t>(b)].label},
                                   {"between", between},
                                   {"spearman_rho", number_or_null(agreement.spearman_rho(a, b))},
                                   {"jaccard", number_or_null(agreement.jaccard(a, b))}});
  });
  if (!study.is_empty()) object["study"] = study_object(study);
  return json_text(object, 2) + "\n";
}

}  // namespace winnow::campaign
