// A run over a set of variants, which the verbs that measure share: set-up on every rank, the run directory and its
// finished cells, a plan for the missing ones, measuring, sums.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "model/weights.h"
#include "pipeline/engine/generation.h"
#include "pipeline/engine/rates.h"
#include "pipeline/run/dry_run.h"
#include "pipeline/run/inputs.h"
#include "pipeline/run/measure.h"
#include "pipeline/run/provenance.h"
#include "pipeline/run/residency_plan.h"
#include "pipeline/run/run_directory.h"
#include "pipeline/runtime/exchange.h"
#include "pipeline/runtime/host_memory.h"
#include "pipeline/runtime/session.h"
#include "pipeline/runtime/stop.h"

namespace winnow::run {

// All methods are collective and in this order: set_up, open, then plan, measure and sum, as often as there is more to
// measure: between the rounds inputs().wanted, number_of() for new patterns and settings.base may change, on all ranks
// alike. A failure has been agreed on or has ended the job, so only AgreedFailure is thrown.
class MeasuringRun {
 public:
  // Sends log lines to stderr from now on, from rank 0 alone.
  MeasuringRun(runtime::MpiSession& session, const RunOptions& options);
  ~MeasuringRun() { session_.timeline().enter(Part::kTeardown); }
  MeasuringRun(const MeasuringRun&) = delete;
  MeasuringRun& operator=(const MeasuringRun&) = delete;

  // Reads the inputs by `load`, on every rank, and makes the backend.
  void set_up(const std::function<Inputs()>& load);
  // Opens the run directory and takes the cells that are finished. `check` is called on rank 0 before anything is made:
  // it may throw, and sees the checkpoint's hash.
  void open(const std::function<void(const RunIdentity&)>& check = {});
  // Keeps from round to round, as far as there is memory, the keys and values of the first data set's rows that no
  // pattern changes. After open(), for runs with tail rows.
  void keep_prefixes() { keeps_prefixes_ = true; }
  // Gives their memory back.
  void drop_prefixes();
  // Plans the cells that are wanted and missing. Loads the weights the first time that there are any. Returns true if
  // there are any.
  bool plan();
  // Returns the seconds that sweeps of the first n_examples of the first data set take on these ranks, after a plan()
  // that found work: as the run measures them, with the prefixes that are kept, or with every row under the window.
  enum class Rows { kAsMeasured, kAll };
  double predict_round(const Variant& base, const std::vector<Variant>& variants, Rows rows, int64_t n_examples) const;
  // Returns the seconds until the prefixes are made.
  double predict_prefixes() const;
  // Brings up the weights and measures the speed of the ranks, once: what plan() does where there is work. Collective.
  void prepare();
  // Returns the seconds that this rank takes for texts of so many tokens, written together. After prepare().
  double predict_texts(std::span<const engine::GenerationRequest> requests, std::span<const int64_t> n_tokens) const;
  // Prints what the plan takes, for --dry-run. text_seconds: of texts that will be written besides.
  ExitCode forecast(double text_seconds = 0.0);
  // Measures the plan. Returns true if all its units are done: else the run was stopped.
  bool measure();
  // Says on stderr how far the stopped run is, and returns the exit code for that.
  ExitCode interrupted() const;
  // Puts all cells together on rank 0.
  void sum();

  runtime::MpiSession& session() { return session_; }
  Inputs& inputs() { return inputs_; }
  const Inputs& inputs() const { return inputs_; }
  kernels::Ops& ops() { return *ops_; }
  // Returns the weights, for work besides the sweeps. They are loaded the first time: collective.
  model::ModelWeights& weights() {
    load_weights();
    return *weights_;
  }
  // Returns the memory of a rank that the weights take, bytes.
  int64_t weight_bytes() const;
  const runtime::StopSignals& signals() const { return signals_; }
  // Returns the watch over the checkpoint. After open().
  model::CheckpointWatch& watch() { return *watch_; }
  const std::string& measurement() const { return measurement_; }
  int64_t memory_limit() const { return options_.max_memory_bytes().value_or(default_memory_limit()); }
  // Returns the cells by data set. Rank 0, after sum().
  const std::vector<ScoreTable>& cells() const { return cells_; }
  RunDirectory& directory() { return *directory_; }  // rank 0
  RunSummary summary() const {
    return {options_, inputs_, identity_, all_facts_, session_.timeline(), [this] { return timeline(); }};
  }
  void show_memory() const;

