#include "pipeline/verbs/calibrate.h"

#include <cstdio>

#include "base/error.h"
#include "pipeline/run/run.h"
#include "pipeline/verbs/calibration_race.h"
#include "pipeline/verbs/outcome.h"

namespace winnow::verbs {
namespace {

// The same with as many examples as --until needs.
ExitCode race_layers(runtime::MpiSession& session, const run::RunOptions& options, run::MeasuringRun& run,
                     const Presenter& present) {
  CalibrationRace race(session, options, run);
  if (!race.measure()) return run.interrupted();
  session.agree_on_root([&] {
    const calibration::Results results =
        finish_run({options, run.summary(), run.cells(), race.record()}, run.directory());
    if (race.has_measured()) run.show_memory();
    std::fputs(printable(present(results)).c_str(), stdout);
  });
  return ExitCode::kDone;
}

ExitCode measure_layers(runtime::MpiSession& session, const run::RunOptions& options, const Presenter& present) {
  run::MeasuringRun run(session, options);
  run.set_up([&] { return run::load_inputs(options); });
  run.open();
  if (!options.until.empty() && !options.dry_run) return race_layers(session, options, run, present);
  const bool is_work = run.plan();
  if (options.dry_run) return run.forecast();
  if (is_work) {
    if (!run.measure()) return run.interrupted();
    run.sum();
  }
  session.agree_on_root([&] {
    const calibration::Results results = finish_run({options, run.summary(), run.cells(), {}}, run.directory());
    if (is_work) run.show_memory();
    std::fputs(printable(present(results)).c_str(), stdout);
  });
  return ExitCode::kDone;
}

}  // namespace

ExitCode calibrate(const run::RunOptions& options, const Presenter& present) {
  return runtime::in_session([&](runtime::MpiSession& session) { return measure_layers(session, options, present); });
}

}  // namespace winnow::verbs
