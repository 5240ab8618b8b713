// Reads what evaluate needs before it measures, and makes the result of the cells afterwards.
#pragma once

#include <string>
#include <vector>

#include "pipeline/run/run.h"
#include "pipeline/verbs/evaluate.h"
#include "results/selection/pattern.h"

namespace winnow::verbs {

// A pattern of the result, and the place of its figures.
struct EvaluatedPattern {
  std::string name;  // unique
  selection::NamedPattern given;
  std::string file;                     // of a selection
  int64_t variant = run::kBaseVariant;  // number of its cells: the base has full attention everywhere

  // Returns what its layers see.
  run::Variant windows() const {
    return {.windowed = given.windowed,
            .window_keys = given.windows,
            .kv = given.kv,
            .windowed_heads = given.windowed_heads};
  }
};

struct EvaluationInputs {
  run::Inputs inputs;
  std::vector<EvaluatedPattern> patterns;  // "full" is always among them
  evaluation::GenerationSettings generation;
};

// Reads model, data and patterns; inputs.variants are the patterns that differ from full attention. Throws Error.
EvaluationInputs load_evaluation(const run::RunOptions& options);
// Throws Error(kConfigMismatch) for a selection of another model, once the checkpoint's hash is known.
void check_selections(const std::vector<EvaluatedPattern>& patterns, const std::string& checkpoint_sha256);
// Returns the options of the statistics.
evaluation::EvaluationOptions evaluation_options(const run::RunOptions& options);

// Computes and writes RUN_DIR/results.h5 of the finished cells and texts, or reads it where it is up to date. Rank 0
// only.
evaluation::EvaluationResults finish_evaluation(const run::RunOptions& options,
                                                const std::vector<EvaluatedPattern>& patterns,
                                                const evaluation::GenerationSettings& generation,
                                                run::MeasuringRun& run);

}  // namespace winnow::verbs