 private:
  using Part = runtime::Part;
  nlohmann::json timeline() const;
  runtime::Timeline::Scope in(Part part) const { return {session_.timeline(), part}; }
  void prepare_attention();
  ResidencyNeeds residency_needs(int64_t limit_bytes) const;
  void make_weights();
  void load_weights();
  void share_layers();
  void log_weights(double staging_seconds) const;
  int64_t stack_rows() const;
  std::vector<engine::SweepRequest> together(const engine::SweepRequest& request) const;
  StreamForecast stream_forecast() const;
  void log_set_up() const;
  void share_variants();
  void plan_prefixes_to_keep();
  int64_t default_memory_limit() const;
  UnitPrices prices() const;
  std::vector<engine::SweepRequest> samples() const;
  engine::SweepRequest round_request(int64_t example, const Variant& base, const std::vector<Variant>& variants,
                                     Rows rows) const;
  double price(const engine::SweepRequest& request) const;
  bool has_owners() const;
  void charge_prefixes(std::vector<WorkUnit>& units) const;
  void note_prefixes();
  double prefix_seconds(int64_t example) const;
  double predict_units() const;
  int64_t largest_unit_bytes() const;
  RankFacts facts() const;
  void gather_facts();
  void note_run();

  runtime::MpiSession& session_;
  const RunOptions& options_;
  runtime::StopSignals signals_;
  Clock::time_point begin_ = Clock::now();
  Inputs inputs_;
  std::optional<EarlyHash> hash_;  // rank 0, from set_up() to open()
  runtime::GpuChoice gpu_;
  // In this order: what goes first uses what goes after it.
  std::unique_ptr<kernels::Ops> ops_;
  bool is_streamed_ = false;                     // whether --stream has layers go through the backend's memory
  bool is_staged_ = false;                       // whether they come from memory of the host
  std::unique_ptr<runtime::HostMemory> staged_;  // null: they come from the checkpoint's map
  std::shared_ptr<void> staged_pin_;
  std::unique_ptr<model::ModelWeights> weights_;
  std::unique_ptr<runtime::Exchange> exchange_;  // null until there is work
  runtime::LoadReport loaded_;
  int n_threads_ = 1;
  RunIdentity identity_;     // rank 0
  std::string measurement_;  // its hash
  std::unique_ptr<model::CheckpointWatch> watch_;
  std::unique_ptr<RunDirectory> directory_;  // rank 0; null in a dry run
  std::vector<ScoreTable> cells_;            // by data set
  std::vector<WorkUnit> units_;
  engine::Rates rates_;
  bool is_prepared_ = false;
  bool keeps_prefixes_ = false;
  std::unique_ptr<engine::PrefixCache> prefixes_;  // null unless some are kept
  std::set<int64_t> has_prefix_;                   // examples whose prefix their rank has made
  int64_t memory_limit_ = 0;
  MeasureReport report_;            // of all rounds
  double predicted_seconds_ = 0.0;  // of the units of all rounds, from the first to the last
  double measured_seconds_ = 0.0;   // that they took
  int64_t units_done_ = 0;          // of units_, with the cells in them
  int64_t cells_done_ = 0;
  bool is_noted_ = false;                       // whether run.json has this run already
  nlohmann::json profile_;                      // of rank 0, null unless asked for
  std::optional<engine::Ceilings> ceilings_;    // of the same
  std::vector<RankFacts> all_facts_;            // rank 0
  std::vector<std::vector<double>> timelines_;  // rank 0: of all ranks when they last met, if asked for
};

}  // namespace winnow::run
