// The results of a run in memory, as README.md in this folder lays them out in the file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "results/calibration/measurement.h"
#include "results/calibration/statistics.h"
#include "results/race/race.h"
#include "results/storage/provenance.h"

namespace winnow::calibration {

struct Results {
  Measurement calibration;
  std::map<std::string, Measurement> controls;  // by NAME: letters, digits, _ . -
  Statistics statistics;
  std::optional<race::RaceRecord> race;  // where examples were added until the choice was settled
  storage::Provenance provenance;
};

}  // namespace winnow::calibration
