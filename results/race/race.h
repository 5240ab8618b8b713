// How many examples a choice of layers needs. A race looks at the measured deltas after more and more examples, and
// says after each look which layers' places are not yet certain: only those are measured on further examples. All
// depends on the deltas of complete looks alone, so not on ranks, their order, or interruptions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/kv_type.h"
#include "results/stats/table.h"

namespace winnow::race {

// The loss for which one layer may as well be kept in another's place: nats per token, or a share of what windowing all
// layers costs at least, by their lower bounds.
struct Tolerance {
  double value = 0.01;
  bool is_share = true;
};

// Parses "1%" or "0.01". Throws Error(kUsage), naming `flag`.
Tolerance parse_tolerance(const std::string& text, const std::string& flag);
// Parses "95%": at least 50 % and less than 100 %; returns 0.95. Throws Error(kUsage), naming `flag`.
double parse_confidence(const std::string& text, const std::string& flag);

struct RaceOptions {
  double confidence = 0.95;
  Tolerance tolerance;
  std::vector<int64_t> budget;  // K, rising: layers that keep full attention
  int64_t n_races = 1;          // that share the error, as those of several settings do
};

// What one look saw; figures by budget.
struct Look {
  int64_t n_examples = 0;        // of the layers that it saw
  double error = 0.0;            // probability that one of its bounds is wrong
  double tolerance_nats = 0.0;   // nats per token
  std::vector<bool> measured;    // (layers) that it saw
  std::vector<double> exchange;  // (budgets), nats per token: the most that keeping one other layer could gain
  std::vector<int64_t> n_open;   // (budgets): layers whose place is not certain

  bool is_settled(std::size_t budget) const { return exchange[budget] <= tolerance_nats; }
  // Returns true if every budget is settled.
  bool is_settled() const;
};

// Place of a layer at a budget, by the bounds.
enum class Place : int8_t { kWindowed = -1, kOpen = 0, kKept = 1 };

class Race {
 public:
  // Throws Error(kUsage) for a budget that is not from 1 to n_layers.
  Race(int64_t n_layers, RaceOptions options);

  // Takes delta NLL of the first examples, (examples, layers) in nats per token. Layers that needs() says must have
  // all of them; what others have is not looked at. `whole`: nats per token that a tolerance is a share of; none:
  // least_cost() of this race, this look among its own.
  void look(const stats::Table<double>& delta, std::optional<double> whole = std::nullopt);

  // Returns true for the layers that the next look needs; none where every budget is settled. (layers)
  const std::vector<bool>& needs() const { return needs_; }
  bool is_settled() const { return !looks_.empty() && looks_.back().is_settled(); }
  const std::vector<Look>& looks() const { return looks_; }
  // Returns examples by layer that the race used; (layers).
  const std::vector<int64_t>& layer_examples() const { return layer_examples_; }
  const RaceOptions& options() const { return options_; }
  // Returns what all layers cost at least, nats per token: the sum of the lower bounds of their deltas, where positive.
  double least_cost() const;
  // Returns the place of a layer at options().budget[budget], after the last look.
  Place place(std::size_t budget, int64_t layer) const;

 private:
  void take_bounds(const stats::Table<double>& delta, double error);
  void judge(Look& look) const;
  void find_needs(const Look& look);
  bool beats(int64_t a, int64_t b) const;
  double& low(int64_t a, int64_t b) { return low_(a, b); }

  int64_t n_layers_;
  RaceOptions options_;
  std::vector<bool> needs_;
  std::vector<int64_t> layer_examples_;
  std::vector<double> mean_;  // (layers)
  // Lower bound of the mean of a layer's delta less another's: the highest of all looks, which hold together. The last
  // column and row are of a layer that costs nothing. (layers + 1, layers + 1)
  stats::Table<double> low_;
  std::vector<Look> looks_;
};

// Returns the probability that a bound of a look, from 0, is wrong: with 1 / (k (k + 1)) of the whole at the k-th, all
// looks together spend it, however many there will be. So a race that goes on with more examples decides as before on
// the first ones.
double error_of_look(double confidence, int64_t look);
// Returns the number of examples of a look, from 0: 16, 24, 32, 48, 64, 96, ...
int64_t look_examples(int64_t look);

// What the layers of a race are under that do not keep full attention.
struct RacedSetting {
  int64_t window = 0;  // tokens as given; 0: full attention, in another type than the model's
  KvType kv = KvType::kStored;
};
// Returns true if one of them keeps keys and values in another type than they are computed in.
bool has_types(const std::vector<RacedSetting>& settings);
// Returns what tells them apart: "window 512", or where there are types setting_name().
std::vector<std::string> names_of(const std::vector<RacedSetting>& settings);

// A race that is over, as files keep it: plain data. Layers and budgets are in the order of their vectors.
struct RaceRecord {
  double confidence = 0.0;
  std::string tolerance;                // as given
  std::vector<int64_t> layer;           // (layers): layer index
  std::vector<int64_t> budget;          // (budgets)
  std::vector<RacedSetting> setting;    // (races)
  std::vector<int64_t> layer_examples;  // (layers): first examples that the layer was measured on
  std::vector<int64_t> look_examples;   // (looks)
  stats::Table<double> tolerance_nats;  // (looks, races), nats per token
  // (looks * races, budgets): nats per token, infinite where there is no bound, and layers without a certain place. NaN
  // and 0 where a race was over before.
  stats::Table<double> exchange;
  stats::Table<int64_t> n_open;
  stats::Table<int64_t> settled_examples;  // (races, budgets): examples that settled the budget; 0: it is not
  stats::Table<int64_t> place;             // (races * budgets, layers): Place as a number

  int64_t n_looks() const { return static_cast<int64_t>(look_examples.size()); }
  int64_t n_races() const { return static_cast<int64_t>(setting.size()); }
  bool is_settled() const;
};

// Returns the record of races over the same layers, whose looks are of the same numbers of examples; one a setting.
RaceRecord record_of(const std::vector<Race>& races, const std::vector<int64_t>& layer,
                     const std::vector<RacedSetting>& settings, const std::string& tolerance);

}  // namespace winnow::race
