#include "results/search/search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <tuple>

#include "base/error.h"
#include "base/strings.h"

namespace winnow::search {
namespace {

using Patterns = std::vector<std::vector<bool>>;

constexpr std::array<const char*, 3> kObjectives = {"nll", "exact-match", "kl"};
constexpr std::array<const char*, 4> kMethods = {"greedy-forward", "greedy-backward", "pairs", "plan"};

// The place of a name in a list of names.
std::size_t find_name(const std::vector<std::string>& names, const std::string& name, const char* flag) {
  require_one_of(flag, name, names);
  return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
}

// Rising order of this is the order of a step's patterns.
auto sort_key(Objective objective, const ScoredPattern& pattern) {
  return std::tuple(objective_value(objective, pattern.means), pattern.means.nll_nats);
}

void rank(Objective objective, std::vector<ScoredPattern>& patterns) {
  std::sort(patterns.begin(), patterns.end(), [&](const ScoredPattern& a, const ScoredPattern& b) {
    const auto key_a = sort_key(objective, a);
    const auto key_b = sort_key(objective, b);
    // Of two that are equal, the one whose first difference is a full layer: false sorts before true.
    return key_a != key_b ? key_a < key_b : a.windowed < b.windowed;
  });
}

void check_plan(const SearchPlan& plan, int64_t smallest) {
  if (plan.keep >= smallest && plan.keep <= plan.n_free() && plan.beam >= 1) return;
  fail(ExitCode::kInternal, "a search for " + std::to_string(plan.keep) + " layers with a beam of " +
                                std::to_string(plan.beam) + " does not fit the model");
}

// None where the search is to end.
std::optional<std::vector<ScoredPattern>> measure_all(const std::vector<bool>& base, const Patterns& patterns,
                                                      const MeasurePatterns& measure) {
  const std::optional<std::vector<PatternMeans>> means = measure(base, patterns);
  if (!means) return std::nullopt;
  if (means->size() != patterns.size()) fail(ExitCode::kInternal, "not all patterns of a search's step were measured");
  std::vector<ScoredPattern> scored;
  for (std::size_t p = 0; p < patterns.size(); ++p) scored.push_back({patterns[p], (*means)[p]});
  return scored;
}

}  // namespace

const char* objective_name(Objective objective) { return kObjectives[static_cast<std::size_t>(objective)]; }
Objective parse_objective(const std::string& name) {
  return static_cast<Objective>(find_name(objectives(), name, "--objective"));
}
const char* search_method_name(SearchMethod method) { return kMethods[static_cast<std::size_t>(method)]; }
SearchMethod parse_search_method(const std::string& name) {
  return static_cast<SearchMethod>(find_name(search_methods(), name, "--method"));
}

std::vector<std::string> objectives() { return {kObjectives.begin(), kObjectives.end()}; }
std::vector<std::string> search_methods() { return {kMethods.begin(), kMethods.end()}; }

double objective_value(Objective objective, const PatternMeans& means) {
  switch (objective) {
    case Objective::kExactMatch:
      return -means.exact_match;
    case Objective::kKl:
      return means.kl_nats;
    default:
      return means.nll_nats;
  }
}

int64_t SearchPlan::n_free() const { return count_full(full_pattern()); }

std::vector<bool> SearchPlan::full_pattern() const {
  return native.empty() ? std::vector<bool>(static_cast<std::size_t>(n_layers), false) : native;
}

std::vector<bool> SearchPlan::with_windows(const std::vector<int64_t>& layers) const {
  std::vector<bool> windowed = full_pattern();
  for (const int64_t layer : layers) windowed[static_cast<std::size_t>(layer)] = true;
  return windowed;
}

int64_t count_full(const std::vector<bool>& windowed) { return std::count(windowed.begin(), windowed.end(), false); }

std::vector<SearchStep> greedy_search(const SearchPlan& plan, const MeasurePatterns& measure) {
  check_plan(plan, 0);
  const bool is_forward = plan.method == SearchMethod::kGreedyForward;
  const std::vector<bool> start =
      is_forward ? std::vector<bool>(static_cast<std::size_t>(plan.n_layers), true) : plan.full_pattern();
  std::vector<SearchStep> steps;
  std::optional<std::vector<ScoredPattern>> first = measure_all(start, {start}, measure);
  if (!first) return steps;
  steps.push_back({count_full(start), *std::move(first)});
  while (steps.back().keep != plan.keep) {
    const std::vector<ScoredPattern>& before = steps.back().ranked;
    const auto n_parents = std::min(before.size(), static_cast<std::size_t>(plan.beam));
    std::set<std::vector<bool>> known;
    Patterns children;
    for (std::size_t p = 0; p < n_parents; ++p) {
      for (std::size_t layer = 0; layer < start.size(); ++layer) {
        if (before[p].windowed[layer] != is_forward || !plan.is_free(layer)) continue;
        std::vector<bool> child = before[p].windowed;
        child[layer] = !is_forward;
        if (known.insert(child).second) children.push_back(std::move(child));
      }
    }
    std::optional<std::vector<ScoredPattern>> measured = measure_all(before[0].windowed, children, measure);
    if (!measured) break;
    SearchStep step{steps.back().keep + (is_forward ? 1 : -1), *std::move(measured)};
    rank(plan.objective, step.ranked);
    steps.push_back(std::move(step));
  }
  return steps;
}

int64_t most_patterns(const SearchPlan& plan) {
  const bool is_forward = plan.method == SearchMethod::kGreedyForward;
  const int64_t n_steps = is_forward ? plan.keep : plan.n_free() - plan.keep;
  double total = 1.0;
  double before = 1.0;   // patterns of the step before
  double subsets = 1.0;  // all that a step can have
  for (int64_t step = 0; step < n_steps; ++step) {
    const auto left = static_cast<double>(plan.n_free() - step);
    subsets *= left / static_cast<double>(step + 1);
    before = std::min(subsets, std::min(before, static_cast<double>(plan.beam)) * left);
    total += before;
  }
  return total < 9.0e18 ? static_cast<int64_t>(std::llround(total)) : INT64_MAX;
}

PairSearch pair_search(const SearchPlan& plan, const MeasurePatterns& measure) {
  check_plan(plan, 2);
  const std::vector<bool> full = plan.full_pattern();
  std::vector<int64_t> order;  // layers that are free
  for (int64_t layer = 0; layer < plan.n_layers; ++layer) {
    if (plan.is_free(static_cast<std::size_t>(layer))) order.push_back(layer);
  }
  Patterns patterns = {full};
  for (const int64_t layer : order) patterns.push_back(plan.with_windows({layer}));
  std::optional<std::vector<ScoredPattern>> measured = measure_all(full, patterns, measure);
  PairSearch search;
  if (!measured) return search;
  search.full = measured->front().means;
  std::vector<ScoredPattern> alone(static_cast<std::size_t>(plan.n_layers), measured->front());  // by layer
  for (std::size_t i = 0; i < order.size(); ++i) alone[static_cast<std::size_t>(order[i])] = (*measured)[i + 1];
  for (const ScoredPattern& pattern : alone) search.single.push_back(pattern.means);

  const auto key = [&](int64_t layer) { return sort_key(plan.objective, alone[static_cast<std::size_t>(layer)]); };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) > key(b); });
  search.candidates.assign(order.begin(), order.begin() + plan.keep);
  std::sort(search.candidates.begin(), search.candidates.end());

  patterns.clear();
  for (std::size_t i = 0; i < search.candidates.size(); ++i) {
    for (std::size_t j = i + 1; j < search.candidates.size(); ++j) {
      patterns.push_back(plan.with_windows({search.candidates[i], search.candidates[j]}));
    }
  }
  const std::optional<std::vector<ScoredPattern>> pairs = measure_all(full, patterns, measure);
  if (!pairs) return search;
  const std::size_t n = search.candidates.size();
  search.pair.resize(n * n);
  auto pair = pairs->begin();
  for (std::size_t i = 0; i < n; ++i) {
    search.pair[i * n + i] = search.single[static_cast<std::size_t>(search.candidates[i])];
    for (std::size_t j = i + 1; j < n; ++j, ++pair) search.pair[i * n + j] = search.pair[j * n + i] = pair->means;
  }
  return search;
}

}  // namespace winnow::search
