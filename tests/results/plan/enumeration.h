// The best plan of a budget by looking at every division of the layers among the settings: slow, and without any idea
// of what an engine's price is made of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "results/stats/table.h"

namespace winnow::plan {

using LossAndPrice = std::pair<double, double>;

class Enumeration {
 public:
  using Counts = std::vector<int64_t>;

  explicit Enumeration(const stats::Table<double>& loss) {
    least_ = {{Counts(static_cast<std::size_t>(loss.cols)), 0.0}};
    for (int64_t l = 0; l < loss.rows; ++l) {
      std::map<Counts, double> next;
      for (const auto& [counts, before] : least_) {
        for (int64_t s = 0; s < loss.cols; ++s) {
          Counts with = counts;
          ++with[static_cast<std::size_t>(s)];
          const double sum = before + loss(l, s);
          const auto [at, is_new] = next.emplace(std::move(with), sum);
          if (!is_new) at->second = std::min(at->second, sum);
        }
      }
      least_ = std::move(next);
    }
  }

  // The price of every division, infinite where nothing runs it.
  std::vector<double> prices(const std::function<std::optional<double>(const Counts&)>& price) const {
    std::vector<double> prices;
    for (const auto& [counts, loss] : least_) prices.push_back(price(counts).value_or(kInfinite));
    return prices;
  }

  // Infinite where nothing fits.
  LossAndPrice best(const std::vector<double>& prices, double budget) const {
    LossAndPrice best{kInfinite, kInfinite};
    auto price = prices.begin();
    for (const auto& [counts, loss] : least_) {
      if (*price <= budget) best = std::min(best, {loss, *price});
      ++price;
    }
    return best;
  }

 private:
  static constexpr double kInfinite = std::numeric_limits<double>::infinity();
  std::map<Counts, double> least_;  // loss, by the layers with each setting
};

}  // namespace winnow::plan
