#include "results/plan/knapsack.h"

#include <algorithm>
#include <limits>
#include <string>

#include "base/error.h"

namespace winnow::plan {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();
constexpr int64_t kMostDivisions = int64_t{1} << 28;  // a byte each, and some ten seconds

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

// The places of all divisions that have one layer less than a given one. What is before such a place is a sum over
// settings, of which those behind the setting that has less are as they were, and those before it see one layer less.
class NeighbourPlaces {
 public:
  NeighbourPlaces(int64_t n_layers, int64_t n_settings)
      : n_divisions_(n_layers + 1, n_settings + 1), place_(static_cast<std::size_t>(n_settings)) {
    for (int64_t n = 0; n <= n_layers; ++n) {
      for (int64_t s = 0; s <= n_settings; ++s) n_divisions_(n, s) = Knapsack::n_divisions(n, s);
    }
  }

  // counts: of n layers. Returns the place without a layer of each setting, of those that have any.
  const std::vector<int64_t>& of(const Counts& counts, int64_t n) {
    const auto n_settings = static_cast<int64_t>(counts.size());
    const auto before = [&](int64_t left, int64_t count, int64_t setting) {
      return n_divisions_(left, n_settings - setting) - n_divisions_(left - count, n_settings - setting);
    };
    // First what comes before by the settings up to each one, then, from the end, by those behind it.
    int64_t left = n;
    int64_t sum = 0;
    for (int64_t s = 0; s < n_settings; ++s) {
      const int64_t count = counts[static_cast<std::size_t>(s)];
      if (count > 0) place_[static_cast<std::size_t>(s)] = sum + before(left - 1, count - 1, s);
      // Of a setting behind which there is none left, no division with one layer less there is asked for.
      if (left > count) sum += before(left - 1, count, s);
      left -= count;
    }
    sum = 0;
    for (int64_t s = n_settings - 1; s >= 0; --s) {
      const int64_t count = counts[static_cast<std::size_t>(s)];
      if (count > 0) place_[static_cast<std::size_t>(s)] += sum;
      left += count;
      sum += before(left, count, s);
    }
    return place_;
  }

 private:
  stats::Table<int64_t> n_divisions_;  // (layers, settings)
  std::vector<int64_t> place_;
};

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
  NeighbourPlaces neighbours(loss_.rows, loss_.cols);
  for (int64_t n = 1; n <= loss_.rows; ++n) {
    std::vector<double> least;
    std::vector<uint8_t>& choice = choice_.emplace_back();
    for_each_division(n, settings, [&](const Counts& counts) {
      const std::vector<int64_t>& without = neighbours.of(counts, n);
      double best = kNone;
      std::size_t chosen = 0;
      for (std::size_t s = 0; s < settings; ++s) {
        if (counts[s] == 0) continue;
        const double candidate =
            least_loss_[static_cast<std::size_t>(without[s])] + loss_(n - 1, static_cast<int64_t>(s));
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
