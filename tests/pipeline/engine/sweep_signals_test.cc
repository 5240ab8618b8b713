// The signals of layers in a sweep on the CPU: lanes without a layer's attention equal a plain pass bit for bit,
// nothing depends on what is measured beside it, and where a window hides nothing the figures are exactly 0.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "kernels/cpu/cpu.h"
#include "model/layer.h"
#include "pipeline/engine/sweep.h"
#include "pipeline/engine/sweep_plan.h"
#include "tests/small_model.h"

namespace winnow::engine {
namespace {

SweepRequest with_signals(SweepRequest request) {
  request.with_kl = true;
  for (const SignalSpec& spec : signal_specs()) request.signals.names.insert(spec.name);
  request.signals.removed_rows = 20;
  request.signals.lazy = {.sinks = 3, .recent = 50, .last = 32};
  return request;
}

void expect_same_signals(const Score& a, const Score& b, const std::string& what) {
  EXPECT_EQ(a.nll_nats, b.nll_nats) << what;
  EXPECT_EQ(a.kl_nats, b.kl_nats) << what;
  EXPECT_EQ(a.token_nll_nats, b.token_nll_nats) << what;
  ASSERT_EQ(a.signals.size(), b.signals.size()) << what;
  for (const auto& [variable, expected] : b.signals) {
    const std::vector<double>& found = a.signals.at(variable);
    ASSERT_EQ(found.size(), expected.size()) << what << ", " << variable;
    for (std::size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(found[i] == expected[i] || (std::isnan(found[i]) && std::isnan(expected[i])))
          << what << ", " << variable;
    }
  }
}

// One pass over all rows of the base, layer after layer, without the attention of `removed` from first_row on.
class PlainPass {
 public:
  PlainPass(const Model& model, const SweepRequest& request)
      : model_(model),
        request_(request),
        ops_(cpu::make_cpu_backend({.n_threads = 2})),
        weights_(model.config, *model.checkpoint, *ops_),
        decoder_(*ops_, model.config),
        n_(static_cast<int64_t>(request.tokens.size()) - 1),
        rows_((n_ + ops_->device().row_tile() - 1) / ops_->device().row_tile() * ops_->device().row_tile()) {}

  double nll_without(int64_t removed, int64_t first_row) {
    const kernels::HeadShape& heads = model_.config.heads;
    const auto x_memory = allocate(model_.config.hidden);
    const auto without_memory = allocate(model_.config.hidden);
    const auto q_memory = allocate(heads.q_dim());
    const auto out_memory = allocate(heads.q_dim());
    const kernels::Rows x = x_memory->rows(kernels::DType::kF32, model_.config.hidden);
    const kernels::Rows without = without_memory->rows(kernels::DType::kF32, model_.config.hidden);
    const kernels::Rows q = q_memory->rows(kernels::DType::kF32, heads.q_dim());
    const kernels::Rows out = out_memory->rows(kernels::DType::kF32, heads.q_dim());
    const auto kv_memory = ops_->device().allocate(ops_->device().kv_bytes(rows_, heads), "a test");
    const kernels::KvSpan kv = ops_->device().kv_span(kv_memory->bytes(), heads);
    const auto table = weights_.rotary_table(rows_);
    const kernels::HostTensor host{
        reinterpret_cast<const std::byte*>(table.data()), kernels::DType::kF32, {rows_, heads.head_dim}, "angles"};
    const auto angle_memory = allocate(heads.head_dim);
    std::vector<int32_t> positions(static_cast<std::size_t>(rows_));
    std::iota(positions.begin(), positions.end(), 0);
    const auto positions_memory = ops_->device().upload(positions, "a test");
    const kernels::RowAngles angles{ops_->device().load(host, kernels::WeightUse::kTable, angle_memory->bytes()),
                                    positions_memory->as<int32_t>()};
    std::vector<int32_t> tokens(request_.tokens.begin(), request_.tokens.end() - 1);
    tokens.resize(static_cast<std::size_t>(rows_), -1);
    const auto token_memory = ops_->device().upload(tokens, "a test");
    ops_->embed(weights_.embedding(), token_memory->as<int32_t>(), 1.F, x);
    for (int64_t layer = 0; layer < model_.config.n_layers; ++layer) {
      const model::LayerWeights& weights = weights_.layer(layer);
      decoder_.attention_input(weights, x, {angles, angles}, kv, q);
      const kernels::AttentionCall call{.q = q,
                                        .out = out,
                                        .first_row = 0,
                                        .n_tokens = n_,
                                        .prefix = {},
                                        .own = {kv, 0},
                                        .window = request_.base[static_cast<std::size_t>(layer)].window,
                                        .sink_logits = weights.sink_logits};
      ops_->attention(std::span(&call, 1), heads);
      ops_->copy_rows(x, without);
      decoder_.finish(weights, out, x);
      if (layer != removed) continue;
      decoder_.finish(weights, {}, without);
      ops_->copy_rows(without.from(first_row), x.from(first_row));
    }
    return score(x);
  }

