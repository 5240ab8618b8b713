#include "pipeline/verbs/outcome.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"
#include "pipeline/verbs/finished_results.h"
#include "results/calibration/store.h"

namespace winnow::verbs {
namespace {

calibration::StatisticsOptions statistics_options(const run::RunOptions& options) {
  return {.seed = static_cast<uint64_t>(options.seed), .top_k = options.top_k.value_or(0)};
}

// Hash of everything that decides what is in results.h5: the measurement, which of its cells, and the statistics'
// settings.
std::string results_key(const FinishedRun& run) {
  nlohmann::json key = {{"measurement", run.summary.identity.hash()}, {"layers", run.summary.inputs.settings.layers},
                        {"per_token", run.options.per_token},         {"seed", run.options.seed},
                        {"top_k", run.options.top_k.value_or(0)},     {"program", run.options.version}};
  for (const run::DataSet& data : run.summary.inputs.data_sets) {
    key["data_sets"].push_back({data.name, data.corpus.sha256, data.n_examples});
  }
  if (run.race) key["race"] = {run.options.until, run.race->tolerance, run.race->budget};
  return sha256_of(json_text(key, -1));
}

bool has_settings(const calibration::StatisticsOptions& used, const calibration::StatisticsOptions& wanted) {
  return used.seed == wanted.seed && (wanted.top_k == 0 || used.top_k == wanted.top_k) &&
         used.n_resamples == wanted.n_resamples;
}

}  // namespace

calibration::Results finish_run(const FinishedRun& run, run::RunDirectory& directory) {
  const runtime::Timeline::Scope part(run.summary.timeline, runtime::Part::kStatistics);
  const std::filesystem::path path = run.options.out / "results.h5";
  const std::string key = results_key(run);
  nlohmann::json& informative = directory.record().informative();
  if (informative.value("results_key", "") == key) {
    const auto is_wanted = [wanted = statistics_options(run.options)](const calibration::Results& known) {
      return has_settings(known.statistics.options, wanted);
    };
    if (auto known = finished_results(path, calibration::read_results, is_wanted)) return *std::move(known);
  }

  const run::Inputs& inputs = run.summary.inputs;
  calibration::Results results;
  for (std::size_t d = 0; d < inputs.data_sets.size(); ++d) {
    const run::DataSet& data = inputs.data_sets[d];
    const bool is_raced = run.race && d == 0;
    const int64_t n_examples = run.race ? std::min(run.race->look_examples.back(), data.n_examples) : data.n_examples;
    const bool has_all = !is_raced || std::ranges::min(run.race->layer_examples) == n_examples;
    calibration::Measurement measurement =
        run::to_measurement(run.cells[d], data.corpus, n_examples, inputs.settings,
                            has_all ? std::vector<int64_t>{} : run.race->layer_examples);
    if (d == 0) {
      measurement.by_head = run::figures_by_head(run.cells[d], data.corpus, measurement, inputs.settings);
      results.calibration = std::move(measurement);
    } else {
      results.controls.emplace(data.name.substr(data.name.find('/') + 1), std::move(measurement));
    }
  }
  results.statistics =
      calibration::compute_statistics(results.calibration, results.controls, statistics_options(run.options));
  results.race = run.race;
  run::describe_run(run.summary, directory.record(), results.provenance);
  const runtime::Timeline::Scope writing(run.summary.timeline, runtime::Part::kResults);
  calibration::write_results(path, results);
  informative["results_key"] = key;
  directory.write_record();
  return results;
}

}  // namespace winnow::verbs
