#include "pipeline/verbs/evaluate.h"

#include <cstdio>

#include "base/error.h"
#include "pipeline/run/run.h"
#include "pipeline/verbs/evaluation_inputs.h"
#include "pipeline/verbs/evaluation_texts.h"

namespace winnow::verbs {
namespace {

ExitCode measure_patterns(runtime::MpiSession& session, const run::RunOptions& options,
                          const EvaluationPresenter& present) {
  run::MeasuringRun run(session, options);
  std::vector<EvaluatedPattern> patterns;
  evaluation::GenerationSettings generation;
  run.set_up([&] {
    EvaluationInputs read = load_evaluation(options);
    patterns = std::move(read.patterns);
    generation = std::move(read.generation);
    return std::move(read.inputs);
  });
  run.open([&](const run::RunIdentity& identity) { check_selections(patterns, identity.checkpoint_sha256); });
  const bool is_work = run.plan();
  if (options.dry_run) {
    const bool has_texts = generation.max_new_tokens > 0;
    return run.forecast(has_texts ? predict_missing_texts(run, options, generation, patterns) : 0.0);
  }
  if (is_work) {
    if (!run.measure()) return run.interrupted();
    run.sum();
  }
  if (generation.max_new_tokens > 0 && !write_missing_texts(run, options, generation, patterns)) {
    return ExitCode::kInterrupted;
  }
  session.agree_on_root([&] {
    const evaluation::EvaluationResults results = finish_evaluation(options, patterns, generation, run);
    if (is_work) run.show_memory();
    std::fputs(printable(present(results)).c_str(), stdout);
  });
  return ExitCode::kDone;
}

}  // namespace

ExitCode evaluate(const run::RunOptions& options, const EvaluationPresenter& present) {
  return runtime::in_session([&](runtime::MpiSession& session) { return measure_patterns(session, options, present); });
}

}  // namespace winnow::verbs
