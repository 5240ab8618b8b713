#include "results/selection/select_input.h"

#include "base/error.h"
#include "results/calibration/store.h"
#include "results/evaluation/evaluation.h"
#include "results/evaluation/store.h"
#include "results/search/store.h"
#include "results/selection/methods.h"

namespace winnow::selection {

SelectInput read_select_input(const std::filesystem::path& path, const std::string& method) {
  SelectInput input;
  const bool is_of_search = search::is_search(path);
  if (is_search_method(method) || (is_of_search && is_pattern_method(method))) {
    // A search writes no /calibration: what it found and where that comes from is all there is to read.
    input.searched = search::read_best_patterns(path, method, input.results.provenance);
    return input;
  }
  if (is_of_search) {
    fail(ExitCode::kNoInput, path.string() +
                                 ": holds searches and no calibration; use --method greedy-forward or "
                                 "greedy-backward, winnow plan for plans, or the results of winnow calibrate");
  }
  if (evaluation::is_evaluation(path)) {
    fail(ExitCode::kNoInput,
         path.string() + ": is an evaluation of patterns and ranks no layer; use the results of " + "winnow calibrate");
  }
  input.results = calibration::read_results(path);
  return input;
}

}  // namespace winnow::selection
