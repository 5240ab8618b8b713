#include "results/race/race.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"
#include "results/stats/bounds.h"
#include "results/stats/resampling.h"

namespace winnow::race {
namespace {

using stats::at;

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// The number before an optional %, none where the text is another.
double parse_decimal(const std::string& text, const std::string& what) {
  std::size_t end = 0;
  double value = std::numeric_limits<double>::quiet_NaN();
  try {
    value = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (text.empty() || end != text.size() || !std::isfinite(value)) fail(ExitCode::kUsage, what);
  return value;
}

}  // namespace

Tolerance parse_tolerance(const std::string& text, const std::string& flag) {
  const std::string what = flag + ": \"" + text +
                           "\" is no loss; expected for example 1%, a share of what windowing all layers costs, or "
                           "0.01 nats per token";
  const bool is_share = text.ends_with('%');
  const double value = parse_decimal(is_share ? text.substr(0, text.size() - 1) : text, what);
  if (value < 0.0 || (is_share && value > 100.0)) fail(ExitCode::kUsage, what);
  return {.value = is_share ? value / 100.0 : value, .is_share = is_share};
}

double parse_confidence(const std::string& text, const std::string& flag) {
  const std::string what = flag + ": \"" + text +
                           "\" is no confidence; expected at least 50% and less than 100%, such "
                           "as 95%";
  if (!text.ends_with('%')) fail(ExitCode::kUsage, what);
  const double value = parse_decimal(text.substr(0, text.size() - 1), what) / 100.0;
  if (value < 0.5 || value >= 1.0) fail(ExitCode::kUsage, what);
  return value;
}

double error_of_look(double confidence, int64_t look) {
  const auto k = static_cast<double>(look + 1);
  return (1.0 - confidence) / (k * (k + 1.0));
}

int64_t look_examples(int64_t look) {
  const int64_t octave = int64_t{16} << std::min<int64_t>(look / 2, 50);
  return look % 2 == 0 ? octave : octave + octave / 2;
}

bool Look::is_settled() const {
  for (std::size_t b = 0; b < exchange.size(); ++b) {
    if (!is_settled(b)) return false;
  }
  return true;
}

Race::Race(int64_t n_layers, RaceOptions options)
    : n_layers_(n_layers),
      options_(std::move(options)),
      needs_(at(n_layers), true),
      layer_examples_(at(n_layers), 0),
      mean_(at(n_layers), 0.0),
      low_(n_layers + 1, n_layers + 1, -kInfinite) {
  for (const int64_t k : options_.budget) {
    if (k >= 1 && k <= n_layers) continue;
    fail(ExitCode::kUsage, "budgets: expected 1 to the number of measured layers (" + std::to_string(n_layers) +
                               "), found " + std::to_string(k));
  }
}

double Race::least_cost() const {
  double least = 0.0;
  for (int64_t l = 0; l < n_layers_; ++l) least += std::max(0.0, low_(l, n_layers_));
  return least;
}

void Race::look(const stats::Table<double>& delta, std::optional<double> whole) {
  Look look{.n_examples = delta.rows,
            .error = error_of_look(options_.confidence, static_cast<int64_t>(looks_.size())),
            .tolerance_nats = options_.tolerance.value,
            .measured = needs_,
            .exchange = {},
            .n_open = {}};
  const std::vector<double> means = stats::mean_of_rows(delta, stats::iota(delta.rows));
  for (int64_t l = 0; l < n_layers_; ++l) {
    if (!needs_[at(l)]) continue;
    mean_[at(l)] = means[at(l)];
    layer_examples_[at(l)] = delta.rows;
  }
  if (delta.rows > 1) take_bounds(delta, look.error);
  if (options_.tolerance.is_share) look.tolerance_nats = options_.tolerance.value * whole.value_or(least_cost());
  judge(look);
  find_needs(look);
  looks_.push_back(std::move(look));
}

// Bounds of the differences of all pairs of layers that the look sees, over the examples that both have, and of the
// deltas themselves.
void Race::take_bounds(const stats::Table<double>& delta, double error) {
  std::vector<int64_t> seen;
  for (int64_t l = 0; l < n_layers_; ++l) {
    if (needs_[at(l)]) seen.push_back(l);
  }
  seen.push_back(n_layers_);  // the layer that costs nothing
  // Which layers a look sees follows from the same examples: so the error is divided among the pairs of all, and each
  // has a bound on either side.
  const double error_of_bound = error / static_cast<double>(options_.n_races * (n_layers_ + 1) * n_layers_);
  std::vector<double> differences(at(delta.rows));
  for (std::size_t a = 0; a < seen.size(); ++a) {
    for (std::size_t b = a + 1; b < seen.size(); ++b) {
      for (int64_t e = 0; e < delta.rows; ++e) {
        differences[at(e)] = delta(e, seen[a]) - (seen[b] == n_layers_ ? 0.0 : delta(e, seen[b]));
      }
      const stats::OneMeanBounds bounds = stats::student_bounds(differences, error_of_bound);
      low(seen[a], seen[b]) = std::max(low(seen[a], seen[b]), bounds.lower);
      low(seen[b], seen[a]) = std::max(low(seen[b], seen[a]), -bounds.upper);
    }
  }
}

bool Race::beats(int64_t a, int64_t b) const { return low_(a, b) > 0.0; }

Place Race::place(std::size_t budget, int64_t layer) const {
  int64_t n_below = 0;  // layers that certainly cost less
  int64_t n_above = 0;
  for (int64_t other = 0; other < n_layers_; ++other) {
    n_below += beats(layer, other) ? 1 : 0;
    n_above += beats(other, layer) ? 1 : 0;
  }
  const int64_t k = options_.budget[budget];
  if (n_below >= n_layers_ - k) return Place::kKept;
  return n_above >= k ? Place::kWindowed : Place::kOpen;
}

// Of each budget: the layers of the largest means are kept; of those without a certain place, none that is windowed may
// be worth much more than one that is kept. Where a place is certain, the best choice has it, too.
void Race::judge(Look& look) const {
  const std::vector<int64_t> order = stats::order_of(mean_, stats::iota(n_layers_));
  for (std::size_t b = 0; b < options_.budget.size(); ++b) {
    std::vector<int64_t> kept, windowed;
    for (int64_t i = 0; i < n_layers_; ++i) {
      const int64_t layer = order[at(i)];
      if (place(b, layer) != Place::kOpen) continue;
      (i < options_.budget[b] ? kept : windowed).push_back(layer);
    }
    double gain = 0.0;
    for (const int64_t from : kept) {
      for (const int64_t to : windowed) gain = std::max(gain, -low_(from, to));
    }
    look.exchange.push_back(gain);
    look.n_open.push_back(static_cast<int64_t>(kept.size() + windowed.size()));
  }
}

void Race::find_needs(const Look& look) {
  needs_.assign(at(n_layers_), false);
  for (std::size_t b = 0; b < options_.budget.size(); ++b) {
    if (look.is_settled(b)) continue;
    for (int64_t l = 0; l < n_layers_; ++l) {
      if (place(b, l) == Place::kOpen) needs_[at(l)] = true;
    }
  }
}

bool RaceRecord::is_settled() const {
  return std::ranges::find(settled_examples.values, 0) == settled_examples.values.end();
}

bool has_types(const std::vector<RacedSetting>& settings) {
  return std::ranges::any_of(settings, [](const RacedSetting& setting) { return setting.kv != KvType::kStored; });
}

std::vector<std::string> names_of(const std::vector<RacedSetting>& settings) {
  std::vector<std::string> names;
  for (const auto& [window, kv] : settings) {
    names.push_back(has_types(settings) ? setting_name(window, kv) : "window " + std::to_string(window));
  }
  return names;
}

RaceRecord record_of(const std::vector<Race>& races, const std::vector<int64_t>& layer,
                     const std::vector<RacedSetting>& settings, const std::string& tolerance) {
  RaceRecord record;
  const RaceOptions& options = races.front().options();
  record.confidence = options.confidence;
  record.tolerance = tolerance;
  record.layer = layer;
  record.budget = options.budget;
  record.setting = settings;
  record.layer_examples.assign(layer.size(), 0);
  const auto n_races = static_cast<int64_t>(races.size());
  const auto n_budgets = static_cast<int64_t>(options.budget.size());
  const auto n_layers = static_cast<int64_t>(layer.size());
  for (const Race& race : races) {
    for (std::size_t l = 0; l < layer.size(); ++l) {
      record.layer_examples[l] = std::max(record.layer_examples[l], race.layer_examples()[l]);
    }
    if (race.looks().size() < record.look_examples.size()) continue;
    record.look_examples.clear();
    for (const Look& look : race.looks()) record.look_examples.push_back(look.n_examples);
  }
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  record.tolerance_nats = stats::Table<double>(record.n_looks(), n_races, kNan);
  record.exchange = stats::Table<double>(record.n_looks() * n_races, n_budgets, kNan);
  record.n_open = stats::Table<int64_t>(record.n_looks() * n_races, n_budgets);
  record.settled_examples = stats::Table<int64_t>(n_races, n_budgets);
  record.place = stats::Table<int64_t>(n_races * n_budgets, n_layers);
  for (int64_t r = 0; r < n_races; ++r) {
    const Race& race = races[at(r)];
    for (std::size_t k = 0; k < race.looks().size(); ++k) {
      const Look& look = race.looks()[k];
      const auto index = static_cast<int64_t>(k);
      record.tolerance_nats(index, r) = look.tolerance_nats;
      for (int64_t b = 0; b < n_budgets; ++b) {
        record.exchange(index * n_races + r, b) = look.exchange[at(b)];
        record.n_open(index * n_races + r, b) = look.n_open[at(b)];
        int64_t& settled = record.settled_examples(r, b);
        settled = look.is_settled(at(b)) ? (settled > 0 ? settled : look.n_examples) : 0;
      }
    }
    for (int64_t b = 0; b < n_budgets; ++b) {
      for (int64_t l = 0; l < n_layers; ++l) {
        record.place(r * n_budgets + b, l) = static_cast<int64_t>(race.place(at(b), l));
      }
    }
  }
  return record;
}

}  // namespace winnow::race
