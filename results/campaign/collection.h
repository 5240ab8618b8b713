// The results of many runs side by side, which `winnow sweep collect` puts into one file. README.md in this folder lays
// the file out. Plain data and pure functions; the caller decides which runs there are.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/output_path.h"
#include "results/calibration/results.h"
#include "results/campaign/selection_stability.h"

namespace winnow::campaign {

inline constexpr const char* kCollectionFormat = "winnow-collection";
inline constexpr int64_t kCollectionVersion = 1;
// State of a cell whose results are there.
inline constexpr const char* kStateDone = "done";

// Content of one results file without the tables per example.
struct CellSummary {
  calibration::Statistics statistics;
  storage::Provenance provenance;
  int64_t n_examples = 0;
  double nll_base = 0.0;                        // nats per token, mean over examples
  double exact_match_base = 0.0;                // mean over examples
  double token_accuracy_base = 0.0;             // mean over examples
  std::vector<SelectionStability> stability{};  // a budget each
};
CellSummary summarize(const calibration::Results& results);

// Headline figures of a pattern, means over examples.
struct CollectedPattern {
  std::string name;         // of an evaluation as its table has it; of a search METHOD:K
  int64_t full_layers = 0;  // layers that keep full attention
  double nll = 0.0;         // nats per token
  double exact_match = 0.0;
  double token_accuracy = 0.0;
  double leading_loss = 0.0;  // of an evaluation: what is lost against full attention by the cell's leading figure
};

// One row: a cell of the sweep with one seed of the statistics.
struct CollectedCell {
  std::string label;  // unique in the collection
  std::string name;   // of the cell: rows that differ in the seed only share it
  std::string model;
  std::string dataset;
  int64_t window = 0;       // tokens, as given
  int64_t window_keys = 0;  // keys that a row of a windowed layer sees, itself included
  int64_t sinks = 0;        // tokens
  std::string decode;       // "windowed" or "full"
  std::string target;       // "": none named
  int64_t seed = 0;         // of the statistics
  std::string run_directory;
  std::string state = kStateDone;
  std::string reason;                  // why there are no results; empty where there are
  std::optional<CellSummary> summary;  // none: the row is listed, its figures are NaN
  // The rest is for a cell that is not a calibration.
  std::string verb = "calibrate";          // or "search", "evaluate"
  std::vector<CollectedPattern> patterns;  // in the order of its results
  std::string leading_figure;              // of an evaluation: the figure that shows windowing best
};

struct Collection {
  std::string sweep;    // its name
  std::string version;  // of winnow
  std::vector<CollectedCell> cells;
  std::vector<CollectedCell>
      others{};  // cells that are not calibrations: a list of their patterns, apart from the cells
};

// Coordinates of the collection's dimensions besides cell: each the union over its cells, sorted.
struct CollectionAxes {
  std::vector<int64_t> layer;         // indices of decoder layers
  std::vector<int64_t> budget;        // K
  std::vector<std::string> controls;  // names
};
CollectionAxes axes_of(const std::vector<CollectedCell>& cells);

// Returns why figures of that cell are not defined, by the figure's name ("short/spearman_rho"): empty where all are,
// and where there are no results at all.
std::vector<std::pair<std::string, std::string>> undefined_figures(const CollectedCell& cell);

// Agreement of the rankings of two cells: (cells, cells), symmetric. Pairs are compared where both cells have results
// of one model, measured on the same layers.
struct RankAgreement {
  stats::Table<double> spearman_rho;       // over layers, between the mean deltas
  stats::Table<double> jaccard;            // of the top K: overlap / (2 K - overlap)
  stats::Table<uint8_t> between_datasets;  // 1: compared, and they differ in the data set and in nothing else
  stats::Table<uint8_t> between_windows;   // 1: the same for the window
  // Distinct reasons for NaN, sorted; empty where there is none.
  std::vector<std::string> spearman_status;
  std::vector<std::string> jaccard_status;
};
RankAgreement rank_agreement(const std::vector<CollectedCell>& cells);

// Describes a collection as an output, for check_outputs().
Output collection_output(const std::string& flag, const std::filesystem::path& path);

}  // namespace winnow::campaign
