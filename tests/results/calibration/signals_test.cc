// Statistics of the signals of layers against scipy's figures (golden/signal_statistics.json, made by
// golden/make_signal_statistics.py), and where they are not defined.

#include "results/calibration/signals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace winnow::calibration {
namespace {

using nlohmann::json;

// Sums of at most 10,000 numbers of the order of 1 in another order; a partial rho divides by what is left of them.
constexpr double kRounding = 1e-11;

stats::Table<double> table_of(const json& rows) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::size_t n_cols = 0;
  for (const json& row : rows) n_cols = std::max(n_cols, row.size());
  stats::Table<double> table(static_cast<int64_t>(rows.size()), static_cast<int64_t>(n_cols), nan);
  for (int64_t r = 0; r < table.rows; ++r) {
    const json& row = rows.at(static_cast<std::size_t>(r));
    for (int64_t c = 0; c < table.cols && !row.is_null(); ++c)
      table(r, c) = row.at(static_cast<std::size_t>(c)).get<double>();
  }
  return table;
}

json read() {
  std::ifstream file(std::string(WINNOW_TESTS_DIR) + "/golden/signal_statistics.json");
  json golden = json::parse(file);
  if (golden.at("format") != "winnow-signal-statistics-golden" || golden.at("version") != 1) {
    throw std::runtime_error("golden/signal_statistics.json is stale: run " + golden.at("made_by").get<std::string>());
  }
  return golden;
}

Measurement measurement_of(const json& golden) {
  const json& data = golden.at("calibration");
  Measurement m;
  m.example_id = data.at("example_id").get<std::vector<std::string>>();
  m.answer_tokens.assign(m.example_id.size(), 32);
  m.prompt_tokens.assign(m.example_id.size(), 1000);
  m.nll_base = data.at("nll_base").get<std::vector<double>>();
  m.nll = table_of(data.at("nll"));
  m.exact_match_base = data.at("exact_match_base").get<std::vector<uint8_t>>();
  m.exact_match = stats::Table<uint8_t>(m.nll.rows, m.nll.cols);
  const stats::Table<double> matches = table_of(data.at("exact_match"));
  std::transform(matches.values.begin(), matches.values.end(), m.exact_match.values.begin(),
                 [](double match) { return match != 0.0 ? 1 : 0; });
  m.token_accuracy_base = data.at("token_accuracy_base").get<std::vector<double>>();
  m.token_accuracy = table_of(data.at("token_accuracy"));
  for (int64_t l = 0; l < m.nll.cols; ++l) m.layer.push_back(l);
  m.layer_windowed_in_base.assign(m.layer.size(), false);
  m.signals["kl"] = table_of(golden.at("kl"));
  m.signals["nll_removed"] = m.signals["delta_nll_removed"] = table_of(golden.at("nll_removed"));
  for (int64_t e = 0; e < m.n_examples(); ++e) {
    for (int64_t l = 0; l < m.n_layers(); ++l) {
      m.signals["delta_nll_removed"](e, l) -= m.nll_base[static_cast<std::size_t>(e)];
    }
  }
  m.signals["attention_mass_outside"] = table_of(golden.at("mass"));
  m.signals["lazy_ratio"] = table_of(golden.at("lazy"));
  return m;
}

StatisticsOptions options_of(const json& golden) {
  return {.seed = golden.at("seed").get<uint64_t>(), .top_k = golden.at("top_k").get<int64_t>()};
}

void expect_near(const std::vector<double>& found, const json& rows, const std::string& what) {
  std::vector<double> expected;
  for (const json& row : rows) {
    if (row.is_array()) {
      for (const json& value : row) expected.push_back(value.get<double>());
    } else {
      expected.push_back(row.get<double>());
    }
  }
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], kRounding) << what << " " << i;
}

