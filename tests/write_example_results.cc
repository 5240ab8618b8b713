// write_example_results FILE EVALUATION: writes the made-up results of example_results.h and example_evaluation.h, for
// tests/python/test_schema.py.
#include <cstdio>
#include <exception>

#include "results/calibration/store.h"
#include "results/evaluation/store.h"
#include "tests/results/calibration/example_results.h"
#include "tests/results/evaluation/example_evaluation.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: write_example_results FILE EVALUATION\n");
    return 64;
  }
  try {
    winnow::calibration::write_results(argv[1], winnow::example_results());
    winnow::evaluation::EvaluationResults evaluated = winnow::example_evaluation(9, true);
    // With a plan among the patterns.
    winnow::evaluation::EvaluationTable& table = evaluated.table;
    table.window_keys = winnow::stats::Table<int64_t>(table.n_patterns(), table.n_layers(), 32);
    for (std::size_t i = 0; i < table.window_keys.values.size(); ++i) {
      if (table.full_attention.values[i] != 0) table.window_keys.values[i] = 0;
    }
    winnow::evaluation::write_evaluation(argv[2], evaluated);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "write_example_results: %s\n", error.what());
    return 74;
  }
  return 0;
}
