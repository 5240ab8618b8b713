// calibrate --until: examples are added, look by look, until the layers that are kept are settled.
#pragma once

#include <optional>
#include <vector>

#include "pipeline/run/run.h"
#include "results/race/race.h"

namespace winnow::verbs {

class CalibrationRace {
 public:
  // Before run.open() or after; `options` with --until.
  CalibrationRace(runtime::MpiSession& session, const run::RunOptions& options, run::MeasuringRun& run);

  // Measures look after look, then the controls on as many examples as the last look had. Returns false where the run
  // was stopped. Collective. Throws AgreedFailure.
  bool measure();
  // Returns true if cells were measured.
  bool has_measured() const { return has_measured_; }
  // Returns what the race saw. Rank 0, after measure().
  race::RaceRecord record() const;
  // Returns the examples of the calibration set that were needed, on every rank.
  int64_t n_examples() const { return n_examples_; }

 private:
  bool measure_cells(const std::vector<bool>& layers, std::size_t first_data_set, std::size_t end_data_set);
  void look();
  stats::Table<double> deltas(std::size_t setting) const;
  std::optional<double> whole_of(std::size_t setting) const;
  std::vector<bool> needs() const;

  runtime::MpiSession& session_;
  const run::RunOptions& options_;
  run::MeasuringRun& run_;
  std::vector<race::Race> races_;             // by setting; alike on all ranks but for what they saw
  std::vector<race::RacedSetting> settings_;  // Settings::layer_settings()
  std::vector<bool> needs_;                   // (measured layers)
  int64_t n_examples_ = 0;
  bool has_measured_ = false;
};

}  // namespace winnow::verbs
