#include "results/selection/weak_figure.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/terminal_table.h"
#include "results/stats/bounds.h"
#include "results/stats/resampling.h"

namespace winnow::selection {
namespace {

// Of some tens of layers without any effect the largest is two to three standard errors from none.
constexpr double kWeakPower = 3.0;
// Exact match can only fall where full attention gives the answer.
constexpr double kFewAnswers = 0.5;

// Of the layer that the figure shows best: its mean in standard errors. Infinite where all examples change alike.
double power_of(const stats::Table<double>& values) {
  double best = 0.0;
  for (int64_t column = 0; column < values.cols; ++column) {
    std::vector<double> layer;
    for (int64_t e = 0; e < values.rows; ++e) {
      if (!std::isnan(values(e, column))) layer.push_back(values(e, column));
    }
    const double mean = stats::mean_of(layer);
    const auto n = static_cast<int64_t>(layer.size());
    if (n > 1 && mean != 0.0) best = std::max(best, std::abs(mean) / stats::standard_error(layer.data(), n));
  }
  return best;
}

}  // namespace

std::string weak_figure_caveat(const calibration::Measurement& measurement, const std::string& method) {
  const bool is_match = method == "exact-match";
  if (measurement.n_examples() < 2 || (!is_match && method != "nll" && method != "token-accuracy")) return "";
  const calibration::Columns columns = calibration::columns_of(measurement);
  const double of_nll = power_of(columns.delta_nll);
  const double power = is_match          ? power_of(columns.exact_match_drop)
                       : method == "nll" ? of_nll
                                         : power_of(columns.token_accuracy_drop);
  const double answered = stats::mean_of(measurement.exact_match_base);
  if (power >= kWeakPower && !(is_match && answered < kFewAnswers)) return "";
  std::string text = method + " is a weak figure here: the layer that it shows best is " + number(power, "{:.1f}") +
                     " standard errors from no effect";
  if (method != "nll") text += ", by nll " + number(of_nll, "{:.1f}");
  if (is_match) text += "; full attention gives " + percent(answered) + " of the answers";
  return text;
}

}  // namespace winnow::selection
