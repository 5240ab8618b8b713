// The collection of a sweep: agreement of rankings against figures worked out by hand, padding, and cells without
// results.
#include "results/campaign/collection.h"
#include "results/campaign/store.h"
#include "results/campaign/table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "results/storage/hdf5.h"
#include "tests/results/calibration/example_results.h"
#include "tests/scratch.h"

namespace winnow::campaign {
namespace {

// A cell of which only the mean deltas are known, on layers 0, 1, ...; rank by rank as `ranks` says.
CollectedCell cell_of(const std::string& label, const std::vector<double>& mean, const std::vector<int64_t>& ranks,
                      int64_t top_k = 2) {
  CollectedCell cell;
  cell.label = cell.name = label;
  cell.model = "m";
  cell.dataset = "d";
  cell.window = cell.window_keys = 64;
  cell.decode = "windowed";
  CellSummary summary;
  calibration::Ranking& r = summary.statistics.ranking;
  const auto n = static_cast<int64_t>(mean.size());
  for (int64_t l = 0; l < n; ++l) r.layer.push_back(l);
  r.mean_delta_nll = r.median_delta_nll = r.standard_error = r.ci_low = r.ci_high = mean;
  r.rank = ranks;
  r.rank_low.assign(ranks.begin(), ranks.end());
  r.rank_high = r.rank_low;
  r.exact_match_drop = r.token_accuracy_drop = std::vector<double>(mean.size(), 0.0);
  r.budget = {top_k};
  r.p_top_k = stats::Table<double>(1, n, 0.5);
  summary.statistics.options.top_k = top_k;
  summary.n_examples = 3;
  cell.summary = summary;
  return cell;
}

CollectedCell falling(const std::string& label) { return cell_of(label, {4, 3, 2, 1}, {1, 2, 3, 4}); }

CollectedCell failed(const std::string& label) {
  CollectedCell cell = falling(label);
  cell.summary.reset();
  cell.state = "failed";
  cell.reason = "exit 65: no such layer";
  return cell;
}

TEST(RankAgreement, IsTheOneWorkedOutByHand) {
  std::vector<CollectedCell> cells = {falling("a"), cell_of("b", {4, 2, 3, 1}, {1, 3, 2, 4})};
  cells[1].dataset = "e";
  const RankAgreement agreement = rank_agreement(cells);
  // d^2 = 0, 1, 1, 0: rho = 1 - 6 * 2 / (4 * 15). The top 2 are {0, 1} and {0, 2}.
  EXPECT_DOUBLE_EQ(agreement.spearman_rho(0, 1), 0.8);
  EXPECT_DOUBLE_EQ(agreement.jaccard(0, 1), 1.0 / 3.0);
  for (int64_t i = 0; i < 2; ++i) {
    EXPECT_EQ(agreement.spearman_rho(i, i), 1.0);
    EXPECT_EQ(agreement.jaccard(i, i), 1.0);
    EXPECT_EQ(agreement.between_datasets(i, i), 0);
  }
  EXPECT_EQ(agreement.spearman_rho(1, 0), agreement.spearman_rho(0, 1));
  EXPECT_EQ(agreement.jaccard(1, 0), agreement.jaccard(0, 1));
  EXPECT_TRUE(agreement.spearman_status.empty());
  EXPECT_TRUE(agreement.jaccard_status.empty());
}

TEST(RankAgreement, TiesShareTheMeanOfTheirRanks) {
  const RankAgreement agreement = rank_agreement({falling("a"), cell_of("b", {3, 3, 2, 1}, {1, 2, 3, 4})});
  // Ranks less their mean: (1.5, 0.5, -0.5, -1.5) and (1, 1, -0.5, -1.5); rho = 4.5 / sqrt(5 * 4.5).
  EXPECT_DOUBLE_EQ(agreement.spearman_rho(0, 1), 4.5 / std::sqrt(22.5));
  EXPECT_EQ(agreement.jaccard(0, 1), 1.0);
}

TEST(RankAgreement, OppositeOrdersShareNothing) {
  const RankAgreement agreement = rank_agreement({falling("a"), cell_of("b", {1, 2, 3, 4}, {4, 3, 2, 1})});
  EXPECT_EQ(agreement.spearman_rho(0, 1), -1.0);
  EXPECT_EQ(agreement.jaccard(0, 1), 0.0);
}

TEST(RankAgreement, AConstantColumnIsNotDefinedAndSaysSo) {
  const RankAgreement agreement = rank_agreement({falling("a"), cell_of("b", {0, 0, 0, 0}, {1, 2, 3, 4})});
  for (const auto& [a, b] : {std::pair{0, 1}, std::pair{1, 0}, std::pair{1, 1}}) {
    EXPECT_TRUE(std::isnan(agreement.spearman_rho(a, b)));
    EXPECT_TRUE(std::isnan(agreement.jaccard(a, b)));
  }
  EXPECT_EQ(agreement.spearman_rho(0, 0), 1.0);
  const std::vector<std::string> why = {"the mean delta of a cell is equal in all layers"};
  EXPECT_EQ(agreement.spearman_status, why);
  EXPECT_EQ(agreement.jaccard_status, why);
}

TEST(RankAgreement, OneLayerHasATopKButNoOrder) {
  const RankAgreement agreement = rank_agreement({cell_of("a", {1}, {1}, 1), cell_of("b", {2}, {1}, 1)});
  EXPECT_TRUE(std::isnan(agreement.spearman_rho(0, 1)));
  EXPECT_EQ(agreement.spearman_status, std::vector<std::string>{"one layer"});
  EXPECT_EQ(agreement.jaccard(0, 1), 1.0);
}

TEST(RankAgreement, DifferentBudgetsHaveNoJaccard) {
  const RankAgreement agreement = rank_agreement({falling("a"), cell_of("b", {4, 3, 2, 1}, {1, 2, 3, 4}, 1)});
  EXPECT_EQ(agreement.spearman_rho(0, 1), 1.0);
  EXPECT_TRUE(std::isnan(agreement.jaccard(0, 1)));
  EXPECT_EQ(agreement.jaccard_status, std::vector<std::string>{"the cells have different top_k"});
}

TEST(RankAgreement, OnlyCellsOfOneModelOnTheSameLayersAreCompared) {
  std::vector<CollectedCell> cells = {falling("a"), falling("b"), cell_of("c", {2, 1}, {1, 2}), failed("d")};
  cells[1].model = "other";
  const RankAgreement agreement = rank_agreement(cells);
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = 0; j < 4; ++j) {
      const bool is_compared = i == j && i < 3;
      EXPECT_EQ(!std::isnan(agreement.spearman_rho(i, j)), is_compared) << i << ", " << j;
      EXPECT_EQ(!std::isnan(agreement.jaccard(i, j)), is_compared) << i << ", " << j;
    }
  }
  EXPECT_EQ(agreement.spearman_status, (std::vector<std::string>{"a cell has no results (see state and reason)",
                                                                 "the cells are of different models",
                                                                 "the cells were measured on different layers"}));
}

