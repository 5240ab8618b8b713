// The rounds of a search, which greedy searches, pairs and plans share: each measures what is missing of some variants,
// and all ranks learn the means.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "pipeline/run/run.h"
#include "results/search/results.h"

namespace winnow::verbs {

// Data sets of a search: the calibration set as the search measures it, and the same examples with every row under the
// window, which is not there with --exact.
inline constexpr std::size_t kSearched = 0;
inline constexpr std::size_t kVerified = 1;

// All methods but the plain accessors are collective.
class SearchRounds {
 public:
  // Why the search ended before all was measured, on all ranks alike.
  enum class End {
    kNone,
    kStopped,     // by a signal; everything finished is kept
    kForecasted,  // the answer to --dry-run is printed
  };

  // `announce` is called once there is something to measure, before it is: it says what the search will take.
  SearchRounds(runtime::MpiSession& session, const run::RunOptions& options, std::function<void()> announce)
      : session_(session), options_(options), announce_(std::move(announce)), run_(session, options) {}

  run::MeasuringRun& run() { return run_; }
  const run::MeasuringRun& run() const { return run_; }
  End end() const { return end_; }
  bool has_measured() const { return has_measured_; }
  int64_t n_examples() const { return run_.inputs().data_sets[kSearched].n_examples; }
  int64_t n_verified_examples() const;

  // Measures what is missing of these variants by sweeps from `base`, and returns their means on every rank; none where
  // the search ends. The first round, and KL, which is a distance from full attention, start from the full pattern
  // instead: its figures are the base's of the first round.
  std::optional<std::vector<search::PatternMeans>> measure(const run::Variant& base,
                                                           const std::vector<run::Variant>& variants);
  // The same for the first n_examples: returns the NLL of each variant by example, nats per token.
  std::optional<std::vector<std::vector<double>>> measure_first(int64_t n_examples, const run::Variant& base,
                                                                const std::vector<run::Variant>& variants);
  // Measures exact figures of these, all from the full pattern: one round.
  void verify(const std::vector<run::Variant>& variants);
  // Returns the full pattern.
  run::Variant full() const { return {.windowed = run_.inputs().settings.full_pattern(), .window_keys = {}}; }

 private:
  void measure_cells(std::size_t data_set, int64_t n_examples, const std::vector<run::Variant>& variants);
  bool measure_round(int64_t n_examples, const run::Variant& base, const std::vector<run::Variant>& variants);
  // Calls add(figures) for each variant on rank 0, which appends numbers, and returns all of them on every rank.
  std::vector<double> from_root(int64_t n_examples, const std::vector<run::Variant>& variants,
                                const std::function<void(const search::ExampleFigures&, std::vector<double>&)>& add);
  void note_seconds(double seconds);

  runtime::MpiSession& session_;
  const run::RunOptions& options_;
  std::function<void()> announce_;
  run::MeasuringRun run_;
  int64_t n_rounds_ = 0;
  bool has_measured_ = false;
  End end_ = End::kNone;
};

// Returns inputs with the model's configuration and the settings of a search, whose base is full attention. Throws
// Error(kUsage), and as read_config() does.
run::Inputs searched_model(const run::RunOptions& options);

// Adds to the inputs the calibration set of --data, and the same examples again for exact figures unless all are exact.
void add_searched_data(const run::RunOptions& options, run::Inputs& inputs);

// Returns the figures of a variant over the first n_examples of a data set; empty unless all of them are there. Rank 0.
search::ExampleFigures figures_of(const run::MeasuringRun& run, std::size_t data_set, int64_t n_examples,
                                  const run::Variant& variant);

// Returns this command's entry among the searches that RUN_DIR/run.json remembers, with the options put in. Rank 0.
nlohmann::json& search_entry(run::MeasuringRun& run, const run::RunOptions& options);

// Says what a search will take: on stderr and in its entry, or, for --dry-run, on stdout. `bound` is "about" or, of a
// search that may end earlier, "at most about". Rank 0.
void announce_cost(run::MeasuringRun& run, const run::RunOptions& options, const search::SearchCost& cost,
                   const std::string& bound, int64_t n_verified_examples);

}  // namespace winnow::verbs
