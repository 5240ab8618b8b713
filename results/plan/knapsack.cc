#include "results/plan/knapsack.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <compare>
#include <limits>
#include <string>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "results/stats/resampling.h"

namespace winnow::plan {
namespace {

using stats::at;

constexpr double kNone = std::numeric_limits<double>::infinity();
constexpr double kRounding = 1e-12;      // of sums in a bound, relative: far more than they have
constexpr int64_t kNarrowest = 1 << 10;  // beginnings of one length that the first pass keeps
constexpr int64_t kWidening = 1 << 4;    // from a pass to the next
constexpr int kHalvings = 100;           // of the interval in which the multiplier lies
constexpr int64_t kMostSettings = 1 << 16;

// What tells beginnings of plans apart. Of a sum: units, and whether a needed setting is there; else the layers with
// each setting, in fields of some bits. That of a beginning with one layer more is a sum, so that keys stay in order.
struct Key {
  uint64_t high = 0;
  uint64_t low = 0;
  auto operator<=>(const Key&) const = default;
};

// Of the first so many layers.
struct Beginning {
  Key key;
  double loss = 0.0;
  int64_t units = 0;  // above the least that a layer can take
  uint32_t parent = 0;
  uint16_t setting = 0;  // of the last layer, index of the part's
};

struct Step {
  uint32_t parent = 0;
  uint16_t setting = 0;
};

// The assignments of one part.
class Search {
 public:
  Search(const stats::Table<double>& loss, const Pricing& pricing, const Pricing::Part& part, double budget)
      : loss_(loss), pricing_(pricing), part_(part), budget_(budget), n_settings_(part.settings.size()) {
    bits_ = static_cast<int>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(loss.rows, 1))));
    per_word_ = 64 / bits_;
    const int64_t least = *std::ranges::min_element(part.units);
    for (const int64_t units : part.units) extra_.push_back(units - least);
    least_units_ = part.fixed_units + loss.rows * least;
    room_ = pricing.units_within(budget) - least_units_;
    add_ends();
    if (is_possible()) choose_multiplier();
  }

  // Whether anything may fit, and can be told apart.
  bool is_possible() const { return room_ >= 0 && least_extra_.front() <= room_; }
  bool is_too_wide() const { return !pricing_.is_sum() && n_settings_ > 2 * static_cast<std::size_t>(per_word_); }

  // Looks at beginnings, of each length at most the `width` most promising, and only at those that may be as good as
  // what is known. Leaves *most less by how many there were.
  Found run(int64_t width, const std::optional<Assignment>& best, int64_t* most);

 private:
  double loss_of(int64_t layer, std::size_t s) const { return loss_(layer, part_.settings[s]); }
  void add_ends();
  void choose_multiplier();
  int64_t extra_at(double multiplier) const;
  std::size_t cheapest(int64_t layer, double multiplier) const;
  // The least that a plan with this beginning of so many layers can lose.
  double bound(const Beginning& b, int64_t n_layers) const {
    return b.loss + multiplier_ * static_cast<double>(b.units - room_) + least_rest_[at(n_layers)];
  }
  Beginning with(const Beginning& b, std::size_t parent, int64_t layer, std::size_t s) const;
  bool is_hopeless(const Beginning& b, int64_t n_layers) const;
  void merge(const std::vector<Beginning>& known, int64_t layer, std::size_t s);
  void take(const Beginning& b);
  bool narrow(std::vector<Beginning>& all, int64_t n_layers, int64_t width) const;
  std::vector<int64_t> settings_of(std::size_t end) const;
  Counts counts_of(const std::vector<int64_t>& settings) const;
  Counts counts_of(const Key& key) const;
  std::optional<Assignment> choose(const std::vector<Beginning>& ends) const;

  const stats::Table<double>& loss_;
  const Pricing& pricing_;
  const Pricing::Part& part_;
  double budget_;
  std::size_t n_settings_;
  int bits_ = 1;                // of a field of a key
  int per_word_ = 1;            // fields
  std::vector<int64_t> extra_;  // (settings), units above the least
  int64_t least_units_ = 0;     // that all layers take at least
  int64_t room_ = 0;            // for units above
  double multiplier_ = 0.0;     // loss for a unit
  double rounding_ = 0.0;
  // (layers + 1), of the layers from there on: units, and loss with units at the multiplier.
  std::vector<int64_t> least_extra_;
  std::vector<double> least_rest_;
  std::vector<double> least_loss_;  // (layers)
  // Of the best that is known: its loss, and the units above the least that its price has room for.
  double limit_ = kNone;
  int64_t room_of_limit_ = 0;

  std::vector<Beginning> merged_;
  std::vector<Beginning> before_;
  double lowest_[2] = {kNone, kNone};     // loss of those in merged_, by whether a needed setting is there
  std::vector<std::vector<Step>> steps_;  // by layer
};

