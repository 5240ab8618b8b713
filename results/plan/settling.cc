#include "results/plan/settling.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "results/stats/bounds.h"
#include "results/stats/resampling.h"

namespace winnow::plan {
namespace {

using stats::at;

constexpr double kInfinite = std::numeric_limits<double>::infinity();

class Settling {
 public:
  Settling(const std::vector<stats::Table<double>>& delta, double confidence)
      : delta_(delta),
        confidence_(confidence),
        n_layers_(delta.front().cols),
        n_settings_(static_cast<int64_t>(delta.size())),
        low_(n_layers_, n_settings_ * n_settings_, -kInfinite) {}

  // Takes the first n_examples: the bounds of a layer's setting against another.
  void look(int64_t k, int64_t n_examples) {
    const double error =
        race::error_of_look(confidence_, k) / static_cast<double>(n_layers_ * n_settings_ * (n_settings_ - 1));
    std::vector<double> differences(at(n_examples));
    for (int64_t l = 0; l < n_layers_; ++l) {
      for (int64_t a = 0; a < n_settings_; ++a) {
        low(l, a, a) = 0.0;
        for (int64_t b = a + 1; b < n_settings_; ++b) {
          for (int64_t e = 0; e < n_examples; ++e) {
            differences[at(e)] = delta_[at(a)](e, l) - delta_[at(b)](e, l);
          }
          const stats::OneMeanBounds bounds = stats::student_bounds(differences, error);
          low(l, a, b) = std::max(low(l, a, b), bounds.lower);
          low(l, b, a) = std::max(low(l, b, a), -bounds.upper);
        }
      }
    }
  }

  // The plan of the first n_examples.
  std::optional<Assignment> plan(int64_t n_examples, const Pricing& pricing, double budget) const {
    stats::Table<double> loss(n_layers_, n_settings_);
    const std::vector<int64_t> rows = stats::iota(n_examples);
    for (int64_t s = 0; s < n_settings_; ++s) {
      const std::vector<double> means = stats::mean_of_rows(delta_[at(s)], rows);
      for (int64_t l = 0; l < n_layers_; ++l) loss(l, s) = means[at(l)];
    }
    return best_assignment(loss, pricing, budget);
  }

  // The most that the best plan can be better than this one: each layer at its lower bound against the plan's setting.
  double gain(const Assignment& plan, const Pricing& pricing, double budget) const {
    stats::Table<double> least(n_layers_, n_settings_);
    for (int64_t l = 0; l < n_layers_; ++l) {
      for (int64_t s = 0; s < n_settings_; ++s) {
        least(l, s) = low(l, s, plan.setting[at(l)]);
        if (least(l, s) == -kInfinite) return kInfinite;
      }
    }
    const std::optional<Assignment> best = best_assignment(least, pricing, budget);
    return best ? std::max(0.0, -best->loss) : 0.0;
  }

  // What a setting costs in all layers at least.
  double least_cost(int64_t setting) const {
    double sum = 0.0;
    for (int64_t l = 0; l < n_layers_; ++l) sum += std::max(0.0, low(l, setting, n_settings_ - 1));
    return sum;
  }

 private:
  double& low(int64_t layer, int64_t a, int64_t b) { return low_(layer, a * n_settings_ + b); }
  double low(int64_t layer, int64_t a, int64_t b) const { return low_(layer, a * n_settings_ + b); }

  const std::vector<stats::Table<double>>& delta_;
  double confidence_;
  int64_t n_layers_;
  int64_t n_settings_;
  stats::Table<double> low_;  // of the mean of setting a less that of b, the highest of all looks
};

}  // namespace

std::vector<PlanLook> settle(const std::vector<stats::Table<double>>& delta, const Pricing& pricing, double budget,
                             double confidence, const race::Tolerance& tolerance, int64_t narrowest) {
  Settling settling(delta, confidence);
  const int64_t n_all = delta.front().rows;
  std::vector<PlanLook> looks;
  for (int64_t k = 0; looks.empty() || looks.back().n_examples < n_all; ++k) {
    const int64_t n = std::min(n_all, race::look_examples(k));
    settling.look(k, n);
    const std::optional<Assignment> plan = settling.plan(n, pricing, budget);
    if (!plan) return {};
    looks.push_back(
        {.n_examples = n,
         .gain = settling.gain(*plan, pricing, budget),
         .tolerance_nats = tolerance.is_share ? tolerance.value * settling.least_cost(narrowest) : tolerance.value});
  }
  return looks;
}

}  // namespace winnow::plan
