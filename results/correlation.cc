#include "results/correlation.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "results/random.h"

namespace winnow {
namespace {

// Doubled ranks less their mean, which is size + 1 whatever the ties.
std::vector<int64_t> centred_ranks(std::span<const double> values) {
  std::vector<int64_t> ranks = doubled_average_ranks(values);
  for (int64_t& rank : ranks) rank -= static_cast<int64_t>(values.size()) + 1;
  return ranks;
}

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

std::optional<double> spearman(std::span<const double> x, std::span<const double> y) {
  const std::vector<int64_t> a = centred_ranks(x);
  const std::vector<int64_t> b = centred_ranks(y);
  const int64_t xx = dot(a, a);
  const int64_t yy = dot(b, b);
  if (xx == 0 || yy == 0) return std::nullopt;
  // One root of the product: equal orders give exactly 1.
  return static_cast<double>(dot(a, b)) / std::sqrt(static_cast<double>(xx) * static_cast<double>(yy));
}

std::optional<double> spearman_permutation_p(std::span<const double> x, std::span<const double> y,
                                             int64_t n_permutations, uint64_t seed) {
  const std::vector<int64_t> a = centred_ranks(x);
  std::vector<int64_t> b = centred_ranks(y);
  if (dot(a, a) == 0 || dot(b, b) == 0) return std::nullopt;
  const int64_t observed = std::abs(dot(a, b));
  const std::vector<int64_t> unpermuted = b;
  int64_t n_as_extreme = 0;
  for (int64_t p = 0; p < n_permutations; ++p) {
    RandomStream random(seed, kPermutationStream, static_cast<uint64_t>(p));
    b = unpermuted;
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

}  // namespace winnow
