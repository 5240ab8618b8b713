#include "results/stats/correlation.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "base/random.h"

namespace winnow::stats {
namespace {

int64_t dot(std::span<const int64_t> x, std::span<const int64_t> y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), int64_t{0});
}

}  // namespace

std::vector<int64_t> doubled_average_ranks(std::span<const double> values) {
  const std::size_t n = values.size();
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<int64_t> ranks(n);
  for (std::size_t first = 0; first < n;) {
    std::size_t end = first + 1;
    while (end < n && values[order[end]] == values[order[first]]) ++end;
    // Ranks first + 1 .. end, whose mean is (first + 1 + end) / 2.
    for (std::size_t i = first; i < end; ++i) ranks[order[i]] = static_cast<int64_t>(first + 1 + end);
    first = end;
  }
  return ranks;
}

CentredRanks centred_ranks(std::span<const double> values) {
  CentredRanks ranks{.values = doubled_average_ranks(values)};
  // The mean of doubled ranks is size + 1 whatever the ties.
  for (int64_t& rank : ranks.values) rank -= static_cast<int64_t>(values.size()) + 1;
  ranks.sum_of_squares = dot(ranks.values, ranks.values);
  return ranks;
}

std::optional<double> spearman(const CentredRanks& x, const CentredRanks& y) {
  if (x.sum_of_squares == 0 || y.sum_of_squares == 0) return std::nullopt;
  // One root of the product: equal orders give exactly 1.
  return static_cast<double>(dot(x.values, y.values)) /
         std::sqrt(static_cast<double>(x.sum_of_squares) * static_cast<double>(y.sum_of_squares));
}

std::optional<double> spearman(std::span<const double> x, std::span<const double> y) {
  return spearman(centred_ranks(x), centred_ranks(y));
}

std::optional<double> spearman_permutation_p(std::span<const double> x, std::span<const double> y,
                                             int64_t n_permutations, uint64_t seed) {
  const CentredRanks ranks_x = centred_ranks(x);
  const CentredRanks ranks_y = centred_ranks(y);
  if (ranks_x.sum_of_squares == 0 || ranks_y.sum_of_squares == 0) return std::nullopt;
  const std::vector<int64_t>& a = ranks_x.values;
  std::vector<int64_t> b = ranks_y.values;
  const int64_t observed = std::abs(dot(a, b));
  int64_t n_as_extreme = 0;
  for (int64_t p = 0; p < n_permutations; ++p) {
    RandomStream random(seed, kPermutationStream, static_cast<uint64_t>(p));
    b = ranks_y.values;
    random.shuffle(std::span<int64_t>(b));
    if (std::abs(dot(a, b)) >= observed) ++n_as_extreme;
  }
  return static_cast<double>(n_as_extreme + 1) / static_cast<double>(n_permutations + 1);
}

double quantile(std::span<const double> sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  if (below + 1 >= sorted.size()) return sorted.back();
  const double fraction = position - static_cast<double>(below);
  return sorted[below] + fraction * (sorted[below + 1] - sorted[below]);
}

double quantile_step(std::span<const double> sorted, double q) {
  const auto position = static_cast<int64_t>(std::ceil(q * static_cast<double>(sorted.size()))) - 1;
  return sorted[static_cast<std::size_t>(std::clamp<int64_t>(position, 0, static_cast<int64_t>(sorted.size()) - 1))];
}

}  // namespace winnow::stats
