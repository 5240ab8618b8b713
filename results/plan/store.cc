#include "results/plan/store.h"

// /selection/plan of results.h5. The schema is in README.md in the folder above.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/checksum.h"
#include "base/error.h"
#include "base/kv_type.h"
#include "results/search/store.h"
#include "results/selection/pattern.h"
#include "results/storage/hdf5.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::plan {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr const char* kGroup = "plan";
constexpr const char* kTypes = "pattern_kv";
constexpr const char* kSearchedPlan = "searched_plan";
// The plans of a budget, in the order of the dimension `choice`.
const std::vector<std::string>& choices() {
  static const std::vector<std::string> kChoices = {"sum-of-layers", "refined"};
  return kChoices;
}
constexpr int64_t kNChoices = 2;

struct Loss {
  const char* name;
  const char* what;
  MeanLoss PlanLosses::*member;
};
constexpr std::array<Loss, 4> kLosses = {
    {{"predicted_delta_nll", "sum over layers of what each loses alone, mean over examples", &PlanLosses::predicted},
     {"measured_delta_nll", "mean NLL of the plan less that with full attention, as searched", &PlanLosses::measured},
     {"beyond_sum", "measured less predicted, over the same examples: above 0 layers lose more together than alone",
      &PlanLosses::beyond},
     {"verified_delta_nll", "measured_delta_nll with every row under the window", &PlanLosses::verified}}};

template <typename T>
void write_scalar(storage::Group& group, const std::string& name, const T& value,
                  const storage::Description& description) {
  group.write_scalar<T>(name, value);
  storage::describe(group, name, description);
}

void explain_nan(storage::Group& group, const std::string& name, const std::vector<double>& values, const char* why) {
  const auto is_nan = [](double value) { return std::isnan(value); };
  if (std::ranges::any_of(values, is_nan)) group.set_attribute<std::string>(name, "status", why);
}

void write_seconds(storage::Group& group, const char* name, double seconds, const char* what) {
  write_scalar(group, name, seconds > 0.0 ? seconds : kNan, {"s", what});
  if (!(seconds > 0.0)) group.set_attribute<std::string>(name, "status", "not known");
}

void write_request(storage::Group& group, const SearchedPlans& found) {
  write_scalar<std::string>(group, "objective", "nll", {storage::kText, "what the search minimised"});
  write_scalar(group, "calibration", found.calibration,
               {storage::kText, "results file with what each layer loses alone"});
  write_scalar(group, "engine", found.engine, {storage::kText, "whose allocation counts"});
  write_scalar(group, "max_seq_len", found.max_seq_len, {storage::kTokens, "length of a sequence"});
  write_scalar(group, "concurrency", found.concurrency, {storage::kOne, "sequences at a time"});
  write_scalar(group, "full_attention_bytes", found.full_bytes,
               {"bytes", "keys and values where all layers are as the checkpoint has them"});
  write_scalar(group, "beam", found.beam, {storage::kOne, "plans that each step went on from"});
  write_scalar(group, "max_steps", found.steps, {storage::kOne, "steps that a budget could take"});
  write_seconds(group, "predicted_seconds", found.cost.predicted, "predicted time of all steps on its ranks");
  write_seconds(group, "predicted_seconds_exact", found.cost.predicted_exact,
                "predicted time of the same with every row under the window");
  write_seconds(group, "search_seconds", found.cost.measured, "time that the search took");
}

void write_losses(storage::Group& group, const SearchedPlans& found, const Loss& loss) {
  const bool is_verification = loss.member == &PlanLosses::verified;
  if (is_verification && found.n_verified == 0) return;
  const auto n = static_cast<int64_t>(found.budgets.size());
  const auto write = [&](const std::string& name, const std::string& what, double MeanLoss::*part) {
    std::vector<double> values;
    for (const SearchedBudget& budget : found.budgets) {
      for (const PlanLosses* losses : {&budget.losses_of_sum, &budget.losses_of_best}) {
        values.push_back(is_verification && !losses->is_verified ? kNan : losses->*loss.member.*part);
      }
    }
    storage::write_variable(group, {name, {"budget", "choice"}, {n, kNChoices}}, values, {storage::kNats, what});
    explain_nan(group, name, values, found.example_id.size() < 2 ? "one example" : "not verified, or one example");
  };
  const std::string name = loss.name;
  write(name, loss.what, &MeanLoss::value);
  write(name + "_ci_low", "lower end of the 95 % interval of " + name, &MeanLoss::ci_low);
  write(name + "_ci_high", "upper end", &MeanLoss::ci_high);
}

