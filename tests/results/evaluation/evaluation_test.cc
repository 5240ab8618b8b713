// Evaluations against numpy and scipy (golden/evaluation.json, made by golden/make_evaluation.py), and their file.
#include "results/evaluation/evaluation.h"
#include "results/evaluation/store.h"
#include "results/evaluation/table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "results/calibration/store.h"
#include "tests/pipeline/run/golden_tables.h"
#include "tests/results/evaluation/example_evaluation.h"
#include "tests/scratch.h"

namespace winnow::evaluation {
namespace {

using nlohmann::json;
using Doubles = std::vector<double>;

// Sums of some ten numbers of the order of 1, and of logarithms of factorials up to 6000.
constexpr double kRounding = 1e-12;
constexpr double kLogFactorials = 1e-9;

const json& golden() {
  static const json value = read_golden_tables("evaluation");
  return value;
}

EvaluationTable golden_table() {
  EvaluationTable table;
  table.pattern = golden().at("pattern").get<std::vector<std::string>>();
  table.full_attention = stats::Table<uint8_t>(table.n_patterns(), golden().at("layers").get<int64_t>());
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    for (const json& layer : golden().at("full_layers").at(static_cast<std::size_t>(p))) {
      table.full_attention(p, layer.get<int64_t>()) = 1;
    }
  }
  table.nll = table_of<double>(golden().at("tables").at("nll"));
  table.exact_match = table_of<uint8_t>(golden().at("tables").at("exact_match"));
  table.token_accuracy = table_of<double>(golden().at("tables").at("token_accuracy"));
  table.kl = table_of<double>(golden().at("tables").at("kl"));
  for (int64_t e = 0; e < table.nll.cols; ++e) {
    table.example_id.push_back(std::to_string(e));
    table.answer_tokens.push_back(8);
    table.prompt_tokens.push_back(100);
  }
  return table;
}

EvaluationOptions golden_options() {
  return {.seed = golden().at("seed").get<uint64_t>(), .baseline = golden().at("baseline").get<std::string>()};
}

void expect_near(const Doubles& found, const json& expected, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected.at(i).get<double>(), kRounding) << what << " of pattern " << i;
  }
}

void expect_figures(const PatternFigures& found, const json& expected, const std::string& what) {
  expect_near(found.mean, expected.at("mean"), what + ", mean");
  expect_near(found.ci_low, expected.at("ci_low"), what + ", lower end");
  expect_near(found.ci_high, expected.at("ci_high"), what + ", upper end");
}

void expect_comparison(const Comparison& found, const json& expected, const std::string& what) {
  expect_figures(found.nll, expected.at("nll"), what + " NLL");
  expect_figures(found.exact_match, expected.at("exact_match"), what + " exact match");
  expect_figures(found.token_accuracy, expected.at("token_accuracy"), what + " token accuracy");
  ASSERT_EQ(found.mcnemar_p.size(), expected.at("mcnemar_p").size());
  for (std::size_t i = 0; i < found.mcnemar_p.size(); ++i) {
    EXPECT_NEAR(found.mcnemar_p[i], expected.at("mcnemar_p").at(i).get<double>(), kLogFactorials) << what << i;
  }
}

TEST(Evaluation, FiguresAreNumpysOnTheSameDraws) {
  const EvaluationStatistics s = compute_evaluation(golden_table(), golden_options());
  expect_figures(s.nll, golden().at("figures").at("nll"), "NLL");
  expect_figures(s.exact_match, golden().at("figures").at("exact_match"), "exact match");
  expect_figures(s.token_accuracy, golden().at("figures").at("token_accuracy"), "token accuracy");
  expect_figures(s.kl, golden().at("figures").at("kl"), "KL");
  EXPECT_EQ(s.full.reference, 0);
  expect_comparison(s.full, golden().at("minus_full"), "less full");
  ASSERT_TRUE(s.baseline);
  EXPECT_EQ(s.baseline->reference, 1);
  expect_comparison(*s.baseline, golden().at("minus_baseline"), "less baseline");
  EXPECT_EQ(s.on_front_exact_match, golden().at("on_front_exact_match").get<std::vector<uint8_t>>());
  EXPECT_EQ(s.on_front_nll, golden().at("on_front_nll").get<std::vector<uint8_t>>());
}

TEST(Evaluation, PairedIntervalsLieWhereScipyPutsThem) {
  EvaluationOptions options = golden_options();
  options.seed = 77;
  const EvaluationStatistics s = compute_evaluation(golden_table(), options);
  const json& bands = golden().at("own_bands_nll_minus_full");
  for (std::size_t p = 1; p < bands.size(); ++p) {
    for (const auto& [name, value] : {std::pair("ci_low", s.full.nll.ci_low[p]), {"ci_high", s.full.nll.ci_high[p]}}) {
      EXPECT_GE(value, bands.at(p).at(name).at(0).get<double>()) << name << p;
      EXPECT_LE(value, bands.at(p).at(name).at(1).get<double>()) << name << p;
    }
  }
}