TEST(Signals, EqualScipy) {
  const json golden = read();
  const auto c = compare_signals(measurement_of(golden), options_of(golden));
  ASSERT_TRUE(c.has_value());
  EXPECT_EQ(c->signal, golden.at("signal").get<std::vector<std::string>>());
  expect_near(c->value.values, golden.at("value"), "value");
  expect_near(c->rho.values, golden.at("rho"), "rho");
  expect_near(c->rho_ci_low.values, golden.at("rho_ci_low"), "lower end of rho");
  expect_near(c->rho_ci_high.values, golden.at("rho_ci_high"), "upper end of rho");
  EXPECT_EQ(c->rho_status, "");
  const stats::Estimate* partials[] = {&c->partial_rho_exact_match, &c->partial_rho_accuracy};
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(partials[i]->value.value, golden.at("partial").at(i).get<double>(), kRounding);
    EXPECT_NEAR(partials[i]->ci_low.value, golden.at("partial_ci_low").at(i).get<double>(), kRounding);
    EXPECT_NEAR(partials[i]->ci_high.value, golden.at("partial_ci_high").at(i).get<double>(), kRounding);
  }
  expect_near(c->transfer, golden.at("transfer").at("share"), "transfer");
  expect_near(c->transfer_low, golden.at("transfer").at("low"), "lower end of transfer");
  expect_near(c->transfer_high, golden.at("transfer").at("high"), "upper end of transfer");
  expect_near(c->transfer_overlap, golden.at("transfer").at("overlap"), "overlap");
  EXPECT_EQ(c->transfer_status, "");
}

TEST(Signals, AreNotComparedWhereThereIsNoneBesidesNllAndMatches) {
  Measurement m = measurement_of(read());
  m.signals.clear();
  EXPECT_FALSE(compare_signals(m, {.top_k = 2}).has_value());
}

TEST(Signals, SayWhyAFigureIsNotDefined) {
  const json golden = read();
  Measurement m = measurement_of(golden);
  m.signals.erase("nll_removed");
  m.signals.erase("delta_nll_removed");
  std::ranges::fill(m.signals["attention_mass_outside"].values, 0.0);
  std::ranges::fill(m.signals["lazy_ratio"].values, std::numeric_limits<double>::quiet_NaN());
  const auto c = compare_signals(m, {.seed = 1, .top_k = 2, .n_resamples = 50, .n_splits = 20});
  ASSERT_TRUE(c.has_value());
  EXPECT_EQ(c->signal, (std::vector<std::string>{"nll", "exact-match", "token-accuracy", "kl", "mass", "lazy"}));
  EXPECT_FALSE(c->partial_rho_accuracy.value.defined());
  EXPECT_NE(c->partial_rho_accuracy.value.status.find("sensitivity was not measured"), std::string::npos);
  EXPECT_TRUE(std::isnan(c->rho(4, 0)) && std::isnan(c->rho(0, 4)) && std::isnan(c->rho(5, 5)));
  EXPECT_FALSE(std::isnan(c->rho(3, 0)));
  EXPECT_NE(c->rho_status.find("mass is equal in all layers"), std::string::npos) << c->rho_status;
  EXPECT_NE(c->rho_status.find("lazy has no figure in any example"), std::string::npos) << c->rho_status;
  EXPECT_TRUE(std::isnan(c->transfer[5]) && std::isnan(c->transfer_overlap[5]));
  EXPECT_NE(c->transfer_status.find("lazy"), std::string::npos) << c->transfer_status;
}

TEST(Signals, OneExampleHasRhosWithoutIntervals) {
  Measurement m = measurement_of(read());
  const auto first_row = [](stats::Table<double>& table) {
    table.rows = 1;
    table.values.resize(static_cast<std::size_t>(table.cols));
  };
  m.example_id.resize(1);
  for (stats::Table<double>* table : {&m.nll, &m.token_accuracy}) first_row(*table);
  for (auto& [variable, table] : m.signals) first_row(table);
  m.exact_match.rows = 1;
  m.exact_match.values.resize(static_cast<std::size_t>(m.exact_match.cols));
  const auto c = compare_signals(m, {.seed = 1, .top_k = 2});
  ASSERT_TRUE(c.has_value());
  EXPECT_FALSE(std::isnan(c->rho(3, 0)));
  EXPECT_TRUE(std::isnan(c->rho_ci_low(3, 0)));
  EXPECT_NE(c->rho_status.find("one example"), std::string::npos) << c->rho_status;
  EXPECT_NE(c->transfer_status.find("one example"), std::string::npos) << c->transfer_status;
}

}  // namespace
}  // namespace winnow::calibration