TEST(RankAgreement, MarksPairsThatDifferInOneThing) {
  std::vector<CollectedCell> cells(6, falling("a"));
  cells[1].dataset = "e";
  cells[2].window = cells[2].window_keys = 32;
  cells[3].dataset = "e";
  cells[3].sinks = 4;
  cells[4].seed = 7;
  cells[5].dataset = "f";
  cells[5].summary->provenance.set("base", std::string("windowed"), "base");
  const RankAgreement agreement = rank_agreement(cells);
  for (int64_t i = 0; i < 6; ++i) {
    for (int64_t j = 0; j < 6; ++j) {
      EXPECT_EQ(agreement.between_datasets(i, j), i + j == 1 ? 1 : 0) << i << ", " << j;
      EXPECT_EQ(agreement.between_windows(i, j), i + j == 2 && i != j ? 1 : 0) << i << ", " << j;
    }
  }
}

TEST(Collection, AxesAreUnions) {
  std::vector<CollectedCell> cells = {falling("a"), cell_of("b", {2, 1}, {1, 2}, 1), failed("c")};
  cells[1].summary->statistics.ranking.layer = {2, 7};
  cells[0].summary->statistics.deconfounding["short"] = {};
  cells[1].summary->statistics.deconfounding["code"] = {};
  const CollectionAxes axes = axes_of(cells);
  EXPECT_EQ(axes.layer, (std::vector<int64_t>{0, 1, 2, 3, 7}));
  EXPECT_EQ(axes.budget, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(axes.controls, (std::vector<std::string>{"code", "short"}));
}

TEST(Collection, SummaryKeepsStatisticsAndMeans) {
  const calibration::Results results = example_results();
  const CellSummary summary = summarize(results);
  EXPECT_EQ(summary.n_examples, results.calibration.n_examples());
  EXPECT_EQ(summary.statistics.ranking.rank, results.statistics.ranking.rank);
  EXPECT_EQ(summary.provenance.entries(), results.provenance.entries());
  double sum = 0.0;
  for (const double nll : results.calibration.nll_base) sum += nll;
  EXPECT_DOUBLE_EQ(summary.nll_base, sum / static_cast<double>(results.calibration.n_examples()));
}

// ---- the file -------------------------------------------------------------------------------------------------------

class CollectionFile : public ::testing::Test {
 protected:
  void write(const std::vector<CollectedCell>& cells) {
    const Collection collection{.sweep = "night", .version = "1.2", .cells = cells};
    write_collection(path(), collection, rank_agreement(cells));
  }
  std::filesystem::path path() const { return scratch_.path() / "collected.h5"; }
  storage::Group root() const { return storage::File::open(path()).root(); }

 private:
  ScratchDirectory scratch_;
};

TEST_F(CollectionFile, PadsWhatACellDoesNotHave) {
  std::vector<CollectedCell> cells = {falling("a"), cell_of("b", {2, 1}, {1, 2}, 1), failed("c")};
  cells[1].summary->statistics.ranking.layer = {1, 3};
  write(cells);
  const storage::Array<double> rank = root().read<double>("rank", 2);
  ASSERT_EQ(rank.shape, (std::vector<int64_t>{3, 4}));
  const double expected[] = {1, 2, 3, 4, NAN, 1, NAN, 2, NAN, NAN, NAN, NAN};
  for (std::size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(std::isnan(rank.values[i]), std::isnan(expected[i])) << i;
    if (std::isnan(expected[i])) continue;
    EXPECT_EQ(rank.values[i], expected[i]) << i;
  }
  const storage::Array<double> p = root().read<double>("p_top_k", 3);
  ASSERT_EQ(p.shape, (std::vector<int64_t>{3, 2, 4}));
  for (std::size_t i = 0; i < 24; ++i) {
    const std::size_t c = i / 8, budget = i / 4 % 2, layer = i % 4;
    const bool is_there = (c == 0 && budget == 1) || (c == 1 && budget == 0 && layer % 2 == 1);
    EXPECT_EQ(!std::isnan(p.values[i]), is_there) << i;
  }
  EXPECT_EQ(root().read<std::string>("state", 1).values, (std::vector<std::string>{"done", "done", "failed"}));
  EXPECT_EQ(root().read<std::string>("reason", 1).values[2], "exit 65: no such layer");
  EXPECT_EQ(root().string_attribute("rank", "status"), "the cell has no results (see state and reason)");
}

TEST_F(CollectionFile, PaddingAloneIsNoStatus) {
  write({falling("a"), cell_of("b", {2, 1}, {1, 2}, 1)});
  EXPECT_EQ(root().string_attribute("rank", "status"), std::nullopt);
  EXPECT_EQ(root().string_attribute("p_top_k", "status"), std::nullopt);
}

TEST_F(CollectionFile, SaysWhyFiguresOfACellAreNotDefined) {
  std::vector<CollectedCell> cells = {falling("a"), falling("b")};
  cells[0].summary->statistics.ranking.spread_status = "one example";
  cells[1].summary->statistics.deconfounding["short"].jaccard = stats::Figure::undefined("all layers are equal");
  cells[1].summary->statistics.deconfounding["short"].spearman_p = stats::Figure::of(0.25);
  write(cells);
  EXPECT_EQ(root().string_attribute("ci_low", "status"), "one example");
  EXPECT_EQ(root().string_attribute("p_top_k", "status"), "one example");
  EXPECT_EQ(root().string_attribute("rank", "status"), std::nullopt);
  EXPECT_EQ(root().string_attribute("jaccard", "status"), "all layers are equal; not a control of the cell: short");
  const std::vector<double> p = root().read<double>("spearman_p", 2).values;
  EXPECT_TRUE(std::isnan(p[0]));
  EXPECT_EQ(p[1], 0.25);
  const std::vector<std::string> why = root().read<std::string>("undefined_figures", 1).values;
  EXPECT_NE(why[0].find("p_top_k: one example"), std::string::npos) << why[0];
  EXPECT_NE(why[1].find("short/jaccard: all layers are equal"), std::string::npos) << why[1];
}

TEST_F(CollectionFile, ManyReasonsAreCutShort) {
  std::vector<CollectedCell> cells;
  for (int i = 0; i < 20; ++i) {
    cells.push_back(falling("c" + std::to_string(i)));
    cells.back().summary->statistics.ranking.spread_status = "reason " + std::to_string(i);
  }
  write(cells);
  const std::string status = root().string_attribute("ci_low", "status").value();
  EXPECT_LT(status.size(), 200U);
  EXPECT_NE(status.find("; ... (see undefined_figures)"), std::string::npos) << status;
}

TEST_F(CollectionFile, IsThereWithoutAnyResult) {
  write({failed("a"), failed("b")});
  EXPECT_EQ(root().read<double>("rank", 2).shape, (std::vector<int64_t>{2, 0}));
  EXPECT_EQ(root().read<double>("agreement/spearman_rho", 2).shape, (std::vector<int64_t>{2, 2}));
  EXPECT_TRUE(std::isnan(root().read<double>("nll_base", 1).values[0]));
}

TEST_F(CollectionFile, OneLabelIsOneCell) {
  expect_error([&] { write({falling("a"), falling("a")}); }, ExitCode::kInternal, {"the cell a is there twice"});
  EXPECT_FALSE(std::filesystem::exists(path()));
}

// ---- text -----------------------------------------------------------------------------------------------------------

TEST(CollectionText, HasALineForEveryCellAndTheReasons) {
  std::vector<CollectedCell> cells = {falling("a"), cell_of("b", {4, 2, 3, 1}, {1, 3, 2, 4}), failed("c")};
  cells[1].dataset = "e";
  cells[2].dataset = "f";
  cells[0].summary->statistics.deconfounding["short"].spearman_rho.value = stats::Figure::of(0.5);
  const Collection collection{.sweep = "night", .version = "", .cells = cells};
  EXPECT_EQ(
      to_table(collection, rank_agreement(cells)),
      "model  dataset  window  sinks  state   keep full  rho short\n"
      "m      d            64      0  done    0,1            0.500\n"
      "m      e            64      0  done    0,2                -\n"
      "m      f            64      0  failed  -                  -\n"
      "\n"
      "1 of 3 without results:\n"
      "  c: failed: exit 65: no such layer\n"
      "\n"
      "Agreement of rankings: median over pairs (range)\n"
      "  m, between datasets (1 pair): rho 0.800 (0.800 to 0.800), Jaccard of the top K 0.333 (0.333 to 0.333)\n");
}

TEST(CollectionText, ColumnsThatVaryAreShown) {
  std::vector<CollectedCell> cells = {falling("a"), falling("b")};
  cells[1].seed = 3;
  cells[1].decode = "full";
  const std::string table = to_table({.sweep = "night", .version = "", .cells = cells}, rank_agreement(cells));
  EXPECT_NE(table.find("decode    seed"), std::string::npos) << table;
  EXPECT_EQ(table.find("target"), std::string::npos) << table;
}

TEST(CollectionText, JsonHasEveryCellAndPair) {
  std::vector<CollectedCell> cells = {falling("a"), falling("b"), failed("c")};
  cells[1].window = cells[1].window_keys = 32;
  const Collection collection{.sweep = "night", .version = "", .cells = cells};
  const auto json = nlohmann::json::parse(to_json(collection, rank_agreement(cells), "/tmp/x.h5"));
  EXPECT_EQ(json["format"], "winnow-collection");
  EXPECT_EQ(json["file"], "/tmp/x.h5");
  ASSERT_EQ(json["cells"].size(), 3U);
  EXPECT_EQ(json["cells"][0]["results"]["keep_full_attention"], (std::vector<int64_t>{0, 1}));
  EXPECT_TRUE(json["cells"][2]["results"].is_null());
  EXPECT_EQ(json["cells"][2]["reason"], "exit 65: no such layer");
  ASSERT_EQ(json["agreement"].size(), 1U);
  EXPECT_EQ(json["agreement"][0]["between"], "windows");
  EXPECT_EQ(json["agreement"][0]["spearman_rho"], 1.0);
}

}  // namespace
}  // namespace winnow::campaign
