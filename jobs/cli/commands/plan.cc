// winnow plan: for every layer the window that loses least within a budget of memory for keys and values, without a
// model.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/json_values.h"
#include "base/own_files.h"
#include "base/strings.h"
#include "base/terminal_table.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/commands/source_model.h"
#include "results/calibration/store.h"
#include "results/plan/budget.h"
#include "results/plan/planner.h"
#include "results/plan/store.h"
#include "results/plan/table.h"
#include "results/serving/engines.h"

namespace winnow::commands {
namespace {

constexpr int kCurveSteps = 20;  // shares of 5 %

struct Options {
  std::string results;
  std::string out;
  std::string model;  // "": the results'
  std::vector<std::string> budgets;
  bool curve = false;
  bool json = false;
  int64_t seed = 0;
  std::optional<std::string> engine;   // none: plan::kIdeal
  std::optional<int64_t> concurrency;  // none: 1
  std::optional<int64_t> max_seq_len;
  std::string until;      // "95%"; "": not asked
  std::string tolerance;  // of it; "": 1 %
};

struct NamedPlan {
  std::string budget;
  double budget_bytes = 0.0;
  const plan::Planner::Costs* costs = nullptr;
  plan::Plan plan;
  std::vector<plan::PlanLook> looks;  // with --until
};

std::string interval_text(const plan::Plan& plan) {
  return std::isnan(plan.ci_low) ? "n/a (one example)" : bracketed(number(plan.ci_low), number(plan.ci_high));
}

// Of the budgets of one length.
std::string to_table(const std::vector<NamedPlan>& plans) {
  constexpr auto kRight = TerminalTable::Column::Align::kRight;
  TerminalTable table({{.width = 16}, {kRight, 11}, {kRight, 9}, {kRight, 12}, {kRight, 24}, {}});
  table.add({"budget", "memory", "of full", "loss", "95 % interval", "  layers"});
  for (const NamedPlan& named : plans) {
    table.add({named.budget, format_bytes(static_cast<int64_t>(named.plan.bytes)),
               percent(named.plan.bytes / named.costs->full_bytes), number(named.plan.loss), interval_text(named.plan),
               "  " + plan::windows_text(named.plan.windows, named.plan.kv)});
  }
  return table.text();
}

std::string legend(const plan::Planner::Costs& costs) {
  const serving::Engine* engine = serving::find_engine(costs.service.engine);
  const std::string title =
      engine == nullptr ? "an engine that keeps what the windows see" : std::string(engine->title);
  return wrapped("memory: keys and values of " + std::to_string(costs.service.demand.concurrency) + " x " +
                     std::to_string(costs.service.demand.max_seq_len) + " tokens as " + title + " allocates them; " +
                     format_bytes(static_cast<int64_t>(costs.full_bytes)) + " with full attention. loss: predicted, " +
                     "nats per token: the sum of what each layer costs alone, which layers together need not; winnow "
                     "evaluate measures a plan.",
                 2);
}

// "24 examples" or the bound that says why there are none.
std::string settled_text(const std::vector<plan::PlanLook>& looks) {
  int64_t settled = 0;
  for (const plan::PlanLook& look : looks) {
    settled = look.is_settled() ? (settled > 0 ? settled : look.n_examples) : 0;
  }
  const plan::PlanLook& last = looks.back();
  const std::string gain = std::isfinite(last.gain) ? number(last.gain) + " nats" : "an unknown loss";
  const std::string tolerance = ", tolerance " + number(last.tolerance_nats);
  if (settled > 0) return "settled after " + std::to_string(settled) + " examples (" + gain + tolerance + ")";
  return "open after " + std::to_string(last.n_examples) + " examples: another plan could lose less by up to " + gain +
         tolerance;
}

std::string to_settled(const std::vector<NamedPlan>& plans, const std::string& confidence) {
  std::string text = "\n" + wrapped("Examples that each plan needed, at " + confidence +
                                        " confidence: settled where no plan in the same memory can lose less by more "
                                        "than the tolerance",
                                    2);
  for (const NamedPlan& named : plans) text += wrapped("  " + named.budget + ": " + settled_text(named.looks), 6);
  return text;
}

Json looks_object(const std::vector<plan::PlanLook>& looks) {
  Json list = Json::array();
  for (const plan::PlanLook& look : looks) {
    list.push_back({{"examples", look.n_examples},
                    {"gain", number_or_null(look.gain)},
                    {"tolerance_nats", look.tolerance_nats},
                    {"is_settled", look.is_settled()}});
  }
  return list;
}

std::string to_layers(const std::vector<int64_t>& windows, const std::vector<KvType>& kv) {
  std::string text = kv.empty() ? "layer   window\n" : "layer   window  type\n";
  for (std::size_t layer = 0; layer < windows.size(); ++layer) {
    const int64_t keys = windows[layer];
    text += right(std::to_string(layer), 5) + right(keys == 0 ? "full" : std::to_string(keys), 9);
    text += (kv.empty() ? "" : "  " + std::string(kv_type_name(kv[layer]))) + "\n";
  }
  return text;
}

// What each engine allocates for the plan, null where it does not run it.
Json allocations_object(const NamedPlan& named, const plan::Planner& planner) {
  Json object = Json::object();
  plan::Service service = named.costs->service;
  std::vector<std::string> names = {plan::kIdeal};
  for (const serving::Engine& engine : serving::engines()) names.emplace_back(engine.target);
  for (const std::string& name : names) {
    service.engine = name;
    const std::optional<double> bytes = planner.allocated_bytes(named.plan, service);
    object[name] = bytes ? Json(static_cast<int64_t>(*bytes)) : Json(nullptr);
  }
  return object;
}

Json plan_object(const NamedPlan& named, const plan::Planner& planner) {
  Json object = {{"budget", named.budget},
                 {"budget_bytes", static_cast<int64_t>(named.budget_bytes)},
                 {"engine", named.costs->service.engine},
                 {"max_seq_len", named.costs->service.demand.max_seq_len},
                 {"concurrency", named.costs->service.demand.concurrency},
                 {"bytes", static_cast<int64_t>(named.plan.bytes)},
                 {"full_attention_bytes", static_cast<int64_t>(named.costs->full_bytes)},
                 {"least_bytes", static_cast<int64_t>(named.costs->least_bytes)},
                 {"layer_windows", plan::windows_json(named.plan.windows)},
                 {"predicted_delta_nll", named.plan.loss},
                 {"ci_low", number_or_null(named.plan.ci_low)},
                 {"ci_high", number_or_null(named.plan.ci_high)},
                 {"allocated_bytes", allocations_object(named, planner)}};
  if (!named.plan.kv.empty()) object["layer_kv"] = names_of(named.plan.kv);
  if (!named.looks.empty()) object["looks"] = looks_object(named.looks);
  return object;
}

void check(const Options& options) {
  if (options.budgets.empty() && !options.curve) {
    fail(ExitCode::kUsage, "no --budget is given; name one, such as --budget 24GiB@131072 or --budget 25%, or --curve");
  }
  if (!options.out.empty() && (options.curve || options.budgets.size() != 1)) {
    fail(ExitCode::kUsage, "--out takes the plan of one --budget; leave the others and --curve out");
  }
  if (!options.until.empty()) race::parse_confidence(options.until, "--until");
  if (!options.tolerance.empty()) {
    race::parse_tolerance(options.tolerance, "--until-tolerance");
    if (options.until.empty()) fail(ExitCode::kUsage, "--until-tolerance needs --until, such as --until 95%");
  }
  if (options.concurrency) plan::check_range("--concurrency", *options.concurrency, plan::kMostSequences);
  if (options.max_seq_len) plan::check_range("--max-seq-len", *options.max_seq_len, plan::kMostTokens);
}

// All plans that are asked for. Costs are shared by budgets of one length.
class Plans {
 public:
  Plans(const Options& options, const selection::SelectInput& input, const serving::ModelShape& shape)
      : options_(options), shape_(shape), planner_(input, static_cast<uint64_t>(options.seed)) {}

