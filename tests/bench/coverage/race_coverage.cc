// How often a race of results/race/race.h is wrong: tables of deltas are drawn from populations whose means are
// known, and raced as `winnow calibrate --until` races them. Prints a table in Markdown: for each set of means and each
// distribution the share of races that said something wrong (a place that is said to be certain and is not, or a
// settled budget in which an exchange of two layers would gain more than the tolerance), the share that settled every
// budget, and how many examples the layers got, of the most that were asked for. Where noise has rare events, the share
// of wrong races also of those alone whose first look has seen one in every layer that has them.
//
//   race_coverage [RACES [EXAMPLES [RESULTS.h5 ...]]]
//
// With results of `winnow calibrate` the populations are their examples, drawn with replacement: for every window, or
// setting, that layers were measured under. Of `winnow evaluate`, whose patterns lose against full attention, the
// patterns stand for layers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/strings.h"
#include "base/terminal_table.h"
#include "results/calibration/store.h"
#include "results/evaluation/store.h"
#include "results/race/race.h"
#include "results/stats/resampling.h"
#include "results/storage/hdf5_server.h"

namespace {

using winnow::race::Place;
using winnow::race::Race;
using winnow::stats::at;
using winnow::stats::Table;
using Generator = std::mt19937_64;

constexpr int64_t kLayers = 12;
constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr double kEvent = 2.5;  // units of noise: events have 5 or more, other examples far less

// What a noise is made of.
struct Draw {
  double normal = 0.0;  // half of its variance is that of the example, which all layers share
  double common = 0.0;  // of the example: a root of chi-squared over its 3 degrees
  double own = 0.0;     // normal, of that cell alone
  double event = 0.0;   // of the example: uniform from 0 to 1
};

struct Noise {
  std::string name;
  // Of mean 0 and about unit spread.
  std::function<double(const Draw& draw)> value;
  double event = kInfinite;  // values from here on are events, of which most examples have none
};

struct Means {
  std::string name;
  std::vector<double> of_layer;  // nats per token
  double noise = 0.0;            // how many units of noise a delta has; a share of its mean where it is relative
  bool is_relative = false;
  int64_t n_quiet = 0;  // last layers with a hundredth of the noise: differences from the others are as skewed as those
};

// Deltas are drawn from it.
struct Population {
  std::string means, noise;      // what the row says
  std::vector<double> of_layer;  // its means, nats per token
  std::vector<int64_t> budget;
  std::vector<double> event;  // by layer: deltas from here on are events; empty where there are none
  // Returns so many examples: (examples, layers). Two generators, as cases that were added must not move the others.
  std::function<Table<double>(int64_t n_examples, Generator& random, Generator& more)> draw;
};

bool is_quiet(const Means& means, int64_t layer) { return layer >= kLayers - means.n_quiet; }

double scale_of(const Means& means, int64_t layer) {
  const double quiet = is_quiet(means, layer) ? 0.01 : 1.0;
  return quiet * means.noise * (means.is_relative ? means.of_layer[at(layer)] : 1.0);
}

// The delta from which on a layer has an event. Those of quiet layers and of means below 0 are none.
std::vector<double> events_of(const Means& means, const Noise& noise) {
  std::vector<double> events;
  for (int64_t l = 0; noise.event < kInfinite && l < kLayers; ++l) {
    const double scale = is_quiet(means, l) ? 0.0 : scale_of(means, l);
    events.push_back(scale > 0.0 ? means.of_layer[at(l)] + scale * noise.event : kInfinite);
  }
  return events;
}

Table<double> drawn_deltas(const Means& means, const Noise& noise, int64_t n_examples, Generator& random,
                           Generator& more) {
  std::normal_distribution<double> normal;
  std::normal_distribution<double> normal_of_cell;
  std::chi_squared_distribution<double> chi_squared(3.0);
  std::uniform_real_distribution<double> uniform;
  Table<double> table(n_examples, kLayers);
  for (int64_t e = 0; e < n_examples; ++e) {
    const double shared = normal(random);
    Draw draw{.common = std::sqrt(chi_squared(random) / 3.0), .event = uniform(more)};
    for (int64_t l = 0; l < kLayers; ++l) {
      draw.normal = std::sqrt(0.5) * (shared + normal(random));
      draw.own = normal_of_cell(more);
      table(e, l) = means.of_layer[at(l)] + scale_of(means, l) * noise.value(draw);
    }
  }
  return table;
}

// The probability that a normal number is larger.
double above(double normal) { return 0.5 * std::erfc(normal * std::sqrt(0.5)); }

// The number from 0 that is exceeded with that probability; `survival` falls from 1 to 0.
double exceeded_with(double probability, const std::function<double(double)>& survival) {
  double low = 0.0;
  double high = 1.0;
  while (survival(high) > probability) high *= 2.0;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (survival(middle) > probability ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

// Those on which the factor of the skewness in results/stats/bounds.h was chosen.
std::vector<Noise> noises_of_the_choice() {
  const double mean_of_log_normal = std::exp(0.5);
  return {
      {"normal", [](const Draw& draw) { return draw.normal; }},
      {"Student t, 3 degrees", [](const Draw& draw) { return draw.normal / draw.common; }},
      {"log-normal, sigma 1", [=](const Draw& draw) { return std::exp(draw.normal) - mean_of_log_normal; }},
      {"log-normal, long limb below", [=](const Draw& draw) { return mean_of_log_normal - std::exp(draw.normal); }},
  };
}

// Others, which were fixed before any of them was looked at, but for the last two. Spreads are 1, but those of events.
std::vector<Noise> other_noises() {
  const auto gamma_half = [](double normal) {
    return (exceeded_with(above(normal), [](double x) { return std::erfc(std::sqrt(x)); }) - 0.5) / std::sqrt(0.5);
  };
  const auto gamma_two = [](double normal) {
    return (exceeded_with(above(normal), [](double x) { return (1.0 + x) * std::exp(-x); }) - 2.0) / std::sqrt(2.0);
  };
  const auto pareto = [](double normal) { return (std::pow(above(normal), -1.0 / 3.0) - 1.5) / std::sqrt(0.75); };
  const auto laplace = [](double normal) {
    return std::copysign(std::log(2.0 * above(std::abs(normal))), normal) * std::sqrt(0.5);
  };
  // With the noise of half the mean: ten times the delta in that share of the examples, and a tenth of the mean as
  // other noise.
  const auto with_event = [](double share, double uniform, double normal) {
    return 2.0 * ((uniform < share ? 10.0 : 1.0) / (1.0 + 9.0 * share) - 1.0) + 0.2 * normal;
  };
  return {
      {"gamma, shape 0.5", [=](const Draw& draw) { return gamma_half(draw.normal); }},
      {"gamma, shape 0.5, limb below", [=](const Draw& draw) { return -gamma_half(draw.normal); }},
      {"gamma, shape 2", [=](const Draw& draw) { return gamma_two(draw.normal); }},
      {"gamma, shape 2, limb below", [=](const Draw& draw) { return -gamma_two(draw.normal); }},
      {"Laplace", [=](const Draw& draw) { return laplace(draw.normal); }},
      {"Pareto, alpha 3", [=](const Draw& draw) { return pareto(draw.normal); }},
      {"Pareto, alpha 3, limb below", [=](const Draw& draw) { return -pareto(draw.normal); }},
      {"1 example in 20: ten times, all layers", [=](const Draw& d) { return with_event(0.05, d.event, d.own); },
       kEvent},
      {"1 example in 20: ten times, each layer",
       [=](const Draw& d) { return with_event(0.05, above(d.normal), d.own); }, kEvent},
      // To tell why: events of which the first look has seen some.
      {"1 example in 5: ten times, all layers", [=](const Draw& d) { return with_event(0.2, d.event, d.own); }, kEvent},
      {"1 example in 5: ten times, each layer", [=](const Draw& d) { return with_event(0.2, above(d.normal), d.own); },
       kEvent},
  };
}

std::vector<Means> all_means() {
  std::vector<double> few = {8.0, 0.5, 0.2};
  std::vector<double> halving;
  for (int64_t l = 0; l < kLayers; ++l) {
    if (l >= 3) few.push_back(0.002 * static_cast<double>(l - 8));
    halving.push_back(std::ldexp(2.0, -static_cast<int>(l)));
  }
  return {
      {"all equal, 1", std::vector<double>(at(kLayers), 1.0), 0.5},
      {"all equal, 1, half of them with little noise", std::vector<double>(at(kLayers), 1.0), 0.5, false, 6},
      {"all equal but the last, 1 and 1.1", {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1.1}, 0.2},
      {"few matter, same noise", few, 0.1},
      {"few matter, noise of half the mean", few, 0.5, true},
      {"each half of the last, noise of half the mean", halving, 0.5, true},
  };
}

std::vector<Population> made_up() {
  std::vector<Population> populations;
  for (const std::vector<Noise>& noises : {noises_of_the_choice(), other_noises()}) {
    for (const Means& means : all_means()) {
      for (const Noise& noise : noises) {
        populations.push_back({.means = means.name,
                               .noise = noise.name,
                               .of_layer = means.of_layer,
                               .budget = {1, 3, 6},
                               .event = events_of(means, noise),
                               .draw = [means, noise](int64_t n_examples, Generator& random, Generator& more) {
                                 return drawn_deltas(means, noise, n_examples, random, more);
                               }});
      }
    }
  }
  return populations;
}

// The examples of a table, (examples, layers), drawn with replacement.
Population measured(const std::string& name, const std::string& setting, const Table<double>& deltas) {
  const auto draw = [deltas](int64_t n_examples, Generator& random, Generator&) {
    std::uniform_int_distribution<int64_t> row(0, deltas.rows - 1);
    Table<double> drawn(n_examples, deltas.cols);
    for (int64_t e = 0; e < n_examples; ++e) {
      const int64_t from = row(random);
      for (int64_t l = 0; l < deltas.cols; ++l) drawn(e, l) = deltas(from, l);
    }
    return drawn;
  };
  return {.means = name,
          .noise = setting,
          .of_layer = winnow::stats::mean_of_rows(deltas, winnow::stats::iota(deltas.rows)),
          .budget = winnow::calibration::budgets(deltas.cols, 0),
          .event = {},
          .draw = draw};
}

// What the patterns of an evaluation lose against full attention.
Population evaluated_in(const std::string& path) {
  const winnow::evaluation::EvaluationTable table = winnow::evaluation::read_evaluation(path).table;
  const int64_t full = table.full().value_or(0);
  Table<double> deltas(table.nll.cols, table.n_patterns() - 1);
  for (int64_t e = 0; e < deltas.rows; ++e) {
    for (int64_t p = 0; p < deltas.cols; ++p) deltas(e, p) = table.nll(p < full ? p : p + 1, e) - table.nll(full, e);
  }
  return measured(path + ", " + std::to_string(deltas.rows) + " examples", std::to_string(deltas.cols) + " patterns",
                  deltas);
}

// Every ranking of a results file.
std::vector<Population> measured_in(const std::string& path) {
  if (winnow::evaluation::is_evaluation(path)) return {evaluated_in(path)};
  const winnow::calibration::Results results = winnow::calibration::read_results(path);
  const winnow::calibration::Measurement& m = results.calibration;
  const std::string name = path + ", " + std::to_string(m.n_shared_examples()) + " examples";
  std::vector<Population> populations;
  const auto add = [&](const std::string& setting, const auto& delta) {
    Table<double> table(m.n_shared_examples(), m.n_layers());
    for (int64_t e = 0; e < table.rows; ++e) {
      for (int64_t l = 0; l < table.cols; ++l) table(e, l) = delta(e, l);
    }
    populations.push_back(measured(name, setting, table));
  };
  for (int64_t s = 0; s < m.by_setting.n_settings(); ++s) {
    add(m.by_setting.name(s), [&, s](int64_t e, int64_t l) { return m.delta_nll_by_setting(e, l, s); });
  }
  for (int64_t w = 0; m.by_setting.n_settings() == 0 && w < m.by_window.n_windows(); ++w) {
    add(std::to_string(m.by_window.window[at(w)]),
        [&, w](int64_t e, int64_t l) { return m.delta_nll_by_window(e, l, w); });
  }
  if (populations.empty()) {
    add("its window", [&](int64_t e, int64_t l) { return m.delta_nll(e, l); });
  }
  return populations;
}

// The layers that keep full attention by the deltas that the race saw.
std::vector<bool> chosen(const Race& race, const Table<double>& table, int64_t k) {
  std::vector<double> means;
  for (int64_t l = 0; l < table.cols; ++l) {
    double sum = 0.0;
    const int64_t n = race.layer_examples()[at(l)];
    for (int64_t e = 0; e < n; ++e) sum += table(e, l);
    means.push_back(sum / static_cast<double>(n));
  }
  std::vector<bool> is_kept(at(table.cols), false);
  const std::vector<int64_t> order = winnow::stats::order_of(means, winnow::stats::iota(table.cols));
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
    for (int64_t i = 0; i < table.cols; ++i) {
      int64_t n_above = 0;  // layers that truly cost more
      int64_t n_not_below = 0;
      for (int64_t j = 0; j < table.cols; ++j) {
        n_above += means[at(j)] > means[at(i)] ? 1 : 0;
        n_not_below += j != i && means[at(j)] >= means[at(i)] ? 1 : 0;
      }
      if (race.place(b, i) == Place::kKept && n_not_below >= k) return true;
      if (race.place(b, i) == Place::kWindowed && n_above < k) return true;
      for (int64_t j = 0; race.looks().back().is_settled(b) && j < table.cols; ++j) {
        if (is_kept[at(i)] && !is_kept[at(j)] && means[at(j)] - means[at(i)] > allowed) return true;
      }
    }
  }
  return false;
}

// Returns true if the first look sees an event in every layer that has them.
bool has_seen_events(const Population& population, const Table<double>& table) {
  const int64_t n = std::min(table.rows, winnow::race::look_examples(0));
  for (std::size_t l = 0; l < population.event.size(); ++l) {
    bool has_seen = population.event[l] == kInfinite;
    for (int64_t e = 0; e < n; ++e) has_seen = has_seen || table(e, static_cast<int64_t>(l)) >= population.event[l];
    if (!has_seen) return false;
  }
  return true;
}

void print_line(const Population& population, const winnow::race::Tolerance& tolerance, int64_t n_races,
                int64_t n_examples) {
  Generator random(7);
  Generator more(8);
  const auto n_layers = static_cast<int64_t>(population.of_layer.size());
  int64_t n_wrong = 0;
  int64_t n_seen = 0;
  int64_t n_wrong_seen = 0;
  int64_t n_settled = 0;
  double used = 0.0;
  std::vector<double> most;
  for (int64_t i = 0; i < n_races; ++i) {
    const Table<double> table = population.draw(n_examples, random, more);
    Race race(n_layers, {.confidence = 0.95, .tolerance = tolerance, .budget = population.budget, .n_races = 1});
    for (int64_t k = 0; !race.is_settled(); ++k) {
      const int64_t n = std::min(n_examples, winnow::race::look_examples(k));
      Table<double> seen(n, n_layers);
      std::copy_n(table.values.begin(), seen.values.size(), seen.values.begin());
      race.look(seen);
      if (n == n_examples) break;
    }
    const bool wrong = is_wrong(race, table, population.of_layer, tolerance);
    const bool has_seen = has_seen_events(population, table);
    n_wrong += wrong ? 1 : 0;
    n_seen += has_seen ? 1 : 0;
    n_wrong_seen += wrong && has_seen ? 1 : 0;
    n_settled += race.is_settled() ? 1 : 0;
    for (const int64_t n : race.layer_examples()) used += static_cast<double>(n);
    most.push_back(static_cast<double>(race.looks().back().n_examples));
  }
  std::sort(most.begin(), most.end());
  const auto of_races = static_cast<double>(n_races);
  std::string seen;
  if (!population.event.empty() && n_seen > 0) {
    const double wrong = 100.0 * static_cast<double>(n_wrong_seen) / static_cast<double>(n_seen);
    seen = winnow::number(wrong, "{:.1f}") + " % of " + std::to_string(n_seen) + " wrong";
  }
  std::printf(
      "| %s | %s | %.1f %% | %.1f %% | %.0f %% | %.0f | %s |\n", population.means.c_str(), population.noise.c_str(),
      100.0 * static_cast<double>(n_wrong) / of_races, 100.0 * static_cast<double>(n_settled) / of_races,
      100.0 * used / (of_races * static_cast<double>(n_layers * n_examples)), most[most.size() / 2], seen.c_str());
  std::fflush(stdout);
}

void print_table(const std::vector<Population>& populations, int64_t n_races, int64_t n_examples) {
  std::printf("| means of the layers | noise | wrong | settled | cells measured | examples, median | events seen |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
  for (const Population& population : populations) {
    print_line(population, {.value = 0.01, .is_share = true}, n_races, n_examples);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (const auto code = winnow::storage::serve_if_asked(argc, argv)) return *code;
  const int64_t n_races = argc > 1 ? winnow::parse_number(argv[1]).value_or(0) : 1000;
  const int64_t n_examples = argc > 2 ? winnow::parse_number(argv[2]).value_or(0) : 64;
  if (n_races < 1 || n_examples < 2) {
    std::fprintf(stderr, "usage: race_coverage [RACES [EXAMPLES [RESULTS.h5 ...]]], at least 1 and 2\n");
    return 64;
  }
  try {
    std::vector<Population> populations;
    for (int i = 3; i < argc; ++i) {
      const std::vector<Population> found = measured_in(argv[i]);
      populations.insert(populations.end(), found.begin(), found.end());
    }
    print_table(argc > 3 ? populations : made_up(), n_races, n_examples);
  } catch (const winnow::Error& error) {
    std::fprintf(stderr, "race_coverage: %s\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
