#include "results/evaluation/evaluation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <span>

#include "base/error.h"
#include "base/strings.h"
#include "base/terminal_table.h"
#include "results/stats/resampling.h"

namespace winnow::evaluation {
namespace {

// A measured table as numbers to average.
template <typename T>
stats::Table<double> numbers(const stats::Table<T>& table) {
  stats::Table<double> result(table.rows, table.cols);
  std::copy(table.values.begin(), table.values.end(), result.values.begin());
  return result;
}

double mean_over(const stats::Table<double>& table, int64_t pattern, std::span<const int64_t> examples) {
  return stats::mean_of(&table.values[stats::at(pattern * table.cols)], examples);
}

// Means of every pattern over the resamples, (patterns, resamples). The draws follow from the seed alone, so that all
// figures of all patterns are over the same examples.
stats::Table<double> resampled_means(const stats::Table<double>& table, const EvaluationOptions& options) {
  stats::Table<double> means(table.rows, options.n_resamples);
  for (int64_t r = 0; r < options.n_resamples; ++r) {
    const std::vector<int64_t> draw = stats::draw_rows(table.cols, options.seed, r);
    for (int64_t p = 0; p < table.rows; ++p) means(p, r) = mean_over(table, p, draw);
  }
  return means;
}

// One measured table with its means.
struct ResampledColumn {
  std::vector<double> mean;        // (patterns)
  stats::Table<double> resampled;  // (patterns, resamples); empty for one example
};

ResampledColumn resampled_column(const stats::Table<double>& table, const EvaluationOptions& options) {
  ResampledColumn column;
  const std::vector<int64_t> all = stats::iota(table.cols);
  for (int64_t p = 0; p < table.rows; ++p) column.mean.push_back(mean_over(table, p, all));
  if (table.cols > 1) column.resampled = resampled_means(table, options);
  return column;
}

// Of each pattern, or of each pattern less the reference.
PatternFigures figures_of(const ResampledColumn& column, std::optional<int64_t> reference = std::nullopt) {
  const auto n_patterns = static_cast<int64_t>(column.mean.size());
  const int64_t n_resamples = column.resampled.cols;
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  PatternFigures figures{column.mean, std::vector<double>(stats::at(n_patterns), kNan),
                         std::vector<double>(stats::at(n_patterns), kNan)};
  std::vector<double> values(stats::at(n_resamples));
  for (int64_t p = 0; p < n_patterns; ++p) {
    if (reference) figures.mean[stats::at(p)] = column.mean[stats::at(p)] - column.mean[stats::at(*reference)];
    if (n_resamples == 0) continue;
    for (int64_t r = 0; r < n_resamples; ++r) {
      values[stats::at(r)] = column.resampled(p, r) - (reference ? column.resampled(*reference, r) : 0.0);
    }
    const stats::Interval interval = stats::percentile_interval(values);
    figures.ci_low[stats::at(p)] = interval.low;
    figures.ci_high[stats::at(p)] = interval.high;
  }
  return figures;
}

std::vector<double> mcnemar_against(const stats::Table<uint8_t>& exact_match, int64_t reference) {
  std::vector<double> p_values;
  for (int64_t p = 0; p < exact_match.rows; ++p) {
    int64_t only_this = 0;
    int64_t only_reference = 0;
    for (int64_t e = 0; e < exact_match.cols; ++e) {
      if (exact_match(p, e) > exact_match(reference, e)) ++only_this;
      if (exact_match(p, e) < exact_match(reference, e)) ++only_reference;
    }
    p_values.push_back(mcnemar_p(only_this, only_reference));
  }
  return p_values;
}

std::vector<double> negative(std::vector<double> values) {
  for (double& value : values) value = -value;
  return values;
}

// `quality`: large is good.
std::vector<uint8_t> front(const EvaluationTable& table, std::span<const double> quality) {
  std::vector<uint8_t> is_on;
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    const int64_t cost = table.cost(p);
    bool is_dominated = false;
    for (int64_t q = 0; q < table.n_patterns(); ++q) {
      const int64_t other = table.cost(q);
      const bool is_no_worse = other <= cost && quality[stats::at(q)] >= quality[stats::at(p)];
      is_dominated = is_dominated || (is_no_worse && (other < cost || quality[stats::at(q)] > quality[stats::at(p)]));
    }
    is_on.push_back(is_dominated ? 0 : 1);
  }
  return is_on;
}

template <typename T>
void check_table(const EvaluationTable& table, const stats::Table<T>& values, const std::string& name,
                 const std::string& where) {
  if (values.rows != table.n_patterns() || values.cols != table.n_examples()) {
    fail(ExitCode::kBadData, where + ": " + name + " has " + std::to_string(values.rows) + " x " +
                                 std::to_string(values.cols) + " values, expected " +
                                 std::to_string(table.n_patterns()) + " patterns x " +
                                 std::to_string(table.n_examples()) + " examples");
  }
  for (int64_t p = 0; p < values.rows; ++p) {
    for (int64_t e = 0; e < values.cols; ++e) {
      if (std::isfinite(static_cast<double>(values(p, e)))) continue;
      fail(ExitCode::kBadData, where + ": " + name + " of pattern " + table.pattern[stats::at(p)] + " on example " +
                                   std::to_string(e) + " is not finite");
    }
  }
}

}  // namespace

