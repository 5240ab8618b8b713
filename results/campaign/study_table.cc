#include "results/campaign/study_table.h"

#include "base/terminal_table.h"

namespace winnow::campaign {
namespace {

using Align = TerminalTable::Column::Align;

constexpr std::size_t kGap = 2;

std::string share_text(int64_t divisor) { return "1/" + std::to_string(divisor); }

std::string interval_text(const stats::Estimate& estimate, const char* format, double scale = 1.0) {
  if (!estimate.ci_low.defined()) return "-";
  return bracketed(number(scale * estimate.ci_low.value, format), number(scale * estimate.ci_high.value, format));
}

std::string rules_text(const Study& study) {
  const RuleRanks& ranks = study.ranks;
  TerminalTable table(
      {{Align::kLeft}, {Align::kLeft}, {Align::kRight}, {Align::kRight}, {Align::kRight}, {Align::kRight}}, kGap);
  table.add({"kept", "rule", "mean rank", "95 %", "loss left %", "95 %"});
  for (const RankedBudget& budget : ranks.budgets) {
    for (const std::size_t r : by_mean_rank(budget)) {
      const stats::Estimate& rank = budget.mean_rank[r];
      const stats::Estimate& left = budget.mean_loss_left[r];
      table.add({share_text(budget.divisor), ranks.rules[r], number(rank.value.value, "{:.2f}"),
                 interval_text(rank, "{:.2f}"), number(100.0 * left.value.value, "{:.1f}"),
                 interval_text(left, "{:.1f}", 100.0)});
    }
  }
  return "\nWhich rule: held-out examples, means over models, rank 1 loses least\n" + table.text() +
         wrapped(study.rules_answer, 2);
}

std::string examples_text(const Study& study) {
  TerminalTable table(
      {{Align::kLeft}, {Align::kLeft}, {Align::kRight}, {Align::kRight}, {Align::kRight}, {Align::kRight}}, kGap);
  table.add({"model", "dataset", "window", "kept", "examples", "needed"});
  for (const CollectedCell* cell : study.calibrations) {
    for (const SelectionStability& budget : cell->summary->stability) {
      table.add({cell->model, cell->dataset, std::to_string(cell->window), share_text(budget.divisor),
                 std::to_string(cell->summary->n_examples), budget.needed ? std::to_string(*budget.needed) : "more"});
    }
  }
  return "\nHow many examples: smallest subset that chooses 90 % of the layers that all choose\n" + table.text() +
         wrapped(study.examples_answer, 2);
}

std::string tails_text(const Study& study) {
  TerminalTable table(
      {{Align::kLeft}, {Align::kLeft}, {Align::kRight}, {Align::kRight}, {Align::kRight}, {Align::kLeft}}, kGap);
  table.add({"model", "dataset", "tail rows", "rho", "95 %", "layers in both"});
  for (const TailAgreement& tail : study.tails) {
    std::string both;
    for (const OverlapAt& overlap : tail.overlaps) {
      both += (both.empty() ? "" : ", ") + number(overlap.share * static_cast<double>(overlap.keep), "{:.0f}") +
              " of " + std::to_string(overlap.keep);
    }
    table.add({tail.model, tail.dataset, std::to_string(tail.tail_rows),
               number(tail.spearman_rho.value.value, "{:.3f}"), interval_text(tail.spearman_rho, "{:.3f}"), both});
  }
  return "\nTail against exact\n" + table.text() + wrapped(study.tail_answer, 2);
}

// ---- JSON -----------------------------------------------------------------------------------------------------------

void put(Json& object, const std::string& name, const stats::Estimate& estimate) {
  object[name] = number_or_null(estimate.value.value);
  object[name + "_ci_low"] = number_or_null(estimate.ci_low.value);
  object[name + "_ci_high"] = number_or_null(estimate.ci_high.value);
}

Json rules_object(const Study& study) {
  const RuleRanks& ranks = study.ranks;
  Json object = {{"answer", study.rules_answer}, {"models", Json::array()}, {"budgets", Json::array()}};
  for (const RankedModel& model : ranks.models) {
    object["models"].push_back(
        {{"model", model.name}, {"evaluations", model.n_cells}, {"leading_figures", model.leading_figures}});
  }
  for (const RankedBudget& budget : ranks.budgets) {
    Json entry = {{"kept_share", 1.0 / static_cast<double>(budget.divisor)},
                  {"models", budget.n_models},
                  {"layers_kept", budget.keep},
                  {"rules", Json::array()},
                  {"differences", Json::array()}};
    for (std::size_t a = 0; a < ranks.rules.size(); ++a) {
      if (!budget.is_compared[a]) continue;
      Json rule = {{"rule", ranks.rules[a]}};
      put(rule, "mean_rank", budget.mean_rank[a]);
      put(rule, "mean_loss_left", budget.mean_loss_left[a]);
      entry["rules"].push_back(std::move(rule));
      for (std::size_t b = a + 1; b < ranks.rules.size(); ++b) {
        if (!budget.is_compared[b]) continue;
        Json pair = {{"rule", ranks.rules[a]}, {"other_rule", ranks.rules[b]}};
        put(pair, "rank_difference", budget.rank_difference[a * ranks.rules.size() + b]);
        put(pair, "nll_difference", budget.nll_difference[a * ranks.rules.size() + b]);
        entry["differences"].push_back(std::move(pair));
      }
    }
    object["budgets"].push_back(std::move(entry));
  }
  return object;
}

Json examples_object(const Study& study) {
  Json object = {{"answer", study.examples_answer}, {"calibrations", Json::array()}};
  for (const CollectedCell* cell : study.calibrations) {
    for (const SelectionStability& budget : cell->summary->stability) {
      object["calibrations"].push_back({{"cell", cell->label},
                                        {"kept_share", 1.0 / static_cast<double>(budget.divisor)},
                                        {"layers_kept", budget.keep},
                                        {"n_examples", cell->summary->n_examples},
                                        {"subset", budget.n_examples},
                                        {"overlap", budget.overlap},
                                        {"overlap_low", budget.overlap_low},
                                        {"overlap_high", budget.overlap_high},
                                        {"same_layers", budget.same},
                                        {"examples_needed", budget.needed ? Json(*budget.needed) : Json(nullptr)}});
    }
  }
  return object;
}

Json tails_object(const Study& study) {
  Json object = {{"answer", study.tail_answer}, {"pairs", Json::array()}};
  for (const TailAgreement& tail : study.tails) {
    Json pair = {{"exact_cell", tail.exact}, {"tail_cell", tail.tail}, {"tail_rows", tail.tail_rows}};
    pair["spearman_rho"] = number_or_null(tail.spearman_rho.value.value);
    pair["spearman_ci_low"] = number_or_null(tail.spearman_rho.ci_low.value);
    pair["spearman_ci_high"] = number_or_null(tail.spearman_rho.ci_high.value);
    pair["overlaps"] = Json::array();
    for (const OverlapAt& overlap : tail.overlaps) {
      pair["overlaps"].push_back({{"kept_share", 1.0 / static_cast<double>(overlap.divisor)},
                                  {"layers_kept", overlap.keep},
                                  {"overlap", overlap.share}});
    }
    object["pairs"].push_back(std::move(pair));
  }
  return object;
}

}  // namespace

std::string study_text(const Study& study) {
  return (study.ranks.is_empty() ? "" : rules_text(study)) + (study.calibrations.empty() ? "" : examples_text(study)) +
         (study.tails.empty() ? "" : tails_text(study));
}

Json study_object(const Study& study) {
  if (study.is_empty()) return nullptr;
  Json object = Json::object();
  if (!study.ranks.is_empty()) object["rules"] = rules_object(study);
  if (!study.calibrations.empty()) object["examples"] = examples_object(study);
  if (!study.tails.empty()) object["tail"] = tails_object(study);
  return object;
}

}  // namespace winnow::campaign
