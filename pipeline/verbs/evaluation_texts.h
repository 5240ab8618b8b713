// Free generation in an evaluation: every pattern continues every prompt, on all ranks, resumable by batches.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pipeline/run/run.h"
#include "pipeline/run/texts.h"
#include "pipeline/verbs/evaluate.h"
#include "pipeline/verbs/evaluation_inputs.h"
#include "results/evaluation/evaluation.h"

namespace winnow::verbs {

// Returns what --generate, --stop-tokens and --responses mean for one model. Throws Error(kUsage | kBadData |
// kCannotCreate).
evaluation::GenerationSettings generation_settings(const run::RunOptions& options, run::Inputs& inputs);

// All texts of an evaluation, rank 0 only.
class EvaluationTexts {
 public:
  // Takes the batches of one key, from read_batches().
  explicit EvaluationTexts(std::vector<run::TextBatch> batches);
  EvaluationTexts(EvaluationTexts&&) = default;
  EvaluationTexts(const EvaluationTexts&) = delete;
  // Returns a text; null where it is not there yet.
  const run::Text* find(const std::string& pattern, int64_t example) const;
  // Returns the texts' table for the result. Throws Error(kInternal) where one is missing.
  evaluation::GeneratedTable table(const std::vector<EvaluatedPattern>& patterns,
                                   const evaluation::GenerationSettings& settings, const run::Inputs& inputs) const;
  void write(const std::filesystem::path& path, const std::vector<EvaluatedPattern>& patterns) const;

 private:
  std::vector<run::TextBatch> batches_;
  std::map<std::pair<std::string, int64_t>, const run::Text*> texts_;
};

// Returns the hash of all that the texts depend on.
std::string texts_key(const evaluation::GenerationSettings& settings, const std::string& measurement);
// Returns the seconds that the texts that are missing take, on rank 0. Collective.
double predict_missing_texts(run::MeasuringRun& run, const run::RunOptions& options,
                             const evaluation::GenerationSettings& settings,
                             const std::vector<EvaluatedPattern>& patterns);
// Generates the texts that are missing. Returns false where the run was stopped. Collective.
bool write_missing_texts(run::MeasuringRun& run, const run::RunOptions& options,
                         const evaluation::GenerationSettings& settings, const std::vector<EvaluatedPattern>& patterns);
// Reads all texts, once they are there. Rank 0 only.
EvaluationTexts read_texts(const run::MeasuringRun& run, const run::RunOptions& options,
                           const evaluation::GenerationSettings& settings);

}  // namespace winnow::verbs
