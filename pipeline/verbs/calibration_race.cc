#include "pipeline/verbs/calibration_race.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "results/race/text.h"

namespace winnow::verbs {
namespace {

std::vector<race::Race> races_of(const run::RunOptions& options, const run::Settings& settings) {
  const auto n_layers = static_cast<int64_t>(settings.layers.size());
  const std::size_t n_races = settings.layer_settings().size();
  race::RaceOptions race{.confidence = race::parse_confidence(options.until, "--until"),
                         .tolerance = {},
                         .budget = run::race_budgets(options, n_layers),
                         .n_races = static_cast<int64_t>(n_races)};
  if (!options.until_tolerance.empty()) {
    race.tolerance = race::parse_tolerance(options.until_tolerance, "--until-tolerance");
  }
  return std::vector<race::Race>(n_races, race::Race(n_layers, race));
}

}  // namespace

CalibrationRace::CalibrationRace(runtime::MpiSession& session, const run::RunOptions& options, run::MeasuringRun& run)
    : session_(session), options_(options), run_(run) {
  session_.agree([&] {
    const run::Settings& settings = run_.inputs().settings;
    races_ = races_of(options_, settings);
    for (const run::LayerSetting& one : settings.layer_settings()) settings_.push_back({one.window, one.kv});
    needs_.assign(settings.layers.size(), true);
  });
}

bool CalibrationRace::measure() {
  const int64_t limit = run_.inputs().data_sets.front().n_examples;
  for (int64_t k = 0; std::ranges::find(needs_, true) != needs_.end(); ++k) {
    n_examples_ = std::min(limit, race::look_examples(k));
    if (!measure_cells(needs_, 0, 1)) return false;
    look();
    if (n_examples_ == limit) break;
  }
  const std::vector<bool> all(needs_.size(), true);
  return measure_cells(all, 1, run_.inputs().data_sets.size());
}

// The first n_examples_ of these data sets, under all settings: a layer has as many examples in each, so that plans
// compare its settings over the same ones.
bool CalibrationRace::measure_cells(const std::vector<bool>& layers, std::size_t first_data_set,
                                    std::size_t end_data_set) {
  run::Inputs& inputs = run_.inputs();
  for (std::size_t d = 0; d < inputs.data_sets.size(); ++d) {
    const bool is_wanted = d >= first_data_set && d < end_data_set;
    inputs.data_sets[d].n_wanted = is_wanted ? std::min(n_examples_, inputs.data_sets[d].n_examples) : 0;
  }
  inputs.wanted.clear();
  for (std::size_t s = 0; s < settings_.size(); ++s) {
    for (std::size_t l = 0; l < layers.size(); ++l) {
      if (!layers[l]) continue;
      inputs.wanted.push_back(static_cast<int64_t>(s) * inputs.config.n_layers + inputs.settings.layers[l]);
    }
  }
  if (!run_.plan()) return true;
  has_measured_ = true;
  if (!run_.measure()) return false;
  run_.sum();
  return true;
}

// Rank 0 has the cells; the others learn which layers go on.
void CalibrationRace::look() {
  std::vector<int64_t> flags;
  session_.agree_on_root([&] {
    const std::vector<std::string> names = race::names_of(settings_);
    for (std::size_t s = 0; s < races_.size(); ++s) {
      race::Race& race = races_[s];
      if (race.is_settled()) continue;
      race.look(deltas(s), whole_of(s));
      spdlog::info("{}", race::look_line(race, races_.size() > 1 ? names[s] : ""));
    }
    const std::vector<bool> wanted = needs();
    flags.assign(wanted.begin(), wanted.end());
  });
  session_.broadcast(flags);
  needs_.assign(flags.begin(), flags.end());
}

// Of the first n_examples_, of the layers that the race of that setting needs.
stats::Table<double> CalibrationRace::deltas(std::size_t setting) const {
  const run::Inputs& inputs = run_.inputs();
  const run::ScoreTable& cells = run_.cells().front();
  const run::DataSet& data = inputs.data_sets.front();
  const auto n_layers = static_cast<int64_t>(inputs.settings.layers.size());
  stats::Table<double> delta(n_examples_, n_layers);
  for (int64_t e = 0; e < n_examples_; ++e) {
    const double base = cells.get(e, run::kBaseVariant, data.n_answer(e)).nll_nats;
    for (int64_t l = 0; l < n_layers; ++l) {
      const auto layer = static_cast<std::size_t>(l);
      if (!races_[setting].needs()[layer]) continue;
      const int64_t variant = static_cast<int64_t>(setting) * inputs.config.n_layers + inputs.settings.layers[layer];
      delta(e, l) = cells.get(e, variant, data.n_answer(e)).nll_nats - base;
    }
  }
  return delta;
}

// Full attention in a narrow type may cost next to nothing, of which a share would be a tolerance that no race ends
// with. It is measured by what the narrowest window costs, as the plans of `winnow plan --until` are; windows come
// first in the order of settings, so that race has looked.
std::optional<double> CalibrationRace::whole_of(std::size_t setting) const {
  if (settings_[setting].window > 0) return std::nullopt;
  std::size_t narrowest = 0;
  for (std::size_t s = 0; s < settings_.size() && settings_[s].kv == KvType::kStored; ++s) {
    if (settings_[s].window < settings_[narrowest].window) narrowest = s;
  }
  return races_[narrowest].least_cost();
}

// A layer goes on while the ranking under any setting needs it.
std::vector<bool> CalibrationRace::needs() const {
  std::vector<bool> needs(needs_.size(), false);
  for (const race::Race& race : races_) {
    for (std::size_t l = 0; l < needs.size(); ++l) needs[l] = needs[l] || race.needs()[l];
  }
  return needs;
}

race::RaceRecord CalibrationRace::record() const {
  return race::record_of(races_, run_.inputs().settings.layers, settings_,
                         options_.until_tolerance.empty() ? "1%" : options_.until_tolerance);
}

}  // namespace winnow::verbs
