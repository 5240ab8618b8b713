#include "pipeline/verbs/calibrate.h"

#include <cstdio>

#include "base/error.h"
#include "pipeline/run/run.h"
#include "pipeline/verbs/outcome.h"

namespace winnow {
namespace {

ExitCode measure_layers(MpiSession& session, const CalibrateOptions& options, const Presenter& present) {
  MeasuringRun run(session, options);
  run.set_up([&] { return load_inputs(options); });
  run.open();
  const bool is_work = run.plan();
  if (options.dry_run) return run.forecast();
  if (is_work) {
    if (!run.measure()) return run.interrupted();
    run.sum();
  }
  session.agree_on_root([&] {
    const Results results = finish_run({options, run.summary(), run.cells()}, run.directory());
    if (is_work) run.show_memory();
    std::fputs(printable(present(results)).c_str(), stdout);
  });
  return ExitCode::kDone;
}

}  // namespace

ExitCode calibrate(const CalibrateOptions& options, const Presenter& present) {
  return in_session([&](MpiSession& session) { return measure_layers(session, options, present); });
}

}  // namespace winnow
