// Results as text: what a reader of the terminal and a program that reads the JSON see.
#include "results/calibration/table.h"
#include "base/terminal_table.h"
#include "results/calibration/json.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/utf8.h"
#include "tests/results/calibration/example_results.h"

namespace winnow::calibration {
namespace {

using nlohmann::json;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// The one line that contains `words`.
std::string line_with(const std::string& text, const std::string& words) {
  std::string found;
  for (const std::string& line : lines_of(text)) {
    if (line.find(words) == std::string::npos) continue;
    EXPECT_EQ(found, "") << "more than one line with " << words;
    found = line;
  }
  EXPECT_NE(found, "") << "no line with " << words << " in\n" << text;
  return found;
}

int columns_of(const std::string& line) {
  return static_cast<int>(std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

void expect_fits(const std::string& text) {
  EXPECT_EQ(text.back(), '\n');
  for (const std::string& line : lines_of(text)) {
    EXPECT_LE(columns_of(line), kTableColumns) << line;
    EXPECT_TRUE(line.empty() || line.back() != ' ') << '"' << line << '"';
  }
}

Results with_statistics(Measurement calibration, const std::map<std::string, Measurement>& controls) {
  Results results;
  results.calibration = std::move(calibration);
  results.controls = controls;
  results.statistics = compute_statistics(results.calibration, controls, {});
  return results;
}

TEST(Table, KeepsToItsColumnsAndToAscii) {
  const std::string long_name(60, 'n');
  const std::vector<Results> all = {
      example_results(), with_statistics(example_measurement(1, 6, 1.0, false), {}),
      with_statistics(example_measurement(3, 200, 1e-9, false), {{long_name, example_measurement(3, 200, 0.0, false)}}),
      with_statistics(example_measurement(3, 1, -123456.0, false), {})};
  for (const Results& results : all) {
    const std::string ascii = to_table(results, {});
    expect_fits(ascii);
    EXPECT_TRUE(std::all_of(ascii.begin(), ascii.end(), [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); }));
    const std::string utf8 = to_table(results, {.utf8_bars = true});
    expect_fits(utf8);
    EXPECT_TRUE(is_utf8(utf8));
  }
}

TEST(Table, RanksLayersAndAnswers) {
  const std::string text = to_table(example_results(), {});
  const std::vector<std::string> lines = lines_of(text);
  const auto head = std::find_if(lines.begin(), lines.end(), [](const auto& l) { return l.rfind("rank", 0) == 0; });
  ASSERT_NE(head, lines.end());
  EXPECT_EQ(head[1],
            "   1      0        1.6  [      1.3,       1.9]   100.0 %    50.0 %       1-1      1.000  ###########");
  EXPECT_EQ(head[12].substr(0, 22), "  12     14   0.000691");
  EXPECT_LT(head->find("EM drop"), head->find("acc drop"));
  EXPECT_EQ(line_with(text, "Keep full attention"),
            "Keep full attention in layers 0, 10, 20 (3 of 12 measured); window the rest.");
}

TEST(Table, BarsAreInProportion) {
  Results results = example_results();
  results.statistics.heads.reset();  // whose table has layers in its lines, too
  const std::string text = to_table(results, {.utf8_bars = true});
  EXPECT_NE(
      line_with(text, "   2     10").find(" \xE2\x96\x88\xE2\x96\x88\xE2\x96\x88\xE2\x96\x88\xE2\x96\x88\xE2\x96\x8C"),
      std::string::npos);  // 0.4966 of 11 columns: five blocks and a half
}

TEST(Table, ShowsThePapersFiguresBesideOnesOwn) {
  const std::string text = to_table(example_results(), {});
  const std::string block = text.substr(text.find("control short"));
  EXPECT_EQ(line_with(block, "Spearman rho of"), "  Spearman rho of mean deltas   0.306     1.000 [1.000, 1.000]");
  EXPECT_EQ(line_with(block, "overlap of"), "  overlap of the top K          3 of 9    3 of 3");
  EXPECT_EQ(line_with(block, "mean |delta|"), "  mean |delta|, long / control  85.6x     100x");
}

TEST(Table, SaysWhyAFigureIsNotThere) {
  const std::string text = to_table(example_results(), {});
  EXPECT_NE(line_with(text, "85.6x     n/a").find("n/a (the control's mean delta is 0 in all layers)"),
            std::string::npos);
  const std::string one = to_table(with_statistics(example_measurement(1, 4, 1.0, false), {}), {});
  EXPECT_EQ(line_with(one, "Intervals and"), "Intervals and P(top K): n/a (one example)");
  EXPECT_EQ(line_with(one, "split-half"), "  split-half (Spearman-Brown)             n/a (one example)");
  EXPECT_EQ(one.find("nan"), std::string::npos);
  const std::string zero = to_table(with_statistics(example_measurement(3, 4, 0.0, false), {}), {});
  EXPECT_NE(zero.find("All mean deltas are equal"), std::string::npos);
  EXPECT_EQ(zero.find('#'), std::string::npos);
}

TEST(Table, LeadsWithTokenAccuracyWhereExactMatchIsNearZero) {
  Measurement m = example_measurement(8, 12, 1.0, false);
  std::fill(m.exact_match_base.begin(), m.exact_match_base.end(), uint8_t{0});
  std::fill(m.exact_match.values.begin(), m.exact_match.values.end(), uint8_t{0});
  const std::string text = to_table(with_statistics(m, {}), {});
  EXPECT_NE(text.find("Exact match is near 0"), std::string::npos);
  const std::string head = line_with(text, "P(top 3)");
  EXPECT_LT(head.find("acc drop"), head.find("EM drop"));
  EXPECT_NE(line_with(text, "   1      0 ").find("    50.0 %     0.0 %"), std::string::npos);
  EXPECT_LT(text.find("rho with token-accuracy drop"), text.find("rho with exact-match drop"));
  EXPECT_EQ(to_table(example_results(), {}).find("Exact match is near 0"), std::string::npos);
}

// Every null has its reason beside it.
void expect_no_bare_null(const json& object) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_object()) expect_no_bare_null(value);
    if (value.is_null()) {
      EXPECT_TRUE(object.contains(key + "_status")) << key;
    }
  }
}

