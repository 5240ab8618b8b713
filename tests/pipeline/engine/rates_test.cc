// Prices of sweeps: the walk through a layout asks for what a sweep does, and curves give back what was measured.

#include "pipeline/engine/rates.h"

#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/profiled_ops.h"
#include "pipeline/engine/sweep_price.h"
#include "tests/small_model.h"

namespace winnow::engine {
namespace {

TEST(Curve, GivesBackItsPointsAndLinesBetweenThem) {
  Curve curve;
  EXPECT_EQ(curve.seconds_of(10.0), 0.0);
  curve.add(64.0, 3.0);
  EXPECT_EQ(curve.seconds_of(128.0), 6.0);  // one point: in proportion
  curve.add(256.0, 9.0);
  curve.add(128.0, 5.0);
  EXPECT_EQ(curve.seconds_of(64.0), 3.0);
  EXPECT_EQ(curve.seconds_of(128.0), 5.0);
  EXPECT_EQ(curve.seconds_of(96.0), 4.0);
  EXPECT_EQ(curve.seconds_of(192.0), 7.0);
  EXPECT_EQ(curve.seconds_of(512.0), 18.0);
  EXPECT_EQ(curve.seconds_of(32.0), 2.0);  // the line through the first two points
  EXPECT_EQ(curve.seconds_of(0.0), 0.0);
}

TEST(AttentionRates, NearLaunchesSetThePrice) {
  AttentionRates rates;
  const AttentionLaunch full{.rows = 1024.0, .pairs = 1024.0 * 512.0};
  const AttentionLaunch windowed{.rows = 1024.0, .pairs = 1024.0 * 512.0, .windowed_pairs = 1024.0 * 512.0};
  rates.add(full, 1.0);
  rates.add(windowed, 4.0);
  EXPECT_NEAR(rates.seconds_of(full), 1.0, 1e-5);
  EXPECT_NEAR(rates.seconds_of(windowed), 4.0, 1e-5);
  EXPECT_EQ(rates.distance_to(full), 0.0);
  // Twice the rows at the same keys a row: at the price of the full launch, which is the nearer.
  const AttentionLaunch twice{.rows = 2048.0, .pairs = 2048.0 * 512.0};
  EXPECT_GT(rates.seconds_of(twice), 2.0);
  EXPECT_LT(rates.seconds_of(twice), 4.0);
  EXPECT_EQ(rates.seconds_of({}), 0.0);
}

struct Counted {
  double attention_pairs = 0.0;
  double key_rows = 0.0;
  double query_rows = 0.0;
  double finished_rows = 0.0;
  bool operator==(const Counted&) const = default;
};

Counted walked(const Model& model, const kernels::Ops& ops, const SweepRequest& request) {
  const SweepLayout layout(model.config, {&request, 1}, ops);
  Counted counted;
  const SweepSteps steps{.input =
                             [&](int64_t n, bool has_keys, bool has_queries) {
                               counted.key_rows += has_keys ? static_cast<double>(n) : 0.0;
                               counted.query_rows += has_queries ? static_cast<double>(n) : 0.0;
                             },
                         .attend =
                             [&](std::span<const kernels::AttentionCall> calls) {
                               counted.attention_pairs += launch_of(calls, model.config.heads).pairs;
                             },
                         .finish = [&](int64_t n) { counted.finished_rows += static_cast<double>(n); }};
  for (int64_t layer = 0; layer < model.config.n_layers; ++layer) walk_layer(layout, layer, steps);
  return counted;
}

// What the backend was asked for while the sweep ran: rows by the work of the products that they go through.
Counted measured(const Model& model, kernels::Ops& ops, const SweepRequest& request) {
  kernels::ProfiledOps profiled(ops);
  model::ModelWeights weights(model.config, *model.checkpoint, profiled);
  sweep(profiled, model.config, weights, request, {});
  const kernels::HeadShape& heads = model.config.heads;
  const auto flop_of = [&](int64_t rows, int64_t cols) {
    const std::string name = "linear " + std::to_string(rows) + "x" + std::to_string(cols);
    for (const kernels::OperationProfile& operation : profiled.profile().operations) {
      if (operation.name == name) return operation.flop / (2.0 * static_cast<double>(rows * cols));
    }
    ADD_FAILURE() << "no " << name;
    return 0.0;
  };
  Counted counted;
  for (const kernels::OperationProfile& operation : profiled.profile().operations) {
    const bool is_attention = operation.name == "attention full" || operation.name == "attention window";
    if (is_attention) counted.attention_pairs += operation.flop / (4.0 * static_cast<double>(heads.q_dim()));
  }
  counted.key_rows = flop_of(2 * heads.kv_dim(), model.config.hidden);
  counted.query_rows = flop_of(heads.q_dim(), model.config.hidden);
  counted.finished_rows = flop_of(model.config.hidden, model.config.ffn);  // some add no attention
  return counted;
}

// The shapes of all four products differ, so that their names do.
const model::RandomCheckpoint kShape = {
    .n_layers = 5, .hidden = 48, .n_heads = 4, .n_kv_heads = 1, .head_dim = 16, .ffn = 80, .seed = 11};

TEST(SweepPrice, AsksForWhatTheSweepDoes) {
  const Model model(kShape);
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  const auto tokens = random_tokens(700, 128, 3);
  const kernels::Window everywhere{.keys = 40, .sinks = 3};
  const kernels::Window tail{.keys = 40, .sinks = 3, .first_row = 560};
  for (const kernels::Window& window : {everywhere, tail}) {
    const SweepRequest request = drop_one(tokens, 620, window, 5);
    EXPECT_EQ(walked(model, *ops, request), measured(model, *ops, request));
  }
  SweepRequest with_removed = drop_one(tokens, 620, everywhere, 5);
  with_removed.signals.names = {"sensitivity"};
  with_removed.signals.removed_rows = 32;
  EXPECT_EQ(walked(model, *ops, with_removed), measured(model, *ops, with_removed));
}

TEST(SweepPrice, AddsUpThePricesOfItsParts) {
  const Model model(kShape);
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  const auto tokens = random_tokens(700, 128, 3);
  const SweepRequest request = drop_one(tokens, 620, {.keys = 40, .sinks = 3}, 5);
  const Counted counted = walked(model, *ops, request);
  Rates rates;
  rates.chunk_rows = ops->device().chunk_rows();
  rates.finish_rows.add(64.0, 64.0);  // a second a row
  EXPECT_NEAR(predict_seconds(rates, model.config, *ops, {&request, 1}), counted.finished_rows, 1e-6);
  rates.per_layer_load = 1e6;
  EXPECT_NEAR(predict_seconds(rates, model.config, *ops, {&request, 1}), counted.finished_rows + 5e6, 1e-3);
  EXPECT_EQ(predict_seconds(rates, model.config, *ops, {}), 0.0);
}

// Rows that are rounded: the sweep asks the backend for as many, and a price has them at the rates of their types.
TEST(SweepPrice, CountsTheRoundingOfKeysAndValues) {
  const Model model(kShape);
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  const auto tokens = random_tokens(700, 128, 3);
  const SweepRequest plain = drop_one(tokens, 620, {.keys = 40, .sinks = 3}, 5);
  SweepRequest typed = plain;
  for (std::size_t v = 0; v < typed.variants.size(); ++v) {
    // From the layer in which a lane leaves the base on, so that it has keys of its own in some of them.
    for (std::size_t layer = v; layer < 5; ++layer) {
      typed.variants[v][layer].kv = (v + layer) % 2 == 0 ? KvType::kFp8 : KvType::kInt4;
    }
  }
  int64_t n_rounded = 0;
  SweepSteps steps{.input = [](int64_t, bool, bool) {},
                   .attend = [](std::span<const kernels::AttentionCall>) {},
                   .finish = [](int64_t) {},
                   .round = [&](KvType, int64_t n) { n_rounded += n; }};
  const SweepLayout layout(model.config, {&typed, 1}, *ops);
  for (int64_t layer = 0; layer < model.config.n_layers; ++layer) walk_layer(layout, layer, steps);
  ASSERT_GT(n_rounded, 0);

  kernels::ProfiledOps profiled(*ops);
  model::ModelWeights weights(model.config, *model.checkpoint, profiled);
  sweep(profiled, model.config, weights, typed, {});
  double bytes = 0.0;
  for (const kernels::OperationProfile& operation : profiled.profile().operations) {
    if (operation.name == "round_kv") bytes += operation.bytes;
  }
  const auto row_bytes =
      static_cast<double>(4 * kernels::size_bytes(ops->device().activation_dtype()) * model.config.heads.kv_dim());
  EXPECT_EQ(static_cast<double>(n_rounded), bytes / row_bytes);

  Rates rates = measure_rates(*ops, model.config, weights, {&plain, 1});
  EXPECT_TRUE(rates.rounded_rows.empty()) << "a run without types measures nothing for them";
  const double without = predict_seconds(rates, model.config, *ops, {&typed, 1});
  rates.rounded_rows = measure_rates(*ops, model.config, weights, {&typed, 1}).rounded_rows;
  ASSERT_EQ(rates.rounded_rows.size(), 2U);
  double rounding = 0.0;
  steps.round = [&](KvType type, int64_t n) {
    rounding += rates.rounded_rows.at(type).seconds_of(static_cast<double>(n));
  };
  for (int64_t layer = 0; layer < model.config.n_layers; ++layer) walk_layer(layout, layer, steps);
  EXPECT_GT(rounding, 0.0);
  EXPECT_NEAR(predict_seconds(rates, model.config, *ops, {&typed, 1}), without + rounding, 1e-9 * (without + rounding));
  const std::vector<KvType> more = {KvType::kInt8};
  EXPECT_EQ(measure_rates(*ops, model.config, weights, {&plain, 1}, more).rounded_rows.count(KvType::kInt8), 1U);
}

TEST(Rates, AreMeasuredForAllThatASweepDoes) {
  const Model model(kShape);
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  const auto tokens = random_tokens(700, 128, 3);
  SweepRequest request = drop_one(tokens, 620, {.keys = 40, .sinks = 3}, 5);
  request.with_kl = true;
  const Rates rates = measure_rates(*ops, model.config, weights, {&request, 1});
  EXPECT_GT(rates.measuring_seconds, 0.0);
  EXPECT_GT(rates.per_layer_load, 0.0);
  for (const Curve* curve : {&rates.input_rows, &rates.finish_rows, &rates.score_rows, &rates.compare_rows}) {
    EXPECT_GT(curve->seconds_of(64.0), 0.0);
  }
  const AttentionLaunch launch{.rows = 704.0, .pairs = 699.0 * 350.0};
  EXPECT_LT(rates.attention.distance_to(launch), 1.0);
  EXPECT_GT(predict_seconds(rates, model.config, *ops, {&request, 1}), 0.0);
  EXPECT_EQ(measure_rates(*ops, model.config, weights, {}).chunk_rows, 1);  // nothing will come
}

TEST(SweepPrice, LongerTextsTakeLonger) {
  const Model model(kShape);
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  const auto tokens = random_tokens(300, 128, 3);
  const SweepRequest sample = drop_one(tokens, 280, {.keys = 40, .sinks = 3}, 5);
  const Rates rates = measure_rates(*ops, model.config, weights, {&sample, 1});
  const GenerationRequest request{.prompt = tokens, .windows = sample.base, .max_new_tokens = 64, .name = "a"};
  const auto seconds = [&](int64_t n) {
    return predict_generation_seconds(rates, model.config, *ops, {&request, 1}, {&n, 1});
  };
  const double one = seconds(1);
  EXPECT_GT(one, 0.0);
  // Steps cost about alike.
  EXPECT_NEAR((seconds(33) - one) / (seconds(17) - one), 2.0, 0.1);
}

TEST(Window, PairsAreThoseThatRowsSee) {
  for (const kernels::Window& window :
       {kernels::full_attention(), kernels::Window{.keys = 1}, kernels::Window{.keys = 7, .sinks = 3},
        kernels::Window{.keys = 7, .sinks = 3, .first_row = 20}, kernels::Window{.keys = 3, .sinks = 30, .end_row = 25},
        kernels::Window{.keys = 5, .first_row = 12, .end_row = 28}, kernels::Window{.keys = 5, .first_row = -4},
        kernels::Window{.keys = 5, .first_row = 90}, kernels::Window{.keys = 5, .end_row = 2}}) {
    for (int64_t first = 0; first < 40; first += 3) {
      for (int64_t end = first; end <= 40; ++end) {
        int64_t seen = 0;
        for (int64_t t = first; t < end; ++t) {
          for (int64_t j = 0; j <= t; ++j) seen += kernels::sees(window, t, j) ? 1 : 0;
        }
        ASSERT_EQ(kernels::attention_pairs(window, first, end), seen) << first << " " << end << " " << window.keys;
      }
    }
  }
}

}  // namespace
}  // namespace winnow::engine