TEST(Evaluation, McNemarIsTheExactBinomialTest) {
  for (const json& test : golden().at("mcnemar")) {
    const double p = mcnemar_p(test.at("only_first").get<int64_t>(), test.at("only_second").get<int64_t>());
    const double expected = test.at("p").get<double>();
    EXPECT_NEAR(p, expected, kLogFactorials * std::max(expected, 1e-6)) << test.dump();
  }
}

TEST(Evaluation, CostsAreThoseOfTheMasks) {
  const json& shape = golden().at("costs").at("model");
  const auto number = [](const json& object, const char* name) { return object.at(name).get<int64_t>(); };
  const ServedModel model{.n_layers = number(shape, "layers"),
                          .hidden = number(shape, "hidden"),
                          .ffn = number(shape, "ffn"),
                          .vocab = number(shape, "vocab"),
                          .n_heads = number(shape, "heads"),
                          .n_kv_heads = number(shape, "kv_heads"),
                          .head_dim = number(shape, "head_dim"),
                          .kv_element_bytes = number(shape, "kv_element_bytes")};
  for (const json& test : golden().at("costs").at("cases")) {
    SCOPED_TRACE(test.dump());
    const ServedWindow window{.keys = number(test.at("window"), "keys"),
                              .sinks = number(test.at("window"), "sinks"),
                              .decode_full = test.at("window").at("decode_full").get<bool>(),
                              .tail_rows = number(test.at("window"), "tail_rows")};
    Pattern windowed(static_cast<std::size_t>(model.n_layers), true);
    std::fill_n(windowed.begin(), number(test, "full"), false);
    const std::vector<ServedWindow> windows = served_windows_of(windowed, window);
    EXPECT_EQ(kv_cache_bytes(model, windows, number(test, "tokens")), test.at("kv_cache_bytes").get<double>());
    EXPECT_EQ(prefill_flop(model, windows, number(test, "tokens")), test.at("prefill_flop").get<double>());
  }
}

TEST(Evaluation, OneExampleHasNoIntervalsAndSaysWhy) {
  EvaluationResults results = example_evaluation(1, false);
  EXPECT_EQ(results.statistics.spread_status, "one example");
  EXPECT_TRUE(std::isnan(results.statistics.full.nll.ci_low[1]));
  EXPECT_FALSE(std::isnan(results.statistics.full.nll.mean[1]));
  EXPECT_NE(to_table(results).find("n/a (one example)"), std::string::npos);
  const json object = json::parse(to_json(results));
  EXPECT_TRUE(object.at("patterns").at(1).at("nll_ci_low").is_null());
  EXPECT_EQ(object.at("spread_status"), "one example");
}

TEST(Evaluation, EqualPatternsAreBothOnTheFront) {
  EvaluationTable table = golden_table();
  for (int64_t e = 0; e < table.n_examples(); ++e) table.nll(3, e) = table.nll(2, e);
  const EvaluationStatistics s = compute_evaluation(table, {.seed = 1, .baseline = ""});
  EXPECT_EQ(s.on_front_nll[2], s.on_front_nll[3]);
  EXPECT_FALSE(s.baseline);
}

TEST(Evaluation, BadTablesAreRefused) {
  EvaluationTable table = golden_table();
  expect_error([&] { compute_evaluation(table, {.baseline = "last:2"}); }, ExitCode::kUsage,
               {"--baseline", "last:2", "periodic:2@0"});
  expect_error([&] { compute_evaluation(table, {.n_resamples = 0, .baseline = ""}); }, ExitCode::kUsage,
               {"--resamples", "0"});
  table.nll(2, 5) = std::nan("");
  expect_error([&] { compute_evaluation(table, {}); }, ExitCode::kBadData, {"nll", "nll:2", "example 5"});
  table = golden_table();
  table.full_attention(0, 3) = 0;
  expect_error([&] { compute_evaluation(table, {}); }, ExitCode::kBadData, {"full attention"});
  table = golden_table();
  table.pattern[2] = "full";
  expect_error([&] { compute_evaluation(table, {}); }, ExitCode::kBadData, {"same name"});
  table = golden_table();
  table.answer_tokens.pop_back();
  expect_error([&] { compute_evaluation(table, {}); }, ExitCode::kBadData, {"lengths"});
}

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

