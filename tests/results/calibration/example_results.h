// A small, made-up result with everything that the schema knows: two controls, sources, per-token NLL, strings beyond
// ASCII, undefined figures.
#pragma once

#include <cmath>
#include <limits>
#include <string>

#include "results/calibration/results.h"
#include "results/calibration/statistics.h"

namespace winnow {

// Deltas of very different size per layer; `scale` multiplies them all. scale 0: every delta is 0.
inline calibration::Measurement example_measurement(int64_t n_examples, int64_t n_layers, double scale,
                                                    bool per_token) {
  calibration::Measurement m;
  const auto n = static_cast<std::size_t>(n_examples);
  constexpr int64_t kAnswerTokens = 5;
  m.nll = stats::Table<double>(n_examples, n_layers);
  m.exact_match = stats::Table<uint8_t>(n_examples, n_layers);
  m.token_accuracy = stats::Table<double>(n_examples, n_layers);
  for (int64_t l = 0; l < n_layers; ++l) m.layer.push_back(2 * l);
  m.layer_windowed_in_base.assign(m.layer.size(), false);
  m.layer_windowed_in_base.back() = true;
  for (int64_t e = 0; e < n_examples; ++e) {
    m.example_id.push_back(std::string("example-\xC3\xA9-").append(std::to_string(e)));
    m.source.push_back(e % 2 == 0 ? "even" : "");
    m.token_hash.push_back("0123456789abcde" + std::to_string(e % 10));
    m.answer_tokens.push_back(kAnswerTokens - e % 2);
    m.prompt_tokens.push_back(1000 + e);
    m.nll_base.push_back(0.5 + 0.25 * static_cast<double>(e % 3));
    m.exact_match_base.push_back(1);
    m.token_accuracy_base.push_back(1.0);
    for (int64_t l = 0; l < n_layers; ++l) {
      const double delta = scale * std::exp(-0.7 * static_cast<double>((l * 5) % n_layers)) *
                           (1.0 + 0.3 * static_cast<double>((e * 7 + l * 3) % 5));
      const double sign = m.layer_windowed_in_base[static_cast<std::size_t>(l)] ? -1.0 : 1.0;
      m.nll(e, l) = m.nll_base.back() + sign * delta;
      m.exact_match(e, l) = delta < 0.4 ? 1 : 0;
      m.token_accuracy(e, l) = delta < 0.4 ? 1.0 : 0.5;
    }
  }
  if (!per_token) return m;
  m.by_setting.window = {2048, 2048, 0};
  m.by_setting.kv = {KvType::kStored, KvType::kFp8, KvType::kFp8};
  m.by_setting.nll = stats::Table<double>(n_examples * n_layers, 3, 2.5);
  m.by_setting.exact_match = stats::Table<uint8_t>(n_examples * n_layers, 3, 1);
  m.by_setting.token_accuracy = stats::Table<double>(n_examples * n_layers, 3, 0.5);
  m.by_window.window = {512, 2048};
  m.by_window.nll = stats::Table<double>(n_examples * n_layers, 2);
  m.by_window.exact_match = stats::Table<uint8_t>(n_examples * n_layers, 2, 1);
  m.by_window.token_accuracy = stats::Table<double>(n_examples * n_layers, 2, 0.75);
  for (int64_t cell = 0; cell < n_examples * n_layers; ++cell) {
    for (int64_t w = 0; w < 2; ++w) {
      m.by_window.nll(cell, w) = m.nll(cell / n_layers, cell % n_layers) + (w == 0 ? 0.125 : 0.0);
    }
  }
  // Two key heads, which share what their layer costs unequally.
  m.by_head.n_heads = 2;
  m.by_head.nll = stats::Table<double>(n_examples * n_layers, 2);
  m.by_head.exact_match = stats::Table<uint8_t>(n_examples * n_layers, 2, 1);
  m.by_head.token_accuracy = stats::Table<double>(n_examples * n_layers, 2, 0.75);
  for (int64_t cell = 0; cell < n_examples * n_layers; ++cell) {
    const double base = m.nll_base[static_cast<std::size_t>(cell / n_layers)];
    const double delta = m.nll(cell / n_layers, cell % n_layers) - base;
    for (int64_t h = 0; h < 2; ++h) m.by_head.nll(cell, h) = base + (h == 0 ? 0.75 : 0.125) * delta;
  }
  // What a run with all signals has. The second example is too short for a lazy ratio.
  for (const char* name : {"kl", "nll_removed", "delta_nll_removed", "attention_mass_outside", "lazy_ratio",
                           "lazy_ratio_compat", "angular_distance"}) {
    m.signals[name] = stats::Table<double>(n_examples, n_layers);
  }
  m.signals["attention_mass_outside_kv_head"] = stats::Table<double>(n_examples * n_layers, 2);
  for (int64_t e = 0; e < n_examples; ++e) {
    for (int64_t l = 0; l < n_layers; ++l) {
      const double nll_base = m.nll_base[static_cast<std::size_t>(e)];
      m.signals["kl"](e, l) = 0.5 * std::abs(m.nll(e, l) - nll_base);
      m.signals["nll_removed"](e, l) = nll_base + 0.1 * static_cast<double>((l * 7 + e) % 5);
      m.signals["delta_nll_removed"](e, l) = m.signals["nll_removed"](e, l) - nll_base + 0.0;
      m.signals["angular_distance"](e, l) = 0.01 * static_cast<double>((l * 3 + e) % 7);
      m.signals["attention_mass_outside"](e, l) = 0.02 * static_cast<double>(l + 1);
      for (int64_t head = 0; head < 2; ++head) {
        m.signals["attention_mass_outside_kv_head"](e * n_layers + l, head) = 0.02 * static_cast<double>(l + 2 * head);
      }
      m.signals["lazy_ratio"](e, l) =
          e == 1 ? std::numeric_limits<double>::quiet_NaN() : 0.9 - 0.03 * static_cast<double>(l);
      m.signals["lazy_ratio_compat"](e, l) = m.signals["lazy_ratio"](e, l) * 1.2;
    }
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  m.token_nll_base = stats::Table<float>(n_examples, kAnswerTokens, nan);
  m.token_nll = stats::Table<float>(n_examples * n_layers, kAnswerTokens, nan);
  for (std::size_t e = 0; e < n; ++e) {
    for (int64_t t = 0; t < m.answer_tokens[e]; ++t) {
      m.token_nll_base(static_cast<int64_t>(e), t) = 0.25F * static_cast<float>(t);
      for (int64_t l = 0; l < n_layers; ++l) {
        m.token_nll(static_cast<int64_t>(e) * n_layers + l, t) = 0.5F * static_cast<float>(t + l);
      }
    }
  }
  return m;
}

inline calibration::Results example_results() {
  calibration::Results results;
  results.calibration = example_measurement(8, 12, 1.0, true);
  results.controls["short"] = example_measurement(8, 12, 0.01, false);
  results.controls["no-effect_0.1"] = example_measurement(3, 12, 0.0, false);
  results.controls["no-effect_0.1"].source.clear();
  results.statistics = calibration::compute_statistics(results.calibration, results.controls, {.seed = 7});
  results.provenance.set("winnow_version", std::string("0.0.0-example"), "version of winnow");
  results.provenance.set("command",
                         std::string("winnow calibrate --model M\xC3\xB6"
                                     "del"),
                         "command line");
  results.provenance.set("ranks", int64_t{2}, "MPI ranks");
  results.provenance.set("seconds_total", 12.5, "wall time of the run", "s");
  results.provenance.set("run_json", std::string(100000, 'j'), "run.json as text");
  results.provenance.set("warnings", std::string(), "warnings of the run, one a line");
  return results;
}

}  // namespace winnow
