#include "results/campaign/rule_ranks.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "results/campaign/model_means.h"
#include "results/stats/correlation.h"
#include "results/stats/resampling.h"

namespace winnow::campaign {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr const char* kNotCompared = "the rule is not in every evaluation with that budget";
constexpr const char* kNoLoss = "windowing every layer loses nothing, or was not measured";

// Figures of a rule at a budget in one evaluation; of several patterns, such as random ones, their means.
struct RuleFigures {
  double loss = 0.0;  // by the leading figure
  double nll = 0.0;   // nats per token
  int64_t n_patterns = 0;

  void add(const CollectedPattern& pattern) {
    ++n_patterns;
    const auto n = static_cast<double>(n_patterns);
    loss += (pattern.leading_loss - loss) / n;
    nll += (pattern.nll - nll) / n;
  }
};
using ByRule = std::map<std::string, RuleFigures>;

int64_t most_full_layers(const CollectedCell& cell) {
  int64_t most = 0;
  for (const CollectedPattern& pattern : cell.patterns) most = std::max(most, pattern.full_layers);
  return most;
}

// Loss of the pattern without a full layer; NaN where there is none.
double loss_of_windowing(const CollectedCell& cell) {
  for (const CollectedPattern& pattern : cell.patterns) {
    if (pattern.full_layers == 0) return pattern.leading_loss;
  }
  return kNan;
}

ByRule figures_at(const CollectedCell& cell, int64_t keep) {
  ByRule figures;
  for (const CollectedPattern& pattern : cell.patterns) {
    const std::string rule = rule_of(pattern.name);
    if (!rule.empty() && pattern.full_layers == keep) figures[rule].add(pattern);
  }
  return figures;
}

class Ranking {
 public:
  explicit Ranking(const std::vector<CollectedCell>& cells) {
    std::set<std::string> names;
    for (const CollectedCell& cell : cells) {
      const bool is_measured = cell.verb == "evaluate" && !cell.patterns.empty();
      if (!is_measured || !has_rules(cell) || !names.insert(cell.name).second) continue;
      cells_.push_back(&cell);
      add_model(cell);
    }
  }

  RuleRanks rank() {
    for (const int64_t divisor : kStudyDivisors) {
      RankedBudget budget = rank_at(divisor);
      if (budget.n_models > 0) ranks_.budgets.push_back(std::move(budget));
    }
    return std::move(ranks_);
  }

 private:
  static int64_t keep_of(const CollectedCell& cell, int64_t divisor) { return most_full_layers(cell) / divisor; }

  static bool has_rules(const CollectedCell& cell) {
    return std::any_of(std::begin(kStudyDivisors), std::end(kStudyDivisors), [&](int64_t divisor) {
      const int64_t keep = keep_of(cell, divisor);
      return keep > 0 && !figures_at(cell, keep).empty();
    });
  }

  void add_model(const CollectedCell& cell) {
    const std::size_t m = model_of(cell);
    if (m == ranks_.models.size()) ranks_.models.push_back({.name = cell.model, .n_cells = 0, .leading_figures = {}});
    RankedModel& model = ranks_.models[m];
    ++model.n_cells;
    if (std::ranges::find(model.leading_figures, cell.leading_figure) == model.leading_figures.end()) {
      model.leading_figures.push_back(cell.leading_figure);
    }
    for (const CollectedPattern& pattern : cell.patterns) {
      const std::string rule = rule_of(pattern.name);
      if (!rule.empty() && std::ranges::find(ranks_.rules, rule) == ranks_.rules.end()) ranks_.rules.push_back(rule);
    }
  }

  // Returns the number of models for one that is not there yet.
  std::size_t model_of(const CollectedCell& cell) const {
    const auto found =
        std::ranges::find_if(ranks_.models, [&](const RankedModel& model) { return model.name == cell.model; });
    return static_cast<std::size_t>(found - ranks_.models.begin());
  }

  RankedBudget rank_at(int64_t divisor) const {
    const auto n_models = static_cast<int64_t>(ranks_.models.size());
    const auto n_rules = static_cast<int64_t>(ranks_.rules.size());
    const stats::Table<double> nothing(n_models, n_rules, kNan);
    RankedBudget budget{.divisor = divisor, .rank = nothing, .loss_left = nothing, .nll = nothing};
    budget.keep.assign(ranks_.models.size(), 0);
    budget.is_compared.assign(ranks_.rules.size(), true);
    std::vector<ByRule> figures;  // by cell
    for (const CollectedCell* cell : cells_) {
      const int64_t keep = keep_of(*cell, divisor);
      figures.push_back(keep > 0 ? figures_at(*cell, keep) : ByRule{});
      if (figures.back().empty()) continue;
      budget.keep[model_of(*cell)] = keep;
      for (std::size_t r = 0; r < ranks_.rules.size(); ++r) {
        budget.is_compared[r] = budget.is_compared[r] && figures.back().contains(ranks_.rules[r]);
      }
    }
    budget.n_models = std::ranges::count_if(budget.keep, [](int64_t keep) { return keep > 0; });
    for (std::size_t m = 0; m < ranks_.models.size(); ++m) rank_model(m, figures, budget);
    average(budget);
    return budget;
  }

