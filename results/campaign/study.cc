#include "results/campaign/study.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "base/strings.h"
#include "base/terminal_table.h"
#include "results/campaign/model_means.h"

namespace winnow::campaign {
namespace {

// Share of the loss of windowing every layer that may be left: the default margin of an evaluation.
constexpr double kLittleLoss = 0.05;

std::string counted(int64_t n, const std::string& word) { return std::to_string(n) + " " + word + (n == 1 ? "" : "s"); }

std::string share_of_layers(int64_t divisor) { return "1/" + std::to_string(divisor) + " of the layers"; }

std::string whole_percent(double share) { return number(100.0 * share, "{:.0f}") + " %"; }

bool is_interval(const stats::Estimate& estimate) { return estimate.ci_low.defined() && estimate.ci_high.defined(); }

// ---- rules ----------------------------------------------------------------------------------------------------------

// The rules whose ranks are not shown to be behind those of the first.
std::vector<std::string> not_told_apart(const RuleRanks& ranks, const RankedBudget& budget,
                                        const std::vector<std::size_t>& order) {
  std::vector<std::string> rules;
  const std::size_t n_rules = ranks.rules.size();
  for (std::size_t i = 1; i < order.size(); ++i) {
    const stats::Estimate& behind = budget.rank_difference[order[i] * n_rules + order.front()];
    if (!is_interval(behind) || behind.ci_low.value <= 0.0) rules.push_back(ranks.rules[order[i]]);
  }
  return rules;
}

std::string budget_sentence(const RuleRanks& ranks, const RankedBudget& budget) {
  const std::string where = "At " + share_of_layers(budget.divisor);
  const std::vector<std::size_t> order = by_mean_rank(budget);
  if (order.empty()) return where + " no rule is in every evaluation.";
  const std::size_t best = order.front();
  const stats::Estimate& left = budget.mean_loss_left[best];
  std::string text = where + " ";
  if (order.size() == 1) {
    text += ranks.rules[best] + " is the only rule in every evaluation";
  } else {
    text += ranks.rules[best] + " has the best mean rank of " + counted(static_cast<int64_t>(order.size()), "rule") +
            " over " + counted(budget.n_models, "model") + ", " + number(budget.mean_rank[best].value.value, "{:.1f}");
  }
  if (left.value.defined()) {
    text += "; of what windowing every layer loses, " + whole_percent(left.value.value) + " is left";
  }
  text += '.';
  if (order.size() == 1 || budget.n_models < kFewestModels) return text;
  const std::vector<std::string> close = not_told_apart(ranks, budget, order);
  if (close.empty()) return text + " By their intervals all others are behind it.";
  return text + " Not told apart from it: " + joined(close, ", ") + ".";
}

// The cheapest budget at which the best rule leaves little of the loss.
std::string budget_advice(const RuleRanks& ranks) {
  std::optional<double> least;
  for (const RankedBudget& budget : ranks.budgets) {
    for (std::size_t r = 0; r < ranks.rules.size(); ++r) {
      const stats::Figure& left = budget.mean_loss_left[r].value;
      if (left.defined()) least = std::min(least.value_or(left.value), left.value);
    }
  }
  if (!least) return "";
  for (const RankedBudget& budget : ranks.budgets) {  // rising K
    std::optional<std::size_t> best;
    for (std::size_t r = 0; r < ranks.rules.size(); ++r) {
      const stats::Figure& left = budget.mean_loss_left[r].value;
      if (!left.defined() || left.value > kLittleLoss) continue;
      if (!best || left.value < budget.mean_loss_left[*best].value.value) best = r;
    }
    if (!best) continue;
    return " " + share_of_layers(budget.divisor) + ", chosen by " + ranks.rules[*best] + ", are the smallest budget " +
           "that leaves at most 5 % of that loss in the mean over the models.";
  }
  return " No budget leaves at most 5 % of that loss; the least is " + whole_percent(*least) + ".";
}

std::string say_rules(const RuleRanks& ranks) {
  if (ranks.is_empty()) return "";
  std::string text;
  for (const RankedBudget& budget : ranks.budgets) text += (text.empty() ? "" : " ") + budget_sentence(ranks, budget);
  return text + budget_advice(ranks) + " " + worth_of_intervals(static_cast<int64_t>(ranks.models.size()));
}

// ---- examples -------------------------------------------------------------------------------------------------------

std::string say_examples(const std::vector<const CollectedCell*>& calibrations) {
  if (calibrations.empty()) return "";
  struct Need {
    int64_t most = 0;
    int64_t n_open = 0;  // calibrations in which no subset is enough
  };
  std::map<int64_t, Need, std::greater<>> by_divisor;
  for (const CollectedCell* cell : calibrations) {
    for (const SelectionStability& budget : cell->summary->stability) {
      Need& need = by_divisor[budget.divisor];
      if (budget.needed) need.most = std::max(need.most, *budget.needed);
      if (!budget.needed) ++need.n_open;
    }
  }
  const std::string all = counted(static_cast<int64_t>(calibrations.size()), "calibration");
  std::string text;
  for (const auto& [divisor, need] : by_divisor) {
    text += (text.empty() ? "At " : " At ") + share_of_layers(divisor) + " ";
    if (need.n_open == 0) {
      text += std::to_string(need.most) +
              " examples choose at least 90 % of the layers that all choose, in the mean, in " +
              (calibrations.size() == 1 ? "the calibration." : "each of " + all + ".");
    } else {
      text += "no smaller set of examples is enough in " + std::to_string(need.n_open) + " of " + all +
              ": more examples may choose other layers.";
    }
  }
  return text + " Subsets are of the same examples, so the agreement with others is less.";
}

// ---- tail -----------------------------------------------------------------------------------------------------------

std::string say_tails(const std::vector<TailAgreement>& tails) {
  if (tails.empty()) return "";
  const auto n = static_cast<double>(tails.size());
  struct Spread {
    double sum = 0.0;
    double least = 1.0;
    int64_t n = 0;
  };
  std::map<int64_t, Spread, std::greater<>> by_divisor;
  Spread rho;
  for (const TailAgreement& tail : tails) {
    for (const OverlapAt& overlap : tail.overlaps) {
      Spread& spread = by_divisor[overlap.divisor];
      spread.sum += overlap.share;
      spread.least = std::min(spread.least, overlap.share);
      ++spread.n;
    }
    if (!tail.spearman_rho.value.defined()) continue;
    rho.sum += tail.spearman_rho.value.value;
    rho.least = std::min(rho.least, tail.spearman_rho.value.value);
    ++rho.n;
  }
  std::string text = "Over " + counted(static_cast<int64_t>(n), "pair") + " of a sweep by the tail and an exact one";
  std::string parts;
  for (const auto& [divisor, spread] : by_divisor) {
    parts += (parts.empty() ? " both choose " : ", ") + whole_percent(spread.sum / static_cast<double>(spread.n)) +
             " of the same layers at 1/" + std::to_string(divisor) + " (least " + whole_percent(spread.least) + ")";
  }
  if (rho.n > 0) {
    parts += (parts.empty() ? "" : ";") + std::string(" Spearman's rho over layers is ") +
             number(rho.sum / static_cast<double>(rho.n), "{:.2f}") + " on average, least " +
             number(rho.least, "{:.2f}");
  }
  return text + (parts.empty() ? " nothing can be compared." : parts + ".");
}

}  // namespace

Study make_study(const Collection& collection, const ReadResults& read) {
  Study study;
  study.ranks = rank_rules(collection.others);
  std::set<std::string> names;
  for (const CollectedCell& cell : collection.cells) {
    const bool is_compared =
        cell.summary && !cell.summary->stability.empty() && !cell.summary->stability.front().n_examples.empty();
    if (is_compared && names.insert(cell.name).second) study.calibrations.push_back(&cell);
  }
  study.tails = tail_agreements(collection.cells, read);
  study.rules_answer = say_rules(study.ranks);
  study.examples_answer = say_examples(study.calibrations);
  study.tail_answer = say_tails(study.tails);
  return study;
}

}  // namespace winnow::campaign
