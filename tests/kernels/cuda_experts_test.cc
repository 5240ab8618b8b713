// Mixtures of experts of the CUDA backend against their CPU twin, with the row contract of kernels/ops.h. Skipped where
// there is no GPU.
#include <algorithm>
#include <string>

#include "base/error.h"
#include "kernels/cuda/cuda.h"
#include "tests/kernels/cuda_twins.h"
#include "tests/tolerances.h"

namespace winnow::kernels {
namespace {

using Bits = std::vector<uint16_t>;

// A layer of experts with random weights that bfloat16 holds.
struct Layer {
  Layer(const std::string& named, int64_t hidden_size, int64_t ffn_size, const RouterShape& router_shape)
      : name(named), hidden(hidden_size), ffn(ffn_size), shape(router_shape) {
    const int64_t n = shape.n_experts;
    const auto size = [](int64_t n_in) { return 1.0F / std::sqrt(static_cast<float>(n_in)); };
    router = random_values(n * hidden, 1, 2.0F * size(hidden));
    router_bias = random_values(n, 2);
    correction = random_values(n, 3, 0.3F);
    gate_up = random_values(n * 2 * ffn * hidden, 4, 2.0F * size(hidden));
    gate_up_bias = random_values(n * 2 * ffn, 5);
    down = random_values(n * hidden * ffn, 6, size(ffn));
    down_bias = random_values(n * hidden, 7);
  }

  std::string name;
  int64_t hidden;
  int64_t ffn;
  RouterShape shape;
  Activation activation = Activation::kSilu;
  bool has_bias = false;
  bool has_correction = false;
  Floats router, router_bias, correction, gate_up, gate_up_bias, down, down_bias;
};

// A layer in the memory of both sides.
class ExpertTwins {
 public:
  explicit ExpertTwins(Layer layer) : layer_(std::move(layer)) {
    const int64_t n = layer_.shape.n_experts;
    const auto vector = [&](const Floats& values) {
      return Matrix{twins_.upload_float32(values, 1).data, DType::kF32, static_cast<int64_t>(values.size()), 1};
    };
    router_.weight = twins_.matrix(layer_.router, n, layer_.hidden);
    router_.shape = layer_.shape;
    experts_.gate_up = twins_.matrix(layer_.gate_up, n * 2 * layer_.ffn, layer_.hidden);
    experts_.down = twins_.matrix(layer_.down, n * layer_.hidden, layer_.ffn);
    if (layer_.has_correction) router_.correction = vector(layer_.correction);
    if (!layer_.has_bias) return;
    router_.bias = vector(layer_.router_bias);
    experts_.gate_up_bias = twins_.matrix(layer_.gate_up_bias, n * 2 * layer_.ffn, 1);
    experts_.down_bias = twins_.matrix(layer_.down_bias, n * layer_.hidden, 1);
  }

  Device& gpu() { return twins_.gpu().device(); }

  Floats on_cpu(Floats x) {
    const int64_t n = layer_.shape.n_experts;
    const auto matrix_if = [](bool holds, Floats& values) {
      return holds ? Twins::host_matrix(values, static_cast<int64_t>(values.size()), 1) : Matrix{};
    };
    const Router router{.weight = Twins::host_matrix(layer_.router, n, layer_.hidden),
                        .bias = matrix_if(layer_.has_bias, layer_.router_bias),
                        .correction = matrix_if(layer_.has_correction, layer_.correction),
                        .shape = layer_.shape};
    const Experts experts{.gate_up = Twins::host_matrix(layer_.gate_up, n * 2 * layer_.ffn, layer_.hidden),
                          .gate_up_bias = matrix_if(layer_.has_bias, layer_.gate_up_bias),
                          .down = Twins::host_matrix(layer_.down, n * layer_.hidden, layer_.ffn),
                          .down_bias = matrix_if(layer_.has_bias, layer_.down_bias)};
    Floats out(x.size());
    twins_.cpu().experts(Twins::host(x, layer_.hidden), router, experts, layer_.activation,
                         Twins::host(out, layer_.hidden));
    return out;
  }
  Bits on_gpu(const Floats& x) { return twins_.bits(run(x)); }
  Floats values_on_gpu(const Floats& x) { return twins_.download(run(x)); }

 private:
  Rows run(const Floats& x) {
    const Rows out = twins_.poisoned(static_cast<int64_t>(x.size()) / layer_.hidden, layer_.hidden);
    twins_.gpu().experts(twins_.upload(x, layer_.hidden), router_, experts_, layer_.activation, out);
    return out;
  }

  Twins twins_;
  Layer layer_;
  Router router_;
  Experts experts_;
};

// Every kind of router, activation and bias, sizes that fill no tile, and many small experts.
std::vector<Layer> layers() {
  std::vector<Layer> all;
  all.emplace_back("softmax", 72, 40, RouterShape{.n_experts = 12, .top_k = 3});
  all.emplace_back("normalised", 128, 96, RouterShape{.n_experts = 128, .top_k = 8, .normalised = true});
  all.emplace_back("groups", 264, 200,
                   RouterShape{.scores = RouterScores::kSigmoid,
                               .n_experts = 16,
                               .top_k = 4,
                               .n_groups = 4,
                               .top_groups = 2,
                               .normalised = true,
                               .scale = 2.5F});
  all.back().has_correction = true;
  all.emplace_back("biases", 360, 136,
                   RouterShape{.scores = RouterScores::kSoftmaxOfChosen, .n_experts = 33, .top_k = 4});
  all.back().activation = Activation::kClampedSwiGlu;
  all.back().has_bias = true;
  all.emplace_back("all experts", 64, 64, RouterShape{.n_experts = 5, .top_k = 5});
  all.back().activation = Activation::kGeluTanh;
  all.emplace_back("most experts", 64, 8, RouterShape{.n_experts = 512, .top_k = 32, .normalised = true});
  return all;
}

Floats part(const Floats& values, int64_t first, int64_t n, int64_t cols) {
  return {values.begin() + first * cols, values.begin() + (first + n) * cols};
}

class CudaExpertsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  }
};

