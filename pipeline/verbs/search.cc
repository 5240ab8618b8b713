#include "pipeline/verbs/search.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <optional>
#include <set>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "base/strings.h"
#include "pipeline/run/layer_rules.h"
#include "pipeline/run/run.h"
#include "pipeline/verbs/search_outcome.h"
#include "results/search/statistics.h"
#include "results/selection/pattern.h"

namespace winnow::verbs {
namespace {

// A search of more would be none, and its tables would fill the memory.
constexpr int64_t kMostPatterns = 100'000;

run::Inputs load_search(const run::RunOptions& options) {
  run::check_options(options);
  run::Inputs inputs;
  inputs.with_kl = search::parse_objective(options.objective) == search::Objective::kKl;
  inputs.kind = run::kind_of(options);
  inputs.config = model::read_config(options.model);
  inputs.settings = run::resolve_window(options);
  inputs.settings.base = engine::Pattern(static_cast<std::size_t>(inputs.config.n_layers), false);
  inputs.settings.base_name = selection::pattern_name(inputs.settings.base);
  run::take_layer_rules(options, inputs.config, inputs.settings);
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
  inputs.data_sets.push_back(run::read_data_set("calibration", options.data, inputs.config.vocab, options.limit));
  run::check_data_sets(options, inputs);
  if (options.exact) return inputs;
  // The same examples again, for exact figures.
  run::DataSet exact = inputs.data_sets.front();
  exact.name = "verify";
  exact.n_wanted = 0;
  exact.all_rows = true;
  inputs.data_sets.push_back(std::move(exact));
  return inputs;
}

class SearchRun {
 public:
  SearchRun(runtime::MpiSession& session, const run::RunOptions& options)
      : session_(session), options_(options), run_(session, options) {}

  ExitCode run(const SearchPresenter& present) {
    run_.set_up([&] { return load_search(options_); });
    run_.open();
    if (!options_.exact) run_.keep_prefixes();
    plan_ = plan_of(options_, run_.inputs());
    measure_all();
    if (end_ == End::kStopped) return run_.interrupted();
    if (end_ == End::kForecasted) return ExitCode::kDone;
    session_.agree_on_root([&] {
      if (options_.dry_run) {
        std::fputs("Dry run: the search is finished, nothing is left to measure.\n", stdout);
        return;
      }
      if (has_measured_) run_.show_memory();
      const FinishedSearch finished = finish_search(run_, options_);
      std::fputs(printable(present(finished.results, finished.provenance)).c_str(), stdout);
    });
    return ExitCode::kDone;
  }

 private:
  // Why the search ended before all was measured, on all ranks alike.
  enum class End {
    kNone,
    kStopped,     // by a signal; everything finished is kept
    kForecasted,  // the answer to --dry-run is printed
  };

  void measure_all();
  void verify(const std::vector<search::SearchStep>& steps);
  std::vector<engine::Pattern> patterns_to_verify(const std::vector<search::SearchStep>& steps) const;
  std::optional<std::vector<search::PatternMeans>> measure(const engine::Pattern& base,
                                                           const std::vector<engine::Pattern>& patterns);
  void measure_cells(std::size_t data_set, int64_t n_examples, const std::vector<engine::Pattern>& patterns);
  int64_t n_examples() const { return run_.inputs().data_sets[kSearched].n_examples; }
  int64_t n_verified_examples() const {
    return std::min(options_.verify_examples.value_or(n_examples()), n_examples());
  }
  search::SearchCost predict() const;
  void announce();
  void note_seconds(double seconds);

