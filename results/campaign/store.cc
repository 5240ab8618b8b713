#include "results/campaign/store.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "results/campaign/collection_parts.h"
#include "results/campaign/study_store.h"

namespace winnow::campaign {
namespace {

template <typename T>
std::map<T, int64_t> positions_of(const std::vector<T>& axis) {
  std::map<T, int64_t> positions;
  for (const T& value : axis) positions.emplace(value, static_cast<int64_t>(positions.size()));
  return positions;
}

// What of a ranking goes into a variable [cell, layer].
struct LayerFigure {
  const char* name;
  storage::Description description;
  bool is_spread;  // not defined for one example
  std::function<double(const calibration::Ranking&, std::size_t)> get;
};

std::vector<LayerFigure> layer_figures() {
  using R = const calibration::Ranking&;
  using I = std::size_t;
  return {
      {"mean_delta_nll",
       {storage::kNats, "mean over examples of delta_nll"},
       false,
       [](R r, I l) { return r.mean_delta_nll[l]; }},
      {"median_delta_nll",
       {storage::kNats, "median over examples of delta_nll"},
       false,
       [](R r, I l) { return r.median_delta_nll[l]; }},
      {"standard_error",
       {storage::kNats, "standard error of mean_delta_nll"},
       true,
       [](R r, I l) { return r.standard_error[l]; }},
      {"ci_low",
       {storage::kNats, "lower end of the 95 % interval of mean_delta_nll"},
       true,
       [](R r, I l) { return r.ci_low[l]; }},
      {"ci_high",
       {storage::kNats, "upper end of the 95 % interval of mean_delta_nll"},
       true,
       [](R r, I l) { return r.ci_high[l]; }},
      {"rank",
       {storage::kOne, "rank by mean_delta_nll: 1 keeps full attention first"},
       false,
       [](R r, I l) { return static_cast<double>(r.rank[l]); }},
      {"rank_low",
       {storage::kOne, "lower end of the 95 % interval of rank"},
       true,
       [](R r, I l) { return r.rank_low[l]; }},
      {"rank_high",
       {storage::kOne, "upper end of the 95 % interval of rank"},
       true,
       [](R r, I l) { return r.rank_high[l]; }},
      {"exact_match_drop",
       {storage::kOne, "mean over examples of exact match with the layer full less with the layer windowed"},
       false,
       [](R r, I l) { return r.exact_match_drop[l]; }},
      {"token_accuracy_drop",
       {storage::kOne, "mean over examples of token accuracy with the layer full less with the layer windowed"},
       false,
       [](R r, I l) { return r.token_accuracy_drop[l]; }},
  };
}

void write_layers(storage::Group& group, const std::vector<CollectedCell>& cells, const CollectionAxes& axes) {
  const auto n_cells = static_cast<int64_t>(cells.size());
  const auto n_layers = static_cast<int64_t>(axes.layer.size());
  const std::map<int64_t, int64_t> position = positions_of(axes.layer);
  for (const LayerFigure& figure : layer_figures()) {
    FigureVariable variable({figure.name, {"cell", "layer"}, {n_cells, n_layers}}, figure.description);
    for (int64_t c = 0; c < n_cells; ++c) {
      const std::optional<CellSummary>& summary = cells[static_cast<std::size_t>(c)].summary;
      if (!summary) {
        variable.explain(kNoResults);
        continue;
      }
      const calibration::Ranking& ranking = summary->statistics.ranking;
      if (figure.is_spread && !ranking.spread_status.empty()) variable.explain(ranking.spread_status);
      for (std::size_t l = 0; l < ranking.layer.size(); ++l) {
        variable.put(c * n_layers + position.at(ranking.layer[l]), figure.get(ranking, l));
      }
    }
    variable.write(group, kCoordinates);
  }
}

void write_p_top_k(storage::Group& group, const std::vector<CollectedCell>& cells, const CollectionAxes& axes) {
  const auto n_cells = static_cast<int64_t>(cells.size());
  const auto n_layers = static_cast<int64_t>(axes.layer.size());
  const auto n_budgets = static_cast<int64_t>(axes.budget.size());
  const std::map<int64_t, int64_t> layer_position = positions_of(axes.layer);
  const std::map<int64_t, int64_t> budget_position = positions_of(axes.budget);
  FigureVariable variable({"p_top_k", {"cell", "budget", "layer"}, {n_cells, n_budgets, n_layers}},
                          {storage::kOne, "share of bootstrap resamples in which the layer is among the top K"});
  for (int64_t c = 0; c < n_cells; ++c) {
    const std::optional<CellSummary>& summary = cells[static_cast<std::size_t>(c)].summary;
    if (!summary) {
      variable.explain(kNoResults);
      continue;
    }
    const calibration::Ranking& ranking = summary->statistics.ranking;
    if (!ranking.spread_status.empty()) variable.explain(ranking.spread_status);
    for (std::size_t b = 0; b < ranking.budget.size(); ++b) {
      const int64_t row = (c * n_budgets + budget_position.at(ranking.budget[b])) * n_layers;
      for (std::size_t l = 0; l < ranking.layer.size(); ++l) {
        variable.put(row + layer_position.at(ranking.layer[l]),
                     ranking.p_top_k(static_cast<int64_t>(b), static_cast<int64_t>(l)));
      }
    }
  }
  variable.write(group, kCoordinates);
}

std::vector<CellFigure> base_figures() {
  using S = const CellSummary&;
  std::vector<CellFigure> figures;
  const auto add = [&](const char* name, const storage::Description& description, std::function<stats::Figure(S)> get) {
    figures.push_back({name, description, std::move(get)});
  };
  const auto count = [](auto n) { return stats::Figure::of(static_cast<double>(n)); };
  add("n_examples", {storage::kOne, "examples of the calibration set"}, [count](S s) { return count(s.n_examples); });
  add("n_layers", {storage::kOne, "layers measured"},
      [count](S s) { return count(s.statistics.ranking.layer.size()); });
  add("top_k", {storage::kOne, "K of the cell: layers that are to keep full attention"},
      [count](S s) { return count(s.statistics.options.top_k); });
  add("nll_base", {storage::kNats, "mean over examples of the NLL under the base"},
      [](S s) { return stats::Figure::of(s.nll_base); });
  add("exact_match_base", {storage::kOne, "mean over examples of exact match under the base"},
      [](S s) { return stats::Figure::of(s.exact_match_base); });
  add("token_accuracy_base", {storage::kOne, "mean over examples of token accuracy under the base"},
      [](S s) { return stats::Figure::of(s.token_accuracy_base); });
  add("wall_seconds", {kSeconds, "time of all runs of the directory that measured"}, recorded("wall_seconds"));
  add("busy_seconds", {kSeconds, "time in units, summed over the ranks of the last run"}, recorded("busy_seconds"));
  add("load_seconds", {kSeconds, "time until the weights were in place, the longest of any rank"},
      recorded("load_seconds"));
  return figures;
}

std::vector<CellFigure> reliability_figures() {
  std::vector<CellFigure> figures;
  const auto add = [&](const char* name, const char* low, const char* high, const std::string& long_name,
                       stats::Estimate calibration::Reliability::*estimate) {
    const auto of = [estimate](const CellSummary& s) -> const stats::Estimate& {
      return s.statistics.reliability.*estimate;
    };
    const std::string interval = std::string(" end of the 95 % interval of ") + name;
    figures.push_back({name, {storage::kOne, long_name}, [of](const CellSummary& s) { return of(s).value; }});
    figures.push_back({low, {storage::kOne, "lower" + interval}, [of](const CellSummary& s) { return of(s).ci_low; }});
    figures.push_back(
        {high, {storage::kOne, "upper" + interval}, [of](const CellSummary& s) { return of(s).ci_high; }});
  };
  add("split_half", "split_half_ci_low", "split_half_ci_high",
      "split-half reliability of the ranking, Spearman-Brown corrected", &calibration::Reliability::split_half);
  add("rho_exact_match", "rho_exact_match_ci_low", "rho_exact_match_ci_high",
      "Spearman's rho over layers of mean_delta_nll with exact_match_drop", &calibration::Reliability::rho_exact_match);
  add("rho_token_accuracy", "rho_token_accuracy_ci_low", "rho_token_accuracy_ci_high",
      "Spearman's rho over layers of mean_delta_nll with token_accuracy_drop",
      &calibration::Reliability::rho_token_accuracy);
  return figures;
}

// A variable [cell, control].
struct ControlFigure {
  const char* name;
  const char* long_name;
  std::function<stats::Figure(const calibration::Deconfounding&)> get;
};

std::vector<ControlFigure> control_figures() {
  using D = const calibration::Deconfounding&;
  return {
      {"spearman_rho", "Spearman's rho over layers between the mean deltas of the calibration and the control set",
       [](D d) { return d.spearman_rho.value; }},
      {"spearman_ci_low", "lower end of the 95 % interval of spearman_rho", [](D d) { return d.spearman_rho.ci_low; }},
      {"spearman_ci_high", "upper end of the 95 % interval of spearman_rho",
       [](D d) { return d.spearman_rho.ci_high; }},
      {"spearman_p", "two-sided permutation p of spearman_rho", [](D d) { return d.spearman_p; }},
      {"n_paired", "examples that both sets hold, resampled in pairs",
       [](D d) { return stats::Figure::of(static_cast<double>(d.n_paired)); }},
      {"overlap", "number of layers in the top K of both sets", [](D d) { return d.overlap; }},
      {"jaccard", "overlap over the number of layers in either top K", [](D d) { return d.jaccard; }},
      {"magnitude_ratio", "mean over layers of |mean delta|, calibration over control",
       [](D d) { return d.magnitude_ratio; }},
  };
}

void write_controls(storage::Group& group, const std::vector<CollectedCell>& cells, const CollectionAxes& axes) {
  const auto n_cells = static_cast<int64_t>(cells.size());
  const auto n_controls = static_cast<int64_t>(axes.controls.size());
  const auto missing = [&](int64_t c, int64_t k) -> stats::Figure {
    const bool has_results = cells[static_cast<std::size_t>(c)].summary.has_value();
    return stats::Figure::undefined(
        has_results ? "not a control of the cell: " + axes.controls[static_cast<std::size_t>(k)] : kNoResults);
  };
  for (const ControlFigure& figure : control_figures()) {
    FigureVariable variable({figure.name, {"cell", "control"}, {n_cells, n_controls}},
                            {storage::kOne, figure.long_name});
    for (int64_t c = 0; c < n_cells; ++c) {
      const std::optional<CellSummary>& summary = cells[static_cast<std::size_t>(c)].summary;
      for (int64_t k = 0; k < n_controls; ++k) {
        const std::string& control = axes.controls[static_cast<std::size_t>(k)];
        const bool is_there = summary && summary->statistics.deconfounding.contains(control);
        variable.put(c * n_controls + k,
                     is_there ? figure.get(summary->statistics.deconfounding.at(control)) : missing(c, k));
      }
    }
    variable.write(group, kCoordinates);
  }
  std::vector<std::string> hashes;
  for (const CollectedCell& cell : cells) {
    for (const std::string& control : axes.controls) {
      hashes.push_back(cell.summary ? cell.summary->provenance.text("control_sha256." + control) : "");
    }
  }
  storage::write_variable<std::string>(
      group, {"control_sha256", {"cell", "control"}, {n_cells, n_controls}}, hashes,
      {storage::kText, "SHA-256 of the control's file, empty: not a control of the cell"});
}

// ---- the groups -----------------------------------------------------------------------------------------------------

std::string undefined_text(const CollectedCell& cell) {
  std::string text;
  for (const auto& [name, why] : undefined_figures(cell)) text += (text.empty() ? "" : "; ") + name + ": " + why;
  return text;
}

void write_states(storage::Group& group, const std::vector<CollectedCell>& cells) {
  const auto text = [&](const char* name, const char* long_name,
                        const std::function<std::string(const CollectedCell&)>& get) {
    storage::write_variable<std::string>(group, {name, {"cell"}, {static_cast<int64_t>(cells.size())}},
                                         texts_of(cells, get), {storage::kText, long_name});
  };
  text("name", "name of the cell; rows that differ in the seed only share it", [](const auto& c) { return c.name; });
  text("run_directory", "run directory", [](const auto& c) { return c.run_directory; });
  text("state", "done where there are results, else why there are none", [](const auto& c) { return c.state; });
  text("reason", "one line on a cell without results, empty: done", [](const auto& c) { return c.reason; });
  text("undefined_figures", "figures of the cell that are not defined, and why; empty: none", undefined_text);
}

// A line for each pattern of the cells that are no calibrations, and one for a cell without any.
void write_patterns(storage::Group group, const std::vector<CollectedCell>& cells) {
  struct Line {
    const CollectedCell* cell;
    CollectedPattern pattern;
  };
  std::vector<Line> lines;
  for (const CollectedCell& cell : cells) {
    for (const CollectedPattern& pattern : cell.patterns) lines.push_back({&cell, pattern});
    if (cell.patterns.empty()) {
      lines.push_back({&cell, {.name = "", .nll = kNan, .exact_match = kNan, .token_accuracy = kNan}});
    }
  }
  std::vector<int64_t> index(lines.size());
  std::iota(index.begin(), index.end(), int64_t{0});
  storage::write_coordinate(group, "line", index, {storage::kOne, "number of the line"});
  const std::vector<int64_t> shape = {static_cast<int64_t>(lines.size())};
  const auto text = [&](const char* name, const char* long_name, const auto& get) {
    std::vector<std::string> values;
    for (const Line& line : lines) values.push_back(get(line));
    storage::write_variable<std::string>(group, {name, {"line"}, shape}, values, {storage::kText, long_name});
  };
  const auto integer = [&](const char* name, const storage::Description& description, const auto& get) {
    std::vector<int64_t> values;
    for (const Line& line : lines) values.push_back(get(line));
    storage::write_variable<int64_t>(group, {name, {"line"}, shape}, values, description);
  };
  const auto figure = [&](const char* name, const storage::Description& description, double CollectedPattern::*member) {
    FigureVariable variable({name, {"line"}, shape}, description);
    for (std::size_t i = 0; i < lines.size(); ++i) variable.put(static_cast<int64_t>(i), lines[i].pattern.*member);
    if (std::any_of(lines.begin(), lines.end(), [](const Line& line) { return line.pattern.name.empty(); })) {
      variable.explain("a cell has no patterns to list (see state and reason)");
    }
    variable.write(group, nullptr);
  };
  text("cell", "folder of the results below OUTPUT/runs", [](const Line& l) { return l.cell->label; });
  text("verb", "evaluate or search", [](const Line& l) { return l.cell->verb; });
  text("model", "model, as the sweep names it", [](const Line& l) { return l.cell->model; });
  text("dataset", "data set, as the sweep names it", [](const Line& l) { return l.cell->dataset; });
  integer("window", {storage::kTokens, "window as given"}, [](const Line& l) { return l.cell->window; });
  integer("sinks", {storage::kTokens, "first tokens that every row sees besides"},
          [](const Line& l) { return l.cell->sinks; });
  text("decode", "whether answer rows obey the window", [](const Line& l) { return l.cell->decode; });
  text("target", "engine whose window rules were used, empty: none named",
       [](const Line& l) { return l.cell->target; });
  integer("seed", {storage::kOne, "seed of the bootstrap"}, [](const Line& l) { return l.cell->seed; });
  text("run_directory", "run directory", [](const Line& l) { return l.cell->run_directory; });
  text("state", "done where there are results, else why there are none", [](const Line& l) { return l.cell->state; });
  text("reason", "one line on a cell without results, empty: done", [](const Line& l) { return l.cell->reason; });
  text("pattern", "pattern; of a search METHOD:K, the best found with K layers of full attention",
       [](const Line& l) { return l.pattern.name; });
  integer("full_layers", {storage::kOne, "layers that keep full attention"},
          [](const Line& l) { return l.pattern.full_layers; });
  figure("mean_nll", {storage::kNats, "mean over examples of the NLL"}, &CollectedPattern::nll);
  figure("mean_exact_match", {storage::kOne, "mean over examples of exact match"}, &CollectedPattern::exact_match);
  figure("mean_token_accuracy", {storage::kOne, "mean over examples of token accuracy"},
         &CollectedPattern::token_accuracy);
}

void write_root(storage::Group& root, const std::vector<CollectedCell>& cells) {
  const CollectionAxes axes = axes_of(cells);
  write_cells(root, cells, "");
  storage::write_coordinate(root, "layer", axes.layer, {storage::kOne, "index of the decoder layer"});
  storage::write_coordinate(root, "budget", axes.budget,
                            {storage::kOne, "K: number of layers that keep full attention"});
  storage::write_coordinate(root, "control", axes.controls, {storage::kText, "name of the control set"});
  write_states(root, cells);
  write_layers(root, cells, axes);
  write_p_top_k(root, cells, axes);
  write_controls(root, cells, axes);
  write_cell_figures(root, cells, base_figures(), kCoordinates);
  write_cell_figures(root, cells, reliability_figures(), kCoordinates);
}

}  // namespace

void write_collection(const std::filesystem::path& path, const Collection& collection, const RankAgreement& agreement,
                      const Study& study) {
  std::set<std::string> labels;
  for (const CollectedCell& cell : collection.cells) {
    if (!labels.insert(cell.label).second) {
      fail(ExitCode::kInternal, path.string() + ": the cell " + cell.label + " is there twice");
    }
  }
  storage::File file = storage::File::create(path);
  storage::Group root = file.root();
  root.set_attribute<std::string>(".", "Conventions",
                                  std::string(kCollectionFormat) + "-" + std::to_string(kCollectionVersion));
  root.set_attribute<std::string>(".", "title", "Which layers must keep full attention, over all cells of a sweep");
  root.set_attribute<std::string>(".", "created_by",
                                  collection.version.empty() ? "winnow" : "winnow " + collection.version);
  root.set_attribute<std::string>(".", "format", kCollectionFormat);
  root.set_attribute<int64_t>(".", "format_version", kCollectionVersion);
  root.set_attribute<std::string>(".", "sweep", collection.sweep);
  write_root(root, collection.cells);
  write_agreement(root.create_group("agreement"), collection.cells, agreement);
  write_collected_provenance(root.create_group("provenance"), collection.cells);
  if (!collection.others.empty()) write_patterns(root.create_group("patterns"), collection.others);
  write_study(root, study);
  file.commit();
}

}  // namespace winnow::campaign