TEST(Json, HoldsTheResult) {
  const Results results = example_results();
  const json parsed = json::parse(to_json(results));
  EXPECT_EQ(parsed.at("format"), "winnow-results");
  EXPECT_EQ(parsed.at("top_k"), 3);
  EXPECT_EQ(parsed.at("keep_full_attention"), (json{0, 10, 20}));
  ASSERT_EQ(parsed.at("layers").size(), 12U);
  EXPECT_EQ(parsed.at("layers")[1].at("layer"), 10);
  EXPECT_EQ(parsed.at("layers")[1].at("mean_delta_nll").get<double>(), results.statistics.ranking.mean_delta_nll[5]);
  EXPECT_EQ(parsed.at("layers")[0].at("p_top_k").at("3"), 1.0);
  EXPECT_EQ(parsed.at("provenance").at("seconds_total"), 12.5);
  EXPECT_EQ(parsed.at("statistics").at("seed"), 7);
  expect_no_bare_null(parsed.at("deconfounding"));
  expect_no_bare_null(parsed.at("reliability"));
  const json& undefined = parsed.at("deconfounding").at("no-effect_0.1");
  EXPECT_TRUE(undefined.at("jaccard").is_null());
  EXPECT_EQ(undefined.at("jaccard_status"), "the control's mean delta is equal in all layers");
  EXPECT_FALSE(parsed.contains("spread_status"));
}

TEST(Table, OneExampleIsNotCalledExamples) {
  Results results = example_results();
  results.controls.begin()->second = example_measurement(1, 12, 1.0, false);
  const std::string text = to_table(results, {});
  EXPECT_NE(text.find("(1 example, "), std::string::npos) << text;
}

TEST(Json, OneExampleIsNullWithAReason) {
  const json parsed = json::parse(to_json(with_statistics(example_measurement(1, 4, 1.0, false), {})));
  EXPECT_EQ(parsed.at("spread_status"), "one example");
  EXPECT_TRUE(parsed.at("layers")[0].at("ci_low").is_null());
  EXPECT_TRUE(parsed.at("layers")[0].at("p_top_k").at("1").is_null());
  EXPECT_EQ(parsed.at("reliability").at("split_half_status"), "one example");
}

TEST(Utf8, IsCheckedAndRepaired) {
  EXPECT_TRUE(is_utf8(""));
  EXPECT_TRUE(is_utf8("a\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x98\x80"));
  const std::vector<std::string> bad = {
      "\xC3", "\xE9t", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "a\x80"};
  for (const std::string& text : bad) {
    EXPECT_FALSE(is_utf8(text));
    EXPECT_TRUE(is_utf8(to_utf8(text)));
  }
  EXPECT_EQ(to_utf8("\xE9t\xC3\xA9"), "\xEF\xBF\xBDt\xC3\xA9");
}

}  // namespace
}  // namespace winnow::calibration
