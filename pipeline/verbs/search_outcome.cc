#include "pipeline/verbs/search_outcome.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>

#include "pipeline/run/provenance.h"
#include "pipeline/verbs/search_rounds.h"
#include "results/search/statistics.h"
#include "results/search/store.h"
#include "results/selection/pattern.h"

namespace winnow::verbs {
namespace {

constexpr const char* kSearches = "searches";

search::ExampleFigures figures_of_pattern(const run::MeasuringRun& run, std::size_t data_set, int64_t n_examples,
                                          const engine::Pattern& pattern) {
  return figures_of(run, data_set, n_examples, run::Variant{.windowed = pattern, .window_keys = {}});
}

// Plays one search again on the cells that are there.
class Replay {
 public:
  Replay(const run::MeasuringRun& run, const search::SearchPlan& plan) : run_(run) { results_.plan = plan; }

  // entry: of run.json, see search_entry(). None where the search asks for a cell that is not there: --limit has grown
  // since.
  std::optional<search::SearchResults> play(const nlohmann::json& entry, uint64_t seed) {
    const run::DataSet& data = run_.inputs().data_sets[kSearched];
    const auto begin = data.corpus.example_id.begin();
    results_.example_id.assign(begin, begin + data.n_examples);
    for (int64_t e = 0; e < data.n_examples; ++e) results_.token_hash.push_back(data.corpus.token_hash(e));
    results_.n_rejected = entry.value("verify", int64_t{-1});
    results_.n_verified_examples = std::min(entry.value("verify_examples", data.n_examples), data.n_examples);
    bool is_there = true;
    const search::MeasurePatterns measure =
        [&](const engine::Pattern&,
            const std::vector<engine::Pattern>& patterns) -> std::optional<std::vector<search::PatternMeans>> {
      std::vector<search::PatternMeans> means;
      for (const engine::Pattern& pattern : patterns) {
        const search::ExampleFigures figures = figures_of_pattern(run_, kSearched, data.n_examples, pattern);
        is_there = !figures.empty();
        if (!is_there) return std::nullopt;
        means.push_back(figures.means());
        add(pattern, figures);
      }
      return means;
    };
    if (results_.plan.method == search::SearchMethod::kPairs) {
      const search::PairSearch pairs = search::pair_search(results_.plan, measure);
      if (!is_there) return std::nullopt;
      results_.interactions = search::compute_interactions(results_, pairs.candidates, seed);
    } else {
      const std::vector<search::SearchStep> steps = search::greedy_search(results_.plan, measure);
      if (!is_there) return std::nullopt;
      order(steps);
      if (results_.n_rejected >= 0 && !verify(seed)) return std::nullopt;
    }
    return std::move(results_);
  }

 private:
  void add(const engine::Pattern& pattern, const search::ExampleFigures& figures) {
    results_.patterns.push_back(
        {.name = selection::pattern_name(pattern), .windowed = pattern, .screened = figures, .verified = {}});
  }

  // By step, best first; the best of each K by rising K.
  void order(const std::vector<search::SearchStep>& steps) {
    std::vector<search::MeasuredPattern> measured = std::move(results_.patterns);
    results_.patterns.clear();
    for (const search::SearchStep& step : steps) {
      results_.best.push_back(static_cast<int64_t>(results_.patterns.size()));
      for (const search::ScoredPattern& scored : step.ranked) {
        const auto found = std::find_if(measured.begin(), measured.end(), [&](const search::MeasuredPattern& m) {
          return m.windowed == scored.windowed;
        });
        results_.patterns.push_back(std::move(*found));
        measured.erase(found);
      }
    }
    if (steps.front().keep > steps.back().keep) std::reverse(results_.best.begin(), results_.best.end());
  }

  // Whether the figures of all that was verified are there.
  bool verify(uint64_t seed) {
    const auto n_patterns = static_cast<int64_t>(results_.patterns.size());
    for (const int64_t index : search::choose_verified(results_.best, n_patterns, results_.n_rejected, seed)) {
      search::MeasuredPattern& pattern = results_.patterns[static_cast<std::size_t>(index)];
      pattern.verified = figures_of_pattern(run_, kVerified, results_.n_verified_examples, pattern.windowed);
      if (pattern.verified.empty()) return false;
    }
    results_.agreement = search::compute_agreement(results_, seed);
    return true;
  }

  const run::MeasuringRun& run_;
  search::SearchResults results_;
};

// None where it does not fit the model.
std::optional<search::SearchPlan> plan_of(const nlohmann::json& entry, const std::string& method,
                                          const run::Inputs& inputs) {
  const search::SearchPlan plan = {.method = search::parse_search_method(method),
                                   .objective = search::parse_objective(entry.value("objective", "")),
                                   .n_layers = inputs.config.n_layers,
                                   .keep = entry.value("keep", int64_t{0}),
                                   .beam = entry.value("beam", int64_t{1}),
                                   .native = inputs.settings.rules.native};
  const int64_t smallest = plan.method == search::SearchMethod::kPairs ? 2 : 0;
  if (plan.keep < smallest || plan.keep > plan.n_free() || plan.beam < 1) return std::nullopt;
  return plan;
}

// None where its cells are not all there.
std::optional<search::SearchResults> replay(const run::MeasuringRun& run, const nlohmann::json& entry,
                                            const std::string& method, uint64_t seed) {
  const std::optional<search::SearchPlan> plan = plan_of(entry, method, run.inputs());
  if (!plan) return std::nullopt;
  std::optional<search::SearchResults> results = Replay(run, *plan).play(entry, seed);
  if (!results) return std::nullopt;
  results->cost = {.predicted = entry.value("predicted_seconds", 0.0),
                   .predicted_exact = entry.value("predicted_seconds_exact", 0.0),
                   .predicted_verification = entry.value("predicted_seconds_verification", 0.0),
                   .measured = entry.value("search_seconds", 0.0)};
  return results;
}

}  // namespace

search::SearchPlan plan_of(const run::RunOptions& options, const run::Inputs& inputs) {
  return {.method = search::parse_search_method(options.method),
          .objective = search::parse_objective(options.objective),
          .n_layers = inputs.config.n_layers,
          .keep = options.keep.value_or(0),
          .beam = options.beam,
          .native = inputs.settings.rules.native};
}

FinishedSearch finish_search(run::MeasuringRun& run, const run::RunOptions& options) {
  runtime::Timeline& timeline = run.session().timeline();
  const runtime::Timeline::Scope part(timeline, runtime::Part::kStatistics);
  search_entry(run, options);
  std::vector<search::SearchResults> searches;
  FinishedSearch finished;
  const nlohmann::json& entries = run.directory().record().informative()[kSearches];
  for (const auto& [method, entry] : entries.items()) {
    std::optional<search::SearchResults> results = replay(run, entry, method, static_cast<uint64_t>(options.seed));
    if (!results && method == options.method) fail(ExitCode::kInternal, "not all cells of the search are there");
    if (!results) {
      spdlog::warn("{}: the search {} is not finished for these examples and is left out of results.h5",
                   options.out.string(), method);
      continue;
    }
    if (method == options.method) finished.results = *results;
    searches.push_back(*std::move(results));
  }
  run::describe_run(run.summary(), run.directory().record(), finished.provenance);
  const runtime::Timeline::Scope writing(timeline, runtime::Part::kResults);
  search::write_searches(options.out / "results.h5", searches, finished.provenance);
  run.directory().write_record();
  return finished;
}

}  // namespace winnow::verbs