void write_budgets(storage::Group& group, const SearchedPlans& found) {
  const auto n = static_cast<int64_t>(found.budgets.size());
  std::vector<std::string> texts;
  std::vector<int64_t> bytes, plan, searched, steps, changed, narrowed;
  std::vector<uint8_t> settled;
  for (const SearchedBudget& budget : found.budgets) {
    texts.push_back(budget.text);
    bytes.push_back(static_cast<int64_t>(budget.bytes));
    plan.insert(plan.end(), {budget.sum_of_layers, budget.best});
    searched.push_back(budget.searched);
    steps.push_back(budget.steps);
    settled.push_back(budget.is_settled ? 1 : 0);
    changed.push_back(budget.from_smaller.n_changed);
    narrowed.push_back(budget.from_smaller.n_narrowed);
  }
  const auto by_budget = [&](const std::string& name) { return storage::Variable{name, {"budget"}, {n}}; };
  storage::write_coordinate(group, "budget", texts, {storage::kText, "budget as given, rising"});
  storage::write_coordinate(group, "choice", choices(),
                            {storage::kText, "the plan that adds up least, and the best that was measured"});
  storage::write_variable(group, by_budget("budget_bytes"), bytes, {"bytes", "memory for keys and values"});
  storage::write_variable(group, {"plan", {"budget", "choice"}, {n, kNChoices}}, plan,
                          {storage::kOne, "place of the plan along the dimension pattern"});
  if (found.n_verified > 0) {
    storage::write_variable(group, by_budget(kSearchedPlan), searched,
                            {storage::kOne, "place of the best plan as searched, before the verification"});
  }
  for (const Loss& loss : kLosses) write_losses(group, found, loss);
  storage::write_variable(group, by_budget("steps"), steps, {storage::kOne, "steps that were taken"});
  storage::write_variable(group, by_budget("is_settled"), settled,
                          {storage::kOne, "1 where the last step found no better plan"});
  storage::write_variable(
      group, by_budget("n_changed"), changed,
      {storage::kOne, "layers whose setting differs from the refined plan of the next smaller budget"});
  storage::write_variable(group, by_budget("n_narrowed"), narrowed,
                          {storage::kOne, "of these, layers that keep less although the budget is greater"});
  write_scalar(group, "n_turned", found.n_turned, {storage::kOne, "layers that narrow between any two such budgets"});
  write_scalar(group, "n_free", found.n_free, {storage::kOne, "layers that plans decide on"});
  write_scalar(group, "n_dropped", found.n_dropped,
               {storage::kOne, "plans besides, dropped after they were measured on the first examples"});
}

template <typename Get>
void write_cells(storage::Group& group, const SearchedPlans& found, const std::string& name,
                 const storage::Description& description, const Get& get) {
  std::vector<double> values;
  for (const SearchedPlan& plan : found.plans) {
    const auto& figures = get(plan);
    for (std::size_t e = 0; e < found.example_id.size(); ++e) {
      values.push_back(e < figures.size() ? static_cast<double>(figures[e]) : kNan);
    }
  }
  const auto n = static_cast<int64_t>(found.plans.size());
  storage::write_variable(group, {name, {"pattern", "example"}, {n, static_cast<int64_t>(found.example_id.size())}},
                          values, description);
  explain_nan(group, name, values, "not among the plans and examples that were verified");
}

// The first plan has full attention in all layers that have no window of their own.
std::string name_of(const SearchedPlan& plan, const SearchedPlan& first) {
  const bool is_full = plan.kv.empty() && plan.windows == first.windows;
  return is_full ? "full" : selection::windows_name(plan.windows, plan.kv);
}

