#include "results/plan/table.h"

#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "base/json.h"
#include "base/strings.h"
#include "base/terminal_table.h"
#include "results/serving/engines.h"
#include "results/stats/resampling.h"

namespace winnow::plan {
namespace {

using Align = TerminalTable::Column::Align;

std::string loss_text(const MeanLoss& loss) {
  if (std::isnan(loss.ci_low)) return number(loss.value);
  return number(loss.value) + " " + bracketed(number(loss.ci_low, "{:.2g}"), number(loss.ci_high, "{:.2g}"));
}

// Calls `use` with budget, name of the plan, its place and its losses; once where both plans are the same.
template <typename Use>
void for_each_row(const SearchedPlans& found, const std::vector<std::size_t>& budgets, const Use& use) {
  for (const std::size_t b : budgets) {
    const SearchedBudget& budget = found.budgets[b];
    if (budget.best == budget.sum_of_layers) {
      use(budget.text, "both", budget.best, budget.losses_of_best);
      continue;
    }
    use(budget.text, "by sum", budget.sum_of_layers, budget.losses_of_sum);
    use("", "refined", budget.best, budget.losses_of_best);
  }
}

std::string losses_table(const SearchedPlans& found, const std::vector<std::size_t>& budgets) {
  TerminalTable table(2);
  std::vector<std::string> head = {"budget", "plan", "predicted loss", "measured loss"};
  if (found.n_verified > 0) head.emplace_back("every row windowed");
  table.add(std::move(head));
  for_each_row(found, budgets, [&](const std::string& budget, const char* name, int64_t, const PlanLosses& losses) {
    std::vector<std::string> cells = {budget, name, loss_text(losses.predicted), loss_text(losses.measured)};
    if (found.n_verified > 0) cells.push_back(losses.is_verified ? loss_text(losses.verified) : "n/a");
    table.add(std::move(cells));
  });
  return table.text();
}

std::string layers_table(const SearchedPlans& found, const std::vector<std::size_t>& budgets) {
  TerminalTable table({{}, {}, {Align::kRight, 0}, {Align::kRight, 0}, {}}, 2);
  table.add({"budget", "plan", "memory", "of full", "layers"});
  for_each_row(found, budgets, [&](const std::string& budget, const char* name, int64_t index, const PlanLosses&) {
    const SearchedPlan& plan = found.plans[stats::at(index)];
    table.add({budget, name, format_bytes(static_cast<int64_t>(plan.bytes)), percent(plan.bytes / found.full_bytes),
               windows_text(plan.windows, plan.kv)});
  });
  return table.text();
}

// What is not settled yet, and which layers turn.
std::string story(const SearchedPlans& found) {
  std::string open;
  for (const SearchedBudget& budget : found.budgets) {
    if (!budget.is_settled) open += (open.empty() ? "" : ", ") + budget.text;
  }
  std::string text = open.empty() ? "All budgets are settled: their last step found no better plan. "
                                  : "Not settled within " + std::to_string(found.steps) + " step(s): " + open + ". ";
  std::string refuted;
  for (const SearchedBudget& budget : found.budgets) {
    if (budget.searched != budget.best) refuted += (refuted.empty() ? "" : ", ") + budget.text;
  }
  if (!refuted.empty()) {
    text +=
        "With every row windowed, the plan by sum loses no more than the refined one, and is taken: " + refuted + ". ";
  }
  if (found.budgets.size() > 1) {
    text += "Turnover: " + std::to_string(found.n_turned) + " of " + std::to_string(found.n_free) +
            " layers keep less somewhere although the budget is greater. ";
  }
  return text;
}

Json loss_json(const MeanLoss& loss) {
  return {{"value", number_or_null(loss.value)},
          {"ci_low", number_or_null(loss.ci_low)},
          {"ci_high", number_or_null(loss.ci_high)}};
}

Json estimate_json(const stats::Estimate& e) {
  Json json = {{"value", number_or_null(e.value.value)},
               {"ci_low", number_or_null(e.ci_low.value)},
               {"ci_high", number_or_null(e.ci_high.value)}};
  if (!e.value.defined() || !e.ci_low.defined()) json["status"] = (e.value.defined() ? e.ci_low : e.value).status;
  return json;
}

Json plan_json(const SearchedPlans& found, int64_t index, const PlanLosses& losses) {
  const SearchedPlan& plan = found.plans[stats::at(index)];
  Json json = {{"layer_windows", windows_json(plan.windows)},
               {"bytes", static_cast<int64_t>(plan.bytes)},
               {"predicted_delta_nll", loss_json(losses.predicted)},
               {"measured_delta_nll", loss_json(losses.measured)},
               {"beyond_sum", loss_json(losses.beyond)}};
  if (!plan.kv.empty()) json["layer_kv"] = names_of(plan.kv);
  if (losses.is_verified) json["verified_delta_nll"] = loss_json(losses.verified);
  return json;
}

}  // namespace

std::string windows_text(const std::vector<int64_t>& windows, const std::vector<KvType>& kv) {
  std::map<std::pair<int64_t, KvType>, int64_t> counts;  // by the keys below those of full attention
  constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  for (std::size_t layer = 0; layer < windows.size(); ++layer) {
    const int64_t keys = windows[layer] == 0 ? kAll : windows[layer];
    ++counts[{kAll - keys, kv.empty() ? KvType::kStored : kv[layer]}];
  }
  std::string text;
  for (const auto& [setting, count] : counts) {
    const auto& [below, type] = setting;
    text += (text.empty() ? "" : ", ") + std::to_string(count);
    text += below == 0 ? " full" : " x " + std::to_string(kAll - below);
    if (type != KvType::kStored) text += " " + std::string(kv_type_name(type));
  }
  return text;
}

Json windows_json(const std::vector<int64_t>& windows) {
  Json json = Json::array();
  for (const int64_t keys : windows) json.push_back(keys > 0 ? Json(keys) : Json(nullptr));
  return json;
}

std::string budgets_table(const SearchedPlans& found, const std::vector<std::size_t>& budgets) {
  return losses_table(found, budgets) + "\n" + layers_table(found, budgets);
}

std::string legend(const SearchedPlans& found) {
  const serving::Engine* engine = serving::find_engine(found.engine);
  const std::string title =
      engine == nullptr ? "an engine that keeps what the windows see" : std::string(engine->title);
  return wrapped(
      "Memory: keys and values of " + std::to_string(found.concurrency) + " x " + std::to_string(found.max_seq_len) +
          " tokens as " + title + " allocates them; " + format_bytes(static_cast<int64_t>(found.full_bytes)) +
          " with full attention. Losses: nats per token above full attention, with 95 % intervals over " +
          std::to_string(found.example_id.size()) +
          " example(s). predicted is the sum of what each layer loses alone; measured is of the plan, on the "
          "examples that chose it: winnow evaluate measures it on others.",
      2);
}

Json budget_json(const SearchedPlans& found, const SearchedBudget& budget) {
  Json json = {{"budget", budget.text},
               {"budget_bytes", static_cast<int64_t>(budget.bytes)},
               {"steps", budget.steps},
               {"is_settled", budget.is_settled},
               {"n_changed", budget.from_smaller.n_changed},
               {"n_narrowed", budget.from_smaller.n_narrowed},
               {"sum_of_layers", plan_json(found, budget.sum_of_layers, budget.losses_of_sum)},
               {"refined", plan_json(found, budget.best, budget.losses_of_best)}};
  if (found.n_verified > 0) json["is_searched_plan"] = budget.searched == budget.best;
  return json;
}

std::string to_table(const SearchedPlans& found, const storage::Provenance& provenance) {
  std::vector<std::size_t> all;
  for (std::size_t b = 0; b < found.budgets.size(); ++b) all.push_back(b);
  std::string text =
      "plan, " + std::to_string(found.plans.size()) + " plans, " + std::to_string(found.example_id.size()) +
      " examples" +
      (found.n_dropped > 0 ? "; " + std::to_string(found.n_dropped) + " more plans dropped on fewer" : "") + "\n\n" +
      budgets_table(found, all) + "\n" +
      wrapped(story(found) + "rho between predicted and measured over all plans: " +
                  (found.rho_predicted.value.defined() ? number(found.rho_predicted.value.value, "{:.3f}") : "n/a") +
                  ".",
              2) +
      legend(found);
  if (const std::string warnings = provenance.text("warnings"); !warnings.empty()) {
    text += "\n" + wrapped("Warning: " + warnings, 2);
  }
  return text;
}

std::string to_json(const SearchedPlans& found, const storage::Provenance& provenance) {
  Json json = {{"method", "plan"},
               {"engine", found.engine},
               {"max_seq_len", found.max_seq_len},
               {"concurrency", found.concurrency},
               {"full_attention_bytes", static_cast<int64_t>(found.full_bytes)},
               {"beam", found.beam},
               {"n_plans", found.plans.size()},
               {"n_examples", found.example_id.size()},
               {"n_turned", found.n_turned},
               {"n_free", found.n_free},
               {"n_dropped", found.n_dropped},
               {"rho_predicted", estimate_json(found.rho_predicted)},
               {"predicted_seconds", found.cost.predicted},
               {"predicted_seconds_exact", found.cost.predicted_exact},
               {"search_seconds", found.cost.measured},
               {"warnings", provenance.text("warnings")},
               {"budgets", Json::array()}};
  for (const SearchedBudget& budget : found.budgets) json["budgets"].push_back(budget_json(found, budget));
  if (found.n_verified > 0) {
    json["predicted_seconds_verification"] = found.cost.predicted_verification;
    json["agreement"] = {{"n_verified", found.n_verified},
                         {"n_verified_examples", found.n_verified_examples},
                         {"rho_nll", estimate_json(found.rho_verified)}};
  }
  return json_text(json, 2) + "\n";
}

}  // namespace winnow::plan