GeneratedTable::GeneratedTable(int64_t n_patterns, int64_t n_examples, GenerationSettings how)
    : settings(std::move(how)),
      exact_match(n_patterns, n_examples),
      tokens(n_patterns, n_examples),
      stopped(n_patterns, n_examples),
      cache_bytes(n_patterns, n_examples),
      prefill_rate(stats::at(n_patterns)),
      decode_rate(stats::at(n_patterns)),
      texts_together(stats::at(n_patterns)) {}

int64_t EvaluationTable::n_full_layers(int64_t p) const {
  const auto begin = full_attention.values.begin() + p * full_attention.cols;
  return std::count(begin, begin + full_attention.cols, uint8_t{1});
}

int64_t EvaluationTable::n_full_heads(int64_t p, int64_t layer) const {
  const auto begin = full_heads.values.begin() + (p * n_layers() + layer) * full_heads.cols;
  return std::count(begin, begin + full_heads.cols, uint8_t{1});
}

int64_t EvaluationTable::n_full_heads(int64_t p) const {
  int64_t n = 0;
  for (int64_t layer = 0; layer < n_layers(); ++layer) n += n_full_heads(p, layer);
  return n;
}

std::string EvaluationTable::full_text(int64_t p) const {
  const bool is_of_heads = !full_heads.values.empty() && n_full_heads(p) != n_full_layers(p) * full_heads.cols;
  return is_of_heads ? std::to_string(n_full_heads(p)) + " of " + std::to_string(n_layers() * full_heads.cols) +
                           " key heads full"
                     : std::to_string(n_full_layers(p)) + " of " + std::to_string(n_layers()) + " layers full";
}

std::string EvaluationTable::full_number(int64_t p) const {
  if (full_heads.values.empty()) return std::to_string(n_full_layers(p));
  return number(static_cast<double>(n_full_heads(p)) / static_cast<double>(full_heads.cols), "{:.4g}");
}

namespace {

int64_t element_bits(KvType type) {
  if (type == KvType::kStored) return 16;
  return type == KvType::kInt4 ? 4 : 8;
}

}  // namespace

int64_t EvaluationTable::cost(int64_t p) const {
  if (window_keys.values.empty()) return n_full_layers(p);
  int64_t keys = 0;
  for (int64_t l = 0; l < n_layers(); ++l) {
    const int64_t seen = window_keys(p, l) == 0 ? kCostLength : std::min(window_keys(p, l), kCostLength);
    const int64_t n_full = full_heads.values.empty() ? 0 : n_full_heads(p, l);
    const int64_t of_heads = n_full * kCostLength + (std::max<int64_t>(1, full_heads.cols) - n_full) * seen;
    keys += kv.values.empty() ? of_heads : of_heads * element_bits(kv_type(p, l));
  }
  return keys;
}

std::vector<ServedWindow> EvaluationResults::windows_of(int64_t pattern) const {
  Pattern windowed;
  for (int64_t layer = 0; layer < table.n_layers(); ++layer) {
    windowed.push_back(table.full_attention(pattern, layer) != 1);
  }
  std::vector<ServedWindow> windows = served_windows_of(windowed, window, table.native_window);
  for (int64_t layer = 0; layer < table.window_keys.cols; ++layer) {
    if (table.window_keys(pattern, layer) > 0) windows[stats::at(layer)].keys = table.window_keys(pattern, layer);
    windows[stats::at(layer)].kv = table.kv_type(pattern, layer);
  }
  for (int64_t layer = 0; !table.full_heads.values.empty() && layer < table.n_layers(); ++layer) {
    if (!windows[stats::at(layer)].is_windowed()) continue;
    windows[stats::at(layer)].full_share =
        static_cast<double>(table.n_full_heads(pattern, layer)) / static_cast<double>(table.full_heads.cols);
  }
  return windows;
}

std::optional<int64_t> EvaluationTable::full() const {
  const int64_t most = native_window.empty() ? n_layers() : std::ranges::count(native_window, 0);
  for (int64_t p = 0; p < n_patterns(); ++p) {
    const bool is_stored = kv.values.empty() || std::all_of(&kv(p, 0), &kv(p, 0) + n_layers(), [](uint8_t type) {
                             return type == static_cast<uint8_t>(KvType::kStored);
                           });
    if (n_full_layers(p) == most && is_stored) return p;
  }
  return std::nullopt;
}

std::optional<int64_t> EvaluationTable::find(const std::string& name) const {
  const auto found = std::find(pattern.begin(), pattern.end(), name);
  if (found == pattern.end()) return std::nullopt;
  return found - pattern.begin();
}