TEST(EvaluationFile, ComesBackAsItWasAndWritesTheSameBytes) {
  const ScratchDirectory scratch;
  for (const int64_t n_examples : {int64_t{1}, int64_t{9}}) {
    const EvaluationResults written = example_evaluation(n_examples, true);
    write_evaluation(scratch.path() / "a.h5", written);
    EXPECT_TRUE(is_evaluation(scratch.path() / "a.h5"));
    const EvaluationResults read = read_evaluation(scratch.path() / "a.h5");
    EXPECT_EQ(read.model, written.model);
    EXPECT_EQ(read.window, written.window);
    EXPECT_EQ(read.table.nll.values, written.table.nll.values);
    EXPECT_EQ(read.table.generated.tokens.values, written.table.generated.tokens.values);
    EXPECT_EQ(read.table.generated.settings.stop_tokens, written.table.generated.settings.stop_tokens);
    EXPECT_EQ(read.statistics.options.baseline, written.statistics.options.baseline);
    EXPECT_EQ(to_table(read), to_table(written));
    EXPECT_EQ(to_json(read), to_json(written));
    write_evaluation(scratch.path() / "b.h5", read);
    EXPECT_EQ(bytes_of(scratch.path() / "a.h5"), bytes_of(scratch.path() / "b.h5"));
    // The other reader says what is missing instead of giving half a result.
    expect_error([&] { calibration::read_results(scratch.path() / "a.h5"); }, ExitCode::kBadData,
                 {"a.h5", "calibration"});
  }
}

TEST(EvaluationFile, KeepsTheWindowsThatLayersHaveOfTheirOwn) {
  EvaluationResults results = example_evaluation(9, true);
  results.table.native_window[3] = 40;
  results.table.full_attention(0, 3) = 0;
  EXPECT_EQ(results.table.full(), 0) << "every layer that has none keeps full attention";
  EXPECT_EQ(results.windows_of(0)[3], (ServedWindow{.keys = 40})) << "without sinks";
  EXPECT_EQ(results.windows_of(4)[3], (ServedWindow{.keys = 40}));
  EXPECT_EQ(results.windows_of(4)[2], (ServedWindow{.keys = 96, .sinks = 4}));
  EXPECT_FALSE(results.windows_of(0)[2].is_windowed());
  const ScratchDirectory scratch;
  write_evaluation(scratch.path() / "results.h5", results);
  EXPECT_EQ(read_evaluation(scratch.path() / "results.h5").table.native_window, results.table.native_window);
  results.table.native_window.pop_back();
  EXPECT_THROW(check_evaluation(results.table, "here"), Error);
}

// With windows of their own a pattern without a full layer may be the dearer one.
TEST(EvaluationFile, KeepsTheWindowsOfPlans) {
  EvaluationResults results = example_evaluation(9, true);
  EvaluationTable& table = results.table;
  EXPECT_EQ(table.cost(1), 2) << "full layers, as long as all have one window";
  table.window_keys = stats::Table<int64_t>(table.n_patterns(), 8, 96);
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    for (int64_t l = 0; l < 8; ++l) {
      if (table.full_attention(p, l) != 0) table.window_keys(p, l) = 0;
    }
  }
  EXPECT_EQ(table.cost(1), 2 * kCostLength + 6 * 96);
  for (int64_t l = 0; l < 8; ++l) table.window_keys(4, l) = l < 5 ? kCostLength - 1 : 16;
  EXPECT_EQ(results.windows_of(4)[7], (ServedWindow{.keys = 16, .sinks = 4}));
  EXPECT_GT(table.cost(4), table.cost(1));
  results.statistics = compute_evaluation(table, results.statistics.options);
  EXPECT_EQ(results.statistics.on_front_nll[4], 0) << "worse than periodic:4@0, and dearer";
  const ScratchDirectory scratch;
  write_evaluation(scratch.path() / "results.h5", results);
  EXPECT_EQ(read_evaluation(scratch.path() / "results.h5").table.window_keys.values, table.window_keys.values);
  table.window_keys = stats::Table<int64_t>(table.n_patterns(), 7, 96);
  EXPECT_THROW(check_evaluation(table, "here"), Error);
}

TEST(EvaluationTableText, KeepsToItsColumns) {
  EvaluationResults results = example_evaluation(9, true);
  results.provenance.set("warnings", std::string("measured on the set that chose the layers"), "warnings");
  const std::string text = to_table(results);
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = text.find('\n', begin);
    EXPECT_LE(end - begin, 100U) << text.substr(begin, end - begin);
    begin = end + 1;
  }
  for (const char* word :
       {"Less full", "Less periodic:4@0", "KV 128k", "Front of exact match", "Warning: measured on"}) {
    EXPECT_NE(text.find(word), std::string::npos) << word;
  }
}

}  // namespace
}  // namespace winnow::evaluation
