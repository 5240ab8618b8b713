#include "results/calibration/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <span>
#include <unordered_map>

#include "base/error.h"
#include "base/random.h"
#include "base/signal_specs.h"
#include "results/calibration/heads.h"
#include "results/calibration/signals.h"
#include "results/stats/correlation.h"
#include "results/stats/resampling.h"

namespace winnow::calibration {
namespace {

std::vector<int64_t> ranks_of(std::span<const double> mean, std::span<const int64_t> layer) {
  const std::vector<int64_t> order = stats::order_of(mean, layer);
  std::vector<int64_t> rank(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) rank[stats::at(order[i])] = static_cast<int64_t>(i) + 1;
  return rank;
}

// Why Spearman's rho of two columns of means is not defined; empty where it is.
std::string why_no_rho(std::span<const double> x, const char* x_name, std::span<const double> y, const char* y_name) {
  if (x.size() < 2) return "one layer";
  if (stats::all_equal(x)) return std::string(x_name) + " is equal in all layers";
  if (stats::all_equal(y)) return std::string(y_name) + " is equal in all layers";
  return "";
}

// Means of drawn examples. A layer that was measured on few of them may have none in a draw: it then has the mean of
// its own, which moves no rank.
std::vector<double> means_of_draw(const stats::Table<double>& table, std::span<const int64_t> rows,
                                  std::span<const double> all) {
  std::vector<double> means = stats::mean_of_rows(table, rows);
  for (std::size_t c = 0; c < means.size(); ++c) {
    if (std::isnan(means[c])) means[c] = all[c];
  }
  return means;
}

// ---- ranking --------------------------------------------------------------------------------------------------------

double median_of_column(const stats::Table<double>& table, int64_t column) {
  std::vector<double> values;
  for (int64_t row = 0; row < table.rows; ++row) {
    if (!std::isnan(table(row, column))) values.push_back(table(row, column));
  }
  std::sort(values.begin(), values.end());
  return stats::quantile(values, 0.5);
}

double standard_error_of_column(const stats::Table<double>& table, int64_t column, double mean) {
  double squares = 0.0;
  double n = 0.0;
  for (int64_t row = 0; row < table.rows; ++row) {
    if (std::isnan(table(row, column))) continue;
    const double deviation = table(row, column) - mean;
    squares += deviation * deviation;
    n += 1.0;
  }
  return std::sqrt(squares / (n - 1.0) / n);
}

// Intervals of mean and rank, and P(top K), from the resampled means: (resamples, layers) each.
void fill_spread(Ranking& ranking, const stats::Table<double>& delta, const StatisticsOptions& options) {
  const int64_t n_layers = delta.cols;
  stats::Table<double> means(n_layers, options.n_resamples);
  stats::Table<double> ranks(n_layers, options.n_resamples);
  for (int64_t r = 0; r < options.n_resamples; ++r) {
    const std::vector<double> mean =
        means_of_draw(delta, stats::draw_rows(delta.rows, options.seed, r), ranking.mean_delta_nll);
    const std::vector<int64_t> rank = ranks_of(mean, ranking.layer);
    for (int64_t l = 0; l < n_layers; ++l) {
      means(l, r) = mean[stats::at(l)];
      ranks(l, r) = static_cast<double>(rank[stats::at(l)]);
    }
    for (std::size_t b = 0; b < ranking.budget.size(); ++b) {
      for (int64_t l = 0; l < n_layers; ++l) {
        if (rank[stats::at(l)] <= ranking.budget[b]) ranking.p_top_k(static_cast<int64_t>(b), l) += 1.0;
      }
    }
  }
  for (double& p : ranking.p_top_k.values) p /= static_cast<double>(options.n_resamples);
  for (int64_t l = 0; l < n_layers; ++l) {
    const std::span<double> mean(&means(l, 0), stats::at(options.n_resamples));
    const std::span<double> rank(&ranks(l, 0), stats::at(options.n_resamples));
    std::sort(rank.begin(), rank.end());
    ranking.standard_error[stats::at(l)] = standard_error_of_column(delta, l, ranking.mean_delta_nll[stats::at(l)]);
    const stats::Interval interval = stats::percentile_interval(mean);
    ranking.ci_low[stats::at(l)] = interval.low;
    ranking.ci_high[stats::at(l)] = interval.high;
    ranking.rank_low[stats::at(l)] = stats::quantile_step(rank, stats::kLowQuantile);
    ranking.rank_high[stats::at(l)] = stats::quantile_step(rank, stats::kHighQuantile);
  }
}

Ranking compute_ranking(const Measurement& m, const Columns& columns, const StatisticsOptions& options) {
  Ranking ranking = rank_columns(m.layer, columns, options);
  const std::vector<int64_t> all = stats::iota(m.n_examples());
  for (const SignalSpec& spec : signal_specs()) {
    const stats::Table<double>* table = m.find_signal(spec.ranked);
    if (table != nullptr) ranking.signal_means[spec.ranked] = stats::mean_of_rows(*table, all);
  }
  return ranking;
}

// ---- reliability ----------------------------------------------------------------------------------------------------

// Spearman-Brown: the reliability of the whole from the correlation of its halves. Undefined at -1.
std::optional<double> spearman_brown(double rho) {
  if (rho <= -1.0) return std::nullopt;
  return 2.0 * rho / (1.0 + rho);
}

stats::Figure corrected(double rho) {
  const std::optional<double> value = spearman_brown(rho);
  return value ? stats::Figure::of(*value) : stats::Figure::undefined("the halves rank in exactly opposite order");
}

stats::Estimate split_half(const stats::Table<double>& delta, const StatisticsOptions& options) {
  const auto none = [](const std::string& why) {
    return stats::with_undefined_interval(stats::Figure::undefined(why), why);
  };
  if (delta.rows < 2) return none("one example");
  if (delta.cols < 2) return none("one layer");
  const auto half = stats::at(delta.rows / 2);
  stats::Spread spread;
  double sum = 0.0;
  int64_t n_defined = 0;
  for (int64_t s = 0; s < options.n_splits; ++s) {
    RandomStream random(options.seed, kSplitStream, static_cast<uint64_t>(s));
    std::vector<int64_t> rows = stats::iota(delta.rows);
    random.shuffle(std::span<int64_t>(rows));
    const std::span<const int64_t> order(rows);
    const std::optional<double> rho = stats::spearman(stats::mean_of_rows(delta, order.first(half)),
                                                      stats::mean_of_rows(delta, order.subspan(half, half)));
    spread.add(rho);
    sum += rho.value_or(0.0);
    n_defined += rho ? 1 : 0;
  }
  if (n_defined == 0) return none("the mean deltas of every half are equal in all layers");
  // The correction rises with rho, so it may follow mean and quantiles; before them, a split near -1 would swamp all.
  const stats::Estimate raw = spread.around(stats::Figure::of(sum / static_cast<double>(n_defined)));
  const auto correct = [](const stats::Figure& figure) { return figure.defined() ? corrected(figure.value) : figure; };
  return {correct(raw.value), correct(raw.ci_low), correct(raw.ci_high)};
}

stats::Estimate rho_with_drop(const stats::Table<double>& delta, const stats::Table<double>& drop,
                              const char* drop_name, const StatisticsOptions& options) {
  const std::vector<int64_t> all = stats::iota(delta.rows);
  const std::vector<double> mean_delta = stats::mean_of_rows(delta, all);
  const std::vector<double> mean_drop = stats::mean_of_rows(drop, all);
  const std::string why = why_no_rho(mean_delta, "mean delta NLL", mean_drop, drop_name);
  if (!why.empty()) return stats::with_undefined_interval(stats::Figure::undefined(why), why);
  const stats::Figure rho = stats::Figure::of(stats::spearman(mean_delta, mean_drop).value());
  if (delta.rows < 2) return stats::with_undefined_interval(rho, "one example");
  stats::Spread spread;
  for (int64_t r = 0; r < options.n_resamples; ++r) {
    const std::vector<int64_t> rows = stats::draw_rows(delta.rows, options.seed, r);
    spread.add(stats::spearman(stats::mean_of_rows(delta, rows), stats::mean_of_rows(drop, rows)));
  }
  return spread.around(rho);
}

// ---- de-confounding -------------------------------------------------------------------------------------------------

// Examples of two sets in three strata. Shared ones are drawn in pairs, the others within their own set, so sets that
// hold the same ids, some of them, or none follow one rule and keep their sizes.
struct Strata {
  std::vector<std::pair<int64_t, int64_t>> shared;  // (row of the calibration, row of the control)
  std::vector<int64_t> only_calibration;
  std::vector<int64_t> only_control;
};

Strata stratify(const Measurement& calibration, const Measurement& control) {
  std::unordered_map<std::string, int64_t> row_of_id;
  for (int64_t e = 0; e < control.n_examples(); ++e) row_of_id.emplace(control.example_id[stats::at(e)], e);
  Strata strata;
  std::vector<bool> is_shared(stats::at(control.n_examples()), false);
  for (int64_t e = 0; e < calibration.n_examples(); ++e) {
    const auto found = row_of_id.find(calibration.example_id[stats::at(e)]);
    if (found == row_of_id.end()) {
      strata.only_calibration.push_back(e);
    } else {
      strata.shared.emplace_back(e, found->second);
      is_shared[stats::at(found->second)] = true;
    }
  }
  for (int64_t e = 0; e < control.n_examples(); ++e) {
    if (!is_shared[stats::at(e)]) strata.only_control.push_back(e);
  }
  return strata;
}

void draw_within(const std::vector<int64_t>& stratum, RandomStream& random, std::vector<int64_t>& rows) {
  for (std::size_t i = 0; i < stratum.size(); ++i) {
    rows.push_back(stratum[stats::at(random.below(static_cast<int64_t>(stratum.size())))]);
  }
}

stats::Estimate control_rho(const stats::Table<double>& delta, std::span<const double> mean,
                            const stats::Table<double>& control_delta, const Strata& strata, const stats::Figure& rho,
                            const StatisticsOptions& options) {
  if (delta.rows < 2) return stats::with_undefined_interval(rho, "one example");
  if (control_delta.rows < 2) return stats::with_undefined_interval(rho, "one example in the control");
  stats::Spread spread;
  std::vector<int64_t> rows, control_rows;
  for (int64_t r = 0; r < options.n_resamples; ++r) {
    RandomStream random(options.seed, kControlResampleStream, static_cast<uint64_t>(r));
    rows.clear();
    control_rows.clear();
    for (std::size_t i = 0; i < strata.shared.size(); ++i) {
      const auto& pair = strata.shared[stats::at(random.below(static_cast<int64_t>(strata.shared.size())))];
      rows.push_back(pair.first);
      control_rows.push_back(pair.second);
    }
    draw_within(strata.only_calibration, random, rows);
    draw_within(strata.only_control, random, control_rows);
    spread.add(stats::spearman(means_of_draw(delta, rows, mean), stats::mean_of_rows(control_delta, control_rows)));
  }
  return spread.around(rho);
}

void compare_top_k(std::span<const double> mean, std::span<const double> control_mean, std::span<const int64_t> layer,
                   Deconfounding& result) {
  const auto k = result.top_k;
  // Among equal deltas the layer index alone decides who is in the top K, which says nothing about agreement.
  const bool all_in = k == static_cast<int64_t>(mean.size());
  const char* constant = all_in                           ? nullptr
                         : stats::all_equal(mean)         ? "the calibration's mean delta is equal in all layers"
                         : stats::all_equal(control_mean) ? "the control's mean delta is equal in all layers"
                                                          : nullptr;
  if (constant != nullptr) {
    result.overlap = result.jaccard = stats::Figure::undefined(constant);
    return;
  }
  const std::vector<int64_t> rank = ranks_of(mean, layer);
  const std::vector<int64_t> control_rank = ranks_of(control_mean, layer);
  int64_t n_both = 0;
  for (std::size_t l = 0; l < rank.size(); ++l) n_both += rank[l] <= k && control_rank[l] <= k ? 1 : 0;
  result.overlap = stats::Figure::of(static_cast<double>(n_both));
  result.jaccard = stats::Figure::of(static_cast<double>(n_both) / static_cast<double>(2 * k - n_both));
}

double mean_magnitude(std::span<const double> values) {
  double sum = 0.0;
  for (const double value : values) sum += std::abs(value);
  return sum / static_cast<double>(values.size());
}

Deconfounding compare_with_control(const Measurement& calibration, const Columns& columns, const Measurement& control,
                                   const StatisticsOptions& options) {
  const stats::Table<double> control_delta = columns_of(control).delta_nll;
  const std::vector<double> mean = stats::mean_of_rows(columns.delta_nll, stats::iota(calibration.n_examples()));
  const std::vector<double> control_mean = stats::mean_of_rows(control_delta, stats::iota(control.n_examples()));
  const Strata strata = stratify(calibration, control);
  Deconfounding result;
  result.top_k = options.top_k;
  result.n_paired = static_cast<int64_t>(strata.shared.size());
  const std::string why = why_no_rho(mean, "the calibration's mean delta", control_mean, "the control's mean delta");
  if (why.empty()) {
    const stats::Figure rho = stats::Figure::of(stats::spearman(mean, control_mean).value());
    result.spearman_rho = control_rho(columns.delta_nll, mean, control_delta, strata, rho, options);
    result.spearman_p = stats::Figure::of(
        stats::spearman_permutation_p(mean, control_mean, options.n_permutations, options.seed).value());
  } else {
    result.spearman_rho = stats::with_undefined_interval(stats::Figure::undefined(why), why);
    result.spearman_p = stats::Figure::undefined(why);
  }
  compare_top_k(mean, control_mean, calibration.layer, result);
  const double control_magnitude = mean_magnitude(control_mean);
  result.magnitude_ratio = control_magnitude > 0.0
                               ? stats::Figure::of(mean_magnitude(mean) / control_magnitude)
                               : stats::Figure::undefined("the control's mean delta is 0 in all layers");
  return result;
}

// Figures that set halves of the examples, or columns of them, beside each other: all layers must have the examples.
void add_agreement(const Measurement& m, const Columns& columns, Statistics& statistics) {
  statistics.reliability.split_half = split_half(columns.delta_nll, statistics.options);
  statistics.reliability.rho_exact_match =
      rho_with_drop(columns.delta_nll, columns.exact_match_drop, "exact-match drop", statistics.options);
  statistics.reliability.rho_token_accuracy =
      rho_with_drop(columns.delta_nll, columns.token_accuracy_drop, "token-accuracy drop", statistics.options);
  statistics.signals = compare_signals(m, statistics.options);
}

StatisticsOptions checked(StatisticsOptions options, int64_t n_layers) {
  if (options.top_k < 0 || options.top_k > n_layers) {
    fail(ExitCode::kUsage, "top-k: expected 1 to the number of measured layers (" + std::to_string(n_layers) +
                               "), found " + std::to_string(options.top_k));
  }
  for (const int64_t n_draws : {options.n_resamples, options.n_permutations, options.n_splits}) {
    if (n_draws >= 1 && n_draws <= stats::kMaxDraws) continue;
    fail(ExitCode::kUsage, "resamples, permutations and splits: expected 1 to " + std::to_string(stats::kMaxDraws) +
                               " of each, found " + std::to_string(n_draws));
  }
  if (options.top_k == 0) options.top_k = budget_of(n_layers, 4);
  return options;
}

}  // namespace

std::vector<int64_t> Ranking::order() const {
  std::vector<int64_t> columns(rank.size());
  for (std::size_t column = 0; column < rank.size(); ++column) {
    columns[stats::at(rank[column] - 1)] = static_cast<int64_t>(column);
  }
  return columns;
}

std::vector<int64_t> budgets(int64_t n_layers, int64_t top_k) {
  std::vector<int64_t> k = {budget_of(n_layers, 8), budget_of(n_layers, 4), budget_of(n_layers, 2),
                            top_k > 0 ? top_k : budget_of(n_layers, 4)};
  std::sort(k.begin(), k.end());
  k.erase(std::unique(k.begin(), k.end()), k.end());
  return k;
}

int64_t budget_of(int64_t n_layers, int64_t divisor) { return std::max<int64_t>(1, n_layers / divisor); }

Ranking rank_columns(const std::vector<int64_t>& numbers, const Columns& columns, const StatisticsOptions& options) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<int64_t> all = stats::iota(columns.delta_nll.rows);
  Ranking ranking;
  ranking.layer = numbers;
  ranking.mean_delta_nll = stats::mean_of_rows(columns.delta_nll, all);
  ranking.exact_match_drop = stats::mean_of_rows(columns.exact_match_drop, all);
  ranking.token_accuracy_drop = stats::mean_of_rows(columns.token_accuracy_drop, all);
  const int64_t n_columns = columns.delta_nll.cols;
  for (int64_t l = 0; l < n_columns; ++l) {
    ranking.median_delta_nll.push_back(median_of_column(columns.delta_nll, l));
  }
  ranking.rank = ranks_of(ranking.mean_delta_nll, numbers);
  ranking.budget = budgets(n_columns, options.top_k);
  const bool has_spread = columns.delta_nll.rows > 1;
  for (std::vector<double>* column :
       {&ranking.standard_error, &ranking.ci_low, &ranking.ci_high, &ranking.rank_low, &ranking.rank_high}) {
    column->assign(stats::at(n_columns), nan);
  }
  ranking.p_top_k =
      stats::Table<double>(static_cast<int64_t>(ranking.budget.size()), n_columns, has_spread ? 0.0 : nan);
  if (has_spread) {
    fill_spread(ranking, columns.delta_nll, options);
  } else {
    ranking.spread_status = "one example";
  }
  return ranking;
}

Statistics compute_statistics(const Measurement& calibration, const std::map<std::string, Measurement>& controls,
                              const StatisticsOptions& options) {
  check_measurement(calibration, "calibration");
  for (const auto& [name, control] : controls) {
    check_measurement(control, "control " + name);
    if (control.layer != calibration.layer) {
      fail(ExitCode::kBadData, "control " + name + ": was measured on other layers than the calibration set");
    }
  }
  Statistics statistics;
  statistics.options = checked(options, calibration.n_layers());
  const Columns columns = columns_of(calibration);
  statistics.ranking = compute_ranking(calibration, columns, statistics.options);
  for (const auto& [name, control] : controls) {
    statistics.deconfounding[name] = compare_with_control(calibration, columns, control, statistics.options);
  }
  if (calibration.layer_examples.empty()) {
    add_agreement(calibration, columns, statistics);
  } else {
    const Measurement shared = first_examples(calibration, calibration.n_shared_examples());
    add_agreement(shared, columns_of(shared), statistics);
  }
  statistics.heads = compare_heads(calibration, columns, statistics.options);
  return statistics;
}

}  // namespace winnow::calibration