// Where a plan has any.
void write_types(storage::Group& group, const SearchedPlans& found) {
  if (std::ranges::all_of(found.plans, [](const SearchedPlan& plan) { return plan.kv.empty(); })) return;
  std::vector<std::string> types;
  for (const SearchedPlan& plan : found.plans) {
    for (std::size_t layer = 0; layer < plan.windows.size(); ++layer) {
      types.emplace_back(kv_type_name(plan.kv.empty() ? KvType::kStored : plan.kv[layer]));
    }
  }
  const auto n = static_cast<int64_t>(found.plans.size());
  storage::write_variable(
      group, {kTypes, {"pattern", "layer"}, {n, found.n_layers}}, types,
      {storage::kText, "type of the layer's keys and values: bf16 (as computed), fp8, int8 or int4"});
}

void write_plans(storage::Group& group, const SearchedPlans& found) {
  const auto n = static_cast<int64_t>(found.plans.size());
  std::vector<std::string> names;
  std::vector<int64_t> keys;
  std::vector<double> bytes, predicted;
  for (const SearchedPlan& plan : found.plans) {
    names.push_back(name_of(plan, found.plans.front()));
    keys.insert(keys.end(), plan.windows.begin(), plan.windows.end());
    bytes.push_back(std::isfinite(plan.bytes) ? plan.bytes : kNan);
    predicted.push_back(plan.predicted);
  }
  const auto n_examples = static_cast<int64_t>(found.example_id.size());
  group.make_dimension("example", n_examples);
  storage::write_variable(group, {"example_id", {"example"}, {n_examples}}, found.example_id,
                          {storage::kText, "identifier of the example"});
  storage::write_token_hashes(group, found.token_hash);
  storage::write_coordinate(group, "pattern", names, {storage::kText, "every plan that was measured"});
  storage::write_variable(group, {"pattern_window_keys", {"pattern", "layer"}, {n, found.n_layers}}, keys,
                          {storage::kTokens, "keys that a row of the layer sees, itself included; 0: all"});
  write_types(group, found);
  storage::write_variable(group, {"pattern_bytes", {"pattern"}, {n}}, bytes,
                          {"bytes", "keys and values as the engine allocates them"});
  explain_nan(group, "pattern_bytes", bytes, "the engine does not run the plan");
  storage::write_variable(group, {"pattern_predicted", {"pattern"}, {n}}, predicted,
                          {storage::kNats, "sum over layers of what each loses alone, mean over examples"});
  write_cells(
      group, found, "nll", {storage::kNats, "mean NLL of the answer"},
      [](const SearchedPlan& p) -> const auto& { return p.figures.nll; });
  write_cells(
      group, found, "exact_match", {storage::kOne, "1 where greedy decoding gives the answer"},
      [](const SearchedPlan& p) -> const auto& { return p.figures.exact_match; });
  write_cells(
      group, found, "token_accuracy", {storage::kOne, "share of answer tokens that are the argmax"},
      [](const SearchedPlan& p) -> const auto& { return p.figures.token_accuracy; });
  if (found.n_verified == 0) return;
  write_cells(
      group, found, "nll_verified", {storage::kNats, "nll with every row under the window; NaN: not measured"},
      [](const SearchedPlan& p) -> const auto& { return p.verified.nll; });
  write_cells(
      group, found, "exact_match_verified",
      {storage::kOne, "exact_match with every row under the window; NaN: not measured"},
      [](const SearchedPlan& p) -> const auto& { return p.verified.exact_match; });
}

void write_agreement(storage::Group& group, const SearchedPlans& found) {
  storage::write_estimate(group, "rho_predicted", "rho_predicted", found.rho_predicted,
                          "Spearman's rho over all plans between the sum of layers and the measured loss");
  if (found.n_verified == 0) return;
  write_seconds(group, "predicted_seconds_verification", found.cost.predicted_verification,
                "predicted time of the verification, besides");
  write_scalar(group, "n_verified_examples", found.n_verified_examples,
               {storage::kOne, "examples that they were measured on, the first ones"});
  write_scalar(group, "n_verified", found.n_verified,
               {storage::kOne, "plans that were measured with every row under the window too"});
  storage::write_estimate(
      group, "rho_nll", "rho_nll", found.rho_verified,
      "Spearman's rho over verified plans between mean NLL as searched and with every row under the "
      "window");
}

