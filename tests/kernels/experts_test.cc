// Mixtures of experts of the CPU backend, against a plain float64 loop, with the row contract of kernels/ops.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"
#include "tests/kernels/cpu_backend_test.h"

namespace winnow::kernels {
namespace {

using Doubles = std::vector<double>;

constexpr int64_t kHidden = 48;
constexpr int64_t kFfn = 40;
constexpr int64_t kExperts = 12;

// A layer of experts with random weights.
struct Layer {
  Floats router = random_floats(kExperts * kHidden, 1, 0.5F);
  Floats router_bias = random_floats(kExperts, 2);
  Floats correction = random_floats(kExperts, 3, 0.3F);
  Floats gate_up = random_floats(kExperts * 2 * kFfn * kHidden, 4, 0.3F);
  Floats gate_up_bias = random_floats(kExperts * 2 * kFfn, 5);
  Floats down = random_floats(kExperts * kHidden * kFfn, 6, 0.3F);
  Floats down_bias = random_floats(kExperts * kHidden, 7);
  RouterShape shape{.n_experts = kExperts, .top_k = 3};
  Activation activation = Activation::kSilu;
  bool has_bias = false;
  bool has_correction = false;

  Router of_router() const {
    return {.weight = matrix(router, kExperts, kHidden),
            .bias = has_bias ? matrix(router_bias, kExperts, 1) : Matrix{},
            .correction = has_correction ? matrix(correction, kExperts, 1) : Matrix{},
            .shape = shape};
  }
  Experts of_experts() const {
    return {.gate_up = matrix(gate_up, kExperts * 2 * kFfn, kHidden),
            .gate_up_bias = has_bias ? matrix(gate_up_bias, kExperts * 2 * kFfn, 1) : Matrix{},
            .down = matrix(down, kExperts * kHidden, kFfn),
            .down_bias = has_bias ? matrix(down_bias, kExperts * kHidden, 1) : Matrix{}};
  }
  Floats run(Ops& ops, const Floats& x) const {
    Floats out(x.size());
    ops.experts(rows(x, kHidden), of_router(), of_experts(), activation, rows(out, kHidden));
    return out;
  }
};

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

double gated(Activation activation, double gate, double up) {
  if (activation == Activation::kSilu) return gate * sigmoid(gate) * up;
  const double g = std::min(gate, 7.0);
  return g * sigmoid(1.702 * g) * (std::clamp(up, -7.0, 7.0) + 1.0);
}

// W x + b; W (n_out, x.size()) from `first_row` of a larger one on.
Doubles product(const Floats& weight, const Floats* bias, int64_t first_row, int64_t n_out, const Doubles& x) {
  Doubles y;
  for (int64_t o = first_row; o < first_row + n_out; ++o) {
    double sum = bias == nullptr ? 0.0 : static_cast<double>((*bias)[static_cast<std::size_t>(o)]);
    for (std::size_t i = 0; i < x.size(); ++i) {
      sum += static_cast<double>(weight[static_cast<std::size_t>(o) * x.size() + i]) * x[i];
    }
    y.push_back(sum);
  }
  return y;
}

// The weight of each expert, 0 where it is not chosen.
Doubles expected_weights(const Layer& layer, const Doubles& x) {
  const RouterShape& shape = layer.shape;
  Doubles scores = product(layer.router, layer.has_bias ? &layer.router_bias : nullptr, 0, kExperts, x);
  double sum = 0.0;
  for (double& score : scores) {
    score = shape.scores == RouterScores::kSigmoid ? sigmoid(score) : std::exp(score);
    sum += score;
  }
  if (shape.scores == RouterScores::kSoftmax) {
    for (double& score : scores) score /= sum;
  }
  Doubles choice = scores;
  for (std::size_t e = 0; layer.has_correction && e < choice.size(); ++e) {
    choice[e] += static_cast<double>(layer.correction[e]);
  }
  const auto size = static_cast<std::size_t>(kExperts / shape.n_groups);
  std::vector<std::pair<double, std::size_t>> groups;
  for (std::size_t g = 0; g < choice.size() / size; ++g) {
    Doubles of_group(choice.begin() + static_cast<int64_t>(g * size),
                     choice.begin() + static_cast<int64_t>((g + 1) * size));
    std::ranges::sort(of_group, std::greater<>());
    groups.emplace_back(of_group[0] + of_group[1], g);
  }
  std::ranges::sort(groups, std::greater<>());
  groups.resize(static_cast<std::size_t>(shape.top_groups));
  std::vector<std::pair<double, std::size_t>> order;
  for (const auto& group : groups) {
    for (std::size_t e = group.second * size; e < (group.second + 1) * size; ++e) order.emplace_back(choice[e], e);
  }
  std::ranges::sort(order, std::greater<>());
  order.resize(static_cast<std::size_t>(shape.top_k));
  double of_chosen = 0.0;
  for (const auto& [score, e] : order) of_chosen += scores[e];
  const bool divides = shape.normalised || shape.scores == RouterScores::kSoftmaxOfChosen;
  Doubles weights(scores.size());
  for (const auto& [score, e] : order) {
    weights[e] = scores[e] / (divides ? of_chosen : 1.0) * static_cast<double>(shape.scale);
  }
  return weights;
}

Doubles expected_row(const Layer& layer, const Doubles& x) {
  const Doubles weights = expected_weights(layer, x);
  Doubles out(static_cast<std::size_t>(kHidden));
  for (int64_t e = 0; e < kExperts; ++e) {
    const double weight = weights[static_cast<std::size_t>(e)];
    if (weight == 0.0) continue;
    const Floats* bias = layer.has_bias ? &layer.gate_up_bias : nullptr;
    const Doubles gate = product(layer.gate_up, bias, e * 2 * kFfn, kFfn, x);
    const Doubles up = product(layer.gate_up, bias, e * 2 * kFfn + kFfn, kFfn, x);
    Doubles inner;
    for (std::size_t i = 0; i < gate.size(); ++i) inner.push_back(gated(layer.activation, gate[i], up[i]));
    const Doubles y = product(layer.down, layer.has_bias ? &layer.down_bias : nullptr, e * kHidden, kHidden, inner);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += weight * y[i];
  }
  return out;
}

// Every kind of router that a family has.
std::vector<Layer> layers() {
  std::vector<Layer> all(5);
  all[1].shape.normalised = true;
  all[2].shape = {.scores = RouterScores::kSigmoid,
                  .n_experts = kExperts,
                  .top_k = 4,
                  .n_groups = 4,
                  .top_groups = 2,
                  .normalised = true,
                  .scale = 2.5F};
  all[2].has_correction = true;
  all[3].shape.scores = RouterScores::kSoftmaxOfChosen;
  all[3].activation = Activation::kClampedSwiGlu;
  all[3].has_bias = true;
  all[4].shape.top_k = kExperts;
  return all;
}

class ExpertsTest : public CpuBackendTest {};
WINNOW_FOR_EACH_VARIANT(ExpertsTest);

TEST_P(ExpertsTest, MatchTheReferenceForEveryKindOfRouter) {
  const Floats x = random_floats(2 * tile_ * kHidden, 8);
  for (const Layer& layer : layers()) {
    const Floats out = layer.run(*ops_, x);
    for (int64_t row = 0; row < 2 * tile_; ++row) {
      const Doubles of_row(x.begin() + row * kHidden, x.begin() + (row + 1) * kHidden);
      const Doubles expected = expected_row(layer, of_row);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(static_cast<double>(out[static_cast<std::size_t>(row * kHidden) + i]), expected[i], 1e-4)
            << "row " << row << " top_k " << layer.shape.top_k;
      }
    }
  }
}

TEST_P(ExpertsTest, ARowIsTheSameAmongAnyOthersAndWithAnyNumberOfThreads) {
  const Floats x = random_floats(4 * tile_ * kHidden, 9);
  for (const Layer& layer : layers()) {
    const Floats whole = layer.run(*ops_, x);
    for (const int threads : {1, 3}) {
      const auto other = cpu::make_cpu_backend({.n_threads = threads});
      const Floats again = layer.run(*other, x);
      ASSERT_EQ(again, whole) << threads << " threads";
    }
    // The second tile by itself, after tiles of other rows, and with its every other row replaced.
    const auto begin = x.begin() + tile_ * kHidden;
    const Floats alone(begin, begin + tile_ * kHidden);
    Floats moved = random_floats(3 * tile_ * kHidden, 10);
    moved.insert(moved.end(), alone.begin(), alone.end());
    Floats mixed = random_floats(tile_ * kHidden, 11);
    for (int64_t row = 0; row < tile_; row += 2) {
      std::copy_n(alone.begin() + row * kHidden, kHidden, mixed.begin() + row * kHidden);
    }
    const Floats of_alone = layer.run(*ops_, alone);
    const Floats of_moved = layer.run(*ops_, moved);
    const Floats of_mixed = layer.run(*ops_, mixed);
    for (int64_t row = 0; row < tile_; ++row) {
      const float* expected = whole.data() + (tile_ + row) * kHidden;
      const auto is_same = [&](const Floats& values, int64_t at) {
        return std::equal(expected, expected + kHidden, values.begin() + at * kHidden);
      };
      ASSERT_TRUE(is_same(of_alone, row)) << "row " << row;
      ASSERT_TRUE(is_same(of_moved, 3 * tile_ + row)) << "row " << row;
      ASSERT_TRUE(row % 2 != 0 || is_same(of_mixed, row)) << "row " << row;
    }
  }
}

TEST_P(ExpertsTest, OfEquallyGoodExpertsTheLowerIsChosen) {
  Layer layer;
  layer.router.assign(layer.router.size(), 0.0F);
  layer.shape.top_k = 1;
  const Floats x = random_floats(tile_ * kHidden, 12);
  const Floats out = layer.run(*ops_, x);
  Layer first = layer;
  first.has_correction = true;
  first.correction.assign(first.correction.size(), -1.0F);
  first.correction[0] = 1.0F;
  EXPECT_EQ(out, first.run(*ops_, x));
}

TEST_P(ExpertsTest, RefuseWhatDoesNotFit) {
  const Floats x = random_floats(tile_ * kHidden, 13);
  const auto is_refused = [&](const auto& change) {
    Layer layer;
    change(layer.shape);
    try {
      layer.run(*ops_, x);
    } catch (const Error& error) {
      return error.code() == ExitCode::kInternal;
    }
    return false;
  };
  EXPECT_FALSE(is_refused([](RouterShape&) {}));
  EXPECT_TRUE(is_refused([](RouterShape& shape) { shape.n_experts = kExperts - 1; }));
  EXPECT_TRUE(is_refused([](RouterShape& shape) { shape.top_k = 0; }));
  EXPECT_TRUE(is_refused([](RouterShape& shape) { shape.top_k = kExperts + 1; }));
  EXPECT_TRUE(is_refused([](RouterShape& shape) { shape.n_groups = 5; }));
  EXPECT_TRUE(is_refused([](RouterShape& shape) { shape.n_groups = 4, shape.top_groups = 5; }));
  EXPECT_TRUE(is_refused([](RouterShape& shape) { shape.n_groups = 6, shape.top_k = 3; }));
}

}  // namespace
}  // namespace winnow::kernels