 private:
  std::unique_ptr<kernels::Buffer> allocate(int64_t cols) {
    return ops_->device().allocate(rows_ * cols * 4, "a test");
  }

  double score(kernels::Rows x) {
    std::vector<int32_t> targets(static_cast<std::size_t>(rows_), -1);
    for (int64_t row = request_.answer_start - 1; row < n_; ++row) {
      targets[static_cast<std::size_t>(row)] = request_.tokens[static_cast<std::size_t>(row + 1)];
    }
    std::vector<double> nll(targets.size(), 0.0);
    std::vector<uint8_t> hits(targets.size());
    const auto memory = allocate(model_.config.hidden);
    const kernels::Rows normed = memory->rows(kernels::DType::kF32, model_.config.hidden);
    ops_->norm(x, weights_.final_norm(), normed);
    ops_->token_nll(normed, weights_.head(), {}, targets, {nll, hits});
    return std::accumulate(nll.begin(), nll.end(), 0.0) / static_cast<double>(n_ - request_.answer_start + 1);
  }

  const Model& model_;
  const SweepRequest& request_;
  std::unique_ptr<kernels::Ops> ops_;
  model::ModelWeights weights_;
  model::DecoderLayer decoder_;
  int64_t n_;
  int64_t rows_;
};

TEST(SweepSignals, LanesWithoutAttentionEqualAPlainPassBitForBit) {
  const Model model({.n_layers = 4, .seed = 7});
  struct Case {
    int64_t n_tokens, answer_tokens, removed_rows;
  };
  // Inside a tile, at its edge, in the answer's own tile and before it, all rows, one row, none before the answer.
  for (const Case& c : {Case{300, 20, 20}, Case{300, 44, 0}, Case{300, 20, 150}, Case{300, 20, 1000}, Case{129, 1, 0},
                        Case{200, 190, 3}, Case{90, 4, 64}}) {
    const auto tokens = random_tokens(c.n_tokens, 128, 3);
    SweepRequest request =
        with_signals(drop_one(tokens, c.n_tokens - c.answer_tokens, {40, 3, 0, kernels::kNoLimit}, 4));
    // The base windows layer 2, and its variant does not.
    std::swap(request.base, request.variants[2]);
    for (const std::size_t v : {0U, 1U, 3U}) request.variants[v][2] = request.base[2];
    request.signals.removed_rows = c.removed_rows;
    const SweepResult result = model.run(request);
    PlainPass plain(model, request);
    const int64_t first_row = std::max<int64_t>(0, request.answer_start - c.removed_rows);
    for (int64_t layer = 0; layer < 4; ++layer) {
      const double expected = first_row < c.n_tokens - 1 ? plain.nll_without(layer, first_row) : result.base.nll_nats;
      EXPECT_EQ(value_of(result.variants[static_cast<std::size_t>(layer)].signals, "nll_removed"), expected)
          << c.n_tokens << " tokens, " << c.removed_rows << " rows, layer " << layer;
      if (first_row < c.n_tokens - 1) {
        EXPECT_NE(expected, result.base.nll_nats);
      }
    }
  }
}

TEST(SweepSignals, ChangeNoOtherFigureNorDependOnWhatIsMeasuredBeside) {
  const Model model({.n_layers = 4, .hidden = 96, .ffn = 1100, .seed = 9});
  // T - 1 rows fill whole tiles: the row of the last token, which a lazy ratio needs, begins another one.
  for (const int64_t n_tokens : {333, 321}) {
    const auto tokens = random_tokens(n_tokens, 128, 4);
    const SweepRequest plain = drop_one(tokens, 300, {50, 2, 0, kernels::kNoLimit}, 4);
    const SweepRequest all = with_signals(plain);
    const SweepResult without = model.run(plain);
    const SweepResult reference = model.run(all);
    EXPECT_EQ(reference.base.token_nll_nats, without.base.token_nll_nats);
    for (std::size_t v = 0; v < 4; ++v) {
      EXPECT_EQ(reference.variants[v].token_nll_nats, without.variants[v].token_nll_nats);
      EXPECT_EQ(reference.variants[v].nll_nats, without.variants[v].nll_nats);
      SweepRequest alone = all;
      alone.variants = {all.variants[v]};
      expect_same_signals(model.run(alone, 1).variants[0], reference.variants[v], "alone, one thread");
    }
    SweepRequest reversed = all;
    std::reverse(reversed.variants.begin(), reversed.variants.end());
    const SweepResult backwards = model.run(reversed, 5);
    for (std::size_t v = 0; v < 4; ++v) expect_same_signals(backwards.variants[3 - v], reference.variants[v], "order");
  }
}

TEST(SweepSignals, StackedRequestsGiveWhatEachAloneGivesAndTakeThePredictedMemory) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto first = random_tokens(300, 128, 1);
  const auto second = random_tokens(64, 128, 2);
  const auto third = random_tokens(411, 128, 4);
  std::vector<SweepRequest> requests = {with_signals(drop_one(first, 280, {60, 3, 0, kernels::kNoLimit}, 4)),
                                        with_signals(drop_one(second, 63, {60, 3, 0, kernels::kNoLimit}, 4)),
                                        drop_one(third, 400, {60, 3, 380, 400}, 4)};
  requests[1].signals.removed_rows = SignalOptions::kAllRows;
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  ops->device().reset_peak();
  const int64_t before = ops->device().allocated_bytes();
  const std::vector<SweepResult> together = sweep(*ops, model.config, weights, requests, {});
  EXPECT_EQ(ops->device().peak_allocated_bytes() - before, predict_sweep_bytes(model.config, *ops, requests));
  for (std::size_t r = 0; r < requests.size(); ++r) {
    ops->device().reset_peak();
    const SweepResult alone = sweep(*ops, model.config, weights, requests[r], {});
    EXPECT_EQ(ops->device().peak_allocated_bytes() - before,
              predict_sweep_bytes(model.config, *ops, std::span(&requests[r], 1)));
    for (std::size_t v = 0; v < 4; ++v) {
      expect_same_signals(together[r].variants[v], alone.variants[v], "request " + std::to_string(r));
    }
  }
}

TEST(SweepSignals, AreExactlyZeroWhereTheWindowHidesNothing) {
  const Model model({.n_layers = 3, .seed = 5});
  const auto tokens = random_tokens(200, 128, 3);
  for (const kernels::Window& window :
       {kernels::Window{200, 0, 0, kernels::kNoLimit}, kernels::Window{kernels::kNoLimit / 4, 0, 0, kernels::kNoLimit},
        kernels::Window{150, 50, 0, kernels::kNoLimit}}) {
    const SweepResult result = model.run(with_signals(drop_one(tokens, 180, window, 3)));
    for (const Score& variant : result.variants) {
      EXPECT_EQ(variant.kl_nats, 0.0);
      const std::vector<double>& mass = variant.signals.at("attention_mass_outside_kv_head");
      EXPECT_EQ(mass, std::vector<double>(mass.size(), 0.0));
      EXPECT_EQ(variant.nll_nats, result.base.nll_nats);
      EXPECT_NE(value_of(variant.signals, "nll_removed"), result.base.nll_nats)
          << "its attention is needed all the same";
    }
  }
}

TEST(SweepSignals, RatiosOfLongRecencyAreOneAndShortSequencesHaveNone) {
  const Model model({.n_layers = 2, .seed = 5});
  const auto tokens = random_tokens(120, 128, 3);
  SweepRequest request = with_signals(drop_one(tokens, 100, {40, 3, 0, kernels::kNoLimit}, 2));
  request.signals.lazy = LazyWindow{.sinks = 0, .recent = 110, .last = 1};
  for (const Score& variant : model.run(request).variants) {
    EXPECT_GT(value_of(variant.signals, "lazy_ratio"), 0.5);
    EXPECT_LT(value_of(variant.signals, "lazy_ratio"), 1.0);
    EXPECT_EQ(variant.signals.at("lazy_ratio_compat"), variant.signals.at("lazy_ratio"))
        << "of the last query both are the same";
  }
  request.signals.lazy = LazyWindow{.sinks = 1, .recent = 110, .last = 200};
  for (const Score& variant : model.run(request).variants) {
    EXPECT_TRUE(std::isnan(variant.signals.at("lazy_ratio").front()) &&
                std::isnan(variant.signals.at("lazy_ratio_compat").front()));
  }
}

TEST(SweepSignals, PlanCountsTheirLanes) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(1024, 128, 3);
  SweepRequest request = drop_one(tokens, 1000, {96, 4, 0, kernels::kNoLimit}, 4);
  request.signals = {.names = {"sensitivity"}, .removed_rows = 32};
  const SweepPlan plan = plan_sweep(model.config, request, 64);
  EXPECT_EQ(plan.n_lanes, 8);
  // Lanes that live 4, 3, 2 and 1 layers, of each kind; those without attention begin at the tile of row 968.
  EXPECT_EQ(plan.row_layers, 4 * 1024 + 10 * (1024 - 64) + 10 * (1024 - 960));
}

}  // namespace
}  // namespace winnow::engine
