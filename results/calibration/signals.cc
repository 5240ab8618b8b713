#include "results/calibration/signals.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "base/random.h"
#include "base/signal_specs.h"
#include "base/strings.h"
#include "results/stats/correlation.h"
#include "results/stats/resampling.h"

namespace winnow::calibration {
namespace {

// A signal of every example and layer, large = keep full attention.
struct Signal {
  std::string name;
  stats::Table<double> values;
};

std::vector<Signal> signals_of(const Measurement& m) {
  Columns columns = columns_of(m);
  std::vector<Signal> signals = {{"nll", std::move(columns.delta_nll)},
                                 {"exact-match", std::move(columns.exact_match_drop)},
                                 {"token-accuracy", std::move(columns.token_accuracy_drop)}};
  for (const SignalSpec& spec : signal_specs()) {
    const stats::Table<double>* table = m.find_signal(spec.ranked);
    if (table == nullptr) continue;
    stats::Table<double>& values = signals.emplace_back(Signal{spec.name, *table}).values;
    if (spec.orientation == SignalOrientation::kLargeKeeps) continue;
    for (double& value : values.values) value = 1.0 - value;
  }
  return signals;
}

// Ranks of a column of means; without any where the signal has no figure.
stats::CentredRanks ranks_of_means(const std::vector<double>& means) {
  return has_nan(means) ? stats::CentredRanks{} : stats::centred_ranks(means);
}

std::vector<stats::CentredRanks> ranks_of_rows(const std::vector<Signal>& signals, std::span<const int64_t> rows) {
  std::vector<stats::CentredRanks> ranks;
  for (const Signal& signal : signals) ranks.push_back(ranks_of_means(stats::mean_of_rows(signal.values, rows)));
  return ranks;
}

// Partial correlation of x and y given z, of their ranks. none: not defined, as where z alone explains one of them.
std::optional<double> partial_rho(const stats::CentredRanks& x, const stats::CentredRanks& y,
                                  const stats::CentredRanks& z) {
  const auto xy = stats::spearman(x, y);
  const auto xz = stats::spearman(x, z);
  const auto yz = stats::spearman(y, z);
  if (!xy || !xz || !yz) return std::nullopt;
  const double rest = (1.0 - *xz * *xz) * (1.0 - *yz * *yz);
  if (!(rest > 1e-12)) return std::nullopt;
  return std::clamp((*xy - *xz * *yz) / std::sqrt(rest), -1.0, 1.0);
}

// Why a signal's means have no ranks; empty where they do.
std::string why_no_ranks(const SignalComparison& c, int64_t signal) {
  const std::string& name = c.signal[stats::at(signal)];
  std::vector<double> means;
  for (int64_t l = 0; l < c.value.cols; ++l) means.push_back(c.value(signal, l));
  if (means.size() < 2) return "one layer";
  if (has_nan(means)) return name + " has no figure in any example";
  return stats::all_equal(means) ? name + " is equal in all layers" : "";
}

// Everything that needs bootstrap resamples, from the same ones.
class SignalsInPairs {
 public:
  SignalsInPairs(const std::vector<Signal>& signals, const StatisticsOptions& options, SignalComparison& result)
      : signals_(signals), options_(options), result_(result), n_(static_cast<int64_t>(signals.size())) {}

  void run() {
    const int64_t n_examples = signals_.front().values.rows;
    all_ = ranks_of_rows(signals_, stats::iota(n_examples));
    std::vector<stats::Spread> pairs(stats::at(n_ * n_));
    stats::Spread exact, accuracy;
    const int64_t generic = index_of("sensitivity");
    for (int64_t r = 0; n_examples > 1 && r < options_.n_resamples; ++r) {
      const auto ranks = ranks_of_rows(signals_, stats::draw_rows(n_examples, options_.seed, r));
      for (int64_t a = 0; a < n_; ++a) {
        for (int64_t b = 0; b <= a; ++b)
          pairs[stats::at(a * n_ + b)].add(stats::spearman(ranks[stats::at(a)], ranks[stats::at(b)]));
      }
      if (generic < 0) continue;
      exact.add(partial_rho(ranks[0], ranks[1], ranks[stats::at(generic)]));
      accuracy.add(partial_rho(ranks[0], ranks[2], ranks[stats::at(generic)]));
    }
    fill_pairs(pairs, n_examples);
    result_.partial_rho_exact_match = partial(1, generic, n_examples, exact);
    result_.partial_rho_accuracy = partial(2, generic, n_examples, accuracy);
  }

