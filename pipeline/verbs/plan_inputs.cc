#include "pipeline/verbs/plan_inputs.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/error.h"
#include "base/strings.h"
#include "pipeline/verbs/search_rounds.h"
#include "results/calibration/store.h"
#include "results/search/search.h"

namespace winnow::verbs {
namespace {

// Where no budget is given: shares of what full attention takes.
constexpr std::array<const char*, 5> kDefaultBudgets = {"12.5%", "25%", "37.5%", "50%", "75%"};
// A search of more would be none, and its tables would fill the memory.
constexpr int64_t kMostPlans = 100'000;

[[noreturn]] void refuse(const std::string& what) { fail(ExitCode::kUsage, what); }

int64_t whole_number(const storage::Provenance& provenance, const std::string& name, const std::string& origin) {
  const storage::ProvenanceEntry* entry = provenance.find(name);
  const auto* value = entry == nullptr ? nullptr : std::get_if<int64_t>(&entry->value);
  if (value == nullptr) fail(ExitCode::kBadData, origin + ": /provenance/" + name + ": not there, or no whole number");
  return *value;
}

// The calibration decides on the rules of the window: a plan is made of its figures.
void take_rules(const PlanQuestion& question, run::RunOptions& options) {
  const storage::Provenance& provenance = question.calibration.results.provenance;
  const std::string origin = question.results.string();
  const auto same = [&](const std::string& flag, const std::string& given, const std::string& there) {
    if (given == there) return;
    refuse(flag + " " + given + " differs from the calibration's, " + (there.empty() ? "which has none" : there) +
           "; leave it out, or calibrate with it");
  };
  if (options.window > 0) refuse("--window contradicts --from, whose windows the plans have; leave it out");
  const std::string decode = provenance.text("decode");
  const std::string target = provenance.text("target");
  const int64_t sinks = whole_number(provenance, "sinks", origin);
  if (options.decode) same("--decode", *options.decode, decode);
  if (!options.target.empty()) same("--target", options.target, target);
  if (options.sinks) same("--sinks", std::to_string(*options.sinks), std::to_string(sinks));
  options.target = target;
  options.sinks = sinks;
  if (target.empty()) options.decode = decode;
  // The narrowest changes the most rows: keys and values that are kept from round to round go by it.
  options.window = whole_number(provenance, "window", origin);
  const std::string windows = provenance.text("windows");
  if (!windows.empty()) options.window = run::parse_windows(windows, origin + ": /provenance/windows").front();
  const int64_t n = question.calibration.results.calibration.n_examples();
  if (options.limit.value_or(n) > n) {
    refuse("--limit is " + std::to_string(*options.limit) + ", but the calibration has " + std::to_string(n) +
           " examples; leave it out, or calibrate with more");
  }
  options.limit = options.limit.value_or(n);
}

// All of one length: a layer that narrows from one budget to the next has then done so for less memory.
plan::Service service_of(const run::RunOptions& options, const model::ModelConfig& config,
                         const std::vector<plan::Budget>& budgets) {
  plan::Service service;
  service.engine = options.engine;
  service.shape = {.n_kv_heads = config.heads.n_kv_heads,
                   .head_dim = config.heads.head_dim,
                   .element_bytes = config.checkpoint_dtype == kernels::DType::kF32 ? 4 : 2};
  service.demand = {.max_seq_len = options.max_seq_len.value_or(config.max_positions),
                    .concurrency = options.concurrency};
  if (budgets.empty()) return service;
  const auto length = [&](const plan::Budget& budget) {
    return budget.max_seq_len.value_or(service.demand.max_seq_len);
  };
  const int64_t first = length(budgets.front());
  for (const plan::Budget& budget : budgets) {
    if (length(budget) == first) continue;
    refuse("--budget " + budget.text + " is for sequences of " + std::to_string(length(budget)) + " tokens and " +
           budgets.front().text + " for " + std::to_string(first) + "; give budgets of one length, or search for each");
  }
  service.demand.max_seq_len = first;
  return service;
}

void add_budgets(const run::RunOptions& options, std::vector<plan::Budget> given, PlanQuestion& question) {
  if (given.empty()) {
    for (const char* text : kDefaultBudgets) given.push_back(plan::parse_budget(text));
    std::erase_if(given, [&](const plan::Budget& budget) {
      return budget.of(question.costs.full_bytes) < question.costs.least_bytes;
    });
    if (given.empty()) refuse("no plan takes 75% or less of full attention's memory; name a --budget");
  }
  const double full = question.costs.full_bytes;
  std::ranges::stable_sort(given,
                           [&](const plan::Budget& a, const plan::Budget& b) { return a.of(full) < b.of(full); });
  for (plan::Budget& budget : given) {
    const double bytes = budget.of(full);
    // Refuses what is too little or too much, in the words of winnow plan.
    question.planner->best(question.costs, bytes, "--budget " + budget.text);
    if (!question.budgets.empty() && question.budgets.back().of(full) == bytes) {
      refuse("--budget " + budget.text + " is that of " + question.budgets.back().text + "; name it once");
    }
    question.request.budgets.push_back(bytes);
    question.budgets.push_back(std::move(budget));
  }
  question.request.alone = question.planner->loss_alone();
  question.request.pricing = question.costs.pricing;
  question.request.steps = options.steps;
  question.request.beam = options.beam;
  question.request.n_examples = *options.limit;
  const int64_t most = plan::most_plans(question.request);
  if (most <= kMostPlans) return;
  refuse("--steps " + std::to_string(options.steps) + " with --beam " + std::to_string(options.beam) + " may measure " +
         std::to_string(most) + " plans, more than " + std::to_string(kMostPlans) +
         "; use fewer of either, or fewer budgets");
}

// What layers lose alone and what plans lose is compared example by example.
void check_examples(const PlanQuestion& question, const run::DataSet& data) {
  const calibration::Results& results = question.calibration.results;
  const std::vector<std::string>& known = results.calibration.token_hash;
  bool is_same = known.empty() ? results.provenance.text("data_sha256") == data.corpus.sha256
                               : static_cast<int64_t>(known.size()) >= data.n_examples;
  for (int64_t e = 0; is_same && !known.empty() && e < data.n_examples; ++e) {
    is_same = known[static_cast<std::size_t>(e)] == data.corpus.token_hash(e);
  }
  if (is_same) return;
  fail(ExitCode::kConfigMismatch, question.results.string() +
                                      ": was measured on other examples than those of --data; give the file of the "
                                      "calibration");
}

}  // namespace

run::Variant PlanQuestion::variant(const plan::Settings& settings) const {
  const std::vector<int64_t> windows = planner->windows_of(settings);
  run::Variant variant;
  for (const int64_t keys : windows) variant.windowed.push_back(keys > 0);
  // Full attention as computed: full attention in a narrower type is a setting before.
  const int64_t full = planner->loss_alone().cols - 1;
  // As the full pattern is written, whatever layers have a window of their own.
  if (std::ranges::any_of(settings, [&](int64_t setting) { return setting != full; })) variant.window_keys = windows;
  variant.kv = planner->kv_of(settings);
  return variant;
}

void check_plan_options(const run::RunOptions& options) {
  const bool is_plan = options.method == search::search_method_name(search::SearchMethod::kPlan);
  const run::RunOptions defaults;
  if (!is_plan) {
    const auto only = [](bool is_given, const char* flag) {
      if (is_given) refuse(std::string(flag) + " is for --method plan; leave it out");
    };
    only(!options.from.empty(), "--from");
    only(!options.budgets.empty(), "--budget");
    only(options.engine != defaults.engine, "--engine");
    only(options.concurrency != defaults.concurrency, "--concurrency");
    only(options.max_seq_len.has_value(), "--max-seq-len");
    only(options.steps != defaults.steps, "--steps");
    return;
  }
  if (options.keep) refuse("--keep is not for --method plan, whose budgets are of memory; leave it out");
  if (options.objective != defaults.objective) {
    refuse("--objective " + options.objective + " is not for --method plan, which minimises the NLL; leave it out");
  }
  plan::check_range("--concurrency", options.concurrency, plan::kMostSequences);
  if (options.max_seq_len) plan::check_range("--max-seq-len", *options.max_seq_len, plan::kMostTokens);
}

std::unique_ptr<PlanQuestion> read_plan_question(run::RunOptions& options) {
  run::check_options(options);
  check_plan_options(options);
  std::vector<plan::Budget> budgets;
  for (const std::string& text : options.budgets) budgets.push_back(plan::parse_budget(text));
  auto question = std::make_unique<PlanQuestion>();
  question->results = calibration::results_file(options.from);
  question->calibration = selection::read_select_input(question->results, "nll");
  if (!question->calibration.results.calibration.layer_examples.empty()) {
    refuse(question->results.string() +
           ": --until left layers out of some examples, and plans are compared example by example; calibrate without "
           "--until for a search");
  }
  take_rules(*question, options);
  run::check_options(options);
  question->planner = std::make_unique<plan::Planner>(question->calibration, static_cast<uint64_t>(options.seed));
  const model::ModelConfig config = model::read_config(options.model);
  if (question->planner->n_layers() != config.n_layers) {
    fail(ExitCode::kConfigMismatch, question->results.string() + ": is of a model of " +
                                        std::to_string(question->planner->n_layers()) + " layers, but " +
                                        options.model.string() + " has " + std::to_string(config.n_layers));
  }
  question->costs = question->planner->costs(service_of(options, config, budgets));
  add_budgets(options, std::move(budgets), *question);
  return question;
}

run::Inputs load_plan_search(const run::RunOptions& options, const PlanQuestion& question) {
  run::Inputs inputs = searched_model(options);
  inputs.other_files.push_back(question.results);
  inputs.open_checkpoint(options.model);
  inputs.kv_types = question.planner->kv_types();
  if (std::ranges::find(inputs.kv_types, KvType::kFp8) != inputs.kv_types.end()) inputs.take_kv_scales();
  add_searched_data(options, inputs);
  check_examples(question, inputs.data_sets.front());
  return inputs;
}

void check_calibrated_model(const PlanQuestion& question, const run::RunIdentity& identity) {
  if (question.calibration.results.provenance.text("checkpoint_sha256") == identity.checkpoint_sha256) return;
  fail(ExitCode::kConfigMismatch,
       question.results.string() + ": was measured on another model than --model; give the one of the calibration");
}

}  // namespace winnow::verbs
