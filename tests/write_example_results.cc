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
    table.kv = winnow::stats::Table<uint8_t>(table.n_patterns(), table.n_layers());
    table.kv(table.n_patterns() - 1, 0) = static_cast<uint8_t>(winnow::KvType::kInt8);
    table.window_keys = winnow::stats::Table<int64_t>(table.n_patterns(), table.n_layers(), 32);
    for (std::size_t i = 0; i < table.window_keys.values.size(); ++i) {
      if (table.full_attention.values[i] != 0) table.window_keys.values[i] = 0;
    }
    // And one of heads: the first of two keeps full attention in each windowed layer of the last pattern.
    table.full_heads = winnow::stats::Table<uint8_t>(table.n_patterns() * table.n_layers(), 2);
    for (std::size_t i = 0; i < table.full_attention.values.size(); ++i) {
      const auto row = static_cast<int64_t>(i);
      const bool is_last = row / table.n_layers() == table.n_patterns() - 1;
      const bool is_full = table.full_attention.values[i] != 0;
      table.full_heads(row, 0) = is_full || is_last ? 1 : 0;
      table.full_heads(row, 1) = is_full ? 1 : 0;
    }
    winnow::evaluation::write_evaluation(argv[2], evaluated);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "write_example_results: %s\n", error.what());
    return 74;
  }
  return 0;
}