  std::vector<NamedPlan> make() {
    std::vector<NamedPlan> plans;
    for (const std::string& text : options_.budgets) {
      const plan::Budget budget = plan::parse_budget(text);
      const plan::Planner::Costs& costs = costs_of(budget.max_seq_len);
      plans.push_back(named(budget, costs));
    }
    if (!options_.curve) return plans;
    const plan::Planner::Costs& costs = costs_of({});
    for (int step = 1; step <= kCurveSteps; ++step) {
      const int share = 100 * step / kCurveSteps;
      const plan::Budget budget{.text = std::to_string(share) + "%", .share = share / 100.0, .max_seq_len = {}};
      if (budget.of(costs.full_bytes) >= costs.least_bytes) plans.push_back(named(budget, costs));
    }
    return plans;
  }

  const plan::Planner& planner() const { return planner_; }

 private:
  NamedPlan named(const plan::Budget& budget, const plan::Planner::Costs& costs) const {
    const double bytes = budget.of(costs.full_bytes);
    NamedPlan named{budget.text, bytes, &costs, planner_.best(costs, bytes, "--budget " + budget.text), {}};
    if (options_.until.empty()) return named;
    const race::Tolerance tolerance =
        options_.tolerance.empty() ? race::Tolerance{} : race::parse_tolerance(options_.tolerance, "--until-tolerance");
    named.looks = planner_.settle(costs, bytes, race::parse_confidence(options_.until, "--until"), tolerance);
    return named;
  }

