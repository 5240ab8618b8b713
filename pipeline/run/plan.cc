#include "pipeline/run/plan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <queue>
#include <string>
#include <tuple>

#include "base/error.h"
#include "base/strings.h"

namespace winnow::run {
namespace {

using Groups = std::vector<std::vector<int64_t>>;

// Cuts one example into groups of lanes and knows what they cost.
class ExampleCutter {
 public:
  ExampleCutter(const MissingCells& missing, const UnitPrices& prices) : missing_(&missing), prices_(&prices) {}

  // Fewest groups whose memory fits.
  Groups fit(int64_t max_bytes) {
    const auto n_lanes = missing_->variants.size();
    for (std::size_t n_groups = 1; n_groups <= std::max<std::size_t>(1, n_lanes); ++n_groups) {
      Groups groups = cut(n_groups);
      if (fits(groups, max_bytes)) return groups;
    }
    const auto first = std::span<const int64_t>(missing_->variants).first(std::min<std::size_t>(1, n_lanes));
    fail(ExitCode::kOutOfMemory, "example " + std::to_string(missing_->example) + " with a single lane needs " +
                                     format_bytes(prices_->bytes(*missing_, first)) + ", but a rank has " +
                                     format_bytes(max_bytes) +
                                     "; raise --max-memory, use fewer ranks per host, or shorter examples");
  }

  // n_groups groups of about equal cost: the dearest lane goes to the cheapest group. A lane's price does not depend
  // on its neighbours.
  Groups cut(std::size_t n_groups) {
    if (n_groups <= 1) return {missing_->variants};
    price_lanes();
    std::vector<std::size_t> order(missing_->variants.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return lane_seconds_[a] > lane_seconds_[b]; });
    Groups groups(n_groups);
    std::vector<double> seconds(n_groups, 0.0);
    for (const std::size_t lane : order) {
      const auto cheapest = std::min_element(seconds.begin(), seconds.end()) - seconds.begin();
      groups[static_cast<std::size_t>(cheapest)].push_back(missing_->variants[lane]);
      seconds[static_cast<std::size_t>(cheapest)] += lane_seconds_[lane];
    }
    for (auto& group : groups) std::sort(group.begin(), group.end());
    return groups;
  }

  bool fits(const Groups& groups, int64_t max_bytes) const {
    return std::all_of(groups.begin(), groups.end(),
                       [&](const auto& group) { return prices_->bytes(*missing_, group) <= max_bytes; });
  }

  std::vector<WorkUnit> units(const Groups& groups) const {
    std::vector<WorkUnit> units;
    for (const auto& group : groups) {
      units.push_back({.data_set = missing_->data_set,
                       .example = missing_->example,
                       .keeps_base = missing_->base && units.empty(),
                       .variants = group,
                       .cost_seconds = prices_->seconds(*missing_, group)});
    }
    return units;
  }

  std::size_t n_lanes() const { return missing_->variants.size(); }

 private:
  void price_lanes() {
    if (!lane_seconds_.empty()) return;
    const double base = prices_->seconds(*missing_, {});
    for (const int64_t& variant : missing_->variants) {
      lane_seconds_.push_back(prices_->seconds(*missing_, {&variant, 1}) - base);
    }
  }

  const MissingCells* missing_;
  const UnitPrices* prices_;
  std::vector<double> lane_seconds_;
};

void sort_longest_first(std::vector<WorkUnit>& units) {
  const auto key = [](const WorkUnit& unit) {
    return std::tuple(-unit.cost_seconds, unit.data_set, unit.example,
                      unit.variants.empty() ? -1 : unit.variants.front());
  };
  std::sort(units.begin(), units.end(), [&](const WorkUnit& a, const WorkUnit& b) { return key(a) < key(b); });
}

// Ends of units under first-come hand-out; the index of the unit that ends last.
struct Schedule {
  double makespan = 0.0;
  std::size_t last_unit = 0;
};

Schedule simulate(std::span<const WorkUnit> units, int64_t n_ranks) {
  std::priority_queue<double, std::vector<double>, std::greater<>> free_at;
  for (int64_t r = 0; r < n_ranks; ++r) free_at.push(0.0);
  Schedule schedule;
  for (std::size_t i = 0; i < units.size(); ++i) {
    const double end = free_at.top() + units[i].cost_seconds;
    free_at.pop();
    free_at.push(end);
    if (end > schedule.makespan) schedule = {end, i};
  }
  return schedule;
}

// Cuts the example whose unit ends last into more groups, as long as that brings the end nearer. Every group runs the
// base again, so the gain must be worth it: 1 %.
class Balancer {
 public:
  Balancer(std::span<const MissingCells> missing, const UnitPrices& prices, const PlanLimits& limits)
      : limits_(limits) {
    for (const MissingCells& example : missing) {
      cutters_.emplace_back(example, prices);
      units_.push_back(cutters_.back().units(cutters_.back().fit(limits.max_bytes)));
    }
  }

  std::vector<WorkUnit> run() {
    std::vector<WorkUnit> best = all_units();
    if (limits_.n_ranks == 1) return best;
    constexpr double kWorthIt = 0.99;
    // Each attempt cuts one example; beyond a few per rank nothing is left to gain.
    const int64_t attempts = 4 * limits_.n_ranks + 16;
    for (int64_t attempt = 0; attempt < attempts && !best.empty(); ++attempt) {
      const Schedule schedule = simulate(best, limits_.n_ranks);
      const double wanted = schedule.makespan * kWorthIt;
      if (!cut_finer(owner_of(best[schedule.last_unit]), wanted, best) && !cut_together(wanted, best)) break;
    }
    return best;
  }

