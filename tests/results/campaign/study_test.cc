// The study of a sweep: ranks of rules, intervals over models and overlaps of subsets, against figures worked by hand.
#include "results/campaign/study.h"

#include <gtest/gtest.h>

#include <cmath>

#include "results/campaign/model_means.h"
#include "results/campaign/study_table.h"

namespace winnow::campaign {
namespace {

// ---- intervals over models ------------------------------------------------------------------------------------------

TEST(ModelMeans, TwoModelsHaveNoInterval) {
  const stats::Estimate mean = ModelResamples(2).mean(std::vector{1.0, 2.0}, "");
  EXPECT_EQ(mean.value.value, 1.5);
  EXPECT_EQ(mean.ci_low.status, "an interval over models needs 3 of them, there are 2");
}

TEST(ModelMeans, TheIntervalOfThreeIsTheirRange) {
  // One draw in 27 has one model alone, which is more than 2.5 %.
  const stats::Estimate mean = ModelResamples(3).mean(std::vector{3.0, 1.0, 2.5}, "");
  EXPECT_EQ(mean.ci_low.value, 1.0);
  EXPECT_EQ(mean.ci_high.value, 3.0);
}

TEST(ModelMeans, TheIntervalOfFourIsThatOfABinomialCount) {
  // The sum of a draw is how often the last model is in it: none in 31.6 %, at most 2 in 94.9 %, at most 3 in 99.6 %.
  const stats::Estimate mean = ModelResamples(4).mean(std::vector{0.0, 0.0, 0.0, 4.0}, "");
  EXPECT_EQ(mean.value.value, 1.0);
  EXPECT_EQ(mean.ci_low.value, 0.0);
  EXPECT_EQ(mean.ci_high.value, 3.0);
}

TEST(ModelMeans, AMissingValueIsTheReasonThatIsGiven) {
  EXPECT_EQ(ModelResamples(3).mean(std::vector<double>{1.0, NAN, 2.0}, "was not measured").value.status,
            "was not measured");
}

// ---- rules ----------------------------------------------------------------------------------------------------------

TEST(RuleRanks, NamesOfPatternsTellTheRule) {
  EXPECT_EQ(rule_of("nll:3"), "nll");
  EXPECT_EQ(rule_of("nll:3 by-tail.json"), "nll by-tail");
  EXPECT_EQ(rule_of("random:7:3"), "random");
  EXPECT_EQ(rule_of("periodic:4@1"), "periodic");
  for (const char* none : {"full", "windowed", "list:1,4", "list:1,4:2"}) EXPECT_EQ(rule_of(none), "") << none;
}

CollectedPattern pattern(const std::string& name, int64_t full_layers, double loss, double nll) {
  return {.name = name, .full_layers = full_layers, .nll = nll, .leading_loss = loss};
}

// An evaluation of a model with 8 layers.
CollectedCell evaluation(const std::string& model, std::vector<CollectedPattern> rules) {
  CollectedCell cell;
  cell.label = cell.name = model + "-test";
  cell.model = model;
  cell.verb = "evaluate";
  cell.leading_figure = "nll";
  cell.patterns = std::move(rules);
  cell.patterns.push_back(pattern("full", 8, 0.0, 1.0));
  cell.patterns.push_back(pattern("windowed", 0, 2.0, 3.0));
  return cell;
}

TEST(RuleRanks, AreTheMeansWorkedByHand) {
  // At 2 of 8 layers: ranks of nll, kl and random are 1, 2, 3 in a, 2, 1, 3 in b and, tied, 1.5, 1.5, 3 in c.
  const std::vector<CollectedCell> cells = {
      evaluation("a", {pattern("nll:2", 2, 0.5, 1.5), pattern("kl:2", 2, 1.0, 2.0), pattern("random:0:2", 2, 1.0, 2.0),
                       pattern("random:1:2", 2, 2.0, 3.0), pattern("nll:4", 4, 0.1, 1.1)}),
      evaluation("b", {pattern("nll:2", 2, 1.0, 2.0), pattern("kl:2", 2, 0.5, 1.5), pattern("random:0:2", 2, 2.0, 3.0),
                       pattern("nll:4", 4, 0.3, 1.3)}),
      evaluation("c", {pattern("nll:2", 2, 0.2, 1.2), pattern("kl:2", 2, 0.2, 1.2), pattern("random:0:2", 2, 1.0, 2.0),
                       pattern("nll:4", 4, 0.2, 1.2), pattern("first:4", 4, 0.3, 1.3)})};
  const RuleRanks ranks = rank_rules(cells);
  EXPECT_EQ(ranks.rules, (std::vector<std::string>{"nll", "kl", "random", "first"}));
  ASSERT_EQ(ranks.budgets.size(), 2U);
  const RankedBudget& quarter = ranks.budgets[0];
  EXPECT_EQ(quarter.divisor, 4);
  EXPECT_EQ(quarter.keep, (std::vector<int64_t>{2, 2, 2}));
  EXPECT_EQ(quarter.is_compared, (std::vector<bool>{true, true, true, false}));
  EXPECT_DOUBLE_EQ(quarter.mean_rank[0].value.value, 1.5);
  EXPECT_DOUBLE_EQ(quarter.mean_rank[1].value.value, 1.5);
  EXPECT_DOUBLE_EQ(quarter.mean_rank[2].value.value, 3.0);
  EXPECT_EQ(quarter.mean_rank[0].ci_low.value, 1.0);
  EXPECT_EQ(quarter.mean_rank[0].ci_high.value, 2.0);
  // Losses of nll over that of windowing: 0.25, 0.5, 0.1; the two random patterns of a count as their mean, 1.5.
  EXPECT_DOUBLE_EQ(quarter.mean_loss_left[0].value.value, 0.85 / 3.0);
  EXPECT_DOUBLE_EQ(quarter.loss_left(0, 2), 0.75);
  // NLL of kl less nll: 0.5, -0.5, 0.
  const stats::Estimate& difference = quarter.nll_difference[1 * 4 + 0];
  EXPECT_NEAR(difference.value.value, 0.0, 1e-15);
  EXPECT_DOUBLE_EQ(difference.ci_low.value, -0.5);
  EXPECT_DOUBLE_EQ(difference.ci_high.value, 0.5);
  EXPECT_FALSE(quarter.mean_rank[3].value.defined());
  EXPECT_EQ(ranks.budgets[1].is_compared, (std::vector<bool>{true, false, false, false}));
}

TEST(RuleRanks, SeveralEvaluationsOfAModelCountAsOne) {
  std::vector<CollectedCell> cells = {evaluation("a", {pattern("nll:2", 2, 1, 2), pattern("kl:2", 2, 2, 3)}),
                                      evaluation("a", {pattern("nll:2", 2, 2, 3), pattern("kl:2", 2, 1, 2)})};
  cells[1].name = cells[1].label = "a-code";
  cells[1].leading_figure = "kl";
  cells.push_back(cells[0]);  // another seed of the statistics
  cells[2].label = "a-test/seeds/1";
  const RuleRanks ranks = rank_rules(cells);
  ASSERT_EQ(ranks.models.size(), 1U);
  EXPECT_EQ(ranks.models[0].n_cells, 2);
  EXPECT_EQ(ranks.models[0].leading_figures, (std::vector<std::string>{"nll", "kl"}));
  EXPECT_EQ(ranks.budgets[0].mean_rank[0].value.value, 1.5);
}

TEST(RuleRanks, WhatIsNoHeldOutRuleIsNotRanked) {
  CollectedCell search = evaluation("a", {pattern("greedy-forward:2", 2, 1, 2)});
  search.verb = "search";
  EXPECT_TRUE(rank_rules({search, evaluation("b", {pattern("list:1,4", 2, 1, 2)}), evaluation("c", {})}).is_empty());
}

TEST(RuleRanks, ALossOfWindowingThatIsNoneHasNoShare) {
  CollectedCell cell = evaluation("a", {pattern("nll:2", 2, 0.1, 1.1)});
  cell.patterns.back().leading_loss = 0.0;
  const RuleRanks ranks = rank_rules({cell});
  EXPECT_EQ(ranks.budgets[0].mean_loss_left[0].value.status,
            "windowing every layer loses nothing, or was not measured");
}

// ---- examples -------------------------------------------------------------------------------------------------------

calibration::Measurement measurement(const std::vector<std::vector<double>>& delta) {
  calibration::Measurement m;
  const auto n = static_cast<int64_t>(delta.size());
  const auto n_layers = static_cast<int64_t>(delta[0].size());
  m.nll = stats::Table<double>(n, n_layers);
  m.exact_match = stats::Table<uint8_t>(n, n_layers);
  m.token_accuracy = stats::Table<double>(n, n_layers);
  for (int64_t l = 0; l < n_layers; ++l) m.layer.push_back(l);
  m.layer_windowed_in_base.assign(delta[0].size(), false);
  m.nll_base.assign(delta.size(), 0.0);
  m.exact_match_base.assign(delta.size(), 0);
  m.token_accuracy_base.assign(delta.size(), 0.0);
  for (int64_t e = 0; e < n; ++e) {
    m.example_id.push_back(std::to_string(e));
    for (int64_t l = 0; l < n_layers; ++l)
      m.nll(e, l) = delta[static_cast<std::size_t>(e)][static_cast<std::size_t>(l)];
  }
  return m;
}

TEST(SelectionStability, ExamplesThatAgreeNeedTwo) {
  const auto found = selection_stability(measurement(std::vector<std::vector<double>>(8, {4.0, 3.0, 2.0, 1.0})), 0);
  ASSERT_EQ(found.size(), 2U);  // four layers have no eighth
  for (const SelectionStability& budget : found) {
    EXPECT_EQ(budget.keep, 4 / budget.divisor);
    EXPECT_EQ(budget.n_examples, (std::vector<int64_t>{2, 4}));
    EXPECT_EQ(budget.overlap, (std::vector<double>{1.0, 1.0}));
    EXPECT_EQ(budget.same, (std::vector<double>{1.0, 1.0}));
    EXPECT_EQ(budget.needed, 2);
  }
}

TEST(SelectionStability, IsTheShareOfTheSubsetsThatHoldTheExample) {
  // Example 0 alone decides for layer 0; without it layer 1 comes first. Of two of four it is one in half of the draws.
  const auto found = selection_stability(measurement({{9.0, 0.0}, {0.0, 1.0}, {0.0, 1.0}, {0.0, 1.0}}), 0);
  ASSERT_EQ(found.size(), 1U);
  ASSERT_EQ(found[0].n_examples, (std::vector<int64_t>{2}));
  EXPECT_NEAR(found[0].overlap[0], 0.5, 3.0 * std::sqrt(0.25 / kSubsetDraws));
  EXPECT_EQ(found[0].overlap[0], found[0].same[0]);
  EXPECT_EQ(found[0].overlap_low[0], 0.0);
  EXPECT_EQ(found[0].overlap_high[0], 1.0);
  EXPECT_EQ(found[0].needed, std::nullopt);
  EXPECT_EQ(selection_stability(measurement({{9.0, 0.0}, {0.0, 1.0}, {0.0, 1.0}, {0.0, 1.0}}), 0)[0].overlap,
            found[0].overlap);
}

// ---- what is said ---------------------------------------------------------------------------------------------------

TEST(Study, SaysWhichRuleAndWhatThreeModelsAreWorth) {
  Collection collection;
  for (const char* model : {"a", "b", "c"}) {
    collection.others.push_back(
        evaluation(model, {pattern("nll:2", 2, 0.5, 1.5), pattern("kl:2", 2, 0.08, 1.08), pattern("nll:1", 1, 1, 2)}));
  }
  const Study study = make_study(collection, [](const CollectedCell&) -> calibration::Results { return {}; });
  EXPECT_EQ(
      study.rules_answer,
      "At 1/8 of the layers nll is the only rule in every evaluation; of what windowing every layer loses, 50 % is "
      "left. At 1/4 of the layers kl has the best mean rank of 2 rules over 3 models, 1.0; of what windowing every "
      "layer loses, 4 % is left. By their intervals all others are behind it. 1/4 of the layers, chosen by kl, are "
      "the smallest budget that leaves at most 5 % of that loss in the mean over the models. Of 3 models an "
      "interval is their range, which holds the mean of all such models in 75 % of cases, not in 95 %.");
  EXPECT_TRUE(study.examples_answer.empty());
  EXPECT_EQ(study_object(study)["rules"]["budgets"].size(), 2U);
  EXPECT_NE(study_text(study).find("1/4   kl         1.00  [1.00, 1.00]          4.0"), std::string::npos)
      << study_text(study);
}

TEST(Study, OfNothingIsEmpty) {
  const Study study = make_study({}, [](const CollectedCell&) -> calibration::Results { return {}; });
  EXPECT_TRUE(study.is_empty());
  EXPECT_EQ(study_text(study), "");
  EXPECT_TRUE(study_object(study).is_null());
}

}  // namespace
}  // namespace winnow::campaign
