#include "results/campaign/study_store.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "base/strings.h"
#include "results/campaign/collection_parts.h"
#include "results/campaign/model_means.h"
#include "results/stats/resampling.h"

namespace winnow::campaign {
namespace {

void write_texts(storage::Group& group, const storage::Variable& variable, const std::vector<std::string>& values,
                 const char* long_name) {
  storage::write_variable<std::string>(group, variable, values, {storage::kText, long_name});
}

void write_shares(storage::Group& group, const std::vector<int64_t>& divisors) {
  std::vector<double> shares;
  for (const int64_t divisor : divisors) shares.push_back(1.0 / static_cast<double>(divisor));
  storage::write_coordinate(group, "kept_share", shares,
                            {storage::kOne, "budget: share of the layers that keep full attention, rounded down"});
}

// ---- rules ----------------------------------------------------------------------------------------------------------

using OfRules = const std::vector<stats::Estimate>& (*)(const RankedBudget&);

// Writes means over models with their intervals: NAME, then the ends as `low` and `high` name them.
void write_means(storage::Group& group, const RuleRanks& ranks, const std::vector<std::string>& dimensions,
                 const std::string& name, const storage::Description& description, OfRules get) {
  std::vector<int64_t> shape = {std::ssize(ranks.budgets), std::ssize(ranks.rules)};
  if (dimensions.size() == 3) shape.push_back(std::ssize(ranks.rules));
  FigureVariable value({name, dimensions, shape}, description);
  const std::string of = " end of the 95 % interval over models of " + name;
  FigureVariable low({name + "_ci_low", dimensions, shape}, {description.units, "lower" + of});
  FigureVariable high({name + "_ci_high", dimensions, shape}, {description.units, "upper" + of});
  int64_t index = 0;
  for (const RankedBudget& budget : ranks.budgets) {
    for (const stats::Estimate& estimate : get(budget)) {
      value.put(index, estimate.value);
      low.put(index, estimate.ci_low);
      high.put(index, estimate.ci_high);
      ++index;
    }
  }
  for (const FigureVariable* variable : {&value, &low, &high}) variable->write(group, nullptr);
}

void write_by_model(storage::Group& group, const RuleRanks& ranks, const char* name,
                    const storage::Description& description, stats::Table<double> RankedBudget::*table) {
  const std::vector<int64_t> shape = {std::ssize(ranks.models), std::ssize(ranks.budgets), std::ssize(ranks.rules)};
  FigureVariable variable({name, {"study_model", "kept_share", "rule"}, shape}, description);
  for (int64_t b = 0; b < shape[1]; ++b) {
    const stats::Table<double>& values = ranks.budgets[stats::at(b)].*table;
    for (int64_t m = 0; m < shape[0]; ++m) {
      for (int64_t r = 0; r < shape[2]; ++r) {
        const double value = values(m, r);
        variable.put((m * shape[1] + b) * shape[2] + r, value);
        if (std::isnan(value)) variable.explain("the rule is not in every evaluation, or windowing loses nothing");
      }
    }
  }
  variable.write(group, nullptr);
}

void write_models(storage::Group& group, const RuleRanks& ranks) {
  std::vector<std::string> names, leading;
  std::vector<int64_t> n_cells, keep, n_models;
  for (const RankedModel& model : ranks.models) {
    names.push_back(model.name);
    leading.push_back(joined(model.leading_figures, ","));
    n_cells.push_back(model.n_cells);
  }
  const auto n = std::ssize(ranks.models);
  const auto n_budgets = std::ssize(ranks.budgets);
  for (const RankedBudget& budget : ranks.budgets) n_models.push_back(budget.n_models);
  for (std::size_t m = 0; m < ranks.models.size(); ++m) {
    for (const RankedBudget& budget : ranks.budgets) keep.push_back(budget.keep[m]);
  }
  storage::write_coordinate(group, "study_model", names, {storage::kText, "model, as the sweep names it"});
  write_texts(group, {"leading_figure", {"study_model"}, {n}}, leading,
              "figures that the rules are ranked by, of each evaluation the one that shows windowing best");
  storage::write_variable(group, {"n_evaluations", {"study_model"}, {n}}, n_cells,
                          {storage::kOne, "evaluations behind the model's figures, which are means over them"});
  storage::write_variable(group, {"layers_kept", {"study_model", "kept_share"}, {n, n_budgets}}, keep,
                          {storage::kOne, "K, 0: the model has no pattern of that budget"});
  storage::write_variable(group, {"n_models", {"kept_share"}, {n_budgets}}, n_models,
                          {storage::kOne, "models with patterns of that budget"});
}

void write_rules(storage::Group group, const Study& study) {
  const RuleRanks& ranks = study.ranks;
  group.set_attribute<std::string>(".", "answer", study.rules_answer);
  group.set_attribute<int64_t>(".", "n_resamples", kModelResamples);
  std::vector<int64_t> divisors;
  for (const RankedBudget& budget : ranks.budgets) divisors.push_back(budget.divisor);
  write_shares(group, divisors);
  storage::write_coordinate(group, "rule", ranks.rules, {storage::kText, "rule that chose the layers"});
  storage::write_coordinate(group, "other_rule", ranks.rules, {storage::kText, "the same rules"});
  write_models(group, ranks);
  write_by_model(group, ranks, "rank", {storage::kOne, "rank by the loss of the leading figure; 1 loses least"},
                 &RankedBudget::rank);
  write_by_model(group, ranks, "loss_left", {storage::kOne, "that loss as a share of what windowing every layer loses"},
                 &RankedBudget::loss_left);
  write_by_model(group, ranks, "nll", {storage::kNats, "mean NLL"}, &RankedBudget::nll);
  const std::vector<std::string> by_rule = {"kept_share", "rule"};
  const std::vector<std::string> by_pair = {"kept_share", "rule", "other_rule"};
  using B = const RankedBudget&;
  using Estimates = const std::vector<stats::Estimate>&;
  write_means(group, ranks, by_rule, "mean_rank", {storage::kOne, "mean over models of rank"},
              [](B b) -> Estimates { return b.mean_rank; });
  write_means(group, ranks, by_rule, "mean_loss_left", {storage::kOne, "mean over models of loss_left"},
              [](B b) -> Estimates { return b.mean_loss_left; });
  write_means(group, ranks, by_pair, "rank_difference",
              {storage::kOne, "mean over models of the rule's rank less the other rule's"},
              [](B b) -> Estimates { return b.rank_difference; });
  write_means(group, ranks, by_pair, "nll_difference",
              {storage::kNats, "mean over models of the rule's NLL less the other rule's"},
              [](B b) -> Estimates { return b.nll_difference; });
}

// ---- examples -------------------------------------------------------------------------------------------------------

using OfSubsets = std::vector<double> SelectionStability::*;

struct ExampleAxes {
  std::vector<int64_t> divisors, sizes;
};

ExampleAxes axes_of(const std::vector<const CollectedCell*>& cells) {
  std::set<int64_t, std::greater<>> divisors;
  std::set<int64_t> sizes;
  for (const CollectedCell* cell : cells) {
    for (const SelectionStability& budget : cell->summary->stability) {
      divisors.insert(budget.divisor);
      sizes.insert(budget.n_examples.begin(), budget.n_examples.end());
    }
  }
  return {{divisors.begin(), divisors.end()}, {sizes.begin(), sizes.end()}};
}

// Calls visit(index in [calibration, kept_share], what there is of it).
template <typename Visit>
void for_each_budget(const std::vector<const CollectedCell*>& cells, const ExampleAxes& axes, Visit visit) {
  int64_t index = 0;
  for (const CollectedCell* cell : cells) {
    for (const int64_t divisor : axes.divisors) {
      for (const SelectionStability& budget : cell->summary->stability) {
        if (budget.divisor == divisor) visit(index, budget);
      }
      ++index;
    }
  }
}

void write_subsets(storage::Group& group, const std::vector<const CollectedCell*>& cells, const ExampleAxes& axes,
                   const char* name, const char* long_name, OfSubsets get) {
  const auto n_sizes = std::ssize(axes.sizes);
  FigureVariable variable(
      {name, {"calibration", "kept_share", "subset"}, {std::ssize(cells), std::ssize(axes.divisors), n_sizes}},
      {storage::kOne, long_name});
  for_each_budget(cells, axes, [&](int64_t index, const SelectionStability& budget) {
    for (std::size_t n = 0; n < budget.n_examples.size(); ++n) {
      variable.put(index * n_sizes + static_cast<int64_t>(n), (budget.*get)[n]);
    }
  });
  variable.write(group, nullptr);
}

void write_examples(storage::Group group, const Study& study) {
  const std::vector<const CollectedCell*>& cells = study.calibrations;
  const ExampleAxes axes = axes_of(cells);
  group.set_attribute<std::string>(".", "answer", study.examples_answer);
  group.set_attribute<int64_t>(".", "n_draws", kSubsetDraws);
  std::vector<std::string> labels, models, datasets;
  std::vector<int64_t> windows, n_examples;
  for (const CollectedCell* cell : cells) {
    labels.push_back(cell->label);
    models.push_back(cell->model);
    datasets.push_back(cell->dataset);
    windows.push_back(cell->window);
    n_examples.push_back(cell->summary->n_examples);
  }
  const auto n = std::ssize(cells);
  storage::write_coordinate(group, "calibration", labels, {storage::kText, "cell"});
  write_shares(group, axes.divisors);
  storage::write_coordinate(group, "subset", axes.sizes, {storage::kOne, "examples of a subset"});
  write_texts(group, {"model", {"calibration"}, {n}}, models, "model, as the sweep names it");
  write_texts(group, {"dataset", {"calibration"}, {n}}, datasets, "data set, as the sweep names it");
  storage::write_variable(group, {"window", {"calibration"}, {n}}, windows, {storage::kTokens, "window as given"});
  storage::write_variable(group, {"n_examples", {"calibration"}, {n}}, n_examples,
                          {storage::kOne, "examples of the calibration"});
  write_subsets(group, cells, axes, "overlap", "share of the K layers that the subset and all examples choose, mean",
                &SelectionStability::overlap);
  write_subsets(group, cells, axes, "overlap_low", "lower end of the middle 95 % of the draws of overlap",
                &SelectionStability::overlap_low);
  write_subsets(group, cells, axes, "overlap_high", "upper end", &SelectionStability::overlap_high);
  write_subsets(group, cells, axes, "same_layers", "share of the draws that choose the same K layers",
                &SelectionStability::same);
  const std::vector<int64_t> shape = {n, std::ssize(axes.divisors)};
  std::vector<int64_t> keep(stats::at(shape[0] * shape[1]), 0);
  FigureVariable needed({"examples_needed", {"calibration", "kept_share"}, shape},
                        {storage::kOne, "smallest subset with an overlap of at least 0.9"});
  for_each_budget(cells, axes, [&](int64_t index, const SelectionStability& budget) {
    keep[stats::at(index)] = budget.keep;
    needed.put(index, budget.needed ? stats::Figure::of(static_cast<double>(*budget.needed))
                                    : stats::Figure::undefined("no subset has an overlap of 0.9"));
  });
  if (std::ranges::count(keep, 0) > 0) needed.explain("too few layers for that budget");
  storage::write_variable(group, {"layers_kept", {"calibration", "kept_share"}, shape}, keep,
                          {storage::kOne, "K, 0: too few layers for that budget"});
  needed.write(group, nullptr);
}

// ---- tail -----------------------------------------------------------------------------------------------------------

void write_tails(storage::Group group, const Study& study) {
  group.set_attribute<std::string>(".", "answer", study.tail_answer);
  const auto n = std::ssize(study.tails);
  const std::vector<int64_t> divisors(std::begin(kStudyDivisors), std::end(kStudyDivisors));
  const auto n_budgets = std::ssize(divisors);
  std::vector<int64_t> index = stats::iota(n), windows, rows, keep(stats::at(n * n_budgets), 0);
  std::vector<std::string> exact, tail, model, dataset;
  const auto figure = [&](const std::string& name, const char* long_name) {
    return FigureVariable({name, {"pair"}, {n}}, {storage::kOne, long_name});
  };
  FigureVariable rho = figure("spearman_rho", "Spearman's rho over layers between the mean deltas of both");
  FigureVariable low = figure("spearman_ci_low", "lower end of its 95 % interval");
  FigureVariable high = figure("spearman_ci_high", "upper end");
  FigureVariable overlap({"overlap", {"pair", "kept_share"}, {n, n_budgets}},
                         {storage::kOne, "share of the K layers that both choose"});
  for (int64_t p = 0; p < n; ++p) {
    const TailAgreement& of = study.tails[stats::at(p)];
    exact.push_back(of.exact);
    tail.push_back(of.tail);
    model.push_back(of.model);
    dataset.push_back(of.dataset);
    windows.push_back(of.window);
    rows.push_back(of.tail_rows);
    rho.put(p, of.spearman_rho.value);
    low.put(p, of.spearman_rho.ci_low);
    high.put(p, of.spearman_rho.ci_high);
    for (int64_t b = 0; b < n_budgets; ++b) {
      const auto found = std::ranges::find(of.overlaps, divisors[stats::at(b)], &OverlapAt::divisor);
      const bool is_there = found != of.overlaps.end();
      overlap.put(p * n_budgets + b, is_there ? stats::Figure::of(found->share)
                                              : stats::Figure::undefined("too few layers for that budget"));
      if (is_there) keep[stats::at(p * n_budgets + b)] = found->keep;
    }
  }
  storage::write_coordinate(group, "pair", index, {storage::kOne, "number of the pair"});
  write_shares(group, divisors);
  write_texts(group, {"exact_cell", {"pair"}, {n}}, exact, "cell with every row under the window");
  write_texts(group, {"tail_cell", {"pair"}, {n}}, tail, "cell with the rows at the end under the window");
  write_texts(group, {"model", {"pair"}, {n}}, model, "model, as the sweep names it");
  write_texts(group, {"dataset", {"pair"}, {n}}, dataset, "data set of tail_cell");
  storage::write_variable(group, {"window", {"pair"}, {n}}, windows, {storage::kTokens, "window as given"});
  storage::write_variable(group, {"tail_rows", {"pair"}, {n}}, rows,
                          {storage::kTokens, "rows before the answer that obey the window in tail_cell"});
  storage::write_variable(group, {"layers_kept", {"pair", "kept_share"}, {n, n_budgets}}, keep,
                          {storage::kOne, "K, 0: too few layers for that budget"});
  for (const FigureVariable* variable : {&rho, &low, &high, &overlap}) variable->write(group, nullptr);
}

}  // namespace

void write_study(storage::Group& root, const Study& study) {
  if (study.is_empty()) return;
  storage::Group group = root.create_group("study");
  if (!study.ranks.is_empty()) write_rules(group.create_group("rules"), study);
  if (!study.calibrations.empty()) write_examples(group.create_group("examples"), study);
  if (!study.tails.empty()) write_tails(group.create_group("tail"), study);
}

}  // namespace winnow::campaign
