#include "pipeline/verbs/plan_search.h"

#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "pipeline/verbs/plan_inputs.h"
#include "pipeline/verbs/search_rounds.h"
#include "results/plan/store.h"
#include "results/stats/resampling.h"

namespace winnow::verbs {
namespace {

class PlanSearchRun {
 public:
  PlanSearchRun(runtime::MpiSession& session, run::RunOptions options)
      : session_(session), options_(std::move(options)), rounds_(session, options_, [this] { announce(); }) {}

  ExitCode run(const PlanPresenter& present) {
    run_.set_up([&] {
      question_ = read_plan_question(options_);
      return load_plan_search(options_, *question_);
    });
    run_.open([&](const run::RunIdentity& identity) { check_calibrated_model(*question_, identity); });
    if (!options_.exact) run_.keep_prefixes();
    const plan::Refinement found = plan::refine(question_->request, by_rounds());
    if (options_.verify && rounds_.end() == SearchRounds::End::kNone) {
      rounds_.verify(variants_of(plans_to_verify(found)));
    }
    if (rounds_.end() == SearchRounds::End::kStopped) return run_.interrupted();
    if (rounds_.end() == SearchRounds::End::kForecasted) return ExitCode::kDone;
    session_.agree_on_root([&] { finish(found, present); });
    return ExitCode::kDone;
  }

 private:
  std::vector<run::Variant> variants_of(const std::vector<plan::Settings>& plans) const {
    std::vector<run::Variant> variants;
    for (const plan::Settings& settings : plans) variants.push_back(question_->variant(settings));
    return variants;
  }
  std::vector<int64_t> verified_of(const plan::Refinement& found) const {
    return plan::choose_verified_plans(found, *options_.verify, static_cast<uint64_t>(options_.seed));
  }
  std::vector<plan::Settings> plans_to_verify(const plan::Refinement& found) const {
    std::vector<plan::Settings> plans;
    for (const int64_t p : verified_of(found)) plans.push_back(found.plans[stats::at(p)]);
    return plans;
  }
  plan::MeasurePlans by_rounds() {
    return [this](const plan::Settings& base, const std::vector<plan::Settings>& plans, int64_t n_examples) {
      return rounds_.measure_first(n_examples, question_->variant(base), variants_of(plans));
    };
  }
  search::SearchCost predict() const;
  void announce() { announce_cost(run_, options_, predict(), "at most about", rounds_.n_verified_examples()); }
  void finish(const plan::Refinement& found, const PlanPresenter& present);
  plan::SearchedPlans results_of(const plan::Refinement& found);
  void add_budgets(const plan::Refinement& found, const stats::Table<double>& predicted,
                   plan::SearchedPlans& results) const;