  // Means over the evaluations of a model.
  void rank_model(std::size_t m, const std::vector<ByRule>& figures, RankedBudget& budget) const {
    std::vector<double> rank(ranks_.rules.size(), 0.0), left = rank, nll = rank;
    double n = 0.0;
    for (std::size_t c = 0; c < cells_.size(); ++c) {
      if (figures[c].empty() || model_of(*cells_[c]) != m) continue;
      ++n;
      const double all = loss_of_windowing(*cells_[c]);
      std::vector<double> losses;
      for (std::size_t r = 0; r < rank.size(); ++r) {
        if (budget.is_compared[r]) losses.push_back(figures[c].at(ranks_.rules[r]).loss);
      }
      const std::vector<int64_t> doubled = stats::doubled_average_ranks(losses);
      std::size_t place = 0;
      for (std::size_t r = 0; r < rank.size(); ++r) {
        if (!budget.is_compared[r]) continue;
        left[r] += all > 0.0 ? losses[place] / all : kNan;
        nll[r] += figures[c].at(ranks_.rules[r]).nll;
        rank[r] += static_cast<double>(doubled[place++]) / 2.0;
      }
    }
    for (std::size_t r = 0; r < rank.size() && n > 0.0; ++r) {
      if (!budget.is_compared[r]) continue;
      const auto row = static_cast<int64_t>(m);
      const auto column = static_cast<int64_t>(r);
      budget.rank(row, column) = rank[r] / n;
      budget.loss_left(row, column) = left[r] / n;
      budget.nll(row, column) = nll[r] / n;
    }
  }

  // The models that have the budget, a value each.
  static std::vector<double> column_of(const stats::Table<double>& table, const RankedBudget& budget,
                                       std::size_t rule) {
    std::vector<double> values;
    for (std::size_t m = 0; m < budget.keep.size(); ++m) {
      if (budget.keep[m] > 0) values.push_back(table(static_cast<int64_t>(m), static_cast<int64_t>(rule)));
    }
    return values;
  }

  void average(RankedBudget& budget) const {
    const ModelResamples models(budget.n_models);
    const auto why = [&](std::size_t r) { return budget.is_compared[r] ? kNoLoss : kNotCompared; };
    const auto difference = [&](const stats::Table<double>& table, std::size_t a, std::size_t b) {
      std::vector<double> values = column_of(table, budget, a);
      const std::vector<double> other = column_of(table, budget, b);
      for (std::size_t m = 0; m < values.size(); ++m) values[m] -= other[m];
      return models.mean(values, kNotCompared);
    };
    for (std::size_t a = 0; a < ranks_.rules.size(); ++a) {
      budget.mean_rank.push_back(models.mean(column_of(budget.rank, budget, a), kNotCompared));
      budget.mean_loss_left.push_back(models.mean(column_of(budget.loss_left, budget, a), why(a)));
      for (std::size_t b = 0; b < ranks_.rules.size(); ++b) {
        budget.rank_difference.push_back(difference(budget.rank, a, b));
        budget.nll_difference.push_back(difference(budget.nll, a, b));
      }
    }
  }

  std::vector<const CollectedCell*> cells_;
  RuleRanks ranks_;
};

}  // namespace

std::vector<std::size_t> by_mean_rank(const RankedBudget& budget) {
  std::vector<std::size_t> order;
  for (std::size_t r = 0; r < budget.is_compared.size(); ++r) {
    if (budget.is_compared[r]) order.push_back(r);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return budget.mean_rank[a].value.value < budget.mean_rank[b].value.value;
  });
  return order;
}

std::string rule_of(const std::string& pattern) {
  const std::size_t colon = pattern.find(':');
  const std::string rule = pattern.substr(0, colon);
  if (colon == std::string::npos || rule == "list") return "";
  const std::size_t blank = pattern.find(' ', colon);
  if (blank == std::string::npos) return rule;
  const std::string file = pattern.substr(blank + 1);
  return rule + " " + (file.ends_with(".json") ? file.substr(0, file.size() - 5) : file);
}

RuleRanks rank_rules(const std::vector<CollectedCell>& cells) { return Ranking(cells).rank(); }

}  // namespace winnow::campaign
