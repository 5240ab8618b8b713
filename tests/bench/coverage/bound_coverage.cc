// How often the bounds of results/stats/bounds.h hold: tables of losses are drawn from distributions whose means are
// known, and bounded. Prints a table in Markdown: for each distribution, number of examples and number of patterns, the
// share of tables in which all upper bounds hold, and all lower bounds, and how many standard errors the upper ones are
// above the means, in the median; beside them the share of the 95 % percentile interval of one pattern, which tables
// and pages show of means.
//
//   bound_coverage [TABLES [RESAMPLES]]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/strings.h"
#include "results/stats/bounds.h"
#include "results/stats/correlation.h"
#include "results/stats/resampling.h"

namespace {

using winnow::stats::Table;
using Generator = std::mt19937_64;

struct Distribution {
  std::string name;
  double mean;
  // From two standard normal numbers with the correlation of two patterns, and what their example has in common.
  std::function<double(double normal, double common)> value;
};

// One half of the variance is the example's, which windowed layers fail on together.
Table<double> drawn_table(const Distribution& distribution, int64_t n_patterns, int64_t n_examples, Generator& random) {
  std::normal_distribution<double> normal;
  std::chi_squared_distribution<double> chi_squared(3.0);
  Table<double> table(n_patterns, n_examples);
  for (int64_t e = 0; e < n_examples; ++e) {
    const double shared = normal(random);
    const double common = std::sqrt(chi_squared(random) / 3.0);
    for (int64_t p = 0; p < n_patterns; ++p) {
      table(p, e) = distribution.value(std::sqrt(0.5) * (shared + normal(random)), common);
    }
  }
  return table;
}

bool percentile_holds(const Table<double>& table, double mean, uint64_t seed, int64_t n_resamples) {
  std::vector<double> means;
  for (int64_t r = 0; r < n_resamples; ++r) {
    means.push_back(winnow::stats::mean_of(table.values.data(), winnow::stats::draw_rows(table.cols, seed, r)));
  }
  const winnow::stats::Interval interval = winnow::stats::percentile_interval(means);
  return interval.low <= mean && mean <= interval.high;
}

void print_line(const Distribution& distribution, int64_t n_patterns, int64_t n_examples, int64_t n_tables,
                int64_t n_resamples) {
  Generator random(static_cast<uint64_t>(1000 * n_examples + n_patterns));
  int64_t upper = 0;
  int64_t lower = 0;
  int64_t percentile = 0;
  std::vector<double> distances;
  for (int64_t i = 0; i < n_tables; ++i) {
    const Table<double> table = drawn_table(distribution, n_patterns, n_examples, random);
    const auto seed = static_cast<uint64_t>(i);
    const winnow::stats::MeanBounds bounds = winnow::stats::mean_bounds(table, seed, n_resamples);
    bool is_below = true;
    bool is_above = true;
    // An undefined bound promises nothing.
    for (const double bound : bounds.upper) is_below = is_below && !(bound < distribution.mean);
    for (const double bound : bounds.lower) is_above = is_above && !(bound > distribution.mean);
    distances.push_back(bounds.upper_critical);
    upper += is_below ? 1 : 0;
    lower += is_above ? 1 : 0;
    if (n_patterns == 1) percentile += percentile_holds(table, distribution.mean, seed, n_resamples) ? 1 : 0;
  }
  const auto share = [&](int64_t count) { return 100.0 * static_cast<double>(count) / static_cast<double>(n_tables); };
  std::sort(distances.begin(), distances.end());
  std::printf("| %s | %ld | %ld | %.1f %% | %.1f %% | %.2f | ", distribution.name.c_str(),
              static_cast<long>(n_examples), static_cast<long>(n_patterns), share(upper), share(lower),
              winnow::stats::quantile(distances, 0.5));
  std::printf(n_patterns == 1 ? "%.1f %% |\n" : "|\n", share(percentile));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t n_tables = argc > 1 ? winnow::parse_number(argv[1]).value_or(0) : 2000;
  const int64_t n_resamples = argc > 2 ? winnow::parse_number(argv[2]).value_or(0) : 2000;
  if (n_tables < 1 || n_resamples < 1) {
    std::fprintf(stderr, "usage: bound_coverage [TABLES [RESAMPLES]], both at least 1\n");
    return 64;
  }
  const std::vector<Distribution> distributions = {
      {"normal", 0.0, [](double normal, double) { return normal; }},
      {"Student t, 3 degrees", 0.0, [](double normal, double common) { return normal / common; }},
      {"exponential", 1.0, [](double normal, double) { return -std::log(0.5 * std::erfc(normal / std::sqrt(2.0))); }},
      {"log-normal, sigma 1", std::exp(0.5), [](double normal, double) { return std::exp(normal); }},
  };
  std::printf(
      "| losses | examples | patterns | upper bounds hold | lower bounds hold | standard errors above | percentile "
      "interval holds |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
  for (const Distribution& distribution : distributions) {
    for (const int64_t n_examples : {8, 16, 64}) {
      for (const int64_t n_patterns : {1, 8}) {
        print_line(distribution, n_patterns, n_examples, n_tables, n_resamples);
      }
    }
  }
  return 0;
}
