// A small, made-up evaluation with everything that the schema knows.
#pragma once

#include <cmath>
#include <limits>
#include <string>

#include "results/evaluation/evaluation.h"

namespace winnow {

inline evaluation::EvaluationResults example_evaluation(int64_t n_examples, bool has_baseline) {
  evaluation::EvaluationResults results;
  evaluation::EvaluationTable& table = results.table;
  table.pattern = {"full", "periodic:4@0", "nll:2", "a selection with a rather long name:2", "windowed"};
  const std::vector<std::vector<int64_t>> kept = {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 4}, {1, 5}, {2, 5}, {}};
  const int64_t n_patterns = table.n_patterns();
  table.full_attention = stats::Table<uint8_t>(n_patterns, 8);
  table.native_window.assign(8, 0);
  table.nll = stats::Table<double>(n_patterns, n_examples);
  table.exact_match = stats::Table<uint8_t>(n_patterns, n_examples);
  table.token_accuracy = stats::Table<double>(n_patterns, n_examples);
  table.kl = stats::Table<double>(n_patterns, n_examples);
  evaluation::GeneratedTable& generated = table.generated =
      evaluation::GeneratedTable(n_patterns, n_examples, {.max_new_tokens = 12, .stop_tokens = {2, 299}});
  for (int64_t p = 0; p < n_patterns; ++p) {
    generated.prefill_rate[static_cast<std::size_t>(p)] = 1000.0 + static_cast<double>(p);
    // One pattern that was stopped at once.
    generated.decode_rate[static_cast<std::size_t>(p)] = p == 1 ? std::numeric_limits<double>::quiet_NaN() : 250.0;
    generated.texts_together[static_cast<std::size_t>(p)] = n_examples;
    for (int64_t e = 0; e < n_examples; ++e) {
      generated.exact_match(p, e) = (p + e) % 3 == 0 ? 0 : 1;
      generated.tokens(p, e) = p == 1 ? 1 : 5 + e;
      generated.stopped(p, e) = p == 1 ? 1 : 0;
      generated.cache_bytes(p, e) = 4096 * (4 - p);
    }
    for (const int64_t layer : kept[static_cast<std::size_t>(p)]) table.full_attention(p, layer) = 1;
    for (int64_t e = 0; e < n_examples; ++e) {
      const double damage = 0.3 * static_cast<double>(p) * (1.0 + 0.4 * static_cast<double>((e * 5 + p) % 3));
      table.nll(p, e) = 0.01 + 0.002 * static_cast<double>(e) + damage;
      table.exact_match(p, e) = damage < 0.5 ? 1 : 0;
      table.token_accuracy(p, e) = damage < 0.5 ? 1.0 : 0.75;
      table.kl(p, e) = 0.9 * damage;
    }
  }
  for (int64_t e = 0; e < n_examples; ++e) {
    table.example_id.push_back(std::string("example-\xC3\xA9-").append(std::to_string(e)));
    table.source.push_back(e % 2 == 0 ? "even" : "");
    table.token_hash.push_back("0123456789abcde" + std::to_string(e % 10));
    table.answer_tokens.push_back(5);
    table.prompt_tokens.push_back(1000 + e);
  }
  results.model = {.n_layers = 8,
                   .hidden = 64,
                   .ffn = 192,
                   .vocab = 300,
                   .n_heads = 4,
                   .n_kv_heads = 2,
                   .head_dim = 16,
                   .kv_element_bytes = 2};
  results.window = {.keys = 96, .sinks = 4};
  results.statistics = evaluation::compute_evaluation(
      table, {.seed = 3, .n_resamples = 200, .baseline = has_baseline ? "periodic:4@0" : ""});
  results.provenance.set("winnow_version", std::string("0.0.0"), "version of winnow");
  results.provenance.set("warnings", std::string(), "what a reader should know");
  results.provenance.set("ranks", int64_t{2}, "MPI ranks");
  results.provenance.set("wall_seconds", 1.5, "time", "s");
  results.provenance.set("run_json", std::string("{}"), "run.json of the run directory");
  return results;
}

}  // namespace winnow