std::size_t Search::cheapest(int64_t layer, double multiplier) const {
  double least = kNone;
  std::size_t chosen = 0;
  for (std::size_t s = 0; s < n_settings_; ++s) {
    const double cost = loss_of(layer, s) + multiplier * static_cast<double>(extra_[s]);
    if (cost > least || cost == kNone || (cost == least && extra_[s] >= extra_[chosen])) continue;
    least = cost;
    chosen = s;
  }
  return chosen;
}

int64_t Search::extra_at(double multiplier) const {
  int64_t sum = 0;
  for (int64_t layer = 0; layer < loss_.rows; ++layer) sum += extra_[cheapest(layer, multiplier)];
  return sum;
}

void Search::add_ends() {
  least_extra_.assign(at(loss_.rows) + 1, 0);
  least_loss_.assign(at(loss_.rows), 0.0);
  double most = 0.0;
  for (int64_t layer = loss_.rows - 1; layer >= 0; --layer) {
    int64_t least = std::numeric_limits<int64_t>::max() / 2;
    double lowest = kNone;
    double greatest = 0.0;
    for (std::size_t s = 0; s < n_settings_; ++s) {
      if (loss_of(layer, s) == kNone) continue;
      least = std::min(least, extra_[s]);
      lowest = std::min(lowest, loss_of(layer, s));
      greatest = std::max(greatest, std::abs(loss_of(layer, s)));
    }
    least_extra_[at(layer)] = std::min(least_extra_[at(layer) + 1] + least, std::numeric_limits<int64_t>::max() / 2);
    least_loss_[at(layer)] = lowest;
    most += greatest;
  }
  rounding_ = kRounding * most;
}

// The multiplier at which the bound of all plans is greatest, from above, so that its choices fit.
void Search::choose_multiplier() {
  if (extra_at(0.0) > room_) {
    double low = 0.0;
    double high = 1.0;
    // Losses of a layer lie no further apart than all of them are great, and units are whole.
    while (extra_at(high) > room_ && std::isfinite(high)) high *= 2.0;
    for (int i = 0; i < kHalvings; ++i) {
      const double middle = 0.5 * (low + high);
      (extra_at(middle) > room_ ? low : high) = middle;
    }
    multiplier_ = high;
  }
  least_rest_.assign(at(loss_.rows) + 1, 0.0);
  for (int64_t layer = loss_.rows - 1; layer >= 0; --layer) {
    const std::size_t s = cheapest(layer, multiplier_);
    const double cost = loss_of(layer, s) + multiplier_ * static_cast<double>(extra_[s]);
    least_rest_[at(layer)] = least_rest_[at(layer) + 1] + cost;
  }
  rounding_ += kRounding * multiplier_ * static_cast<double>(room_);
}

Beginning Search::with(const Beginning& b, std::size_t parent, int64_t layer, std::size_t s) const {
  Beginning next = b;
  next.loss += loss_of(layer, s);
  next.units += extra_[s];
  next.parent = static_cast<uint32_t>(parent);
  next.setting = static_cast<uint16_t>(s);
  if (pricing_.is_sum()) {
    const bool is_needed = !part_.is_needed.empty() && part_.is_needed[s];
    next.key.low = (2 * static_cast<uint64_t>(next.units)) | (b.key.low & 1U) | (is_needed ? 1U : 0U);
    return next;
  }
  const auto field = static_cast<int>(s);
  uint64_t& word = field < per_word_ ? next.key.low : next.key.high;
  word += uint64_t{1} << ((field % per_word_) * bits_);
  return next;
}

