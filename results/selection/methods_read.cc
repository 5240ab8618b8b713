// What `winnow select` reads of a results file beyond results/calibration/store.h.
#include <algorithm>
#include <functional>

#include "base/checksum.h"
#include "base/error.h"
#include "results/calibration/store.h"
#include "results/evaluation/evaluation.h"
#include "results/search/results.h"
#include "results/selection/methods.h"
#include "results/storage/hdf5.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::selection {
namespace {

// The optional (example, layer) table of that name; empty where it is not there.
stats::Table<double> read_signal(const storage::Group& group, const std::string& name,
                                 const calibration::Measurement& measurement) {
  if (!group.contains(name)) return {};
  return storage::read_table<double>(group, name, measurement.n_examples(), measurement.n_layers());
}

SearchedPatterns read_searched(const storage::Group& group) {
  SearchedPatterns patterns;
  patterns.keep = group.read<int64_t>("keep", 1).values;
  const std::vector<int64_t> layer = group.read<int64_t>("layer", 1).values;
  const auto full = storage::read_table<uint8_t>(group, "full", static_cast<int64_t>(patterns.keep.size()),
                                                 static_cast<int64_t>(layer.size()));
  for (int64_t step = 0; step < full.rows; ++step) {
    std::vector<int64_t> kept;
    for (int64_t c = 0; c < full.cols; ++c) {
      if (full(step, c) != 0) kept.push_back(layer[static_cast<std::size_t>(c)]);
    }
    const int64_t keep = patterns.keep[static_cast<std::size_t>(step)];
    const bool is_rising = std::is_sorted(kept.begin(), kept.end(), std::less_equal<int64_t>());
    if (static_cast<int64_t>(kept.size()) != keep || !is_rising) {
      fail(ExitCode::kBadData, group.where("full") + ": expected " + std::to_string(keep) + " rising layers in row " +
                                   std::to_string(step) + ", found " + std::to_string(kept.size()));
    }
    patterns.full_layers.push_back(std::move(kept));
  }
  if (group.contains("example_id")) patterns.n_examples = group.shape("example_id").at(0);
  patterns.is_verified = group.contains("mean_nll_verified");
  return patterns;
}

}  // namespace

SelectInput read_select_input(const std::filesystem::path& path, const std::string& method) {
  SelectInput input;
  const bool is_of_search = search::is_search(path);
  if (is_search_method(method) || (is_of_search && is_pattern_method(method))) {
    // A search writes no /calibration: what it found and where that comes from is all there is to read.
    const storage::File file = storage::File::open(path);
    storage::require_format(file, storage::kResultsFormat, storage::kResultsVersion);
    const storage::Group root = file.root();
    input.results.provenance = storage::read_provenance(root.group("provenance"));
    if (root.contains_group("selection") && root.group("selection").contains_group(method)) {
      input.searched = read_searched(root.group("selection").group(method));
    }
    if (!file.has_checksum()) note_no_checksum(path);
    return input;
  }
  if (is_of_search) {
    fail(ExitCode::kNoInput, path.string() +
                                 ": holds searches and no calibration; use --method greedy-forward or "
                                 "greedy-backward, or the results of winnow calibrate");
  }
  if (evaluation::is_evaluation(path)) {
    fail(ExitCode::kNoInput,
         path.string() + ": is an evaluation of patterns and ranks no layer; use the results of " + "winnow calibrate");
  }
  input.results = calibration::read_results(path);
  const storage::File file = storage::File::open(path);
  const storage::Group calibration = file.root().group("calibration");
  const calibration::Measurement& m = input.results.calibration;
  input.signals.kl = read_signal(calibration, "kl", m);
  input.signals.delta_nll_removed = read_signal(calibration, "delta_nll_removed", m);
  input.signals.attention_mass_outside = read_signal(calibration, "attention_mass_outside", m);
  input.signals.lazy_ratio = read_signal(calibration, "lazy_ratio", m);
  input.signals.lazy_ratio_compat = read_signal(calibration, "lazy_ratio_compat", m);
  return input;
}

}  // namespace winnow::selection