void read_losses(const storage::Group& group, const Loss& loss, SearchedPlans& found) {
  const std::string name = loss.name;
  const bool is_verification = loss.member == &PlanLosses::verified;
  if (is_verification && !group.contains(name)) return;
  const auto n = static_cast<int64_t>(found.budgets.size());
  const auto value = storage::read_table<double>(group, name, n, kNChoices);
  const auto low = storage::read_table<double>(group, name + "_ci_low", n, kNChoices);
  const auto high = storage::read_table<double>(group, name + "_ci_high", n, kNChoices);
  for (int64_t b = 0; b < n; ++b) {
    SearchedBudget& budget = found.budgets[static_cast<std::size_t>(b)];
    for (int64_t c = 0; c < kNChoices; ++c) {
      PlanLosses& losses = c == 0 ? budget.losses_of_sum : budget.losses_of_best;
      losses.*loss.member = {value(b, c), low(b, c), high(b, c)};
      if (is_verification) losses.is_verified = !std::isnan(value(b, c));
    }
  }
}

void read_budgets(const storage::Group& group, SearchedPlans& found) {
  const std::vector<std::string> texts = group.read<std::string>("budget", 1).values;
  const auto n = static_cast<int64_t>(texts.size());
  const auto bytes = storage::read_variable<int64_t>(group, "budget_bytes", {n});
  const auto plan = storage::read_table<int64_t>(group, "plan", n, kNChoices);
  const auto steps = storage::read_variable<int64_t>(group, "steps", {n});
  const auto settled = storage::read_variable<uint8_t>(group, "is_settled", {n});
  const auto changed = storage::read_variable<int64_t>(group, "n_changed", {n});
  const auto narrowed = storage::read_variable<int64_t>(group, "n_narrowed", {n});
  std::vector<int64_t> searched;  // absent where nothing was verified, and in older files
  if (group.contains(kSearchedPlan)) searched = storage::read_variable<int64_t>(group, kSearchedPlan, {n});
  const auto check = [&](const char* name, int64_t p) {
    if (p >= 0 && p < static_cast<int64_t>(found.plans.size())) return;
    fail(ExitCode::kBadData, group.where(name) + ": " + std::to_string(p) + " is none of the " +
                                 std::to_string(found.plans.size()) + " plans");
  };
  for (int64_t b = 0; b < n; ++b) {
    const auto i = static_cast<std::size_t>(b);
    for (int64_t c = 0; c < kNChoices; ++c) check("plan", plan(b, c));
    if (!searched.empty()) check(kSearchedPlan, searched[i]);
    SearchedBudget& budget = found.budgets.emplace_back();
    budget.text = texts[i];
    budget.bytes = static_cast<double>(bytes[i]);
    budget.sum_of_layers = plan(b, 0);
    budget.best = plan(b, 1);
    budget.searched = searched.empty() ? budget.best : searched[i];
    budget.steps = steps[i];
    budget.is_settled = settled[i] != 0;
    budget.from_smaller = {changed[i], narrowed[i]};
  }
  for (const Loss& loss : kLosses) read_losses(group, loss, found);
}

// Returns the types of each plan, none of one whose layers all keep what they compute; none where no plan has any, as
// in older files.
std::vector<std::vector<KvType>> read_types(const storage::Group& group, int64_t n_plans, int64_t n_layers) {
  std::vector<std::vector<KvType>> types;
  if (!group.contains(kTypes)) return types;
  const std::vector<KvType> all = storage::read_kv_types(group, kTypes, {n_plans, n_layers});
  for (int64_t p = 0; p < n_plans; ++p) {
    const auto begin = all.begin() + p * n_layers;
    std::vector<KvType>& kv = types.emplace_back(begin, begin + n_layers);
    if (std::ranges::all_of(kv, [](KvType type) { return type == KvType::kStored; })) kv.clear();
  }
  return types;
}