// Beginnings come by their keys, of one key those that lose less first.
void Search::take(const Beginning& b) {
  if (pricing_.is_sum()) {
    double& lowest = lowest_[b.key.low & 1U];
    if (b.loss >= lowest) return;
    lowest = b.loss;
  } else if (!merged_.empty() && merged_.back().key == b.key) {
    return;
  }
  merged_.push_back(b);
}

// Whether nothing with this beginning can be as good as what is known. Bounds have been rounded; where that matters,
// the least that follows is added up as a plan's loss is, so that equal losses are equal.
bool Search::is_hopeless(const Beginning& b, int64_t n_layers) const {
  const int64_t units = b.units + least_extra_[at(n_layers)];
  if (units > room_) return true;
  const double least = bound(b, n_layers);
  if (least > limit_ + rounding_) return true;
  if (pricing_.is_sum() || least < limit_ - rounding_) return false;
  double loss = b.loss;
  for (int64_t layer = n_layers; layer < loss_.rows; ++layer) loss += least_loss_[at(layer)];
  return loss > limit_ || (loss == limit_ && units > room_of_limit_);
}

// Puts the beginnings with this setting in one layer more among those with smaller settings there.
void Search::merge(const std::vector<Beginning>& known, int64_t layer, std::size_t s) {
  std::swap(merged_, before_);
  merged_.clear();
  lowest_[0] = lowest_[1] = kNone;
  auto other = before_.begin();
  for (std::size_t i = 0; i < known.size(); ++i) {
    const Beginning next = with(known[i], i, layer, s);
    if (is_hopeless(next, layer + 1)) continue;
    const auto is_before = [&](const Beginning& b) { return std::tie(b.key, b.loss) <= std::tie(next.key, next.loss); };
    while (other != before_.end() && is_before(*other)) take(*other++);
    take(next);
  }
  while (other != before_.end()) take(*other++);
}

// Keeps the most promising; returns whether that were not all.
bool Search::narrow(std::vector<Beginning>& all, int64_t n_layers, int64_t width) const {
  if (static_cast<int64_t>(all.size()) <= width) return false;
  std::vector<std::pair<double, int64_t>> promise;
  for (const Beginning& b : all) promise.emplace_back(bound(b, n_layers), b.units);
  const auto last = promise.begin() + static_cast<std::ptrdiff_t>(width);
  std::ranges::nth_element(promise, last);
  const auto most = *last;
  std::size_t n = 0;
  for (const Beginning& b : all) {
    if (n < at(width) && std::pair(bound(b, n_layers), b.units) <= most) all[n++] = b;
  }
  all.resize(n);
  return true;
}

Found Search::run(int64_t width, const std::optional<Assignment>& best, int64_t* most) {
  Found found;
  limit_ = best ? best->loss : kNone;
  room_of_limit_ = best ? pricing_.units_within(best->price) - least_units_ : room_;
  steps_.clear();
  std::vector<Beginning> known(1);
  for (int64_t layer = 0; layer < loss_.rows; ++layer) {
    merged_.clear();
    for (std::size_t s = 0; s < n_settings_; ++s) {
      if (loss_of(layer, s) < kNone) merge(known, layer, s);
      if (static_cast<int64_t>(merged_.size()) > *most) break;  // for so many there is no room
    }
    std::swap(known, merged_);
    if (narrow(known, layer + 1, width)) found.is_exact = false;
    *most -= static_cast<int64_t>(known.size());
    if (*most < 0) return {.best = std::nullopt, .is_exact = false};
    std::vector<Step>& steps = steps_.emplace_back();
    steps.reserve(known.size());
    for (const Beginning& b : known) steps.push_back({b.parent, b.setting});
  }
  found.best = choose(known);
  return found;
}

