#include "pipeline/verbs/search.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "base/error.h"
#include "base/random.h"
#include "pipeline/run/run.h"
#include "pipeline/verbs/plan_inputs.h"
#include "pipeline/verbs/search_outcome.h"
#include "pipeline/verbs/search_rounds.h"
#include "results/search/statistics.h"

namespace winnow::verbs {
namespace {

// A search of more would be none, and its tables would fill the memory.
constexpr int64_t kMostPatterns = 100'000;

run::Inputs load_search(const run::RunOptions& options) {
  run::check_options(options);
  check_plan_options(options);
  run::Inputs inputs = searched_model(options);
  inputs.with_kl = search::parse_objective(options.objective) == search::Objective::kKl;
  const search::SearchPlan plan = plan_of(options, inputs);
  if (*options.keep > plan.n_free()) {
    fail(ExitCode::kUsage, "--keep is " + std::to_string(*options.keep) + ", but the model has " +
                               std::to_string(plan.n_free()) + " layers" +
                               (plan.native.empty() ? "" : " with full attention"));
  }
  const int64_t n_patterns = search::most_patterns(plan);
  if (options.method != search::search_method_name(search::SearchMethod::kPairs) && n_patterns > kMostPatterns) {
    fail(ExitCode::kUsage, "--beam " + std::to_string(options.beam) + " with --keep " + std::to_string(*options.keep) +
                               " may measure " + std::to_string(n_patterns) + " patterns, more than " +
                               std::to_string(kMostPatterns) + "; use a smaller --beam");
  }
  inputs.open_checkpoint(options.model);
  add_searched_data(options, inputs);
  return inputs;
}

run::Variant variant_of(const engine::Pattern& pattern) { return {.windowed = pattern, .window_keys = {}}; }
std::vector<run::Variant> variants_of(const std::vector<engine::Pattern>& patterns) {
  std::vector<run::Variant> variants;
  for (const engine::Pattern& pattern : patterns) variants.push_back(variant_of(pattern));
  return variants;
}

class SearchRun {
 public:
  SearchRun(runtime::MpiSession& session, const run::RunOptions& options)
      : session_(session), options_(options), rounds_(session, options, [this] { announce(); }) {}

  ExitCode run(const SearchPresenter& present) {
    run_.set_up([&] { return load_search(options_); });
    run_.open();
    if (!options_.exact) run_.keep_prefixes();
    plan_ = plan_of(options_, run_.inputs());
    measure_all();
    if (rounds_.end() == SearchRounds::End::kStopped) return run_.interrupted();
    if (rounds_.end() == SearchRounds::End::kForecasted) return ExitCode::kDone;
    session_.agree_on_root([&] {
      if (options_.dry_run) {
        std::fputs("Dry run: the search is finished, nothing is left to measure.\n", stdout);
        return;
      }
      if (rounds_.has_measured()) run_.show_memory();
      const FinishedSearch finished = finish_search(run_, options_);
      std::fputs(printable(present(finished.results, finished.provenance)).c_str(), stdout);
    });
    return ExitCode::kDone;
  }

 private:
  void measure_all();
  std::vector<engine::Pattern> patterns_to_verify(const std::vector<search::SearchStep>& steps) const;
  search::SearchCost predict() const;
  void announce() { announce_cost(run_, options_, predict(), "about", rounds_.n_verified_examples()); }

  runtime::MpiSession& session_;
  const run::RunOptions& options_;
  SearchRounds rounds_;
  run::MeasuringRun& run_ = rounds_.run();
  search::SearchPlan plan_;
};

void SearchRun::measure_all() {
  const search::MeasurePatterns by_rounds = [this](const engine::Pattern& base,
                                                   const std::vector<engine::Pattern>& patterns) {
    return rounds_.measure(variant_of(base), variants_of(patterns));
  };
  if (plan_.method == search::SearchMethod::kPairs) {
    search::pair_search(plan_, by_rounds);
    return;
  }
  const std::vector<search::SearchStep> steps = search::greedy_search(plan_, by_rounds);
  if (options_.verify && rounds_.end() == SearchRounds::End::kNone) {
    rounds_.verify(variants_of(patterns_to_verify(steps)));
  }
}

// Of the whole search: played with made-up figures, as the patterns that it will measure depend on the real ones. What
// a step costs depends little on which they are.
search::SearchCost SearchRun::predict() const {
  search::SearchCost cost{.predicted = run_.predict_prefixes()};
  bool is_first = true;
  RandomStream figures(0, kSearchStream, 0);
  const search::MeasurePatterns play = [&](const engine::Pattern& base, const std::vector<engine::Pattern>& patterns) {
    const bool from_full = is_first || run_.inputs().with_kl;
    is_first = false;
    const run::Variant start = from_full ? rounds_.full() : variant_of(base);
    const std::vector<run::Variant> variants = variants_of(patterns);
    cost.predicted += run_.predict_round(start, variants, run::MeasuringRun::Rows::kAsMeasured, rounds_.n_examples());
    cost.predicted_exact += run_.predict_round(start, variants, run::MeasuringRun::Rows::kAll, rounds_.n_examples());
    std::vector<search::PatternMeans> means(patterns.size());
    for (search::PatternMeans& m : means) m.nll_nats = m.kl_nats = static_cast<double>(figures.below(1 << 20));
    return means;
  };
  if (plan_.method == search::SearchMethod::kPairs) {
    search::pair_search(plan_, play);
    return cost;
  }
  const std::vector<search::SearchStep> steps = search::greedy_search(plan_, play);
  if (options_.verify) {
    cost.predicted_verification = run_.predict_round(rounds_.full(), variants_of(patterns_to_verify(steps)),
                                                     run::MeasuringRun::Rows::kAll, rounds_.n_verified_examples());
  }
  return cost;
}

// The best of each K and some of the rejected.
std::vector<engine::Pattern> SearchRun::patterns_to_verify(const std::vector<search::SearchStep>& steps) const {
  std::vector<engine::Pattern> patterns;
  std::vector<int64_t> best;
  for (const search::SearchStep& step : steps) {
    best.push_back(static_cast<int64_t>(patterns.size()));
    for (const search::ScoredPattern& scored : step.ranked) patterns.push_back(scored.windowed);
  }
  std::vector<engine::Pattern> chosen;
  for (const int64_t index : search::choose_verified(best, static_cast<int64_t>(patterns.size()), *options_.verify,
                                                     static_cast<uint64_t>(options_.seed))) {
    chosen.push_back(patterns[static_cast<std::size_t>(index)]);
  }
  return chosen;
}

}  // namespace

ExitCode search(const run::RunOptions& options, const SearchPresenter& present) {
  return runtime::in_session([&](runtime::MpiSession& session) { return SearchRun(session, options).run(present); });
}

}  // namespace winnow::verbs
