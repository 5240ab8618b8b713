// The results of a run in memory, as README.md in this folder lays them out in the file.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "results/measurement.h"
#include "results/provenance.h"
#include "results/statistics.h"

namespace winnow {

struct Results {
  Measurement calibration;
  std::map<std::string, Measurement> controls;  // by NAME: letters, digits, _ . -
  Statistics statistics;
  Provenance provenance;
};

}  // namespace winnow
