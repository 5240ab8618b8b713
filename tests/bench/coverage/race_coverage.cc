// How often a race of results/race/race.h is wrong: tables of deltas are drawn from distributions whose means are
// known, and raced as `winnow calibrate --until` races them. Prints a table in Markdown: for each distribution and set
// of means the share of races that said something wrong (a place that is said to be certain and is not, or a settled
// budget in which an exchange of two layers would gain more than the tolerance), the share that settled every budget,
// and how many examples the layers got, of the most that were asked for.
//
//   race_coverage [RACES [EXAMPLES]]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/strings.h"
#include "results/race/race.h"
#include "results/stats/resampling.h"

namespace {

using winnow::race::Place;
using winnow::race::Race;
using winnow::stats::at;
using winnow::stats::Table;
using Generator = std::mt19937_64;

constexpr int64_t kLayers = 12;

struct Noise {
  std::string name;
  // Of mean 0 and about unit spread, from a normal number.
  std::function<double(double normal, double common)> value;
};

struct Means {
  std::string name;
  std::vector<double> of_layer;  // nats per token
  double noise = 0.0;            // how many units of noise a delta has; a share of its mean where it is relative
  bool is_relative = false;
  int64_t n_quiet = 0;  // last layers with a hundredth of the noise: differences from the others are as skewed as those
};

// One half of the variance is the example's, which all layers share.
Table<double> drawn_deltas(const Means& means, const Noise& noise, int64_t n_examples, Generator& random) {
  std::normal_distribution<double> normal;
  std::chi_squared_distribution<double> chi_squared(3.0);
  Table<double> table(n_examples, kLayers);
  for (int64_t e = 0; e < n_examples; ++e) {
    const double shared = normal(random);
    const double common = std::sqrt(chi_squared(random) / 3.0);
    for (int64_t l = 0; l < kLayers; ++l) {
      const double mean = means.of_layer[at(l)];
      const double quiet = l >= kLayers - means.n_quiet ? 0.01 : 1.0;
      const double scale = quiet * means.noise * (means.is_relative ? mean : 1.0);
      table(e, l) = mean + scale * noise.value(std::sqrt(0.5) * (shared + normal(random)), common);
    }
  }
  return table;
}

// The layers that keep full attention by the deltas that the race saw.
std::vector<bool> chosen(const Race& race, const Table<double>& table, int64_t k) {
  std::vector<double> means;
  for (int64_t l = 0; l < kLayers; ++l) {
    double sum = 0.0;
    const int64_t n = race.layer_examples()[at(l)];
    for (int64_t e = 0; e < n; ++e) sum += table(e, l);
    means.push_back(sum / static_cast<double>(n));
  }
  std::vector<bool> is_kept(at(kLayers), false);
  const std::vector<int64_t> order = winnow::stats::order_of(means, winnow::stats::iota(kLayers));
  for (int64_t i = 0; i < k; ++i) is_kept[at(order[at(i)])] = true;
  return is_kept;
}

bool is_wrong(const Race& race, const Table<double>& table, const std::vector<double>& means,
              const winnow::race::Tolerance& tolerance) {
  double total = 0.0;
  for (const double mean : means) total += std::max(0.0, mean);
  const double allowed = tolerance.is_share ? tolerance.value * total : tolerance.value;
  for (std::size_t b = 0; b < race.options().budget.size(); ++b) {
    const int64_t k = race.options().budget[b];
    const std::vector<bool> is_kept = chosen(race, table, k);
    for (int64_t i = 0; i < kLayers; ++i) {
      int64_t n_above = 0;  // layers that truly cost more
      int64_t n_not_below = 0;
      for (int64_t j = 0; j < kLayers; ++j) {
        n_above += means[at(j)] > means[at(i)] ? 1 : 0;
        n_not_below += j != i && means[at(j)] >= means[at(i)] ? 1 : 0;
      }
      if (race.place(b, i) == Place::kKept && n_not_below >= k) return true;
      if (race.place(b, i) == Place::kWindowed && n_above < k) return true;
      for (int64_t j = 0; race.looks().back().is_settled(b) && j < kLayers; ++j) {
        if (is_kept[at(i)] && !is_kept[at(j)] && means[at(j)] - means[at(i)] > allowed) return true;
      }
    }
  }
  return false;
}

void print_line(const Means& means, const Noise& noise, const winnow::race::Tolerance& tolerance, int64_t n_races,
                int64_t n_examples) {
  Generator random(7);
  int64_t n_wrong = 0;
  int64_t n_settled = 0;
  double used = 0.0;
  std::vector<double> most;
  for (int64_t i = 0; i < n_races; ++i) {
    const Table<double> table = drawn_deltas(means, noise, n_examples, random);
    Race race(kLayers, {.confidence = 0.95, .tolerance = tolerance, .budget = {1, 3, 6}, .n_races = 1});
    for (int64_t k = 0; !race.is_settled(); ++k) {
      const int64_t n = std::min(n_examples, winnow::race::look_examples(k));
      Table<double> seen(n, kLayers);
      std::copy_n(table.values.begin(), seen.values.size(), seen.values.begin());
      race.look(seen);
      if (n == n_examples) break;
    }
    n_wrong += is_wrong(race, table, means.of_layer, tolerance) ? 1 : 0;
    n_settled += race.is_settled() ? 1 : 0;
    for (const int64_t n : race.layer_examples()) used += static_cast<double>(n);
    most.push_back(static_cast<double>(race.looks().back().n_examples));
  }
  std::sort(most.begin(), most.end());
  const auto of_races = static_cast<double>(n_races);
  std::printf("| %s | %s | %.1f %% | %.1f %% | %.0f %% | %.0f |\n", means.name.c_str(), noise.name.c_str(),
              100.0 * static_cast<double>(n_wrong) / of_races, 100.0 * static_cast<double>(n_settled) / of_races,
              100.0 * used / (of_races * static_cast<double>(kLayers * n_examples)), most[most.size() / 2]);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t n_races = argc > 1 ? winnow::parse_number(argv[1]).value_or(0) : 1000;
  const int64_t n_examples = argc > 2 ? winnow::parse_number(argv[2]).value_or(0) : 64;
  if (n_races < 1 || n_examples < 2) {
    std::fprintf(stderr, "usage: race_coverage [RACES [EXAMPLES]], at least 1 and 2\n");
    return 64;
  }
  const double mean_of_log_normal = std::exp(0.5);
  const std::vector<Noise> noises = {
      {"normal", [](double normal, double) { return normal; }},
      {"Student t, 3 degrees", [](double normal, double common) { return normal / common; }},
      {"log-normal, sigma 1", [=](double normal, double) { return std::exp(normal) - mean_of_log_normal; }},
      {"log-normal, long limb below", [=](double normal, double) { return mean_of_log_normal - std::exp(normal); }},
  };
  std::vector<double> few = {8.0, 0.5, 0.2};
  std::vector<double> halving;
  for (int64_t l = 0; l < kLayers; ++l) {
    if (l >= 3) few.push_back(0.002 * static_cast<double>(l - 8));
    halving.push_back(std::ldexp(2.0, -static_cast<int>(l)));
  }
  const std::vector<Means> all_means = {
      {"all equal, 1", std::vector<double>(at(kLayers), 1.0), 0.5},
      {"all equal, 1, half of them with little noise", std::vector<double>(at(kLayers), 1.0), 0.5, false, 6},
      {"all equal but the last, 1 and 1.1", {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1.1}, 0.2},
      {"few matter, same noise", few, 0.1},
      {"few matter, noise of half the mean", few, 0.5, true},
      {"each half of the last, noise of half the mean", halving, 0.5, true},
  };
  std::printf("| means of 12 layers | noise | wrong | settled | cells measured | examples, median |\n");
  std::printf("|---|---|---|---|---|---|\n");
  for (const Means& means : all_means) {
    for (const Noise& noise : noises) print_line(means, noise, {.value = 0.01, .is_share = true}, n_races, n_examples);
  }
  return 0;
}