std::vector<int64_t> Search::settings_of(std::size_t end) const {
  std::vector<int64_t> settings(at(loss_.rows));
  for (std::size_t layer = settings.size(); layer-- > 0;) {
    const Step& step = steps_[layer][end];
    settings[layer] = part_.settings[step.setting];
    end = step.parent;
  }
  return settings;
}

Counts Search::counts_of(const std::vector<int64_t>& settings) const {
  Counts counts(at(loss_.cols), 0);
  for (const int64_t s : settings) ++counts[at(s)];
  return counts;
}

Counts Search::counts_of(const Key& key) const {
  Counts counts(at(loss_.cols), 0);
  const uint64_t mask = (uint64_t{1} << bits_) - 1;
  for (std::size_t s = 0; s < n_settings_; ++s) {
    const auto field = static_cast<int>(s);
    const uint64_t word = field < per_word_ ? key.low : key.high;
    counts[at(part_.settings[s])] = static_cast<int64_t>((word >> ((field % per_word_) * bits_)) & mask);
  }
  return counts;
}

bool is_better(const Assignment& a, const Assignment& b) {
  if (a.loss != b.loss) return a.loss < b.loss;
  if (a.price != b.price) return a.price < b.price;
  return std::lexicographical_compare(a.setting.rbegin(), a.setting.rend(), b.setting.rbegin(), b.setting.rend());
}

std::optional<Assignment> Search::choose(const std::vector<Beginning>& ends) const {
  std::optional<Assignment> best;
  std::vector<std::size_t> order(ends.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
    return std::tie(ends[a].loss, ends[a].units) < std::tie(ends[b].loss, ends[b].units);
  });
  for (const std::size_t i : order) {
    // Of a sum the first takes least as well.
    if (best && (pricing_.is_sum() || ends[i].loss > best->loss)) break;
    const std::optional<double> price =
        pricing_.price(pricing_.is_sum() ? counts_of(settings_of(i)) : counts_of(ends[i].key));
    if (!price || *price > budget_ || (best && *price > best->price)) continue;
    Assignment found{.setting = settings_of(i), .loss = ends[i].loss, .price = *price};
    if (!best || is_better(found, *best)) best = std::move(found);
  }
  return best;
}

}  // namespace

Found find_best(const stats::Table<double>& loss, const Pricing& pricing, double budget, int64_t most_beginnings) {
  Found all;
  if (loss.cols >= kMostSettings) return {.best = std::nullopt, .is_exact = false};
  for (const Pricing::Part& part : pricing.parts()) {
    Search search(loss, pricing, part, budget);
    if (!search.is_possible()) continue;
    if (search.is_too_wide()) {
      all.is_exact = false;
      continue;
    }
    int64_t most = most_beginnings;
    bool is_exact = false;
    for (int64_t width = kNarrowest; most >= 0 && !is_exact; width *= kWidening) {
      Found found = search.run(width, all.best, &most);
      is_exact = found.is_exact;
      if (found.best && (!all.best || is_better(*found.best, *all.best))) all.best = std::move(found.best);
    }
    all.is_exact = all.is_exact && is_exact;
  }
  return all;
}

std::optional<Assignment> best_assignment(const stats::Table<double>& loss, const Pricing& pricing, double budget) {
  Found found = find_best(loss, pricing, budget);
  if (found.is_exact) return std::move(found.best);
  fail(ExitCode::kUsage, std::to_string(loss.rows) + " layers with " + std::to_string(loss.cols) +
                             " settings each are too many to choose among; calibrate with fewer --windows or --kv");
}

std::optional<double> least_price(int64_t n_layers, const Pricing& pricing) {
  double most = kNone;
  for (int64_t s = 0; s < pricing.n_settings(); ++s) {
    Counts all(at(pricing.n_settings()), 0);
    all[at(s)] = n_layers;
    most = std::min(most, pricing.price(all).value_or(kNone));
  }
  // Where nothing is lost, the best is what takes least.
  const std::optional<Assignment> least =
      best_assignment(stats::Table<double>(n_layers, pricing.n_settings()), pricing, most);
  return least ? std::optional(least->price) : std::nullopt;
}

}  // namespace winnow::plan