double mcnemar_p(int64_t only_first, int64_t only_second) {
  const int64_t n = only_first + only_second;
  const int64_t fewer = std::min(only_first, only_second);
  double tail = 0.0;
  for (int64_t k = 0; k <= fewer; ++k) {
    const auto count = [](int64_t value) { return std::lgamma(static_cast<double>(value) + 1.0); };
    tail += std::exp(count(n) - count(k) - count(n - k) - static_cast<double>(n) * std::log(2.0));
  }
  return std::min(1.0, 2.0 * tail);
}

void check_evaluation(const EvaluationTable& table, const std::string& where) {
  if (table.n_patterns() == 0 || table.n_examples() == 0 || table.n_layers() == 0) {
    fail(ExitCode::kBadData, where + ": there is no pattern, no example or no layer in it");
  }
  const auto n = stats::at(table.n_examples());
  if (table.full_attention.rows != table.n_patterns() || table.answer_tokens.size() != n ||
      table.prompt_tokens.size() != n || (!table.source.empty() && table.source.size() != n) ||
      (!table.native_window.empty() && table.native_window.size() != stats::at(table.n_layers())) ||
      (!table.window_keys.values.empty() &&
       (table.window_keys.rows != table.n_patterns() || table.window_keys.cols != table.n_layers())) ||
      (!table.full_heads.values.empty() &&
       (table.full_heads.rows != table.n_patterns() * table.n_layers() || table.window_keys.values.empty()))) {
    fail(ExitCode::kBadData, where + ": the lengths of its tables do not agree");
  }
  if (std::set<std::string>(table.pattern.begin(), table.pattern.end()).size() != table.pattern.size()) {
    fail(ExitCode::kBadData, where + ": two of its patterns have the same name");
  }
  check_table(table, table.nll, "nll", where);
  check_table(table, table.exact_match, "exact_match", where);
  check_table(table, table.token_accuracy, "token_accuracy", where);
  if (table.kl.rows > 0) check_table(table, table.kl, "kl", where);
  if (!table.generated.is_empty()) {
    check_table(table, table.generated.exact_match, "generated_exact_match", where);
    check_table(table, table.generated.tokens, "generated_tokens", where);
  }
}

void require_baseline(const std::string& baseline, const std::vector<std::string>& patterns) {
  if (std::find(patterns.begin(), patterns.end(), baseline) != patterns.end()) return;
  fail(ExitCode::kUsage, "--baseline is \"" + baseline + "\", expected one of the patterns: " + joined(patterns));
}

EvaluationStatistics compute_evaluation(const EvaluationTable& table, const EvaluationOptions& options) {
  check_evaluation(table, "evaluation");
  if (options.n_resamples < 1 || options.n_resamples > stats::kMaxDraws) {
    fail(ExitCode::kUsage, "--resamples is " + std::to_string(options.n_resamples) + ", expected 1 to " +
                               std::to_string(stats::kMaxDraws));
  }
  const std::optional<int64_t> full = table.full();
  if (!full) fail(ExitCode::kBadData, "evaluation: none of its patterns has full attention in every layer");
  EvaluationStatistics statistics;
  statistics.options = options;
  const ResampledColumn nll = resampled_column(table.nll, options);
  const ResampledColumn exact_match = resampled_column(numbers(table.exact_match), options);
  const ResampledColumn token_accuracy = resampled_column(table.token_accuracy, options);
  statistics.nll = figures_of(nll);
  statistics.exact_match = figures_of(exact_match);
  statistics.token_accuracy = figures_of(token_accuracy);
  if (table.kl.rows > 0) statistics.kl = figures_of(resampled_column(table.kl, options));
  if (!table.generated.is_empty()) {
    statistics.generated_exact_match = figures_of(resampled_column(numbers(table.generated.exact_match), options));
  }
  const auto compare = [&](int64_t reference) {
    return Comparison{reference, figures_of(nll, reference), figures_of(exact_match, reference),
                      figures_of(token_accuracy, reference), mcnemar_against(table.exact_match, reference)};
  };
  statistics.full = compare(*full);
  if (!options.baseline.empty()) {
    require_baseline(options.baseline, table.pattern);
    statistics.baseline = compare(*table.find(options.baseline));
  }
  statistics.losses =
      judge_losses(table, *full, options.margin, bound_losses(table, *full, options.seed, options.n_resamples));
  statistics.on_front_exact_match = front(table, exact_match.mean);
  statistics.on_front_token_accuracy = front(table, token_accuracy.mean);
  statistics.on_front_nll = front(table, negative(nll.mean));
  if (table.kl.rows > 0) statistics.on_front_kl = front(table, negative(statistics.kl.mean));
  if (table.n_examples() == 1) statistics.spread_status = "one example";
  return statistics;
}

}  // namespace winnow::evaluation
