// What a plan is expected to lose, learned from the plans that were measured.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "results/stats/table.h"

namespace winnow::plan {

// Setting of each layer, an index; (layers).
using Settings = std::vector<int64_t>;

// Returns in how many layers two plans differ.
int64_t distance(const Settings& a, const Settings& b);

// A Gaussian process over plans. Its mean is the sum of what each layer costs alone; what layers cost together beside
// that is learned: measured less mean, with the covariance kDecay^(layers that differ), the product over layers of a
// covariance of two settings. So a plan that was measured has the loss that was measured; one that differs in two
// layers has about the sum of both changes, as far as these were measured; and one that nothing measured resembles has
// the mean. No function of the mathematical library takes part, so that all ranks compute the same bits.
class LossModel {
 public:
  // Covariance of plans that differ in one layer, over the variance.
  static constexpr double kDecay = 0.9;
  // Measured plans that a forecast goes by, those nearest to its centre: the work grows with their cube.
  static constexpr int64_t kMost = 400;

  // alone (layers, settings): loss of each layer under each setting with all others as in the base, nats per token.
  explicit LossModel(const stats::Table<double>& alone) : alone_(&alone) {}

  // Returns the sum of what each layer costs alone.
  double sum_of_layers(const Settings& plan) const;

  // Expected losses in the neighbourhood of a plan.
  class Forecast {
   public:
    double loss(const Settings& plan) const;  // nats per token

   private:
    friend class LossModel;
    const LossModel* model_ = nullptr;
    std::vector<const Settings*> known_;
    std::vector<double> weight_;  // (known)
    std::vector<double> power_;   // of kDecay, by distance; (layers + 1)
  };
  // Returns the forecasts that follow from these measured plans and their losses, each plan there once. The model and
  // the plans must outlive them.
  Forecast around(const Settings& centre, std::span<const Settings> plans, std::span<const double> losses) const;

 private:
  const stats::Table<double>* alone_;
};

}  // namespace winnow::plan