 private:
  // Tries one group more, then a multiple: with many idle ranks a single cut gains little until the last.
  bool cut_finer(std::size_t owner, double wanted, std::vector<WorkUnit>& best) {
    ExampleCutter& cutter = cutters_[owner];
    const std::vector<WorkUnit> former = units_[owner];
    const std::size_t most = std::min(cutter.n_lanes(), static_cast<std::size_t>(limits_.n_ranks) * 2);
    for (const std::size_t n_groups : {former.size() + 1, former.size() * 2, former.size() * 4}) {
      if (n_groups > most) continue;
      const Groups groups = cutter.cut(n_groups);
      if (!cutter.fits(groups, limits_.max_bytes)) continue;
      units_[owner] = cutter.units(groups);
      std::vector<WorkUnit> units = all_units();
      if (simulate(units, limits_.n_ranks).makespan < wanted) {
        best = std::move(units);
        return true;
      }
    }
    units_[owner] = former;
    return false;
  }

  // Cuts several of the examples that are handed out last at once: where two are left over for three ranks, to cut one
  // of them alone gains nothing.
  bool cut_together(double wanted, std::vector<WorkUnit>& best) {
    constexpr std::array<std::size_t, 7> kGroups = {2, 3, 4, 6, 8, 12, 16};
    const std::vector<std::size_t> last = last_examples(best, static_cast<std::size_t>(limits_.n_ranks));
    const std::vector<std::vector<WorkUnit>> former = units_;
    std::vector<std::vector<WorkUnit>> found;
    for (const std::size_t n_groups : kGroups) {
      if (n_groups > static_cast<std::size_t>(limits_.n_ranks) * 2) break;
      units_ = former;
      for (std::size_t k = 0; k < last.size(); ++k) {
        ExampleCutter& cutter = cutters_[last[k]];
        if (n_groups > cutter.n_lanes() || n_groups <= former[last[k]].size()) continue;
        const Groups groups = cutter.cut(n_groups);
        if (!cutter.fits(groups, limits_.max_bytes)) continue;
        units_[last[k]] = cutter.units(groups);
        // Of many the powers of two will do.
        if (k >= 16 && !std::has_single_bit(k + 1) && k + 1 < last.size()) continue;
        std::vector<WorkUnit> units = all_units();
        const double makespan = simulate(units, limits_.n_ranks).makespan;
        if (makespan >= wanted) continue;
        wanted = makespan;
        best = std::move(units);
        found = units_;
      }
    }
    units_ = found.empty() ? former : found;
    return !found.empty();
  }

  // Examples by their last unit in the order of handing out, the last first; n_most at most.
  std::vector<std::size_t> last_examples(std::span<const WorkUnit> units, std::size_t n_most) const {
    std::vector<std::size_t> last;
    for (auto unit = units.rbegin(); unit != units.rend() && last.size() < n_most; ++unit) {
      const std::size_t owner = owner_of(*unit);
      if (std::ranges::find(last, owner) == last.end()) last.push_back(owner);
    }
    return last;
  }

  std::vector<WorkUnit> all_units() const {
    std::vector<WorkUnit> units;
    for (const auto& of_example : units_) units.insert(units.end(), of_example.begin(), of_example.end());
    sort_longest_first(units);
    return units;
  }

  std::size_t owner_of(const WorkUnit& unit) const {
    const auto is_owner = [&](const auto& of_example) {
      return of_example.front().data_set == unit.data_set && of_example.front().example == unit.example;
    };
    return static_cast<std::size_t>(std::find_if(units_.begin(), units_.end(), is_owner) - units_.begin());
  }

  std::vector<ExampleCutter> cutters_;
  std::vector<std::vector<WorkUnit>> units_;  // by example, never empty
  PlanLimits limits_;
};

}  // namespace

std::vector<WorkUnit> plan_units(std::span<const MissingCells> missing, const UnitPrices& prices,
                                 const PlanLimits& limits) {
  return Balancer(missing, prices, limits).run();
}

double predict_makespan(std::span<const WorkUnit> units, int64_t n_ranks) { return simulate(units, n_ranks).makespan; }

std::vector<int64_t> encode_units(std::span<const WorkUnit> units) {
  std::vector<int64_t> numbers;
  for (const WorkUnit& unit : units) {
    numbers.insert(numbers.end(),
                   {unit.data_set, unit.example, unit.keeps_base ? 1 : 0, std::bit_cast<int64_t>(unit.cost_seconds),
                    static_cast<int64_t>(unit.variants.size())});
    numbers.insert(numbers.end(), unit.variants.begin(), unit.variants.end());
  }
  return numbers;
}

std::vector<WorkUnit> decode_units(std::span<const int64_t> numbers) {
  std::vector<WorkUnit> units;
  while (!numbers.empty()) {
    WorkUnit unit{.data_set = numbers[0],
                  .example = numbers[1],
                  .keeps_base = numbers[2] != 0,
                  .variants = {},
                  .cost_seconds = std::bit_cast<double>(numbers[3])};
    const auto variants = numbers.subspan(5, static_cast<std::size_t>(numbers[4]));
    unit.variants.assign(variants.begin(), variants.end());
    units.push_back(std::move(unit));
    numbers = numbers.subspan(5 + variants.size());
  }
  return units;
}

}  // namespace winnow::run
