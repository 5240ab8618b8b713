#include "results/selection/heads.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/error.h"
#include "base/strings.h"
#include "base/terminal_table.h"
#include "results/selection/methods.h"
#include "results/selection/pattern.h"
#include "results/stats/resampling.h"

namespace winnow::selection {
namespace {

constexpr const char* kMethod = "kv-heads";

Prediction predict(const std::vector<double>& by_example, const calibration::StatisticsOptions& options) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const auto n = static_cast<int64_t>(by_example.size());
  Prediction prediction{stats::mean_of(by_example), kNan, kNan};
  if (n < 2) return prediction;
  std::vector<double> means;
  for (int64_t r = 0; r < options.n_resamples; ++r) {
    means.push_back(stats::mean_of(by_example, stats::draw_rows(n, options.seed, r)));
  }
  const stats::Interval interval = stats::percentile_interval(means);
  prediction.ci_low = interval.low;
  prediction.ci_high = interval.high;
  return prediction;
}

// By example, what the layers or heads cost that `cost` gives a number for.
std::vector<double> sums(const calibration::Measurement& m,
                         const std::function<double(int64_t example, int64_t column)>& cost) {
  std::vector<double> by_example(stats::at(m.n_examples()), 0.0);
  for (int64_t e = 0; e < m.n_examples(); ++e) {
    for (int64_t column = 0; column < m.n_layers(); ++column) by_example[stats::at(e)] += cost(e, column);
  }
  return by_example;
}

std::string prediction_text(const Prediction& prediction) {
  const std::string loss = number(prediction.loss);
  if (std::isnan(prediction.ci_low)) return loss + " (one example)";
  return loss + " " + bracketed(number(prediction.ci_low), number(prediction.ci_high));
}

}  // namespace

int64_t HeadChoice::n_full_heads() const { return std::ranges::count(windowed_heads, false); }

HeadChoice choose_heads(const SelectInput& input, const std::optional<int64_t>& keep) {
  const calibration::Results& results = input.results;
  const calibration::Measurement& m = results.calibration;
  if (!results.statistics.heads) {
    fail(ExitCode::kNoInput,
         "--per-kv-head: the results have no figures of key heads; measure them with calibrate --per-kv-head");
  }
  const calibration::HeadStatistics& heads = *results.statistics.heads;
  const int64_t n_heads = heads.n_heads;
  HeadChoice choice;
  choice.keep = keep.value_or(results.statistics.options.top_k);
  if (choice.keep < 0 || choice.keep > m.n_layers()) {
    fail(ExitCode::kUsage, "--keep is " + std::to_string(choice.keep) + ", expected 0 to " +
                               std::to_string(m.n_layers()) + " layers' worth of heads, those that were measured");
  }
  choice.layers = choose_layers(input, {.keep = choice.keep}).layers;
  const Choice no_layer{.method = kMethod, .layers = {}, .order = {}, .score_name = {}, .caveats = {}};
  const int64_t n_layers = make_selection(no_layer, input, "the results").n_layers;
  choice.windowed_heads.assign(stats::at(n_layers * n_heads), true);
  for (std::size_t i = 0; i < heads.ranking.rank.size(); ++i) {
    if (heads.ranking.rank[i] > choice.keep * n_heads) continue;
    choice.windowed_heads[stats::at(heads.ranking.layer[i])] = false;
  }
  const auto is_kept = [&](int64_t column) {
    return std::ranges::find(choice.layers, m.layer[stats::at(column)]) != choice.layers.end();
  };
  const std::vector<double> of_layers =
      sums(m, [&](int64_t e, int64_t column) { return is_kept(column) ? 0.0 : m.delta_nll(e, column); });
  const std::vector<double> of_heads = sums(m, [&](int64_t e, int64_t column) {
    double sum = 0.0;
    for (int64_t h = 0; h < n_heads; ++h) {
      const bool is_windowed = choice.windowed_heads[stats::at(m.layer[stats::at(column)] * n_heads + h)];
      sum += is_windowed ? m.delta_nll_by_head(e, column, h) : 0.0;
    }
    return sum;
  });
  std::vector<double> saved = of_layers;
  for (std::size_t e = 0; e < saved.size(); ++e) saved[e] -= of_heads[e];
  choice.of_layers = predict(of_layers, results.statistics.options);
  choice.of_heads = predict(of_heads, results.statistics.options);
  choice.saved = predict(saved, results.statistics.options);
  return choice;
}

