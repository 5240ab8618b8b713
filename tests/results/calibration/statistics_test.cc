// Statistics against scipy's figures (golden/statistics.json, made by golden/make_statistics.py) and on tables where a
// figure is not defined.
#include "results/calibration/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "results/stats/correlation.h"
#include "tests/pipeline/run/golden_tables.h"

namespace winnow::calibration {
namespace {

using nlohmann::json;
using Doubles = std::vector<double>;

// Sums of at most 10,000 numbers of the order of 1: their rounding in another order.
constexpr double kRounding = 1e-12;

const json& golden() {
  static const json value = read_golden_tables("statistics");
  return value;
}

Measurement measurement_of(const json& data) {
  Measurement m;
  m.example_id = data.at("example_id").get<std::vector<std::string>>();
  m.answer_tokens.assign(m.example_id.size(), 32);
  m.prompt_tokens.assign(m.example_id.size(), 1000);
  m.nll_base = data.at("nll_base").get<Doubles>();
  m.nll = table_of<double>(data.at("nll"));
  m.exact_match_base = data.at("exact_match_base").get<std::vector<uint8_t>>();
  m.exact_match = table_of<uint8_t>(data.at("exact_match"));
  m.token_accuracy_base = data.at("token_accuracy_base").get<Doubles>();
  m.token_accuracy = table_of<double>(data.at("token_accuracy"));
  for (int64_t l = 0; l < m.nll.cols; ++l) m.layer.push_back(l);
  m.layer_windowed_in_base.assign(m.layer.size(), false);
  return m;
}

// n_examples x n_layers, base NLL 1, all else as filled in by the test.
Measurement plain_measurement(int64_t n_examples, int64_t n_layers) {
  Measurement m;
  for (int64_t e = 0; e < n_examples; ++e) m.example_id.push_back(std::string("e").append(std::to_string(e)));
  for (int64_t l = 0; l < n_layers; ++l) m.layer.push_back(l);
  const auto n = static_cast<std::size_t>(n_examples);
  m.answer_tokens.assign(n, 4);
  m.prompt_tokens.assign(n, 100);
  m.layer_windowed_in_base.assign(m.layer.size(), false);
  m.nll_base.assign(n, 1.0);
  m.exact_match_base.assign(n, 1);
  m.token_accuracy_base.assign(n, 1.0);
  m.nll = stats::Table<double>(n_examples, n_layers, 1.0);
  m.exact_match = stats::Table<uint8_t>(n_examples, n_layers, 1);
  m.token_accuracy = stats::Table<double>(n_examples, n_layers, 1.0);
  return m;
}

// Deltas that differ from layer to layer and from example to example.
Measurement varied_measurement(int64_t n_examples, int64_t n_layers) {
  Measurement m = plain_measurement(n_examples, n_layers);
  for (int64_t e = 0; e < n_examples; ++e) {
    for (int64_t l = 0; l < n_layers; ++l) {
      m.nll(e, l) = 1.0 + 0.1 * static_cast<double>((l * 5) % n_layers) + 0.03 * static_cast<double>((e * 7 + l) % 5);
      m.token_accuracy(e, l) = 1.0 - 0.01 * static_cast<double>((l * 5) % n_layers);
      m.exact_match(e, l) = (l * 5) % n_layers < n_layers / 2 || e % 2 == 0 ? 1 : 0;
    }
  }
  return m;
}

StatisticsOptions golden_options() { return {.seed = golden().at("seed").get<uint64_t>()}; }

void expect_close(const Doubles& found, const json& expected, double tolerance) {
  const Doubles values = expected.get<Doubles>();
  ASSERT_EQ(found.size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(found[i], values[i], tolerance) << "entry " << i;
}

void expect_in_band(double value, const json& band, const char* what) {
  EXPECT_GE(value, band.at(0).get<double>() - kRounding) << what;
  EXPECT_LE(value, band.at(1).get<double>() + kRounding) << what;
}

void expect_undefined(const stats::Figure& figure, const std::string& why) {
  EXPECT_TRUE(std::isnan(figure.value));
  EXPECT_NE(figure.status.find(why), std::string::npos) << "status: " << figure.status;
}

void expect_no_silent_nan(const stats::Figure& figure) {
  EXPECT_EQ(std::isfinite(figure.value), figure.status.empty()) << figure.value << " / " << figure.status;
}

void expect_no_silent_nan(const stats::Estimate& estimate) {
  expect_no_silent_nan(estimate.value);
  expect_no_silent_nan(estimate.ci_low);
  expect_no_silent_nan(estimate.ci_high);
}

void expect_no_silent_nan(const Statistics& s) {
  for (std::size_t l = 0; l < s.ranking.layer.size(); ++l) {
    EXPECT_TRUE(std::isfinite(s.ranking.mean_delta_nll[l]));
    EXPECT_TRUE(std::isfinite(s.ranking.median_delta_nll[l]));
    EXPECT_TRUE(std::isfinite(s.ranking.exact_match_drop[l]));
    EXPECT_TRUE(std::isfinite(s.ranking.token_accuracy_drop[l]));
    for (const Doubles* column : {&s.ranking.standard_error, &s.ranking.ci_low, &s.ranking.ci_high, &s.ranking.rank_low,
                                  &s.ranking.rank_high}) {
      EXPECT_EQ(std::isfinite((*column)[l]), s.ranking.spread_status.empty());
    }
  }
  for (const double p : s.ranking.p_top_k.values) EXPECT_EQ(std::isfinite(p), s.ranking.spread_status.empty());
  for (const auto& [name, d] : s.deconfounding) {
    expect_no_silent_nan(d.spearman_rho);
    for (const stats::Figure* f : {&d.spearman_p, &d.overlap, &d.jaccard, &d.magnitude_ratio}) expect_no_silent_nan(*f);
  }
  expect_no_silent_nan(s.reliability.split_half);
  expect_no_silent_nan(s.reliability.rho_exact_match);
  expect_no_silent_nan(s.reliability.rho_token_accuracy);
}

// ---- against scipy --------------------------------------------------------------------------------------------------

TEST(Random, IsTheDocumentedGenerator) {
  const json& g = golden().at("random");
  RandomStream random(g.at("seed"), g.at("stream"), g.at("index"));
  for (const json& word : g.at("words")) EXPECT_EQ(std::to_string(random.next()), word.get<std::string>());
  for (std::size_t i = 0; i < g.at("below").size(); ++i) {
    EXPECT_EQ(random.below(g.at("below")[i].get<int64_t>()), g.at("draws")[i].get<int64_t>());
  }
  std::vector<int64_t> values = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  random.shuffle(std::span<int64_t>(values));
  EXPECT_EQ(values, g.at("shuffled").get<std::vector<int64_t>>());
}

TEST(Random, BoundedIntegersAreUniform) {
  RandomStream random(1, 2, 3);
  std::vector<int64_t> counts(5, 0);
  for (int i = 0; i < 50000; ++i) ++counts[static_cast<std::size_t>(random.below(5))];
  // Standard deviation of a count: sqrt(50000 * 0.2 * 0.8) = 89; five of them.
  for (const int64_t count : counts) EXPECT_NEAR(static_cast<double>(count), 10000.0, 450.0);
}

TEST(Correlation, SpearmanIsScipys) {
  ASSERT_GE(golden().at("spearman").size(), 10U);
  for (const json& c : golden().at("spearman")) {
    const auto rho = stats::spearman(c.at("x").get<Doubles>(), c.at("y").get<Doubles>());
    ASSERT_TRUE(rho.has_value()) << c;
    EXPECT_NEAR(*rho, c.at("rho").get<double>(), kRounding) << c;
  }
}

TEST(Correlation, TiesShareTheMeanOfTheirRanks) {
  EXPECT_EQ(stats::doubled_average_ranks(Doubles{3, 1, 3, 2}), (std::vector<int64_t>{7, 2, 7, 4}));
  EXPECT_EQ(stats::spearman(Doubles{1, 1}, Doubles{1, 2}), std::nullopt);
  EXPECT_EQ(stats::spearman(Doubles{1}, Doubles{2}), std::nullopt);
  EXPECT_EQ(stats::spearman_permutation_p(Doubles{1, 1}, Doubles{1, 2}, 10, 0), std::nullopt);
}

TEST(Correlation, PermutationPIsScipysWithinMonteCarloError) {
  ASSERT_GE(golden().at("permutation").size(), 6U);
  for (const json& c : golden().at("permutation")) {
    const auto p = stats::spearman_permutation_p(c.at("x").get<Doubles>(), c.at("y").get<Doubles>(), 10000, 3);
    ASSERT_TRUE(p.has_value());
    EXPECT_NEAR(*p, c.at("p").get<double>(), c.at("tolerance").get<double>()) << c;
    EXPECT_GE(*p, 1.0 / 10001);
  }
}

TEST(Correlation, QuantilesAreNumpys) {
  const json& g = golden().at("quantiles");
  const auto sorted = g.at("sorted").get<Doubles>();
  for (std::size_t i = 0; i < g.at("q").size(); ++i) {
    EXPECT_NEAR(stats::quantile(sorted, g.at("q")[i]), g.at("linear")[i].get<double>(), kRounding);
    EXPECT_EQ(stats::quantile_step(sorted, g.at("q")[i]), g.at("step")[i].get<double>());
  }
  EXPECT_EQ(stats::quantile(Doubles{4.0}, 0.975), 4.0);
  EXPECT_EQ(stats::quantile_step(Doubles{4.0}, 0.025), 4.0);
}

TEST(Statistics, RankingIsScipys) {
  const json& g = golden().at("ranking");
  const Ranking r = compute_statistics(measurement_of(golden().at("calibration")), {}, golden_options()).ranking;
  expect_close(r.mean_delta_nll, g.at("mean"), kRounding);
  expect_close(r.median_delta_nll, g.at("median"), kRounding);
  expect_close(r.standard_error, g.at("standard_error"), kRounding);
  expect_close(r.exact_match_drop, g.at("exact_match_drop"), kRounding);
  expect_close(r.token_accuracy_drop, g.at("token_accuracy_drop"), kRounding);
  EXPECT_EQ(r.rank, g.at("rank").get<std::vector<int64_t>>());
  EXPECT_EQ(r.spread_status, "");
  // The same resamples: equal but for rounding.
  const json& same = g.at("same_draws");
  expect_close(r.ci_low, same.at("ci_low"), kRounding);
  expect_close(r.ci_high, same.at("ci_high"), kRounding);
  expect_close(r.rank_low, same.at("rank_low"), 0.0);
  expect_close(r.rank_high, same.at("rank_high"), 0.0);
  EXPECT_EQ(r.budget, same.at("budget").get<std::vector<int64_t>>());
  for (int64_t b = 0; b < r.p_top_k.rows; ++b) {
    const Doubles row(&r.p_top_k(b, 0), &r.p_top_k(b, 0) + r.p_top_k.cols);
    expect_close(row, same.at("p_top_k").at(static_cast<std::size_t>(b)), kRounding);
  }
  // scipy's own resamples: within Monte-Carlo error.
  for (std::size_t l = 0; l < r.layer.size(); ++l) {
    expect_in_band(r.ci_low[l], g.at("own_draws").at("ci_low")[l], "ci_low");
    expect_in_band(r.ci_high[l], g.at("own_draws").at("ci_high")[l], "ci_high");
  }
}

void expect_deconfounding(const Deconfounding& found, const json& expected) {
  EXPECT_NEAR(found.spearman_rho.value.value, expected.at("rho").get<double>(), kRounding);
  expect_in_band(found.spearman_rho.ci_low.value, expected.at("ci_low"), "ci_low");
  expect_in_band(found.spearman_rho.ci_high.value, expected.at("ci_high"), "ci_high");
  EXPECT_EQ(found.top_k, expected.at("top_k").get<int64_t>());
  EXPECT_EQ(found.overlap.value, expected.at("overlap").get<double>());
  EXPECT_NEAR(found.jaccard.value, expected.at("jaccard").get<double>(), kRounding);
  const double ratio = expected.at("magnitude_ratio").get<double>();
  EXPECT_NEAR(found.magnitude_ratio.value, ratio, kRounding * ratio);
  EXPECT_GT(found.spearman_p.value, 0.0);
}

TEST(Statistics, DeconfoundingIsScipysPairedAndUnpaired) {
  const Statistics s = compute_statistics(measurement_of(golden().at("calibration")),
                                          {{"same", measurement_of(golden().at("control_same_ids"))},
                                           {"other", measurement_of(golden().at("control_other_ids"))}},
                                          golden_options());
  expect_deconfounding(s.deconfounding.at("same"), golden().at("same_ids"));
  expect_deconfounding(s.deconfounding.at("other"), golden().at("other_ids"));
  EXPECT_EQ(s.deconfounding.at("same").n_paired, 24);
  EXPECT_EQ(s.deconfounding.at("other").n_paired, 0);
}

TEST(Statistics, ReliabilityIsScipys) {
  const Reliability r =
      compute_statistics(measurement_of(golden().at("calibration")), {}, golden_options()).reliability;
  for (const auto& [estimate, name] :
       {std::pair{r.rho_exact_match, "rho_exact_match"}, std::pair{r.rho_token_accuracy, "rho_token_accuracy"}}) {
    const json& g = golden().at(name);
    EXPECT_NEAR(estimate.value.value, g.at("rho").get<double>(), kRounding);
    expect_in_band(estimate.ci_low.value, g.at("ci_low"), name);
    expect_in_band(estimate.ci_high.value, g.at("ci_high"), name);
  }
  const json& g = golden().at("split_half");
  const auto halves = [](const stats::Figure& f) { return f.value / (2.0 - f.value); };  // undoes Spearman-Brown
  EXPECT_NEAR(halves(r.split_half.value), g.at("mean_rho").get<double>(), g.at("tolerance").get<double>());
  expect_in_band(halves(r.split_half.ci_low), g.at("rho_low"), "split-half low");
  expect_in_band(halves(r.split_half.ci_high), g.at("rho_high"), "split-half high");
}

// ---- definitions and edges ------------------------------------------------------------------------------------------

TEST(Statistics, SeedsDecideAndNothingElse) {
  const Measurement m = varied_measurement(9, 6);
  const Statistics a = compute_statistics(m, {{"c", m}}, {.seed = 1});
  const Statistics b = compute_statistics(m, {{"c", m}, {"d", varied_measurement(4, 6)}}, {.seed = 1});
  const Statistics c = compute_statistics(m, {}, {.seed = 2});
  EXPECT_EQ(a.ranking.ci_low, b.ranking.ci_low);
  EXPECT_EQ(a.deconfounding.at("c").spearman_rho.ci_low.value, b.deconfounding.at("c").spearman_rho.ci_low.value);
  EXPECT_EQ(a.reliability.split_half.ci_low.value, b.reliability.split_half.ci_low.value);
  EXPECT_NE(a.ranking.ci_low, c.ranking.ci_low);
}

TEST(Statistics, ABaseWithWindowsTurnsTheSign) {
  Measurement m = plain_measurement(2, 2);
  m.layer_windowed_in_base = {false, true};
  for (int64_t e = 0; e < 2; ++e) {
    m.nll(e, 0) = 1.5;   // base has it full: windowing costs 0.5
    m.nll(e, 1) = 0.25;  // base has it windowed: full attention gains 0.75
    m.exact_match_base[static_cast<std::size_t>(e)] = 0;
    m.exact_match(e, 1) = 1;
    m.exact_match(e, 0) = 0;
    m.token_accuracy_base[static_cast<std::size_t>(e)] = 0.5;
    m.token_accuracy(e, 0) = 0.25;
    m.token_accuracy(e, 1) = 1.0;
  }
  const Ranking r = compute_statistics(m, {}, {}).ranking;
  EXPECT_EQ(r.mean_delta_nll, (Doubles{0.5, 0.75}));
  EXPECT_EQ(r.rank, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(r.order(), (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(r.exact_match_drop, (Doubles{0.0, 1.0}));
  EXPECT_EQ(r.token_accuracy_drop, (Doubles{0.25, 0.5}));
}

TEST(Statistics, TiesGoToTheLowerLayerIndex) {
  Measurement m = plain_measurement(3, 4);
  m.layer = {9, 2, 30, 4};
  for (int64_t e = 0; e < 3; ++e) m.nll(e, 2) = 2.0;
  EXPECT_EQ(compute_statistics(m, {}, {}).ranking.rank, (std::vector<int64_t>{4, 2, 1, 3}));
}

TEST(Statistics, BudgetsAreSortedAndUnique) {
  EXPECT_EQ(compute_statistics(varied_measurement(3, 36), {}, {.n_resamples = 10}).ranking.budget,
            (std::vector<int64_t>{4, 9, 18}));
  EXPECT_EQ(compute_statistics(varied_measurement(3, 36), {}, {.top_k = 12, .n_resamples = 10}).ranking.budget,
            (std::vector<int64_t>{4, 9, 12, 18}));
  EXPECT_EQ(compute_statistics(varied_measurement(3, 3), {}, {.n_resamples = 10}).ranking.budget,
            std::vector<int64_t>{1});
  EXPECT_EQ(compute_statistics(varied_measurement(3, 12), {}, {}).options.top_k, 3);
}

TEST(Statistics, SharesOfTheTopKAddUpToK) {
  const Ranking r = compute_statistics(varied_measurement(7, 8), {}, {.top_k = 3}).ranking;
  for (std::size_t b = 0; b < r.budget.size(); ++b) {
    double sum = 0.0;
    for (int64_t l = 0; l < 8; ++l) sum += r.p_top_k(static_cast<int64_t>(b), l);
    EXPECT_NEAR(sum, static_cast<double>(r.budget[b]), 1e-9);
  }
}

TEST(Statistics, OneExampleHasNoSpread) {
  const Measurement one = varied_measurement(1, 6);
  const Statistics s = compute_statistics(one, {{"c", one}, {"many", varied_measurement(5, 6)}}, {});
  expect_no_silent_nan(s);
  EXPECT_EQ(s.ranking.spread_status, "one example");
  EXPECT_EQ(s.ranking.median_delta_nll, s.ranking.mean_delta_nll);
  EXPECT_TRUE(s.deconfounding.at("c").spearman_rho.value.defined());
  expect_undefined(s.deconfounding.at("c").spearman_rho.ci_low, "one example");
  expect_undefined(s.reliability.split_half.value, "one example");
  expect_undefined(s.reliability.rho_token_accuracy.ci_high, "one example");
  const Statistics t = compute_statistics(varied_measurement(5, 6), {{"c", one}}, {});
  expect_no_silent_nan(t);
  expect_undefined(t.deconfounding.at("c").spearman_rho.ci_low, "one example in the control");
}

TEST(Statistics, AllDeltasZero) {
  const Measurement zero = plain_measurement(4, 6);
  const Statistics s = compute_statistics(zero, {{"c", zero}}, {});
  expect_no_silent_nan(s);
  EXPECT_EQ(s.ranking.rank, (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(s.ranking.standard_error, Doubles(6, 0.0));
  EXPECT_EQ(s.ranking.ci_high, Doubles(6, 0.0));
  const Deconfounding& d = s.deconfounding.at("c");
  expect_undefined(d.spearman_rho.value, "the calibration's mean delta is equal in all layers");
  expect_undefined(d.spearman_p, "equal in all layers");
  expect_undefined(d.overlap, "equal in all layers");
  expect_undefined(d.jaccard, "equal in all layers");
  expect_undefined(d.magnitude_ratio, "0 in all layers");
  expect_undefined(s.reliability.split_half.value, "equal in all layers");
  expect_undefined(s.reliability.rho_exact_match.value, "mean delta NLL is equal in all layers");
}

TEST(Statistics, AControlWithoutAnyEffect) {
  const Statistics s = compute_statistics(varied_measurement(4, 6), {{"c", plain_measurement(4, 6)}}, {});
  expect_no_silent_nan(s);
  expect_undefined(s.deconfounding.at("c").spearman_rho.value, "the control's mean delta is equal in all layers");
  expect_undefined(s.deconfounding.at("c").jaccard, "the control's");
  expect_undefined(s.deconfounding.at("c").magnitude_ratio, "the control's mean delta is 0");
}

TEST(Statistics, AConstantDropHasNoRho) {
  Measurement m = varied_measurement(4, 6);
  m.exact_match = stats::Table<uint8_t>(4, 6, 1);
  const Statistics s = compute_statistics(m, {}, {});
  expect_no_silent_nan(s);
  expect_undefined(s.reliability.rho_exact_match.value, "exact-match drop is equal in all layers");
  EXPECT_TRUE(s.reliability.rho_token_accuracy.value.defined());
}

TEST(Statistics, ARhoThatMostResamplesLackHasNoInterval) {
  // One example of eight fails in one layer: a share of (7/8)^8 = 34 % of the resamples never draws it.
  Measurement m = varied_measurement(8, 6);
  m.exact_match = stats::Table<uint8_t>(8, 6, 1);
  m.exact_match(3, 2) = 0;
  const stats::Estimate rho = compute_statistics(m, {}, {}).reliability.rho_exact_match;
  EXPECT_TRUE(rho.value.defined());
  expect_undefined(rho.ci_low, "of 10000 draws");
}

TEST(Statistics, OneAndTwoLayers) {
  const Measurement one = varied_measurement(4, 1);
  const Statistics s = compute_statistics(one, {{"c", one}}, {});
  expect_no_silent_nan(s);
  EXPECT_EQ(s.ranking.rank, std::vector<int64_t>{1});
  EXPECT_EQ(s.ranking.p_top_k.values, Doubles{1.0});
  expect_undefined(s.deconfounding.at("c").spearman_rho.value, "one layer");
  EXPECT_EQ(s.deconfounding.at("c").jaccard.value, 1.0);
  expect_undefined(s.reliability.split_half.value, "one layer");

  const Measurement two = varied_measurement(5, 2);
  const Statistics t = compute_statistics(two, {{"c", two}}, {});
  expect_no_silent_nan(t);
  EXPECT_EQ(t.deconfounding.at("c").spearman_rho.value.value, 1.0);
  EXPECT_EQ(t.deconfounding.at("c").spearman_p.value, 1.0);
}

TEST(Statistics, HalvesInOppositeOrderAreUndefinedNotInfinite) {
  Measurement m = plain_measurement(2, 2);
  m.nll(0, 0) = 2.0;
  m.nll(1, 1) = 2.0;
  const Statistics s = compute_statistics(m, {}, {});
  expect_no_silent_nan(s);
  expect_undefined(s.reliability.split_half.value, "opposite order");
}

TEST(Statistics, PairsFollowTheIdsNotTheRows) {
  Measurement m = varied_measurement(6, 5);
  Measurement reversed = m;
  for (int64_t e = 0; e < 6; ++e) {
    reversed.example_id[static_cast<std::size_t>(e)] = m.example_id[static_cast<std::size_t>(5 - e)];
    for (int64_t l = 0; l < 5; ++l) reversed.nll(e, l) = m.nll(5 - e, l);
  }
  // Every resample of a set paired with itself has rho 1.
  const Deconfounding d = compute_statistics(m, {{"c", reversed}}, {}).deconfounding.at("c");
  EXPECT_EQ(d.n_paired, 6);
  EXPECT_EQ(d.spearman_rho.ci_low.value, 1.0);
  reversed.example_id[0] = "elsewhere";
  const Deconfounding partly = compute_statistics(m, {{"c", reversed}}, {}).deconfounding.at("c");
  EXPECT_EQ(partly.n_paired, 5);
}

TEST(Statistics, BadTablesAreRefusedByName) {
  const auto message_of = [](const Measurement& m, const StatisticsOptions& options, ExitCode code) {
    try {
      compute_statistics(m, {}, options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  Measurement m = varied_measurement(3, 4);
  m.nll(1, 2) = std::nan("");
  EXPECT_EQ(message_of(m, {}, ExitCode::kBadData), "calibration: nll of example e1, layer 2 is not finite");
  m = varied_measurement(3, 4);
  m.prompt_tokens.pop_back();
  EXPECT_EQ(message_of(m, {}, ExitCode::kBadData), "calibration: prompt_tokens has 2 entries, expected 3");
  EXPECT_EQ(message_of(Measurement(), {}, ExitCode::kBadData), "calibration: holds no example");
  EXPECT_NE(message_of(varied_measurement(3, 4), {.top_k = 5}, ExitCode::kUsage).find("(4), found 5"),
            std::string::npos);
  EXPECT_NE(message_of(varied_measurement(3, 4), {.n_resamples = 0}, ExitCode::kUsage).find("expected 1 to"),
            std::string::npos);
  try {
    compute_statistics(varied_measurement(3, 4), {{"short", varied_measurement(3, 5)}}, {});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("control short: was measured on other layers"), std::string::npos);
  }
}

}  // namespace
}  // namespace winnow::calibration
