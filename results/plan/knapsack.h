// The best setting of every layer under a budget, exactly. What an engine allocates depends on how many layers have
// each setting and on nothing else, but not always as a sum over layers (a pool cuts layers into groups): the dynamic
// programme therefore runs over these numbers, and any price of them will do.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "results/stats/table.h"

namespace winnow::plan {

// Layers with each setting; (settings).
using Counts = std::vector<int64_t>;
// Returns the price of such a division of the layers; none where nothing runs it.
using Price = std::function<std::optional<double>(const Counts&)>;

struct Assignment {
  std::vector<int64_t> setting;  // (layers)
  double loss = 0.0;             // sum over layers, first to last
  double price = 0.0;
};

class Knapsack {
 public:
  // Returns how many divisions there are of so many layers among so many settings: work and memory grow with it; one
  // more than can be held where there are more than that.
  static int64_t n_divisions(int64_t n_layers, int64_t n_settings);
  // loss (layers, settings) of each layer under each setting, finite. Throws Error(kUsage) where there are too many
  // divisions of the layers to hold.
  explicit Knapsack(stats::Table<double> loss);

  // The price of every division of all layers; infinite where there is none.
  using Prices = std::vector<double>;
  Prices prices(const Price& price) const;
  // Returns the price of one division of all layers.
  static double price(const Prices& prices, const Counts& counts);
  // Returns the least of the prices; infinite where nothing runs any division.
  static double least(const Prices& prices);
  // Returns the assignment of the least loss whose price is at most `budget`; ties go to the lower price, then to the
  // first division in the order of its counts. None where every price is higher.
  std::optional<Assignment> best(const Prices& prices, double budget) const;

 private:
  stats::Table<double> loss_;
  std::vector<double> least_loss_;            // by division of all layers, in their order
  std::vector<std::vector<uint8_t>> choice_;  // by number of layers, then division: setting of the last of them
};

}  // namespace winnow::plan