SearchedPlans read_plans(const storage::Group& group) {
  SearchedPlans found;
  found.engine = group.read_scalar<std::string>("engine");
  found.max_seq_len = group.read_scalar<int64_t>("max_seq_len");
  found.concurrency = group.read_scalar<int64_t>("concurrency");
  found.full_bytes = group.read_scalar<double>("full_attention_bytes");
  found.beam = group.read_scalar<int64_t>("beam");
  found.steps = group.read_scalar<int64_t>("max_steps");
  found.calibration = group.read_scalar<std::string>("calibration");
  found.n_turned = group.read_scalar<int64_t>("n_turned");
  found.n_free = group.read_scalar<int64_t>("n_free");
  // Older files have all plans measured on all examples.
  if (group.contains("n_dropped")) found.n_dropped = group.read_scalar<int64_t>("n_dropped");
  found.n_layers = static_cast<int64_t>(group.read<int64_t>("layer", 1).values.size());
  const auto bytes = group.read<double>("pattern_bytes", 1).values;
  const auto n = static_cast<int64_t>(bytes.size());
  const auto keys = storage::read_table<int64_t>(group, "pattern_window_keys", n, found.n_layers);
  const auto predicted = storage::read_variable<double>(group, "pattern_predicted", {n});
  const std::vector<std::vector<KvType>> types = read_types(group, n, found.n_layers);
  for (int64_t p = 0; p < n; ++p) {
    SearchedPlan& plan = found.plans.emplace_back();
    for (int64_t l = 0; l < found.n_layers; ++l) {
      if (keys(p, l) < 0) fail(ExitCode::kBadData, group.where("pattern_window_keys") + ": a window below 0");
      plan.windows.push_back(keys(p, l));
    }
    if (!types.empty()) plan.kv = types[static_cast<std::size_t>(p)];
    plan.bytes = bytes[static_cast<std::size_t>(p)];
    plan.predicted = predicted[static_cast<std::size_t>(p)];
  }
  found.example_id = group.read<std::string>("example_id", 1).values;
  found.token_hash = storage::read_token_hashes(group, static_cast<int64_t>(found.example_id.size()));
  read_budgets(group, found);
  if (group.contains("n_verified")) {
    found.n_verified = group.read_scalar<int64_t>("n_verified");
    found.n_verified_examples = group.read_scalar<int64_t>("n_verified_examples");
    found.rho_verified = storage::read_estimate(group, "rho_nll", "rho_nll");
  }
  found.rho_predicted = storage::read_estimate(group, "rho_predicted", "rho_predicted");
  return found;
}

}  // namespace

void write_searched_plans(const std::filesystem::path& path, const SearchedPlans& found,
                          const storage::Provenance& provenance) {
  storage::File file = storage::File::create(path);
  storage::Group root = file.root();
  storage::write_root(root, "Windows of the layers for budgets of memory", provenance);
  storage::Group selection = root.create_group("selection");
  storage::Group group = selection.create_group(kGroup);
  write_request(group, found);
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < found.n_layers; ++layer) layers.push_back(layer);
  storage::write_coordinate(group, "layer", layers, {storage::kOne, "index of the decoder layer"});
  write_budgets(group, found);
  write_plans(group, found);
  write_agreement(group, found);
  storage::write_provenance(root.create_group("provenance"), provenance);
  file.commit();
}

std::optional<SearchedPlans> read_searched_plans(const std::filesystem::path& path, storage::Provenance& provenance) {
  if (!search::is_search(path)) return std::nullopt;
  const storage::File file = storage::File::open(path);
  const storage::Group root = file.root();
  const storage::Group selection = root.group("selection");
  if (!selection.contains_group(kGroup)) return std::nullopt;
  provenance = storage::read_provenance(root.group("provenance"));
  if (!file.has_checksum()) note_no_checksum(path);
  return read_plans(selection.group(kGroup));
}

}  // namespace winnow::plan