TEST_F(CudaExpertsTest, MatchTheirTwinForEveryKindOfRouter) {
  for (const Layer& layer : layers()) {
    ExpertTwins twins(layer);
    const Floats x = random_values(768 * layer.hidden, 8);
    EXPECT_LT(relative_error(twins.values_on_gpu(x), twins.on_cpu(x)), kBf16Tolerance) << layer.name;
  }
}

// By itself, among a few, after other rows, twice, and in a second round of as many rows as are computed at a time.
TEST_F(CudaExpertsTest, ARowIsTheSameAmongAnyOthers) {
  constexpr int64_t kRows = 8192 + 256;
  for (const Layer& layer : layers()) {
    ExpertTwins twins(layer);
    const Floats x = random_values(kRows * layer.hidden, 9);
    const Bits whole = twins.on_gpu(x);
    EXPECT_EQ(twins.on_gpu(x), whole) << layer.name;
    for (const auto& [first, n] :
         {std::pair<int64_t, int64_t>{0, 128}, {5, 1}, {130, 7}, {1024, 1000}, {8192, 256}, {8300, 1}}) {
      const Bits expected(whole.begin() + first * layer.hidden, whole.begin() + (first + n) * layer.hidden);
      EXPECT_EQ(twins.on_gpu(part(x, first, n, layer.hidden)), expected)
          << layer.name << ": " << n << " rows from " << first;
    }
  }
}

// All rows go to one expert, and the others have none.
TEST_F(CudaExpertsTest, OfEquallyGoodExpertsTheLowerIsChosen) {
  Layer layer("ties", 72, 40, {.n_experts = 40, .top_k = 1});
  layer.router.assign(layer.router.size(), 0.0F);
  const Floats x = random_values(384 * layer.hidden, 10);
  Layer first = layer;
  first.has_correction = true;
  first.correction.assign(first.correction.size(), -1.0F);
  first.correction[0] = 1.0F;
  Layer last = first;
  std::swap(last.correction.front(), last.correction.back());
  const Bits found = ExpertTwins(layer).on_gpu(x);
  EXPECT_EQ(found, ExpertTwins(first).on_gpu(x));
  ExpertTwins of_last(last);
  EXPECT_NE(found, of_last.on_gpu(x));
  EXPECT_LT(relative_error(of_last.values_on_gpu(x), of_last.on_cpu(x)), kBf16Tolerance);
}

TEST_F(CudaExpertsTest, TakeTheMemoryThatTheyTell) {
  const Layer layer = layers()[1];
  ExpertTwins twins(layer);
  const auto predicted = [&](int64_t n_rows) {
    return twins.gpu().experts_bytes(n_rows, layer.hidden, layer.ffn, layer.shape);
  };
  const auto allocated = [&](int64_t n_rows) {
    const int64_t bytes_of_rows = 2 * n_rows * layer.hidden * 2;
    const int64_t before = twins.gpu().allocated_bytes();
    twins.on_gpu(random_values(n_rows * layer.hidden, 11));
    return twins.gpu().allocated_bytes() - before - bytes_of_rows;
  };
  allocated(128);
  EXPECT_EQ(allocated(1024), predicted(1024) - predicted(128));
  EXPECT_EQ(allocated(8192), predicted(8192) - predicted(1024));
  EXPECT_EQ(allocated(16384), 0);
  EXPECT_EQ(predicted(16384), predicted(8192));
}

TEST_F(CudaExpertsTest, TooManyExpertsAreRefusedBeforeAnythingIsComputed) {
  Twins twins;
  const auto is_refused = [&](const RouterShape& shape, int64_t ffn) {
    try {
      twins.gpu().device().experts_bytes(128, 64, ffn, shape);
    } catch (const Error& error) {
      return error.code() == ExitCode::kUnavailable;
    }
    return false;
  };
  EXPECT_FALSE(is_refused({.n_experts = 512, .top_k = 32}, 64));
  EXPECT_TRUE(is_refused({.n_experts = 513, .top_k = 8}, 64));
  EXPECT_TRUE(is_refused({.n_experts = 64, .top_k = 33}, 64));
  EXPECT_TRUE(is_refused({.n_experts = 64, .top_k = 8}, 60));
}

TEST_F(CudaExpertsTest, TheClampedGateMatchesItsTwin) {
  Twins t;
  constexpr int64_t kCols = 128;
  constexpr int64_t kRows = 256;
  Floats gate_up = random_values(kRows * 2 * kCols, 12, 6.0F);
  Floats expected(kRows * kCols);
  t.cpu().gate(Twins::host(gate_up, 2 * kCols), Activation::kClampedSwiGlu, Twins::host(expected, kCols));
  const Rows out = t.poisoned(kRows, kCols);
  t.gpu().gate(t.upload(gate_up, 2 * kCols), Activation::kClampedSwiGlu, out);
  EXPECT_LT(relative_error(t.download(out), expected), kBf16Tolerance);
}

}  // namespace
}  // namespace winnow::kernels