 private:
  int64_t index_of(const std::string& name) const {
    const auto found = std::find(result_.signal.begin(), result_.signal.end(), name);
    return found == result_.signal.end() ? -1 : found - result_.signal.begin();
  }

  void fill_pairs(std::vector<stats::Spread>& pairs, int64_t n_examples) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    result_.rho = result_.rho_ci_low = result_.rho_ci_high = stats::Table<double>(n_, n_, nan);
    std::set<std::string> reasons;
    for (int64_t a = 0; a < n_; ++a) {
      for (int64_t b = 0; b <= a; ++b) {
        const auto rho = stats::spearman(all_[stats::at(a)], all_[stats::at(b)]);
        stats::Estimate estimate;
        if (!rho) {
          for (const int64_t signal : {a, b}) {
            const std::string why = why_no_ranks(result_, signal);
            if (!why.empty()) reasons.insert(why);
          }
          continue;
        }
        estimate = n_examples < 2 ? stats::with_undefined_interval(stats::Figure::of(*rho), "one example")
                                  : pairs[stats::at(a * n_ + b)].around(stats::Figure::of(*rho));
        if (!estimate.ci_low.defined()) reasons.insert("interval: " + estimate.ci_low.status);
        result_.rho(a, b) = result_.rho(b, a) = estimate.value.value;
        result_.rho_ci_low(a, b) = result_.rho_ci_low(b, a) = estimate.ci_low.value;
        result_.rho_ci_high(a, b) = result_.rho_ci_high(b, a) = estimate.ci_high.value;
      }
    }
    result_.rho_status = joined(std::vector<std::string>(reasons.begin(), reasons.end()), "; ");
  }

  stats::Estimate partial(int64_t drop, int64_t generic, int64_t n_examples, stats::Spread& spread) const {
    const auto undefined = [](const std::string& why) {
      return stats::with_undefined_interval(stats::Figure::undefined(why), why);
    };
    if (generic < 0) return undefined("sensitivity was not measured");
    const auto rho = partial_rho(all_[0], all_[stats::at(drop)], all_[stats::at(generic)]);
    if (!rho) {
      for (const int64_t signal : {int64_t{0}, drop, generic}) {
        const std::string why = why_no_ranks(result_, signal);
        if (!why.empty()) return undefined(why);
      }
      return undefined("the order of layers by sensitivity is that by one of the others");
    }
    if (n_examples < 2) return stats::with_undefined_interval(stats::Figure::of(*rho), "one example");
    return spread.around(stats::Figure::of(*rho));
  }

