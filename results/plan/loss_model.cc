#include "results/plan/loss_model.h"

#include <algorithm>
#include <cmath>

#include "results/stats/resampling.h"

namespace winnow::plan {
namespace {

// Variance of what is not learned of a measured plan, over the variance: nothing but room for rounding.
constexpr double kNugget = 1e-8;

// Solves A x = b for a symmetric positive definite A (n, n), whose lower triangle is overwritten, by Cholesky. A
// library would round as the processor's kernels do, and then ranks of different hosts might measure different plans.
std::vector<double> solve(stats::Table<double>& a, std::vector<double> b) {
  const int64_t n = a.rows;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = a(i, j);
      for (int64_t k = 0; k < j; ++k) sum -= a(i, k) * a(j, k);
      a(i, j) = i == j ? std::sqrt(std::max(sum, kNugget)) : sum / a(j, j);
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < i; ++k) b[stats::at(i)] -= a(i, k) * b[stats::at(k)];
    b[stats::at(i)] /= a(i, i);
  }
  for (int64_t i = n - 1; i >= 0; --i) {
    for (int64_t k = i + 1; k < n; ++k) b[stats::at(i)] -= a(k, i) * b[stats::at(k)];
    b[stats::at(i)] /= a(i, i);
  }
  return b;
}

}  // namespace

int64_t distance(const Settings& a, const Settings& b) {
  int64_t n = 0;
  for (std::size_t layer = 0; layer < a.size(); ++layer) n += a[layer] != b[layer] ? 1 : 0;
  return n;
}

double LossModel::sum_of_layers(const Settings& plan) const {
  double sum = 0.0;
  for (std::size_t layer = 0; layer < plan.size(); ++layer) sum += (*alone_)(static_cast<int64_t>(layer), plan[layer]);
  return sum;
}

LossModel::Forecast LossModel::around(const Settings& centre, std::span<const Settings> plans,
                                      std::span<const double> losses) const {
  std::vector<int64_t> away;
  for (const Settings& plan : plans) away.push_back(distance(centre, plan));
  std::vector<int64_t> nearest = stats::iota(static_cast<int64_t>(plans.size()));
  std::ranges::stable_sort(nearest, [&](int64_t a, int64_t b) { return away[stats::at(a)] < away[stats::at(b)]; });
  nearest.resize(std::min(nearest.size(), static_cast<std::size_t>(kMost)));

  Forecast forecast;
  forecast.model_ = this;
  forecast.power_ = {1.0};
  for (std::size_t d = 1; d <= centre.size(); ++d) forecast.power_.push_back(forecast.power_.back() * kDecay);
  const auto n = static_cast<int64_t>(nearest.size());
  stats::Table<double> covariance(n, n);
  std::vector<double> residual;
  for (int64_t i = 0; i < n; ++i) {
    const Settings& plan = plans[stats::at(nearest[stats::at(i)])];
    forecast.known_.push_back(&plan);
    residual.push_back(losses[stats::at(nearest[stats::at(i)])] - sum_of_layers(plan));
    for (int64_t j = 0; j <= i; ++j) {
      covariance(i, j) = forecast.power_[stats::at(distance(plan, *forecast.known_[stats::at(j)]))];
    }
    covariance(i, i) += kNugget;
  }
  forecast.weight_ = solve(covariance, std::move(residual));
  return forecast;
}

double LossModel::Forecast::loss(const Settings& plan) const {
  double loss = model_->sum_of_layers(plan);
  for (std::size_t i = 0; i < known_.size(); ++i) loss += weight_[i] * power_[stats::at(distance(plan, *known_[i]))];
  return loss;
}

}  // namespace winnow::plan
