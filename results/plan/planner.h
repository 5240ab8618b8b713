// Plans: for every layer the window that loses least within the memory that an engine has for keys and values. Pure
// functions of a calibration; jobs/cli/commands/plan.cc writes them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "results/plan/knapsack.h"
#include "results/plan/pricing.h"
#include "results/plan/settling.h"
#include "results/selection/select_input.h"
#include "results/selection/selection.h"
#include "results/serving/kv_allocation.h"

namespace winnow::plan {

struct Plan {
  std::vector<int64_t> settings;       // (Planner::layers())
  std::vector<int64_t> windows;        // (n_layers), keys that a layer sees, 0: full attention
  std::vector<KvType> kv;              // (n_layers), types of keys and values; empty: all as computed
  double bytes = 0.0;                  // keys and values, as the engine allocates them
  double loss = 0.0;                   // predicted, nats per token: sum over layers of the measured mean delta NLL
  double ci_low = 0.0, ci_high = 0.0;  // its 95 % percentile bootstrap interval over examples; NaN for one example

  int64_t n_full() const;
};

// What `provenance` of a plan's selection says of its memory.
struct PlannedMemory {
  std::string budget;  // as it was given
  std::string engine;
  serving::KvDemand demand;
  double bytes = 0.0;
  double full_bytes = 0.0;
};
void describe_memory(const PlannedMemory& memory, selection::Selection& selection);

class Planner {
 public:
  // Throws Error(kBadData) for a calibration whose deltas are not those of windows against full attention.
  // `input` must outlive this.
  explicit Planner(const selection::SelectInput& input, uint64_t seed = 0);

  // Returns the different windows that a layer may have, rising, tokens as they are served; full attention besides.
  std::vector<int64_t> windows() const;
  // Returns the types of keys and values that a layer may have besides as computed, mostly none.
  std::vector<KvType> kv_types() const;
  int64_t n_layers() const { return n_layers_; }
  // The layers that a plan decides on, rising. A setting of one is a window in a type of keys and values, as they were
  // measured; full attention as computed is the last.
  const std::vector<int64_t>& layers() const { return layers_; }
  // The mean loss of each layer alone under each setting; (layers(), settings).
  const stats::Table<double>& loss_alone() const { return loss_alone_; }
  // Return what all layers of the model see under settings of layers(), keys, 0: all; (n_layers); the types of their
  // keys and values, (n_layers), or empty where all are as computed; and for each example of the calibration the sum of
  // what the layers lose alone; (examples), NaN beyond n_shared_examples().
  std::vector<int64_t> windows_of(const std::vector<int64_t>& settings) const;
  std::vector<KvType> kv_of(const std::vector<int64_t>& settings) const;
  std::vector<double> loss_by_example(const std::vector<int64_t>& settings) const;
  // Returns what a layer keeps under each setting, bytes: no engine's allocation, but in the order of any.
  std::vector<double> bytes_of_settings(const Service& service) const;

  // What divisions of the layers take on an engine.
  struct Costs {
    Service service;
    Pricing pricing;
    double least_bytes = 0.0;
    double full_bytes = 0.0;      // all layers as the checkpoint has them
    bool has_one_window = false;  // whether all windowed layers of a plan have one window
  };
  // Throws Error(kUsage) for an engine that does not run this model with windows in single layers, or not with the
  // sinks, the decoding or the positions that were measured.
  Costs costs(const Service& service) const;
  // Returns the plan of the least predicted loss within `budget` bytes. Throws Error(kUsage) for a budget that is less
  // than any plan takes, or more than full attention takes, and as best_assignment() does. `flag` names the budget in
  // messages.
  Plan best(const Costs& costs, double budget, const std::string& flag) const;

  // Returns whether other plans within `budget` could be better than the one of the first examples, look by look; over
  // the examples that every layer was measured on.
  std::vector<PlanLook> settle(const Costs& costs, double budget, double confidence,
                               const race::Tolerance& tolerance) const;
  // Returns what an engine allocates for the keys and values of a plan, bytes; none where it does not run the plan.
  std::optional<double> allocated_bytes(const Plan& plan, const Service& service) const;

  // Returns the plan as a selection, which evaluate and export read; `origin` names the results. `budget` is how it was
  // given.
  selection::Selection selection(const Plan& plan, const Costs& costs, const std::string& budget,
                                 const std::string& origin) const;

 private:
  serving::KvKind kept(int64_t window, KvType type, const Service& service) const;
  Pricing pricing_of(const Service& service) const;
  void check_engine(const Service& service) const;
  void add_interval(const Assignment& assignment, Plan& plan) const;

  const selection::SelectInput& input_;
  uint64_t seed_;
  int64_t n_layers_ = 0;
  int64_t sinks_ = 0;
  std::vector<int64_t> layers_;              // (measured layers)
  std::vector<int64_t> windows_;             // (settings - 1), 0: full attention in a narrower type
  std::vector<KvType> kv_;                   // (settings); the last is full attention as computed
  std::vector<int64_t> native_;              // (n_layers), keys of a layer's own window, 0: none
  std::vector<stats::Table<double>> delta_;  // by setting, (examples, measured layers); of full attention 0
  stats::Table<double> loss_alone_;
};

}  // namespace winnow::plan
