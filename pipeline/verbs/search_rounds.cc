#include "pipeline/verbs/search_rounds.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <bit>
#include <cstdio>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/strings.h"
#include "pipeline/run/layer_rules.h"
#include "results/selection/pattern.h"

namespace winnow::verbs {

int64_t SearchRounds::n_verified_examples() const {
  return std::min(options_.verify_examples.value_or(n_examples()), n_examples());
}

std::optional<std::vector<search::PatternMeans>> SearchRounds::measure(const run::Variant& base,
                                                                       const std::vector<run::Variant>& variants) {
  if (!measure_round(n_examples(), base, variants)) return std::nullopt;
  const std::vector<double> values =
      from_root(n_examples(), variants, [](const search::ExampleFigures& figures, std::vector<double>& all) {
        const search::PatternMeans means = figures.means();
        all.insert(all.end(), {means.nll_nats, means.exact_match, means.token_accuracy, means.kl_nats});
      });
  std::vector<search::PatternMeans> means;
  for (std::size_t i = 0; i + 3 < values.size(); i += 4) {
    means.push_back({values[i], values[i + 1], values[i + 2], values[i + 3]});
  }
  return means;
}

std::optional<std::vector<std::vector<double>>> SearchRounds::measure_first(int64_t n_examples,
                                                                            const run::Variant& base,
                                                                            const std::vector<run::Variant>& variants) {
  if (!measure_round(n_examples, base, variants)) return std::nullopt;
  const std::vector<double> values =
      from_root(n_examples, variants, [](const search::ExampleFigures& figures, std::vector<double>& all) {
        all.insert(all.end(), figures.nll.begin(), figures.nll.end());
      });
  std::vector<std::vector<double>> nll;
  for (auto begin = values.begin(); begin != values.end(); begin += n_examples)
    nll.emplace_back(begin, begin + n_examples);
  return nll;
}

bool SearchRounds::measure_round(int64_t n_examples, const run::Variant& base,
                                 const std::vector<run::Variant>& variants) {
  run::Inputs& inputs = run_.inputs();
  // A plan with types of keys and values is a base as any other: a sweep keeps its keys as they were computed beside
  // the copies that its rows read, so that every lane rounds, or does not, what a pass of its own would have computed.
  // The rows before the first that reads rounded keys are those of full attention.
  const run::Variant start = n_rounds_++ == 0 || inputs.with_kl ? full() : base;
  inputs.settings.base = start.windowed;
  inputs.settings.base_keys = start.window_keys;
  inputs.settings.base_kv = start.kv;
  measure_cells(kSearched, n_examples, variants);
  return end_ == End::kNone;
}

std::vector<double> SearchRounds::from_root(
    int64_t n_examples, const std::vector<run::Variant>& variants,
    const std::function<void(const search::ExampleFigures&, std::vector<double>&)>& add) {
  std::vector<double> values;
  session_.agree_on_root([&] {
    for (const run::Variant& variant : variants) {
      const search::ExampleFigures figures = figures_of(run_, kSearched, n_examples, variant);
      if (figures.empty()) fail(ExitCode::kInternal, "pattern " + variant.name() + " was not measured");
      add(figures, values);
    }
  });
  std::vector<int64_t> bits;
  for (const double value : values) bits.push_back(std::bit_cast<int64_t>(value));
  session_.broadcast(bits);
  values.clear();
  for (const int64_t each : bits) values.push_back(std::bit_cast<double>(each));
  return values;
}

void SearchRounds::verify(const std::vector<run::Variant>& variants) {
  run::Settings& settings = run_.inputs().settings;
  settings.base = settings.full_pattern();
  settings.base_keys.clear();
  settings.base_kv.clear();
  run_.drop_prefixes();
  spdlog::info("verification: {} patterns with every row under the window, on {} example(s)", variants.size(),
               n_verified_examples());
  measure_cells(kVerified, n_verified_examples(), variants);
}

// Of the first n_examples of a data set.
void SearchRounds::measure_cells(std::size_t data_set, int64_t n_examples, const std::vector<run::Variant>& variants) {
  run::Inputs& inputs = run_.inputs();
  for (std::size_t d = 0; d < inputs.data_sets.size(); ++d) {
    inputs.data_sets[d].n_wanted = d == data_set ? n_examples : 0;
  }
  std::set<int64_t> wanted;
  const run::Variant base_of_first = full();
  for (const run::Variant& variant : variants) {
    if (variant != base_of_first) wanted.insert(inputs.number_of(variant));
  }
  inputs.wanted.assign(wanted.begin(), wanted.end());
  // What --profile measures besides is nothing that the search takes, nor is the start, with the weights and the speed.
  const auto profiling = [&] {
    return session_.timeline().seconds()[static_cast<std::size_t>(runtime::Part::kProfile)];
  };
  const double profiled = profiling();
  auto begin = Clock::now();
  if (!run_.plan()) return;
  if (!has_measured_) {
    session_.agree_on_root(announce_);
    begin = Clock::now();
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
  if (data_set == kSearched) note_seconds(seconds_since(begin) - (profiling() - profiled));
}

void SearchRounds::note_seconds(double seconds) {
  session_.agree_on_root([&] {
    nlohmann::json& entry = search_entry(run_, options_);
    entry["search_seconds"] = entry.value("search_seconds", 0.0) + seconds;
    run_.directory().write_record();
  });
}

run::Inputs searched_model(const run::RunOptions& options) {
  run::Inputs inputs;
  inputs.kind = run::kind_of(options);
  inputs.config = model::read_config(options.model);
  inputs.settings = run::resolve_window(options);
  inputs.settings.base = engine::Pattern(static_cast<std::size_t>(inputs.config.n_layers), false);
  inputs.settings.base_name = selection::pattern_name(inputs.settings.base);
  run::take_layer_rules(options, inputs.config, inputs.settings);
  return inputs;
}

void add_searched_data(const run::RunOptions& options, run::Inputs& inputs) {
  inputs.data_sets.push_back(run::read_data_set("calibration", options.data, inputs.config.vocab, options.limit));
  run::check_data_sets(options, inputs);
  if (options.exact) return;
  run::DataSet exact = inputs.data_sets.front();
  exact.name = "verify";
  exact.n_wanted = 0;
  exact.all_rows = true;
  inputs.data_sets.push_back(std::move(exact));
}

search::ExampleFigures figures_of(const run::MeasuringRun& run, std::size_t data_set, int64_t n_examples,
                                  const run::Variant& variant) {
  const run::Inputs& inputs = run.inputs();
  const run::DataSet& data = inputs.data_sets[data_set];
  const run::ScoreTable& cells = run.cells()[data_set];
  const bool is_full = variant == run::Variant{.windowed = inputs.settings.full_pattern(), .window_keys = {}};
  const std::optional<int64_t> number = is_full ? run::kBaseVariant : inputs.find_number(variant);
  search::ExampleFigures figures;
  for (int64_t e = 0; e < n_examples; ++e) {
    if (!number || *number >= cells.n_variants() || !cells.has(e, *number)) return {};
    const engine::Score score = cells.get(e, *number, data.n_answer(e));
    figures.nll.push_back(score.nll_nats);
    figures.exact_match.push_back(score.exact_match ? 1 : 0);
    figures.token_accuracy.push_back(score.token_accuracy);
    if (inputs.with_kl) figures.kl.push_back(score.kl_nats);
  }
  return figures;
}

nlohmann::json& search_entry(run::MeasuringRun& run, const run::RunOptions& options) {
  nlohmann::json& entry = run.directory().record().informative()["searches"][options.method];
  entry["objective"] = options.objective;
  entry["keep"] = options.keep.value_or(0);
  entry["beam"] = options.beam;
  entry["verify"] = options.verify.value_or(-1);
  if (options.verify_examples)
    entry["verify_examples"] = *options.verify_examples;
  else
    entry.erase("verify_examples");
  return entry;
}

void announce_cost(run::MeasuringRun& run, const run::RunOptions& options, const search::SearchCost& cost,
                   const std::string& bound, int64_t n_verified_examples) {
  if (options.exact) {
    spdlog::info("search: {} {} with every row under the window", bound, format_duration(cost.predicted_exact));
  } else {
    spdlog::info(
        "search: {} {} on cached keys and values, {} of it to make them; {} {} with --exact, {:.1f} times as much",
        bound, format_duration(cost.predicted), format_duration(run.predict_prefixes()), bound,
        format_duration(cost.predicted_exact), cost.predicted_exact / cost.predicted);
  }
  if (options.verify) {
    spdlog::info("verification of {} example(s): about {} more", n_verified_examples,
                 format_duration(cost.predicted_verification));
  }
  if (options.dry_run) {
    nlohmann::json json = {
        {"dry_run", true}, {"predicted_seconds", cost.predicted}, {"predicted_seconds_exact", cost.predicted_exact}};
    std::string text = "Dry run: nothing is measured or written.\n  whole search  " + bound + " " +
                       format_duration(cost.predicted) + "\n  with --exact  " + bound + " " +
                       format_duration(cost.predicted_exact) + "\n";
    if (options.verify) {
      json["predicted_seconds_verification"] = cost.predicted_verification;
      text += "  verification  about " + format_duration(cost.predicted_verification) + " more\n";
    }
    std::fputs(options.json ? (json_text(json, 2) + "\n").c_str() : text.c_str(), stdout);
    return;
  }
  nlohmann::json& entry = search_entry(run, options);
  entry["predicted_seconds"] = cost.predicted;
  entry["predicted_seconds_exact"] = cost.predicted_exact;
  entry["predicted_seconds_verification"] = cost.predicted_verification;
}

}  // namespace winnow::verbs
