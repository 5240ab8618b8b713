// What is said of losses: which figure leads, margins, verdicts and sentences.
#include "results/evaluation/losses.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "results/evaluation/evaluation.h"
#include "results/evaluation/store.h"
#include "results/evaluation/table.h"
#include "tests/results/evaluation/example_evaluation.h"
#include "tests/scratch.h"

namespace winnow::evaluation {
namespace {

// 16 examples, two layers: full attention, one layer windowed, and both. By NLL they lose 0.01 or 0.03, and 1 or 3, in
// turn: means 0.02 and 2, standard errors 0.01 and 1 over sqrt(15).
EvaluationTable even_table() {
  EvaluationTable table;
  table.pattern = {"full", "first:1", "windowed"};
  table.full_attention = stats::Table<uint8_t>(3, 2);
  table.full_attention.values = {1, 1, 1, 0, 0, 0};
  table.nll = stats::Table<double>(3, 16, 0.5);
  table.token_accuracy = stats::Table<double>(3, 16, 0.75);
  table.exact_match = stats::Table<uint8_t>(3, 16, 1);
  for (int64_t e = 0; e < 16; ++e) {
    table.nll(1, e) += e % 2 == 0 ? 0.01 : 0.03;
    table.nll(2, e) += e % 2 == 0 ? 1.0 : 3.0;
    table.token_accuracy(2, e) -= e % 4 == 0 ? 0.25 : 0.0;
    table.exact_match(2, e) = e < 15 ? 1 : 0;
    table.example_id.push_back(std::to_string(e));
    table.answer_tokens.push_back(4);
    table.prompt_tokens.push_back(100);
  }
  return table;
}

Losses losses_of(const EvaluationTable& table, const std::string& margin = "") {
  return *compute_evaluation(table, {.seed = 1, .n_resamples = 2000, .baseline = "", .margin = parse_margin(margin)})
              .losses;
}

TEST(Losses, TheFigureOfTheGreatestPowerLeads) {
  const Losses losses = losses_of(even_table());
  EXPECT_EQ(losses.fewest, 2);
  EXPECT_NEAR(losses.figures[0].power, 2.0 * std::sqrt(15.0), 1e-12);
  EXPECT_NEAR(losses.figures[1].power, 0.0625 / std::sqrt(0.1875 * 0.0625 / 15.0), 1e-12);
  EXPECT_NEAR(losses.figures[2].power, 1.0, 1e-12);  // one of 16
  EXPECT_EQ(losses.lead().figure, "nll");
  EXPECT_EQ(losses.leading_sentence,
            "NLL leads, as it shows windowing best: windowed is 7.7 standard errors from full attention, 2.2 by token "
            "accuracy, 1.0 by exact match.");
}

// Full attention writes every answer, windowing everything misses every other one.
EvaluationTable generated_table() {
  EvaluationTable table = even_table();
  table.generated = GeneratedTable(3, 16, {.max_new_tokens = 4, .stop_tokens = {}});
  for (int64_t p = 0; p < 3; ++p) {
    for (int64_t e = 0; e < 16; ++e) table.generated.exact_match(p, e) = p < 2 || e % 2 == 0 ? 1 : 0;
  }
  return table;
}

TEST(Losses, GeneratedTextHasBoundsToo) {
  const Losses losses = losses_of(generated_table());
  ASSERT_EQ(losses.figures.size(), 4U);
  const FigureLosses& generated = losses.figures.back();
  EXPECT_EQ(generated.figure, "generated_exact_match");
  EXPECT_EQ(generated.mean, (std::vector<double>{0.0, 0.0, 0.5}));
  // The standard error of 8 of 16 is sqrt(0.25 / 15), and Student's t of 15 degrees above 5 % is 1.7531.
  EXPECT_NEAR(generated.power, 0.5 / std::sqrt(0.25 / 15.0), 1e-12);
  EXPECT_NEAR(generated.bounds.upper[2], 0.5 + 1.7531 * std::sqrt(0.25 / 15.0), 2e-3);
  EXPECT_EQ(generated.bounds.upper[1], 0.0);
  EXPECT_NE(losses.leading_sentence.find("3.9 by exact match of generated text"), std::string::npos)
      << losses.leading_sentence;
}

TEST(Losses, TheMarginIsOneTwentiethOfTheGapUnlessItIsGiven) {
  const Losses derived = losses_of(even_table());
  EXPECT_NEAR(derived.margin, 0.1, 1e-12);
  EXPECT_EQ(derived.verdict, (std::vector<std::string>{kWithin, kWithin, kBeyond}));
  EXPECT_EQ(derived.cheapest, 1);
  EXPECT_NE(
      derived.answer.find("first:1 (1 of 2 layers full) is the cheapest pattern whose loss is at most 0.1 nats per "
                          "token of NLL, 5 % of what windowed loses: it loses at most 0.02"),
      std::string::npos)
      << derived.answer;
  const Losses given = losses_of(even_table(), "0.021");
  EXPECT_EQ(given.margin, 0.021);
  EXPECT_EQ(given.verdict[1], kOpen);
  // critical value x deviation 0.01 sqrt(16 / 15) over the 0.001 between mean and margin, squared.
  const double reach = given.figures[0].bounds.upper_critical * 0.01 * std::sqrt(16.0 / 15.0) / 0.001;
  EXPECT_EQ(given.examples_needed[1], std::ceil(reach * reach));
  EXPECT_NE(given.answer.find("No pattern cheaper than full attention is shown to lose at most 0.021"),
            std::string::npos);
  EXPECT_NE(given.answer.find("examples instead of 16 would be needed to show it of first:1"), std::string::npos);
  EXPECT_TRUE(std::isnan(given.examples_needed[2])) << "its mean is beyond the margin";
}

TEST(Losses, AMarginDecidesByAFigureOfItsUnit) {
  const Losses share = losses_of(even_table(), "10%");
  EXPECT_EQ(share.lead().figure, "nll");
  EXPECT_EQ(share.decider().figure, "token_accuracy");
  EXPECT_EQ(share.margin, 0.1);
  EXPECT_NE(share.answer.find("10.0 points of token accuracy"), std::string::npos) << share.answer;
}

TEST(Losses, MarginsAreRead) {
  EXPECT_FALSE(parse_margin(""));
  EXPECT_FALSE(parse_margin("default"));
  EXPECT_EQ(parse_margin("1%"), (Margin{0.01, true}));
  EXPECT_EQ(parse_margin("0.25"), (Margin{0.25, false}));
  EXPECT_EQ(margin_text(*parse_margin("2.5%")), "2.5%");
  for (const char* text : {"0", "-1%", "101%", "nan", "inf", "1 %", "%", "one"}) {
    expect_error([&] { parse_margin(text); }, ExitCode::kUsage, {"--margin", text, "1%", "0.01"});
  }
}

TEST(Losses, NothingIsSaidWhereNothingDiffers) {
  EvaluationTable table = even_table();
  for (int64_t e = 0; e < 16; ++e) {
    table.nll(1, e) = table.nll(2, e) = 0.5;
    table.token_accuracy(2, e) = 0.75;
    table.exact_match(2, e) = 1;
  }
  const Losses losses = losses_of(table);
  EXPECT_TRUE(std::isnan(losses.margin));
  EXPECT_NE(losses.answer.find("--margin sets one"), std::string::npos);
  EXPECT_FALSE(losses.cheapest);
}

TEST(Losses, TableJsonAndFileSayTheSame) {
  const EvaluationResults results = example_evaluation(9, true);
  const ScratchDirectory scratch;
  write_evaluation(scratch.path() / "results.h5", results);
  const EvaluationResults read = read_evaluation(scratch.path() / "results.h5");
  ASSERT_TRUE(read.statistics.losses);
  const Losses& losses = *results.statistics.losses;
  EXPECT_EQ(read.statistics.losses->answer, losses.answer);
  EXPECT_EQ(read.statistics.losses->leading_sentence, losses.leading_sentence);
  const auto object = nlohmann::json::parse(to_json(results));
  EXPECT_EQ(object.at("answer"), losses.answer);
  EXPECT_EQ(object.at("leading_sentence"), losses.leading_sentence);
  EXPECT_EQ(object.at("patterns").at(1).at("verdict"), losses.verdict[1]);
  std::string text = to_table(results);  // broken into lines
  std::erase_if(text, [](char c) { return c == '\n' || c == ' '; });
  for (std::string sentence : {losses.answer, losses.leading_sentence}) {
    std::erase(sentence, ' ');
    EXPECT_NE(text.find(sentence), std::string::npos) << sentence;
  }
}

}  // namespace
}  // namespace winnow::evaluation