  const std::vector<Signal>& signals_;
  const StatisticsOptions& options_;
  SignalComparison& result_;
  int64_t n_;
  std::vector<stats::CentredRanks> all_;
};

// What a signal selects on one half of the examples, on the other one.
struct HalfTransfer {
  std::optional<double> captured;
  std::optional<double> overlap;
};

HalfTransfer transfer_of(const Signal& signal, const stats::Table<double>& delta, std::span<const int64_t> layer,
                         int64_t k, const std::pair<std::span<const int64_t>, std::span<const int64_t>>& halves) {
  const std::vector<double> seen = stats::mean_of_rows(signal.values, halves.first);
  const std::vector<double> unseen = stats::mean_of_rows(signal.values, halves.second);
  const std::vector<double> judge = stats::mean_of_rows(delta, halves.second);
  if (has_nan(seen)) return {};
  const std::vector<int64_t> chosen = stats::order_of(seen, layer);
  const std::vector<int64_t> best = stats::order_of(judge, layer);
  double captured = 0.0;
  double most = 0.0;
  for (std::size_t i = 0; i < stats::at(k); ++i) {
    captured += judge[stats::at(chosen[i])];
    most += judge[stats::at(best[i])];
  }
  HalfTransfer transfer;
  if (most > 0.0) transfer.captured = captured / most;
  if (has_nan(unseen)) return transfer;
  const std::vector<int64_t> again = stats::order_of(unseen, layer);
  int64_t n_both = 0;
  for (auto column = chosen.begin(); column != chosen.begin() + k; ++column) {
    n_both += std::find(again.begin(), again.begin() + k, *column) != again.begin() + k ? 1 : 0;
  }
  transfer.overlap = static_cast<double>(n_both) / static_cast<double>(k);
  return transfer;
}

void fill_transfer(const std::vector<Signal>& signals, const StatisticsOptions& options, SignalComparison& result) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const int64_t n_examples = signals.front().values.rows;
  result.top_k = options.top_k;
  std::set<std::string> reasons;
  for (const Signal& signal : signals) {
    double sum = 0.0;
    double overlap = 0.0;
    int64_t n_defined = 0;
    int64_t n_overlaps = 0;
    stats::Spread spread;
    for (int64_t split = 0; n_examples > 1 && split < options.n_splits; ++split) {
      RandomStream random(options.seed, kSplitStream, static_cast<uint64_t>(split));
      std::vector<int64_t> order = stats::iota(n_examples);
      random.shuffle(std::span<int64_t>(order));
      const std::span<const int64_t> rows(order);
      const auto half = rows.size() / 2;
      const HalfTransfer transfer = transfer_of(signal, signals.front().values, result.layer, options.top_k,
                                                {rows.first(half), rows.subspan(half, half)});
      spread.add(transfer.captured);
      sum += transfer.captured.value_or(0.0);
      n_defined += transfer.captured ? 1 : 0;
      overlap += transfer.overlap.value_or(0.0);
      n_overlaps += transfer.overlap ? 1 : 0;
    }
    stats::Estimate estimate;
    if (n_examples < 2) {
      estimate = stats::with_undefined_interval(stats::Figure::undefined("one example"), "one example");
    } else if (n_defined == 0) {
      const std::string why = signal.name + ": a half has no figure, or no layer that a window hurts";
      estimate = stats::with_undefined_interval(stats::Figure::undefined(why), why);
    } else {
      estimate = spread.around(stats::Figure::of(sum / static_cast<double>(n_defined)));
    }
    for (const stats::Figure* figure : {&estimate.value, &estimate.ci_low}) {
      if (!figure->defined()) reasons.insert(figure->status);
    }
    result.transfer.push_back(estimate.value.value);
    result.transfer_low.push_back(estimate.ci_low.value);
    result.transfer_high.push_back(estimate.ci_high.value);
    result.transfer_overlap.push_back(n_overlaps == 0 ? nan : overlap / static_cast<double>(n_overlaps));
    if (n_overlaps == 0 && n_examples > 1) reasons.insert(signal.name + ": a half has no figure");
  }
  result.transfer_status = joined(std::vector<std::string>(reasons.begin(), reasons.end()), "; ");
}

}  // namespace

bool has_nan(std::span<const double> values) {
  return std::ranges::any_of(values, [](double value) { return std::isnan(value); });
}

std::optional<SignalComparison> compare_signals(const Measurement& m, const StatisticsOptions& options) {
  const std::vector<Signal> signals = signals_of(m);
  constexpr std::size_t kAlwaysThere = 3;
  if (signals.size() == kAlwaysThere) return std::nullopt;
  SignalComparison result;
  result.layer = m.layer;
  result.value = stats::Table<double>(static_cast<int64_t>(signals.size()), m.n_layers());
  for (std::size_t s = 0; s < signals.size(); ++s) {
    result.signal.push_back(signals[s].name);
    const std::vector<double> means = stats::mean_of_rows(signals[s].values, stats::iota(m.n_examples()));
    for (int64_t l = 0; l < m.n_layers(); ++l) result.value(static_cast<int64_t>(s), l) = means[stats::at(l)];
  }
  SignalsInPairs(signals, options, result).run();
  fill_transfer(signals, options, result);
  return result;
}

}  // namespace winnow::calibration
