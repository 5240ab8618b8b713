#include "results/plan/knapsack.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/error.h"

namespace winnow::plan {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();
constexpr int64_t kMostDivisions = int64_t{1} << 25;  // a byte each, and some seconds

// Returns the place of a division among all of as many layers, in lexicographic order.
std::size_t place_of(const Counts& counts) {
  int64_t left = 0;
  for (const int64_t count : counts) left += count;
  int64_t place = 0;
  auto settings = static_cast<int64_t>(counts.size());
  for (const int64_t count : counts) {
    // Of those with the same front, the ones with fewer layers here come before.
    place += Knapsack::n_divisions(left, settings) - Knapsack::n_divisions(left - count, settings);
    left -= count;
    --settings;
  }
  return static_cast<std::size_t>(place);
}

// Calls `use` with every division of n layers, in lexicographic order.
template <typename Use>
void for_each_division(int64_t n, std::size_t settings, const Use& use) {
  Counts counts(settings, 0);
  counts.back() = n;
  while (true) {
    use(counts);
    // One layer more at the last place behind which there is one left; the rest of those goes to the end.
    auto at = static_cast<std::ptrdiff_t>(settings) - 2;
    int64_t behind = counts.back();
    while (at >= 0 && behind == 0) behind += counts[static_cast<std::size_t>(at--)];
    if (at < 0) return;
    ++counts[static_cast<std::size_t>(at)];
    std::fill(counts.begin() + at + 1, counts.end(), 0);
    counts.back() = behind - 1;
  }
}

}  // namespace

// n + settings - 1 over settings - 1.
int64_t Knapsack::n_divisions(int64_t n, int64_t settings) {
  if (settings == 0) return n == 0 ? 1 : 0;
  int64_t count = 1;
  for (int64_t i = 1; i < settings; ++i) {
    count = count * (n + i) / i;
    if (count > kMostDivisions) return kMostDivisions + 1;
  }
  return count;
}

Knapsack::Knapsack(stats::Table<double> loss) : loss_(std::move(loss)) {
  const auto settings = static_cast<std::size_t>(loss_.cols);
  if (n_divisions(loss_.rows, loss_.cols + 1) > kMostDivisions || loss_.cols > 255) {
    fail(ExitCode::kUsage, std::to_string(loss_.rows) + " layers with " + std::to_string(loss_.cols) +
                               " settings each are too many to choose among; calibrate with fewer --windows or --kv");
  }
  least_loss_ = {0.0};
  for (int64_t n = 1; n <= loss_.rows; ++n) {
    std::vector<double> least;
    std::vector<uint8_t>& choice = choice_.emplace_back();
    for_each_division(n, settings, [&](Counts& counts) {
      double best = kNone;
      std::size_t chosen = 0;
      for (std::size_t s = 0; s < settings; ++s) {
        if (counts[s] == 0) continue;
        --counts[s];
        const double candidate = least_loss_[place_of(counts)] + loss_(n - 1, static_cast<int64_t>(s));
        ++counts[s];
        if (candidate < best) {
          best = candidate;
          chosen = s;
        }
      }
      least.push_back(best);
      choice.push_back(static_cast<uint8_t>(chosen));
    });
    least_loss_ = std::move(least);
  }
}

Knapsack::Prices Knapsack::prices(const Price& price) const {
  Prices prices;
  prices.reserve(least_loss_.size());
  for_each_division(loss_.rows, static_cast<std::size_t>(loss_.cols),
                    [&](const Counts& counts) { prices.push_back(price(counts).value_or(kNone)); });
  return prices;
}

double Knapsack::price(const Prices& prices, const Counts& counts) { return prices[place_of(counts)]; }

double Knapsack::least(const Prices& prices) { return *std::ranges::min_element(prices); }

std::optional<Assignment> Knapsack::best(const Prices& prices, double budget) const {
  Assignment best{.setting = {}, .loss = kNone, .price = kNone};
  Counts counts;
  std::size_t place = 0;
  for_each_division(loss_.rows, static_cast<std::size_t>(loss_.cols), [&](const Counts& division) {
    const double loss = least_loss_[place];
    const double price = prices[place++];
    if (price == kNone || price > budget) return;
    if (loss > best.loss || (loss == best.loss && price >= best.price)) return;
    best.loss = loss;
    best.price = price;
    counts = division;
  });
  if (counts.empty()) return std::nullopt;
  best.setting.resize(static_cast<std::size_t>(loss_.rows));
  for (int64_t n = loss_.rows; n > 0; --n) {
    const auto last = static_cast<std::size_t>(n - 1);
    const uint8_t chosen = choice_[last][place_of(counts)];
    best.setting[last] = chosen;
    --counts[chosen];
  }
  return best;
}

}  // namespace winnow::plan