  const plan::Planner::Costs& costs_of(const std::optional<int64_t>& length) {
    const int64_t n_tokens = length.value_or(options_.max_seq_len.value_or(shape_.max_positions));
    const auto known = costs_.find(n_tokens);
    if (known != costs_.end()) return known->second;
    plan::Service service;
    service.engine = options_.engine.value_or(plan::kIdeal);
    service.shape = {shape_.n_kv_heads, shape_.head_dim, shape_.kv_element_bytes};
    service.demand = {.max_seq_len = n_tokens, .concurrency = options_.concurrency.value_or(1)};
    return costs_.emplace(n_tokens, planner_.costs(service)).first->second;
  }

  const Options& options_;
  const serving::ModelShape& shape_;
  plan::Planner planner_;
  std::map<int64_t, plan::Planner::Costs> costs_;  // by length
};

void write_text(const std::string& text) {
  const std::string safe = printable(text);
  std::fwrite(safe.data(), 1, safe.size(), stdout);
}

void print(const std::vector<NamedPlan>& plans, const plan::Planner& planner, const std::string& until, bool json) {
  std::string text;
  if (json) {
    Json object = {{"format", "winnow-plans"}, {"format_version", 1}, {"plans", Json::array()}};
    for (const NamedPlan& named : plans) object["plans"].push_back(plan_object(named, planner));
    text = json_text(object, 2) + "\n";
  } else {
    text = to_table(plans) + legend(*plans.front().costs);
    if (!until.empty()) text += to_settled(plans, until);
    if (plans.size() == 1) text += "\n" + to_layers(plans.front().plan.windows, plans.front().plan.kv);
  }
  write_text(text);
}

// The search was for one service, and its plans fit no other.
void check_service(const Options& options, const plan::SearchedPlans& found) {
  if (!options.until.empty()) {
    fail(
        ExitCode::kUsage,
        "--until is for plans made of a calibration; a search says itself whether its plans are settled: leave it out");
  }
  const auto same = [](const std::string& flag, const std::string& given, const std::string& there) {
    if (given == there) return;
    fail(ExitCode::kUsage, flag + " is " + given + ", but the plans were searched for " + there +
                               "; leave it out, or search for it with winnow search --method plan");
  };
  if (options.engine) same("--engine", *options.engine, found.engine);
  if (options.concurrency)
    same("--concurrency", std::to_string(*options.concurrency), std::to_string(found.concurrency));
  if (options.max_seq_len)
    same("--max-seq-len", std::to_string(*options.max_seq_len), std::to_string(found.max_seq_len));
}

std::size_t find_budget(const std::string& text, const plan::SearchedPlans& found) {
  const plan::Budget budget = plan::parse_budget(text);
  std::string known;
  for (std::size_t b = 0; b < found.budgets.size(); ++b) {
    const plan::SearchedBudget& searched = found.budgets[b];
    const bool is_of_length = budget.max_seq_len.value_or(found.max_seq_len) == found.max_seq_len;
    if (is_of_length && static_cast<int64_t>(budget.of(found.full_bytes)) == static_cast<int64_t>(searched.bytes)) {
      return b;
    }
    known += (known.empty() ? "" : ", ") + searched.text;
  }
  fail(ExitCode::kUsage, "--budget " + text + " was not searched; there are " + known + " of " +
                             std::to_string(found.max_seq_len) +
                             " tokens: search for it with winnow search --method plan");
}

Json searched_object(const plan::SearchedPlans& found, const plan::SearchedBudget& budget) {
  const Json all = plan::budget_json(found, budget);
  const Json& refined = all["refined"];
  Json object = {{"budget", budget.text},
                 {"budget_bytes", all["budget_bytes"]},
                 {"engine", found.engine},
                 {"max_seq_len", found.max_seq_len},
                 {"concurrency", found.concurrency},
                 {"bytes", refined["bytes"]},
                 {"full_attention_bytes", static_cast<int64_t>(found.full_bytes)},
                 {"layer_windows", refined["layer_windows"]},
                 {"predicted_delta_nll", refined["predicted_delta_nll"]["value"]},
                 {"ci_low", refined["predicted_delta_nll"]["ci_low"]},
                 {"ci_high", refined["predicted_delta_nll"]["ci_high"]}};
  for (const char* key : {"layer_kv", "measured_delta_nll", "beyond_sum", "verified_delta_nll"}) {
    if (refined.contains(key)) object[key] = refined[key];
  }
  for (const char* key : {"sum_of_layers", "steps", "is_settled", "n_changed", "n_narrowed"}) object[key] = all[key];
  return object;
}

// Of the results of winnow search --method plan: the best measured plans.
int run_searched(const Options& options, const std::filesystem::path& path, const plan::SearchedPlans& found,
                 const storage::Provenance& provenance) {
  check_service(options, found);
  std::vector<std::size_t> chosen;
  for (const std::string& text : options.budgets) chosen.push_back(find_budget(text, found));
  for (std::size_t b = 0; options.curve && b < found.budgets.size(); ++b) chosen.push_back(b);
  if (chosen.empty()) fail(ExitCode::kBadData, path.string() + ": holds no budget");
  const plan::SearchedBudget& first = found.budgets[chosen.front()];
  if (!options.out.empty()) {
    selection::write_selection(options.out, plan::selection_of(found, first, provenance, path.string()));
  }
  if (options.json) {
    Json object = {{"format", "winnow-plans"}, {"format_version", 1}, {"plans", Json::array()}};
    for (const std::size_t b : chosen) object["plans"].push_back(searched_object(found, found.budgets[b]));
    write_text(json_text(object, 2) + "\n");
    return static_cast<int>(ExitCode::kDone);
  }
  std::string text = plan::budgets_table(found, chosen) + plan::legend(found);
  if (chosen.size() == 1) {
    const plan::SearchedPlan& best = found.plans[static_cast<std::size_t>(first.best)];
    text += "\n" + to_layers(best.windows, best.kv);
  }
  write_text(text);
  return static_cast<int>(ExitCode::kDone);
}

int run_plan(const Options& options) {
  check(options);
  for (const std::string& text : options.budgets) plan::parse_budget(text);  // refused before anything is read
  const std::filesystem::path path = calibration::results_file(options.results);
  if (!options.out.empty()) {
    check_outputs({selection::selection_output("--out", options.out)},
                  {.files = {path, path.parent_path() / "run.json"}, .checkpoints = {}});
  }
  storage::Provenance provenance;
  if (const auto found = plan::read_searched_plans(path, provenance)) {
    return run_searched(options, path, *found, provenance);
  }
  const selection::SelectInput input = selection::read_select_input(path, "nll");
  const std::string checkpoint = options.model.empty() ? input.results.provenance.text("model") : options.model;
  const serving::ModelShape shape = source_model(checkpoint).shape();
  Plans plans(options, input, shape);
  const std::vector<NamedPlan> made = plans.make();
  if (!options.out.empty()) {
    const NamedPlan& only = made.front();
    selection::write_selection(options.out,
                               plans.planner().selection(only.plan, *only.costs, only.budget, path.string()));
  }
  print(made, plans.planner(), options.until, options.json);
  if (made.front().costs->has_one_window && plans.planner().windows().size() > 1) {
    std::fprintf(stderr, "winnow: note: %s has one window for all windowed layers of this model: each plan has one\n",
                 std::string(serving::find_engine(*options.engine)->title).c_str());
  } else if (options.engine == "vllm" && plans.planner().windows().size() > 1) {
    std::fprintf(stderr, "winnow: note: vLLM takes several windows by winnow export --model-impl plugin alone\n");
  }
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace

Command add_plan(const cli::Verb& program) {
  const auto options = std::make_shared<Options>();
  const cli::Verb verb = program.add_subcommand(
      "plan", "Chooses for every layer the window that loses least within a budget of memory for keys and values");
  verb.add_option("results", options->results,
                  "Run directory of calibrate --windows, of calibrate --kv or of search --method plan, or its "
                  "results.h5")
      .required()
      .type_name("RUN_DIR");
  verb.add_option("--budget", options->budgets,
                  "Memory for keys and values, and the length of a sequence: 24GiB@131072, or a share of what full "
                  "attention takes: 25%; may be repeated (default: none)")
      .type_name("SIZE[@TOKENS]")
      .one_value_each();
  verb.add_flag("--curve", options->curve,
                "Plan for 5 %, 10 %, ... of what full attention takes; of a search all its budgets (default: off)");
  verb.add_option("--engine", options->engine,
                  "Whose allocation counts: ideal keeps what the windows see; else vllm, trtllm, sglang, llamacpp, hf, "
                  "mlx or swaa (default: ideal)")
      .type_name("NAME");
  verb.add_option("--concurrency", options->concurrency, "Sequences of that length at a time (default: 1)")
      .type_name("N");
  verb.add_option("--max-seq-len", options->max_seq_len,
                  "Length of budgets without @, tokens (default: max_position_embeddings)")
      .type_name("N");
  verb.add_option("--model", options->model, "Checkpoint, for its config.json (default: where the results say it was)")
      .type_name("DIR");
  verb.add_option(
          "--until", options->until,
          "Say after how many of the examples each plan was settled, with the probability P such as 95%: no plan "
          "in the same memory loses less by more than the tolerance (default: not said)")
      .type_name("P");
  verb.add_option(
          "--until-tolerance", options->tolerance,
          "Of --until: 1% of what the narrowest window costs in all layers, or 0.01 nats per token (default: 1%)")
      .type_name("LOSS");
  verb.add_option("--seed", options->seed, "Seed of the bootstrap (default: 0)").type_name("N");
  verb.add_option("--out", options->out, "Write the plan of one budget here, as JSON (default: only print)")
      .type_name("FILE");
  verb.add_flag("--json", options->json, "Print JSON on stdout instead of a table (default: table)");
  verb.footer(
      "\nThe plan is the best there is by the predicted loss, the sum of what each layer costs alone; layers together\n"
      "may cost more or less. evaluate --pattern plan.json measures it, export writes it for engines that take it.\n"
      "winnow search --method plan looks for better ones by measuring plans; of its results this shows the best plan "
      "of\n"
      "each budget, what was predicted and what was measured, for the engine that was searched for.\n"
      "\nExample:\n  winnow plan run --budget 24GiB@131072 --concurrency 8 --engine trtllm --out plan.json\n");
  return {verb, [options] { return run_plan(*options); }};
}

}  // namespace winnow::commands