Selection make_head_selection(const HeadChoice& choice, const SelectInput& input, const std::string& origin) {
  const calibration::HeadStatistics& heads = *input.results.statistics.heads;
  const auto n_layers = static_cast<int64_t>(choice.windowed_heads.size()) / heads.n_heads;
  const Pattern windowed = windowed_layers(choice.windowed_heads, n_layers);
  Choice whole{.method = kMethod, .layers = {}, .order = {}, .score_name = {}, .caveats = {}};
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    if (!windowed[stats::at(layer)]) whole.layers.push_back(layer);
  }
  Selection s = make_selection(whole, input, origin);
  s.n_kv_heads = heads.n_heads;
  s.windowed_heads = choice.windowed_heads;
  s.head_delta_nll.assign(choice.windowed_heads.size(), std::numeric_limits<double>::quiet_NaN());
  for (std::size_t i = 0; i < heads.ranking.layer.size(); ++i) {
    s.head_delta_nll[stats::at(heads.ranking.layer[i])] = heads.ranking.mean_delta_nll[i];
  }
  s.provenance.set("heads_layers_of_equal_bytes", joined(choice.layers, ","), "");
  const auto put = [&](const std::string& name, const Prediction& prediction) {
    s.provenance.set(name, prediction.loss, "");
    if (std::isnan(prediction.ci_low)) return;
    s.provenance.set(name + "_ci_low", prediction.ci_low, "");
    s.provenance.set(name + "_ci_high", prediction.ci_high, "");
  };
  put("heads_predicted_delta_nll", choice.of_heads);
  put("heads_predicted_delta_nll_of_layers", choice.of_layers);
  parse_selection(to_json(s), origin + ": /heads", "use the results.h5 of a run directory as it was written");
  return s;
}

std::string to_table(const HeadChoice& choice, const Selection& s) {
  constexpr auto kRight = TerminalTable::Column::Align::kRight;
  TerminalTable table({{kRight, 5}, {kRight, 7}, {}});
  table.add({"layer", "full", "  key heads with full attention"});
  for (int64_t layer = 0; layer < s.n_layers; ++layer) {
    std::vector<int64_t> full;
    for (int64_t head = 0; head < s.n_kv_heads; ++head) {
      if (!s.windowed_heads[stats::at(layer * s.n_kv_heads + head)]) full.push_back(head);
    }
    table.add({std::to_string(layer), std::to_string(full.size()), "  " + joined(full)});
  }
  std::string text = table.text() + "\n";
  text += wrapped("Keep full attention in these " + std::to_string(choice.n_full_heads()) + " of " +
                      std::to_string(choice.windowed_heads.size()) + " key heads, the memory of " +
                      std::to_string(choice.keep) + " of " + std::to_string(s.n_layers) +
                      " layers; window the rest. Window " + std::to_string(s.window) + ", sinks " +
                      std::to_string(s.sinks) + ", decode " + s.decode + ".",
                  2);
  text += "\nPredicted loss at equal memory, nats per token: what is windowed, each alone, summed\n";
  const auto line = [](const std::string& label, const std::string& value) {
    return wrapped("  " + left(label, 34) + value, 36);
  };
  text += line("these heads", prediction_text(choice.of_heads));
  text +=
      line(choice.layers.empty() ? "no layer" : "layers " + joined(choice.layers), prediction_text(choice.of_layers));
  text += line("heads save", prediction_text(choice.saved));
  return text;
}

}  // namespace winnow::selection