  runtime::MpiSession& session_;
  const run::RunOptions& options_;
  run::MeasuringRun run_;
  search::SearchPlan plan_;
  int64_t n_rounds_ = 0;
  bool has_measured_ = false;
  End end_ = End::kNone;
};

void SearchRun::measure_all() {
  const search::MeasurePatterns by_rounds = [this](const engine::Pattern& base,
                                                   const std::vector<engine::Pattern>& patterns) {
    return measure(base, patterns);
  };
  if (plan_.method == search::SearchMethod::kPairs) {
    search::pair_search(plan_, by_rounds);
    return;
  }
  const std::vector<search::SearchStep> steps = search::greedy_search(plan_, by_rounds);
  if (options_.verify && end_ == End::kNone) verify(steps);
}

// One round: what is missing of these patterns is measured by sweeps from `base`, and every rank learns the means. None
// where the search ends. The first round, and KL, which is a distance from full attention, have the full pattern as
// their base.
std::optional<std::vector<search::PatternMeans>> SearchRun::measure(const engine::Pattern& base,
                                                                    const std::vector<engine::Pattern>& patterns) {
  run::Inputs& inputs = run_.inputs();
  inputs.settings.base = n_rounds_++ == 0 || inputs.with_kl ? plan_.full_pattern() : base;
  measure_cells(kSearched, n_examples(), patterns);
  if (end_ != End::kNone) return std::nullopt;
  std::vector<int64_t> bits;
  session_.agree_on_root([&] {
    for (const engine::Pattern& pattern : patterns) {
      const search::PatternMeans means = means_of(run_, kSearched, pattern);
      for (const double value : {means.nll_nats, means.exact_match, means.token_accuracy, means.kl_nats}) {
        bits.push_back(std::bit_cast<int64_t>(value));
      }
    }
  });
  session_.broadcast(bits);
  std::vector<search::PatternMeans> means;
  for (std::size_t i = 0; i + 3 < bits.size(); i += 4) {
    const auto value = [&](std::size_t k) { return std::bit_cast<double>(bits[i + k]); };
    means.push_back({value(0), value(1), value(2), value(3)});
  }
  return means;
}

// Of the first n_examples of a data set.
void SearchRun::measure_cells(std::size_t data_set, int64_t n_examples, const std::vector<engine::Pattern>& patterns) {
  run::Inputs& inputs = run_.inputs();
  for (std::size_t d = 0; d < inputs.data_sets.size(); ++d) {
    inputs.data_sets[d].n_wanted = d == data_set ? n_examples : 0;
  }
  std::set<int64_t> wanted;
  for (const engine::Pattern& pattern : patterns) {
    // The full pattern's figures are the base's of the first round.
    if (pattern != plan_.full_pattern()) wanted.insert(inputs.number_of(pattern));
  }
  inputs.wanted.assign(wanted.begin(), wanted.end());
  auto begin = Clock::now();
  if (!run_.plan()) return;
  if (!has_measured_) {
    announce();
    begin = Clock::now();  // the start, with the weights and the speed of the ranks, is nothing that the search takes
  }
  has_measured_ = true;
  if (options_.dry_run) {
    end_ = End::kForecasted;
    return;
  }
  if (!run_.measure()) {
    end_ = End::kStopped;
    return;
  }
  run_.sum();
  if (data_set == kSearched) note_seconds(seconds_since(begin));
}

void SearchRun::note_seconds(double seconds) {
  session_.agree_on_root([&] {
    nlohmann::json& entry = search_entry(run_, options_);
    entry["search_seconds"] = entry.value("search_seconds", 0.0) + seconds;
    run_.directory().write_record();
  });
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
    const engine::Pattern start = from_full ? plan_.full_pattern() : base;
    cost.predicted += run_.predict_round(start, patterns, run::MeasuringRun::Rows::kAsMeasured, n_examples());
    cost.predicted_exact += run_.predict_round(start, patterns, run::MeasuringRun::Rows::kAll, n_examples());
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
    cost.predicted_verification = run_.predict_round(plan_.full_pattern(), patterns_to_verify(steps),
                                                     run::MeasuringRun::Rows::kAll, n_verified_examples());
  }
  return cost;
}

// What the search will take, before it starts.
void SearchRun::announce() {
  session_.agree_on_root([&] {
    const search::SearchCost cost = predict();
    if (options_.exact) {
      spdlog::info("search: about {} with every row under the window", format_duration(cost.predicted_exact));
    } else {
      spdlog::info(
          "search: about {} on cached keys and values, {} of it to make them; about {} with --exact, {:.1f} times as "
          "much",
          format_duration(cost.predicted), format_duration(run_.predict_prefixes()),
          format_duration(cost.predicted_exact), cost.predicted_exact / cost.predicted);
    }
    if (options_.verify) {
      spdlog::info("verification of {} example(s): about {} more", n_verified_examples(),
                   format_duration(cost.predicted_verification));
    }
    if (options_.dry_run) {
      nlohmann::json json = {
          {"dry_run", true}, {"predicted_seconds", cost.predicted}, {"predicted_seconds_exact", cost.predicted_exact}};
      std::string text = "Dry run: nothing is measured or written.\n  whole search  about " +
                         format_duration(cost.predicted) + "\n  with --exact  about " +
                         format_duration(cost.predicted_exact) + "\n";
      if (options_.verify) {
        json["predicted_seconds_verification"] = cost.predicted_verification;
        text += "  verification  about " + format_duration(cost.predicted_verification) + " more\n";
      }
      std::fputs(options_.json ? (json_text(json, 2) + "\n").c_str() : text.c_str(), stdout);
      return;
    }
    nlohmann::json& entry = search_entry(run_, options_);
    entry["predicted_seconds"] = cost.predicted;
    entry["predicted_seconds_exact"] = cost.predicted_exact;
    entry["predicted_seconds_verification"] = cost.predicted_verification;
  });
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

// Exact figures of these, all from the full pattern: one round.
void SearchRun::verify(const std::vector<search::SearchStep>& steps) {
  const std::vector<engine::Pattern> chosen = patterns_to_verify(steps);
  run_.inputs().settings.base = plan_.full_pattern();
  run_.drop_prefixes();
  spdlog::info("verification: {} patterns with every row under the window, on {} example(s)", chosen.size(),
               n_verified_examples());
  measure_cells(kVerified, n_verified_examples(), chosen);
}

}  // namespace

ExitCode search(const run::RunOptions& options, const SearchPresenter& present) {
  return runtime::in_session([&](runtime::MpiSession& session) { return SearchRun(session, options).run(present); });
}

}  // namespace winnow::verbs