  runtime::MpiSession& session_;
  run::RunOptions options_;
  std::unique_ptr<PlanQuestion> question_;
  SearchRounds rounds_;
  run::MeasuringRun& run_ = rounds_.run();
};

// Of all steps: played with figures of which one in kBetterPlans falls from plan to plan, so that no budget is settled
// before its last step, and the others are soon dropped.
search::SearchCost PlanSearchRun::predict() const {
  constexpr std::size_t kBetterPlans = 4;
  search::SearchCost cost{.predicted = run_.predict_prefixes()};
  std::map<plan::Settings, double> nll;
  const plan::MeasurePlans play = [&](const plan::Settings& base, const std::vector<plan::Settings>& plans,
                                      int64_t n_examples) {
    const run::Variant start = nll.empty() ? rounds_.full() : question_->variant(base);
    std::vector<plan::Settings> fresh;
    std::vector<std::vector<double>> figures;
    for (const plan::Settings& plan : plans) {
      const auto n = static_cast<double>(nll.size());
      const bool is_new = nll.emplace(plan, nll.size() % kBetterPlans == 0 ? -n : n).second;
      if (is_new) fresh.push_back(plan);
      figures.emplace_back(stats::at(n_examples), nll.at(plan));
    }
    // Of plans that were measured before, the examples that are new: as many as they had.
    const auto add = [&](const std::vector<run::Variant>& variants, int64_t n) {
      if (variants.empty()) return;
      cost.predicted += run_.predict_round(start, variants, run::MeasuringRun::Rows::kAsMeasured, n);
      cost.predicted_exact += run_.predict_round(start, variants, run::MeasuringRun::Rows::kAll, n);
    };
    if (fresh.empty()) {
      add(variants_of(plans), n_examples / 2);
    } else {
      add(variants_of(fresh), n_examples);
    }
    return std::optional(figures);
  };
  const plan::Refinement played = plan::refine(question_->request, play);
  if (options_.verify) {
    cost.predicted_verification = run_.predict_round(rounds_.full(), variants_of(plans_to_verify(played)),
                                                     run::MeasuringRun::Rows::kAll, rounds_.n_verified_examples());
  }
  return cost;
}

void PlanSearchRun::finish(const plan::Refinement& found, const PlanPresenter& present) {
  if (options_.dry_run) {
    std::fputs("Dry run: the search is finished, nothing is left to measure.\n", stdout);
    return;
  }
  if (rounds_.has_measured()) run_.show_memory();
  const plan::SearchedPlans results = results_of(found);
  storage::Provenance provenance;
  run::describe_run(run_.summary(), run_.directory().record(), provenance);
  plan::write_searched_plans(options_.out / "results.h5", results, provenance);
  run_.directory().write_record();
  std::fputs(printable(present(results, provenance)).c_str(), stdout);
}

plan::SearchedPlans PlanSearchRun::results_of(const plan::Refinement& found) {
  const run::DataSet& data = run_.inputs().data_sets[kSearched];
  plan::SearchedPlans results;
  results.engine = question_->costs.service.engine;
  results.max_seq_len = question_->costs.service.demand.max_seq_len;
  results.concurrency = question_->costs.service.demand.concurrency;
  results.full_bytes = question_->costs.full_bytes;
  results.n_layers = question_->planner->n_layers();
  results.beam = options_.beam;
  results.steps = options_.steps;
  results.n_dropped = found.n_dropped;
  results.calibration = question_->results.string();
  results.n_free = static_cast<int64_t>(question_->planner->layers().size());
  results.n_verified_examples = rounds_.n_verified_examples();
  const auto begin = data.corpus.example_id.begin();
  results.example_id.assign(begin, begin + data.n_examples);
  for (int64_t e = 0; e < data.n_examples; ++e) results.token_hash.push_back(data.corpus.token_hash(e));
  stats::Table<double> predicted(static_cast<int64_t>(found.plans.size()), data.n_examples);
  std::set<int64_t> verified;
  if (options_.verify) {
    const std::vector<int64_t> chosen = verified_of(found);
    verified.insert(chosen.begin(), chosen.end());
    verified.insert(0);  // full attention, by which the others are measured
  }
  for (std::size_t p = 0; p < found.plans.size(); ++p) {
    const plan::Settings& settings = found.plans[p];
    const std::vector<double> by_example = question_->planner->loss_by_example(settings);
    for (int64_t e = 0; e < data.n_examples; ++e) predicted(static_cast<int64_t>(p), e) = by_example[stats::at(e)];
    const run::Variant variant = question_->variant(settings);
    results.plans.push_back({.windows = question_->planner->windows_of(settings),
                             .kv = question_->planner->kv_of(settings),
                             .bytes = found.price[p],
                             .predicted = stats::mean_of(by_example, stats::iota(data.n_examples)),
                             .figures = figures_of(run_, kSearched, data.n_examples, variant),
                             .verified = verified.contains(static_cast<int64_t>(p))
                                             ? figures_of(run_, kVerified, results.n_verified_examples, variant)
                                             : search::ExampleFigures{}});
    if (verified.contains(static_cast<int64_t>(p)) && results.plans.back().verified.empty()) {
      fail(ExitCode::kInternal, "plan " + variant.name() + " was not verified");
    }
  }
  const nlohmann::json& entry = search_entry(run_, options_);
  results.cost = {.predicted = entry.value("predicted_seconds", 0.0),
                  .predicted_exact = entry.value("predicted_seconds_exact", 0.0),
                  .predicted_verification = entry.value("predicted_seconds_verification", 0.0),
                  .measured = entry.value("search_seconds", 0.0)};
  const auto seed = static_cast<uint64_t>(options_.seed);
  plan::correlate(results, predicted, seed);
  add_budgets(found, predicted, results);
  return results;
}

void PlanSearchRun::add_budgets(const plan::Refinement& found, const stats::Table<double>& predicted,
                                plan::SearchedPlans& results) const {
  const auto losses_of = [&](int64_t p) {
    const auto begin = predicted.values.begin() + p * predicted.cols;
    return plan::losses_of(results, results.plans[stats::at(p)], {begin, begin + predicted.cols},
                           static_cast<uint64_t>(options_.seed));
  };
  const std::vector<double> bytes = question_->planner->bytes_of_settings(question_->costs.service);
  std::set<std::size_t> turned;
  for (std::size_t b = 0; b < found.budgets.size(); ++b) {
    const plan::RefinedBudget& refined = found.budgets[b];
    plan::SearchedBudget budget{.text = question_->budgets[b].text,
                                .bytes = question_->request.budgets[b],
                                .sum_of_layers = refined.sum_of_layers,
                                .searched = refined.best,
                                .best = plan::confirmed_plan(results, refined),
                                .steps = refined.steps,
                                .is_settled = refined.is_settled,
                                .from_smaller = {},
                                .losses_of_sum = losses_of(refined.sum_of_layers),
                                .losses_of_best = {}};
    budget.losses_of_best = losses_of(budget.best);
    if (b > 0) {
      const plan::Settings& smaller = found.plans[stats::at(results.budgets.back().best)];
      const plan::Settings& greater = found.plans[stats::at(budget.best)];
      budget.from_smaller = plan::turnover(smaller, greater, bytes);
      for (std::size_t layer = 0; layer < smaller.size(); ++layer) {
        if (bytes[stats::at(greater[layer])] < bytes[stats::at(smaller[layer])]) turned.insert(layer);
      }
    }
    results.budgets.push_back(std::move(budget));
  }
  results.n_turned = static_cast<int64_t>(turned.size());
}

}  // namespace

ExitCode search_plans(const run::RunOptions& options, const PlanPresenter& present) {
  return runtime::in_session(
      [&](runtime::MpiSession& session) { return PlanSearchRun(session, options).run(present); });
}

}  // namespace winnow::verbs
