#include "results/evaluation/losses_store.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::evaluation {
namespace {

const char* units_of(const std::string& figure) { return is_share(figure) ? storage::kOne : storage::kNats; }

// Writes values of which some may be undefined, and why.
void write_with_status(storage::Group& group, const storage::Variable& variable, const std::vector<double>& values,
                       const storage::Description& description, const std::string& why) {
  storage::write_variable(group, variable, values, description);
  const bool is_whole = std::none_of(values.begin(), values.end(), [](double value) { return std::isnan(value); });
  if (!is_whole) group.set_attribute<std::string>(variable.name, "status", why);
}

void write_powers(storage::Group& group, const Losses& losses) {
  std::vector<std::string> names;
  std::vector<double> powers, criticals;
  for (const FigureLosses& figure : losses.figures) {
    names.push_back(figure.figure);
    powers.push_back(std::isfinite(figure.power) ? figure.power : std::numeric_limits<double>::quiet_NaN());
    criticals.push_back(figure.bounds.lower_critical);
    criticals.push_back(figure.bounds.upper_critical);
  }
  const auto n = static_cast<int64_t>(names.size());
  storage::write_coordinate(group, "figure", names, {storage::kText, "variable that says how well patterns answer"});
  storage::write_coordinate(group, "side", std::vector<std::string>{"lower", "upper"},
                            {storage::kText, "lower or upper bounds"});
  write_with_status(
      group, {"power", {"figure"}, {n}}, powers,
      {storage::kOne, "standard errors between full attention and the pattern with the fewest full layers"},
      "all examples lose the same, or there is one");
  storage::write_variable(group, {"critical_value", {"figure", "side"}, {n, 2}}, criticals,
                          {storage::kOne, "standard errors between a mean loss and its bound"});
}

}  // namespace

void write_losses(storage::Group& group, const Losses& losses, const EvaluationTable& table) {
  const bool is_one = table.n_examples() == 1;
  const auto by_pattern = [&](const std::string& name) {
    return storage::Variable{name, {"pattern"}, {table.n_patterns()}};
  };
  group.set_attribute<std::string>(".", "leading_figure", losses.lead().figure);
  group.set_attribute<std::string>(".", "leading_sentence", losses.leading_sentence);
  group.set_attribute<std::string>(".", "margin_figure", losses.decider().figure);
  group.set_attribute<int64_t>(".", "margin_given", losses.is_given ? 1 : 0);
  group.set_attribute<std::string>(".", "cheapest_within_margin",
                                   losses.cheapest ? table.pattern[static_cast<std::size_t>(*losses.cheapest)] : "");
  group.set_attribute<std::string>(".", "answer", losses.answer);
  write_powers(group, losses);
  write_with_status(group, {"margin", {}, {}}, {losses.margin},
                    {units_of(losses.decider().figure), "largest loss of margin_figure that is accepted"},
                    "the margin figure shows no loss to derive it from");
  const std::string why = is_one ? "one example" : "too few examples differ from full attention";
  for (const FigureLosses& figure : losses.figures) {
    const char* units = units_of(figure.figure);
    const std::string what = " 95 % bound, for all patterns together, of what is lost against full attention";
    write_with_status(group, by_pattern(figure.figure + "_loss_lower"), figure.bounds.lower, {units, "lower" + what},
                      why);
    write_with_status(group, by_pattern(figure.figure + "_loss_upper"), figure.bounds.upper, {units, "upper" + what},
                      why);
  }
  storage::write_variable(group, by_pattern("verdict"), losses.verdict,
                          {storage::kText, "whether the loss is within the margin, beyond it, or open"});
  write_with_status(group, by_pattern("examples_needed"), losses.examples_needed,
                    {storage::kOne, "examples with which the upper bound would come down to the margin"},
                    is_one ? why : "the mean loss is not below the margin, or has no bound");
}

std::optional<Losses> read_losses(const storage::Group& group, const EvaluationTable& table, int64_t full) {
  if (!group.contains("critical_value")) return std::nullopt;
  // An older file has no bounds of generated text, which come last.
  std::vector<std::string> figures = figures_of(table);
  if (!group.contains(figures.back() + "_loss_upper")) figures.pop_back();
  const auto criticals = storage::read_table<double>(group, "critical_value", static_cast<int64_t>(figures.size()), 2);
  std::vector<stats::MeanBounds> bounds;
  for (int64_t i = 0; i < criticals.rows; ++i) {
    const std::string& figure = figures[static_cast<std::size_t>(i)];
    bounds.push_back({storage::read_variable<double>(group, figure + "_loss_lower", {table.n_patterns()}),
                      storage::read_variable<double>(group, figure + "_loss_upper", {table.n_patterns()}),
                      criticals(i, 0), criticals(i, 1)});
  }
  std::optional<Margin> margin;
  if (group.integer_attribute(".", "margin_given").value_or(0) != 0) {
    margin = Margin{group.read_scalar<double>("margin"),
                    is_share(group.string_attribute(".", "margin_figure").value_or(""))};
  }
  return judge_losses(table, full, margin, bounds);
}

}  // namespace winnow::evaluation
