// What `winnow select` reads of a results file beyond results/store.h.
#include <algorithm>

#include "kernels/error.h"
#include "results/hdf5.h"
#include "results/methods.h"
#include "results/store.h"

namespace winnow {
namespace {

// The optional (example, layer) table of that name; empty where it is not there.
Table<double> read_signal(const hdf5::Group& group, const std::string& name, const Measurement& measurement) {
  Table<double> table;
  if (!group.contains(name)) return table;
  hdf5::Array<double> array = group.read<double>(name, 2);
  if (array.shape != std::vector<int64_t>{measurement.n_examples(), measurement.n_layers()}) {
    fail(ExitCode::kBadData, group.where(name) + ": expected " + std::to_string(measurement.n_examples()) +
                                 " examples and " + std::to_string(measurement.n_layers()) + " layers");
  }
  table.rows = array.shape[0];
  table.cols = array.shape[1];
  table.values = std::move(array.values);
  return table;
}

SearchedPatterns read_searched(const hdf5::Group& group) {
  SearchedPatterns patterns;
  patterns.keep = group.read<int64_t>("keep", 1).values;
  const std::vector<int64_t> layer = group.read<int64_t>("layer", 1).values;
  const hdf5::Array<uint8_t> full = group.read<uint8_t>("full", 2);
  if (full.shape !=
      std::vector<int64_t>{static_cast<int64_t>(patterns.keep.size()), static_cast<int64_t>(layer.size())}) {
    fail(ExitCode::kBadData, group.where("full") + ": expected a row for each keep and a column for each layer");
  }
  for (std::size_t step = 0; step < patterns.keep.size(); ++step) {
    std::vector<int64_t> kept;
    for (std::size_t c = 0; c < layer.size(); ++c) {
      if (full.values[step * layer.size() + c] != 0) kept.push_back(layer[c]);
    }
    if (static_cast<int64_t>(kept.size()) != patterns.keep[step] || !std::is_sorted(kept.begin(), kept.end())) {
      fail(ExitCode::kBadData, group.where("full") + ": expected " + std::to_string(patterns.keep[step]) +
                                   " layers in row " + std::to_string(step) + ", found " + std::to_string(kept.size()));
    }
    patterns.full_layers.push_back(std::move(kept));
  }
  return patterns;
}

}  // namespace

SelectInput read_select_input(const std::filesystem::path& path, const std::string& method) {
  SelectInput input;
  input.results = read_results(path);
  const hdf5::File file = hdf5::File::open(path);
  const hdf5::Group calibration = file.root().group("calibration");
  const Measurement& m = input.results.calibration;
  input.signals.kl = read_signal(calibration, "kl", m);
  input.signals.delta_nll_removed = read_signal(calibration, "delta_nll_removed", m);
  input.signals.attention_mass_outside = read_signal(calibration, "attention_mass_outside", m);
  input.signals.lazy_ratio = read_signal(calibration, "lazy_ratio", m);
  input.signals.lazy_ratio_compat = read_signal(calibration, "lazy_ratio_compat", m);
  if (is_search_method(method) && file.root().contains_group("selection")) {
    const hdf5::Group searches = file.root().group("selection");
    if (searches.contains_group(method)) input.searched = read_searched(searches.group(method));
  }
  return input;
}

}  // namespace winnow
