// Whether two calibrations of one model, or of two forms of it, rank its layers alike.
#pragma once

#include <cstdint>
#include <string>

#include "results/calibration/results.h"

namespace winnow::calibration {

struct Agreement {
  std::string format_a, format_b;  // how each checkpoint stores its weights; "plain" where a result does not say
  int64_t n_layers = 0;            // measured
  int64_t n_examples_a = 0;
  int64_t n_examples_b = 0;
  // The same figures as between a calibration and its control, with b in the place of the control.
  Deconfounding figures;
};

// `name_a` and `name_b` are files, for messages. Throws Error(kConfigMismatch) naming the first thing that the two
// measured differently: layers, window, sinks, decoding, tail rows, base; Error(kUsage) for options out of range.
Agreement compare_results(const Results& a, const std::string& name_a, const Results& b, const std::string& name_b,
                          const StatisticsOptions& options);

std::string to_line(const Agreement& agreement);  // ends with a line break
std::string to_json(const Agreement& agreement);

}  // namespace winnow::calibration
