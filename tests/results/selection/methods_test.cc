// Selection methods: from figures to layers.
#include "results/selection/methods.h"
#include "results/selection/pattern.h"
#include "results/selection/weak_figure.h"

#include <cmath>
#include <limits>

#include "tests/results/calibration/example_results.h"
#include "tests/scratch.h"

namespace winnow::selection {
namespace {

using Layers = std::vector<int64_t>;

// 4 layers, 2 examples. Mean deltas 0.1, 0.4, 0.2, 0.4; exact match falls in layers 2 and 3.
calibration::Measurement small_measurement(double scale = 1.0) {
  calibration::Measurement m;
  m.example_id = {"a", "b"};
  m.answer_tokens = {4, 4};
  m.prompt_tokens = {100, 100};
  m.layer = {0, 1, 2, 3};
  m.layer_windowed_in_base.assign(4, false);
  m.nll_base = {1.0, 1.0};
  m.exact_match_base = {1, 1};
  m.token_accuracy_base = {1.0, 1.0};
  m.nll = stats::Table<double>(2, 4);
  m.exact_match = stats::Table<uint8_t>(2, 4, 1);
  m.token_accuracy = stats::Table<double>(2, 4, 1.0);
  const double deltas[2][4] = {{0.0, 0.25, 0.25, 0.5}, {0.25, 0.5, 0.125, 0.25}};
  for (int64_t e = 0; e < 2; ++e) {
    for (int64_t l = 0; l < 4; ++l) m.nll(e, l) = 1.0 + scale * deltas[e][l];
  }
  m.exact_match(0, 2) = m.exact_match(0, 3) = 0;
  m.token_accuracy(0, 0) = 0.25;
  return m;
}

SelectInput small_input() {
  SelectInput input;
  input.results.calibration = small_measurement();
  input.results.controls["short"] = small_measurement(0.5);
  input.results.statistics = calibration::compute_statistics(input.results.calibration, input.results.controls, {});
  storage::Provenance& p = input.results.provenance;
  p.set("model", std::string("/models/m"), "");
  p.set("model_type", std::string("qwen3"), "");
  p.set("model_layers", int64_t{4}, "");
  p.set("checkpoint_sha256", std::string(64, 'c'), "");
  p.set("window", int64_t{2048}, "");
  p.set("sinks", int64_t{0}, "");
  p.set("decode", std::string("full"), "");
  p.set("tail_rows", int64_t{-1}, "");
  p.set("target", std::string("swaa-vllm"), "");
  p.set("base", std::string("full"), "");
  return input;
}

stats::Table<double> table(int64_t rows, int64_t cols, std::vector<double> values) {
  stats::Table<double> t(rows, cols);
  t.values = std::move(values);
  return t;
}

Layers layers_of(const SelectInput& input, const std::string& method, std::optional<int64_t> keep) {
  return choose_layers(input, {.method = method, .keep = keep}).layers;
}

Layers order_of(const SelectInput& input, const std::string& method) {
  Layers order;
  for (const ScoredLayer& scored : choose_layers(input, {.method = method}).order) order.push_back(scored.layer);
  return order;
}

TEST(Methods, RankByWhatWasMeasured) {
  const SelectInput input = small_input();
  // Layers 1 and 3 both cost 0.375: the lower index first.
  EXPECT_EQ(order_of(input, "nll"), (Layers{1, 3, 2, 0}));
  // Layers 2 and 3 both cost a match: the larger delta NLL first.
  EXPECT_EQ(order_of(input, "exact-match"), (Layers{3, 2, 1, 0}));
  EXPECT_EQ(order_of(input, "token-accuracy"), (Layers{0, 1, 3, 2}));
  EXPECT_EQ(layers_of(input, "nll", 2), (Layers{1, 3}));
  EXPECT_EQ(layers_of(input, "nll", 0), (Layers{}));
  EXPECT_EQ(layers_of(input, "nll", 4), (Layers{0, 1, 2, 3}));
  EXPECT_EQ(layers_of(input, "nll", {}), (Layers{1}));  // the results' own top K: a quarter
}

TEST(Methods, RankBySignals) {
  SelectInput input = small_input();
  input.results.calibration.signals["kl"] = table(2, 4, {1, 2, 3, 4, 1, 2, 3, 0});
  EXPECT_EQ(order_of(input, "kl"), (Layers{2, 1, 3, 0}));  // 3, 2, 2 (the tie goes to the larger delta NLL), 1
  input.results.calibration.signals["attention_mass_outside"] = table(2, 4, {0.5, 0.1, 0.2, 0.3, 0.5, 0.1, 0.2, 0.3});
  EXPECT_EQ(order_of(input, "mass"), (Layers{0, 3, 2, 1}));
  input.results.calibration.signals["delta_nll_removed"] = table(2, 4, {0, 8, 2, 4, 0, 8, 2, 4});
  EXPECT_EQ(order_of(input, "sensitivity"), (Layers{1, 3, 2, 0}));
  input.results.calibration.signals["angular_distance"] = table(2, 4, {0.3, 0.1, 0.2, 0.5, 0.5, 0.1, 0.2, 0.1});
  EXPECT_EQ(order_of(input, "angular"), (Layers{0, 3, 2, 1}));
  input.results.provenance.set("base", std::string("windowed"), "");
  EXPECT_EQ(order_of(input, "angular"), (Layers{0, 3, 2, 1}));
  expect_error([&] { order_of(input, "kl"); }, ExitCode::kBadData, {"kl", "windowed", "--base full"});
}

TEST(Methods, NllMinusGenericIsTheResidual) {
  SelectInput input = small_input();
  input.results.calibration.signals["delta_nll_removed"] = table(1, 4, {0, 3, 1, 2});
  // y = 0.125, 0.375, 0.1875, 0.375 over x = 0, 3, 1, 2: slope 0.09375, mean 1.5 and 0.265625.
  const Choice choice = choose_layers(input, {.method = "nll-minus-generic", .keep = 1});
  ASSERT_EQ(choice.order.size(), 4U);
  EXPECT_EQ(choice.order[0].layer, 3);
  EXPECT_NEAR(choice.order[0].score, 0.375 - 0.265625 - 0.09375 * 0.5, 1e-12);
  EXPECT_EQ(choice.layers, (Layers{3}));
  input.results.calibration.signals["delta_nll_removed"] = table(1, 4, {2, 2, 2, 2});
  expect_error([&] { order_of(input, "nll-minus-generic"); }, ExitCode::kBadData, {"regression", "same"});
  EXPECT_FALSE(residuals({1, 2}, {1, 2}).has_value());
}

TEST(Methods, RatioDividesByTheControl) {
  SelectInput input = small_input();
  // Layer 1 costs as much on short prompts, layer 3 little.
  calibration::Measurement& control = input.results.controls["short"];
  for (int64_t e = 0; e < 2; ++e) control.nll(e, 3) = 1.0;
  const Choice choice = choose_layers(input, {.method = "ratio"});
  // Control means 0.0625, 0.1875, 0.09375, 0: their mean size is 0.0859375.
  EXPECT_EQ(choice.order[0].layer, 3);
  EXPECT_NEAR(choice.order[0].score, 0.375 / 0.0859375, 1e-12);
  EXPECT_NEAR(choice.order[1].score, 0.375 / (0.1875 + 0.0859375), 1e-12);
  input.results.controls["other"] = control;
  expect_error([&] { order_of(input, "ratio"); }, ExitCode::kUsage, {"--control", "other, short"});
  EXPECT_EQ(choose_layers(input, {.method = "ratio", .control = "short"}).order[0].layer, 3);
  expect_error([&] { choose_layers(input, {.method = "ratio", .control = "x"}); }, ExitCode::kUsage, {"\"x\""});
  input.results.controls.clear();
  expect_error([&] { order_of(input, "ratio"); }, ExitCode::kNoInput, {"--control"});
  input.results.controls["zero"] = small_measurement(0.0);
  expect_error([&] { order_of(input, "ratio"); }, ExitCode::kBadData, {"0 in every layer"});
}

TEST(Methods, SayWhichFlagMeasuresASignal) {
  const SelectInput input = small_input();
  const std::pair<const char*, const char*> needs[] = {{"kl", "--signals kl"},
                                                       {"mass", "--signals mass"},
                                                       {"sensitivity", "--signals sensitivity"},
                                                       {"nll-minus-generic", "--signals sensitivity"},
                                                       {"light-transfer", "--signals lazy"},
                                                       {"angular", "--signals angular"},
                                                       {"greedy-forward", "search with --method greedy-forward"}};
  for (const auto& [method, flag] : needs) {
    expect_error([&, name = std::string(method)] { layers_of(input, name, 1); }, ExitCode::kNoInput, {method, flag});
  }
}

TEST(Methods, LazyVotesCountFirstAppearance) {
  // Each example votes for int(4 * 0.5) = 2 columns.
  const LazyVote vote = vote_lazy(table(3, 4,
                                        {0.1, 0.9, 0.8, 0.2,    // 1, 2
                                         0.5, 0.5, 0.1, 0.1,    // 0, 1: a tie keeps the order of layers
                                         0.9, 0.0, 0.1, 0.2}),  // 0, 3
                                  0.5);
  EXPECT_EQ(vote.votes, (Layers{2, 2, 1, 1}));
  EXPECT_EQ(vote.order, (Layers{1, 0, 2, 3}));  // 1 was seen before 0, 2 before 3
  // No vote at all for 2 and 3: by mean ratio, the larger first.
  EXPECT_EQ(vote_lazy(table(1, 4, {0.9, 0.8, 0.1, 0.2}), 0.5).order, (Layers{0, 1, 3, 2}));
  // int(3 * 0.5) = 1; an example that is too short does not vote.
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const LazyVote odd = vote_lazy(table(2, 3, {nan, nan, nan, 0.1, 0.2, 0.3}), 0.5);
  EXPECT_EQ(odd.n_examples, 1);
  EXPECT_EQ(odd.votes, (Layers{0, 0, 1}));
}

TEST(Methods, LightTransferKeepsTheLeastLazy) {
  SelectInput input = small_input();
  input.results.calibration.signals["lazy_ratio_compat"] = table(2, 4, {0.9, 0.1, 0.8, 0.2, 0.9, 0.2, 0.1, 0.8});
  input.results.calibration.signals["lazy_ratio"] = table(2, 4, {0.1, 0.9, 0.2, 0.8, 0.1, 0.9, 0.2, 0.8});
  EXPECT_EQ(layers_of(input, "light-transfer", 1), (Layers{1}));
  EXPECT_EQ(layers_of(input, "light-transfer", 2), (Layers{1, 3}));  // 2 was seen before 3
  EXPECT_EQ(choose_layers(input, {.method = "light-transfer", .keep = 2, .lazy = "clean"}).layers, (Layers{0, 2}));
  expect_error([&] { choose_layers(input, {.method = "light-transfer", .lazy = "x"}); }, ExitCode::kUsage, {"--lazy"});
  expect_error([&] { choose_layers(input, {.method = "light-transfer", .lazy_share = 0.0}); }, ExitCode::kUsage,
               {"--lazy-share"});
}

TEST(Methods, RefuseFlagsThatMeanNothing) {
  const SelectInput input = small_input();
  expect_error([&] { choose_layers(input, {.method = "nll", .lazy = "x"}); }, ExitCode::kUsage, {"--lazy"});
  expect_error([&] { choose_layers(input, {.method = "first", .lazy_share = 7.0}); }, ExitCode::kUsage,
               {"--lazy-share"});
  expect_error([&] { choose_layers(input, {.method = "nll", .control = "short"}); }, ExitCode::kUsage,
               {"--control", "ratio", "not nll"});
}

TEST(Methods, RefuseFiguresThatAreNotFinite) {
  for (const char* method : {"nll", "exact-match"}) {
    SelectInput input = small_input();
    input.results.statistics.ranking.mean_delta_nll[2] = std::numeric_limits<double>::quiet_NaN();
    expect_error([&] { layers_of(input, method, 1); }, ExitCode::kBadData, {"layer 2", "not finite", "winnow stats"});
  }
}

TEST(Methods, WarnsOfAWeakFigure) {
  // 16 examples; layer 1 costs all of them 1 or 3 nats, and exact match falls in one of the 8 that are answered.
  calibration::Measurement m;
  m.layer = {0, 1};
  m.layer_windowed_in_base.assign(2, false);
  m.nll_base.assign(16, 1.0);
  m.token_accuracy_base.assign(16, 1.0);
  m.nll = stats::Table<double>(16, 2, 1.0);
  m.token_accuracy = stats::Table<double>(16, 2, 1.0);
  m.exact_match = stats::Table<uint8_t>(16, 2);
  for (int64_t e = 0; e < 16; ++e) {
    m.example_id.push_back(std::to_string(e));
    m.exact_match_base.push_back(e < 8 ? 1 : 0);
    m.nll(e, 1) += e % 2 == 0 ? 1.0 : 3.0;
    for (int64_t l = 0; l < 2; ++l) m.exact_match(e, l) = e < 8 && !(l == 1 && e == 0) ? 1 : 0;
  }
  EXPECT_EQ(weak_figure_caveat(m, "nll"), "");
  EXPECT_EQ(weak_figure_caveat(m, "kl"), "");
  EXPECT_EQ(weak_figure_caveat(m, "exact-match"),
            "exact-match is a weak figure here: the layer that it shows best is 1.0 standard errors from no effect, by "
            "nll 7.7; full attention gives 50.0 % of the answers");
  EXPECT_EQ(weak_figure_caveat(m, "token-accuracy"),
            "token-accuracy is a weak figure here: the layer that it shows best is 0.0 standard errors from no effect, "
            "by nll 7.7");
  // Now every answer that is given is lost, but few are given.
  for (int64_t e = 0; e < 16; ++e) m.exact_match(e, 1) = 0;
  EXPECT_EQ(weak_figure_caveat(m, "exact-match"), "");
  m.exact_match_base[7] = m.exact_match(7, 0) = 0;
  EXPECT_NE(weak_figure_caveat(m, "exact-match").find("gives 43.8 % of the answers"), std::string::npos);
}

TEST(Methods, PatternsLookAtNoFigure) {
  const SelectInput input = small_input();
  EXPECT_EQ(layers_of(input, "first", 2), (Layers{0, 1}));
  EXPECT_EQ(layers_of(input, "last", 3), (Layers{1, 2, 3}));
  EXPECT_EQ(layers_of(input, "periodic:2@1", {}), (Layers{1, 3}));
  EXPECT_EQ(layers_of(input, "periodic:2@1", 2), (Layers{1, 3}));
  EXPECT_EQ(layers_of(input, "random:5", 2), random_layers(5, 2, 4));
  EXPECT_EQ(layers_of(input, "random", 2), random_layers(0, 2, 4));
  EXPECT_EQ(layers_of(input, "periodic:2", {}), (Layers{0, 2}));
  EXPECT_EQ(layers_of(input, "list:3,0", {}), (Layers{0, 3}));
  EXPECT_EQ(choose_layers(input, {.method = "list:3,0"}).method, "list:0,3");
  expect_error([&] { layers_of(input, "periodic:2@1", 3); }, ExitCode::kUsage, {"--keep 3", "2 of 4 layers"});
  for (const char* bad : {"", "bogus", "periodic", "random:", "first:2", "full", "windowed", "list:", "s.json"}) {
    expect_error([&, name = std::string(bad)] { layers_of(input, name, {}); }, ExitCode::kUsage, {"--method"});
  }
}

TEST(Methods, RefuseBudgetsOutOfRange) {
  const SelectInput input = small_input();
  expect_error([&] { layers_of(input, "nll", -1); }, ExitCode::kUsage, {"--keep", "-1", "0 to 4"});
  expect_error([&] { layers_of(input, "first", 5); }, ExitCode::kUsage, {"--keep", "5", "0 to 4"});
}

TEST(Methods, UnmeasuredLayersStayAsInTheBase) {
  SelectInput input = small_input();
  input.results.provenance.set("model_layers", int64_t{6}, "");
  // Layers 4 and 5 have full attention in the base: they count.
  EXPECT_EQ(layers_of(input, "nll", 3), (Layers{1, 4, 5}));
  EXPECT_FALSE(choose_layers(input, {.method = "nll", .keep = 3}).caveats.empty());
  expect_error([&] { layers_of(input, "nll", 1); }, ExitCode::kUsage, {"--keep", "2 to 6", "--layers"});
  input.results.provenance.set("base", std::string("windowed"), "");
  EXPECT_EQ(layers_of(input, "nll", 1), (Layers{1}));
  expect_error([&] { layers_of(input, "nll", 5); }, ExitCode::kUsage, {"--keep", "0 to 4"});
}

TEST(Methods, SearchesGiveTheirOwnBudgets) {
  SelectInput input = small_input();
  input.searched = search::BestPatterns{.keep = {1, 2}, .full_layers = {{3}, {0, 2}}};
  EXPECT_EQ(layers_of(input, "greedy-forward", 2), (Layers{0, 2}));
  EXPECT_EQ(layers_of(input, "greedy-backward", 1), (Layers{3}));
  expect_error([&] { layers_of(input, "greedy-forward", 3); }, ExitCode::kUsage, {"--keep is 3", "K = 1, 2"});
}

TEST(Methods, SelectionsCarryTheMeasurement) {
  SelectInput input = small_input();
  const Selection s = make_selection(choose_layers(input, {.method = "nll", .keep = 2}), input, "run/r.h5");
  EXPECT_EQ(s.layers, (Layers{1, 3}));
  EXPECT_EQ(s.n_layers, 4);
  EXPECT_EQ(s.window, 2048);
  EXPECT_EQ(s.window_keys, 2049);  // swaa-vllm sees one key more
  EXPECT_EQ(s.decode, "full");
  EXPECT_EQ(s.provenance.text("results"), "run/r.h5");
  EXPECT_EQ(to_json(parse_selection(to_json(s), "s")), to_json(s));
  for (const char* name : {"window", "sinks"}) {
    SelectInput damaged = input;
    damaged.results.provenance.set(name, int64_t{-5}, "");
    expect_error([&] { make_selection(choose_layers(damaged, {.method = "first"}), damaged, "run/r.h5"); },
                 ExitCode::kBadData, {"run/r.h5: /provenance: " + std::string(name), "-5", "run directory"});
  }
  input.results.provenance = {};
  expect_error([&] { make_selection({}, input, "run/r.h5"); }, ExitCode::kBadData,
               {"run/r.h5", "/provenance/model_layers"});
}

TEST(HybridCache, PadsGroupsOfOneSize) {
  EXPECT_EQ(hybrid_padding_layers(9, 27), 0);
  EXPECT_EQ(hybrid_padding_layers(8, 28), 4);
  EXPECT_EQ(hybrid_padding_layers(18, 18), 0);
  EXPECT_EQ(hybrid_padding_layers(12, 13), 1);  // 13 < 1.5 * 12: groups of 13
  EXPECT_EQ(hybrid_padding_layers(13, 12), 1);
  EXPECT_EQ(hybrid_padding_layers(2, 3), 1);  // 3 is not below 1.5 * 2: groups of 2
  EXPECT_EQ(hybrid_padding_layers(0, 36), 0);
  EXPECT_EQ(hybrid_padding_layers(36, 0), 0);
  const std::pair<int64_t, Layers> models[] = {
      {36, {4, 6, 9, 12, 18}}, {28, {4, 7, 14}}, {32, {4, 8, 16}}, {48, {4, 6, 8, 12, 16, 24}}, {64, {4, 8, 16, 32}}};
  for (const auto& [n_layers, budgets] : models) {
    for (const int64_t keep : budgets) EXPECT_EQ(hybrid_padding_note(keep, n_layers), "") << keep << " of " << n_layers;
  }
  const std::string note = hybrid_padding_note(8, 36);
  EXPECT_NE(note.find("4 padding layers"), std::string::npos) << note;
  EXPECT_NE(note.find("K = 9"), std::string::npos) << note;
  EXPECT_NE(note.find("K = 6"), std::string::npos) << note;
}

}  // namespace
}  // namespace winnow::selection
