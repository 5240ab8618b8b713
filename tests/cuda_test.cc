// Every operation of the CUDA backend against its CPU twin, and the whole sweep. Skipped where there is no GPU.

#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/backend.h"
#include "model/random_checkpoint.h"
#include "model/safetensors.h"
#include "pipeline/sweep.h"
#include "tests/tolerances.h"

namespace winnow {
namespace {

using Floats = std::vector<float>;
using Attention = CudaOptions::Attention;

float round_to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U);
}

Floats random_values(int64_t count, uint32_t seed, float scale = 1.0F) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  Floats values(static_cast<std::size_t>(count));
  for (float& v : values) v = round_to_bf16(normal(generator));
  return values;
}

int64_t round_up(int64_t n, int64_t tile) { return (n + tile - 1) / tile * tile; }

// Activations on both sides: float32 on the CPU, bfloat16 on the GPU.
class Twins {
 public:
  explicit Twins(Attention attention = Attention::kAuto, DType residual = DType::kBf16)
      : cpu_(make_cpu_backend({.n_threads = 0})),
        gpu_(make_cuda_backend({.device = 0, .attention = attention, .residual = residual})) {}

  Backend& cpu() { return *cpu_; }
  Backend& gpu() { return *gpu_; }

  void* upload(const Floats& values) {
    std::vector<uint16_t> bits;
    for (const float v : values) bits.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16));
    return upload_bytes(bits.data(), bits.size() * 2);
  }
  void* upload_bytes(const void* data, std::size_t size) {
    buffers_.push_back(gpu_->allocate(static_cast<int64_t>(size), "a test"));
    gpu_->synchronize();
    EXPECT_EQ(cudaMemcpy(buffers_.back()->data(), data, size, cudaMemcpyHostToDevice), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // a copy from pageable memory may return before it has arrived
    return buffers_.back()->data();
  }
  void* poisoned(int64_t count) { return upload(Floats(static_cast<std::size_t>(count), NAN)); }
  std::vector<uint16_t> bits(const void* data, int64_t count) {
    gpu_->synchronize();
    std::vector<uint16_t> result(static_cast<std::size_t>(count));
    EXPECT_EQ(cudaMemcpy(result.data(), data, result.size() * 2, cudaMemcpyDeviceToHost), cudaSuccess);
    return result;
  }
  Floats download(const void* data, int64_t count) {
    Floats values;
    for (const uint16_t b : bits(data, count)) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(b) << 16));
    return values;
  }
  Matrix matrix(const Floats& values, int64_t rows, int64_t cols) { return {upload(values), DType::kBf16, rows, cols}; }
  static Matrix host_matrix(Floats& values, int64_t rows, int64_t cols) {
    return {values.data(), DType::kF32, rows, cols};
  }

 private:
  std::unique_ptr<Backend> cpu_;
  std::unique_ptr<Backend> gpu_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

// Root mean square of the difference over that of the reference.
double relative_error(const Floats& found, const Floats& expected) {
  double difference = 0.0;
  double size = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(found[i]) - expected[i], 2.0);
    size += std::pow(static_cast<double>(expected[i]), 2.0);
  }
  return std::sqrt(difference / size);
}

class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  }
};

TEST_F(CudaTest, RowWiseOperationsMatchTheirTwins) {
  Twins t;
  for (const int64_t cols : {64, 128, 2560}) {
    constexpr int64_t kRows = 256;
    Floats x = random_values(kRows * cols, 1);
    Floats weight = random_values(cols, 2);
    Floats expected(x.size());
    t.cpu().rms_norm(x.data(), Twins::host_matrix(weight, cols, 1), 1e-6F, expected.data(), kRows);
    void* out = t.poisoned(kRows * cols);
    t.gpu().rms_norm(t.upload(x), t.matrix(weight, cols, 1), 1e-6F, out, kRows);
    EXPECT_LT(relative_error(t.download(out, kRows * cols), expected), kBf16Tolerance) << "rms_norm " << cols;

    Floats gate_up = random_values(kRows * 2 * cols, 3, 4.0F);
    t.cpu().swiglu(gate_up.data(), expected.data(), kRows, cols);
    void* gated = t.poisoned(kRows * cols);
    t.gpu().swiglu(t.upload(gate_up), gated, kRows, cols);
    EXPECT_LT(relative_error(t.download(gated, kRows * cols), expected), kBf16Tolerance) << "swiglu " << cols;

    std::vector<int32_t> tokens(kRows, -1);
    for (std::size_t i = 0; i < 5; ++i) tokens[i] = static_cast<int32_t>((3 * i + 1) % 8);
    const auto device_tokens = t.gpu().upload(tokens, "tokens");
    Floats table = random_values(8 * cols, 4);
    t.cpu().embed(Twins::host_matrix(table, 8, cols), tokens.data(), expected.data(), kRows);
    void* embedded = t.poisoned(kRows * cols);
    t.gpu().embed(t.matrix(table, 8, cols), static_cast<const int32_t*>(device_tokens->data()), embedded, kRows);
    EXPECT_EQ(t.download(embedded, kRows * cols), expected) << "embed " << cols;
  }
}

TEST_F(CudaTest, ResidualRowsInFloat32MatchTheirTwins) {
  Twins t(Attention::kAuto, DType::kF32);
  constexpr int64_t kRows = 256;
  constexpr int64_t kIn = 192;
  constexpr int64_t kOut = 320;
  // A residual row of the kind that bfloat16 would round.
  Floats residual(static_cast<std::size_t>(kRows * kOut));
  std::mt19937 generator(3);
  for (float& v : residual) v = std::normal_distribution<float>(0.0F, 1.0F)(generator);
  Floats x = random_values(kRows * kIn, 1);
  Floats weight = random_values(kOut * kIn, 2);
  Floats bias = random_values(kOut, 3);
  Floats norm = random_values(kOut, 4);
  void* rows = t.upload_bytes(residual.data(), residual.size() * 4);
  t.gpu().linear(t.upload(x), t.matrix(weight, kOut, kIn), t.matrix(bias, kOut, 1), rows, kRows, true);
  t.cpu().linear(x.data(), Twins::host_matrix(weight, kOut, kIn), Twins::host_matrix(bias, kOut, 1), residual.data(),
                 kRows, true);
  Floats found(residual.size());
  t.gpu().synchronize();
  ASSERT_EQ(cudaMemcpy(found.data(), rows, found.size() * 4, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_LT(relative_error(found, residual), kAttentionTolerance);
  Floats expected(residual.size());
  t.cpu().rms_norm(residual.data(), Twins::host_matrix(norm, kOut, 1), 1e-6F, expected.data(), kRows);
  void* out = t.poisoned(kRows * kOut);
  t.gpu().rms_norm(rows, t.matrix(norm, kOut, 1), 1e-6F, out, kRows);
  EXPECT_LT(relative_error(t.download(out, kRows * kOut), expected), kBf16Tolerance);
}

TEST_F(CudaTest, LinearMatchesItsTwinAndARowIsTheSameAtEveryStackSize) {
  Twins t;
  for (const auto& [n_out, n_in] : {std::pair<int64_t, int64_t>{128, 64}, {768, 128}, {6144, 2560}, {2560, 9728}}) {
    const int64_t n_rows = n_in > 1000 ? 1024 : 2048;
    Floats x = random_values(n_rows * n_in, 5);
    Floats weight = random_values(n_out * n_in, 6, 1.0F / std::sqrt(static_cast<float>(n_in)));
    Floats bias = random_values(n_out, 7);
    const Floats before = random_values(n_rows * n_out, 8);
    Floats expected = before;
    t.cpu().linear(x.data(), Twins::host_matrix(weight, n_out, n_in), Twins::host_matrix(bias, n_out, 1),
                   expected.data(), n_rows, true);
    void* device_x = t.upload(x);
    const Matrix device_weight = t.matrix(weight, n_out, n_in);
    const Matrix device_bias = t.matrix(bias, n_out, 1);
    void* whole = t.upload(before);
    t.gpu().linear(device_x, device_weight, device_bias, whole, n_rows, true);
    EXPECT_LT(relative_error(t.download(whole, n_rows * n_out), expected), kBf16Tolerance) << n_out << " x " << n_in;
    const std::vector<uint16_t> bits = t.bits(whole, n_rows * n_out);
    for (const int64_t n : {128, 256, 384, 896}) {
      for (const int64_t first : {int64_t{0}, int64_t{128}}) {
        const Floats part_before(before.begin() + first * n_out, before.begin() + (first + n) * n_out);
        void* part = t.upload(part_before);
        t.gpu().linear(static_cast<std::byte*>(device_x) + first * n_in * 2, device_weight, device_bias, part, n, true);
        const std::vector<uint16_t> part_bits = t.bits(part, n * n_out);
        EXPECT_TRUE(std::equal(part_bits.begin(), part_bits.end(), bits.begin() + first * n_out))
            << n_out << " x " << n_in << ": rows " << first << " to " << first + n;
      }
    }
  }
}

TEST_F(CudaTest, TokenNllMatchesItsTwin) {
  Twins t;
  for (const int64_t vocab : {64, 1000, 40000}) {
    constexpr int64_t kHidden = 128;
    constexpr int64_t kRows = 256;
    Floats x = random_values(kRows * kHidden, 9);
    Floats head = random_values(vocab * kHidden, 10, 0.2F);
    std::vector<int32_t> targets(kRows, -1);
    for (std::size_t i = 5; i < kRows; i += 3)
      targets[i] = static_cast<int32_t>((i * 977) % static_cast<std::size_t>(vocab));
    std::vector<double> expected(kRows, -1.0);
    std::vector<double> found(kRows, -1.0);
    std::vector<uint8_t> expected_hit(kRows, 9);
    std::vector<uint8_t> hit(kRows, 9);
    t.cpu().token_nll(x.data(), Twins::host_matrix(head, vocab, kHidden), targets, kRows,
                      {expected.data(), expected_hit.data()});
    t.gpu().token_nll(t.upload(x), t.matrix(head, vocab, kHidden), targets, kRows, {found.data(), hit.data()});
    for (std::size_t i = 0; i < kRows; ++i) {
      EXPECT_NEAR(found[i], expected[i], kNllTolerance * (1.0 + expected[i])) << "vocab " << vocab << " row " << i;
    }
    EXPECT_EQ(hit, expected_hit) << vocab;
  }
}

struct Sequence {
  HeadShape heads;
  int64_t n_tokens;
  Floats q;
  Floats kv;
  Floats norm;
  Floats angles;
  std::vector<int32_t> positions;
  Sequence(const HeadShape& shape, int64_t n, int64_t padded)
      : heads(shape),
        n_tokens(n),
        q(random_values(padded * shape.q_dim(), 11)),
        kv(random_values(padded * 2 * shape.kv_dim(), 12)),
        norm(random_values(shape.head_dim, 13)),
        angles(static_cast<std::size_t>(padded * shape.head_dim)),
        positions(static_cast<std::size_t>(padded)) {
    std::iota(positions.begin(), positions.end(), 0);
    for (int64_t p = 0; p < padded; ++p) {
      for (int64_t i = 0; i < shape.head_dim / 2; ++i) {
        const double angle =
            static_cast<double>(p) * std::pow(1e4, -2.0 * static_cast<double>(i) / static_cast<double>(shape.head_dim));
        angles[static_cast<std::size_t>(p * shape.head_dim + i)] = static_cast<float>(std::cos(angle));
        angles[static_cast<std::size_t>(p * shape.head_dim + shape.head_dim / 2 + i)] =
            static_cast<float>(std::sin(angle));
      }
    }
  }
};

// Rope, stored keys and attention of rows [first_row, padded) with the keys before `split` elsewhere.
Floats cpu_attention(Backend& backend, const Sequence& s, const Window& window, int64_t padded) {
  Floats q = s.q;
  Floats kv = s.kv;
  Floats norm = s.norm;
  Floats angles = s.angles;
  const Matrix table{angles.data(), DType::kF32, padded, s.heads.head_dim};
  const HeadNorm head_norm{{norm.data(), DType::kF32, s.heads.head_dim, 1}, 1e-6F};
  const RowAngles row_angles{table, s.positions.data()};
  backend.rope(q.data(), s.heads, head_norm, row_angles, padded);
  auto memory = backend.allocate(backend.kv_bytes(padded, s.heads), "keys");
  const KvRows keys{memory->data(), 0, padded};
  backend.store_kv(kv.data(), s.heads, head_norm, row_angles, padded, memory->data());
  Floats out(static_cast<std::size_t>(padded * s.heads.q_dim()));
  const AttentionCall call{q.data(), out.data(), 0, padded, s.n_tokens, {}, keys, window};
  backend.attention({&call, 1}, s.heads);
  return out;
}

std::vector<uint16_t> gpu_attention(Twins& t, const Sequence& s, const Window& window, int64_t padded, int64_t first,
                                    int64_t split) {
  Backend& backend = t.gpu();
  void* q = t.upload(s.q);
  const Matrix table{t.upload_bytes(s.angles.data(), s.angles.size() * 4), DType::kF32, padded, s.heads.head_dim};
  const HeadNorm head_norm{t.matrix(s.norm, s.heads.head_dim, 1), 1e-6F};
  const auto positions = backend.upload(s.positions, "positions");
  const RowAngles row_angles{table, static_cast<const int32_t*>(positions->data())};
  backend.rope(q, s.heads, head_norm, row_angles, padded);
  auto prefix = backend.allocate(backend.kv_bytes(padded, s.heads), "keys");
  auto own = backend.allocate(backend.kv_bytes(padded - split, s.heads), "keys");
  const KvRows prefix_rows{prefix->data(), 0, padded};
  const KvRows own_rows{own->data(), split, padded - split};
  void* kv = t.upload(s.kv);
  backend.store_kv(kv, s.heads, head_norm, row_angles, padded, prefix->data());
  kv = t.upload(s.kv);  // the call before overwrote it
  backend.store_kv(static_cast<std::byte*>(kv) + split * 4 * s.heads.kv_dim(), s.heads, head_norm,
                   row_angles.from(split), padded - split, own->data());
  const int64_t count = (padded - first) * s.heads.q_dim();
  void* out = t.poisoned(count);
  const AttentionCall call{static_cast<std::byte*>(q) + first * s.heads.q_dim() * 2,
                           out,
                           first,
                           padded - first,
                           s.n_tokens,
                           prefix_rows,
                           own_rows,
                           window};
  backend.attention({&call, 1}, s.heads);
  return t.bits(out, count);
}

Floats to_floats(const std::vector<uint16_t>& bits) {
  Floats values;
  for (const uint16_t b : bits) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(b) << 16));
  return values;
}

class CudaAttention : public ::testing::TestWithParam<Attention> {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  }
};

TEST_P(CudaAttention, MatchesItsTwinOverOddShapes) {
  Twins t(GetParam());
  for (const int64_t head_dim : {8, 24, 32, 64, 96, 128}) {
    for (const int64_t group : {1, 4, 8}) {
      Twins fresh(GetParam());
      for (const int64_t n : {1, 127, 128, 129, 1000}) {
        if ((group == 8 || head_dim < 32) && n != 1000) continue;
        const int64_t padded = round_up(n, 128);
        const HeadShape heads{2 * group, 2, head_dim, 1.0F / std::sqrt(static_cast<float>(head_dim))};
        const Sequence s(heads, n, padded);
        for (const Window& w : {full_attention(), Window{1, 0, 0, kNoLimit}, Window{64, 1, 0, kNoLimit},
                                Window{std::max<int64_t>(1, n - 1), 0, 0, kNoLimit}, Window{n, 0, 0, kNoLimit},
                                Window{100, 4, 0, kNoLimit}, Window{64, 100, 0, kNoLimit},
                                Window{50, 4, n - 20, kNoLimit}, Window{50, 0, 0, n - 7}}) {
          const Floats expected = cpu_attention(fresh.cpu(), s, w, padded);
          Floats found = to_floats(gpu_attention(fresh, s, w, padded, 0, 0));
          const auto real = static_cast<std::size_t>(n * heads.q_dim());
          found.resize(real);
          EXPECT_LT(relative_error(found, Floats(expected.begin(), expected.begin() + static_cast<int64_t>(real))),
                    kBf16AttentionTolerance)
              << "n " << n << " head_dim " << head_dim << " group " << group << " W " << w.keys << " S " << w.sinks
              << " rows " << w.first_row << " to " << w.end_row;
        }
      }
    }
  }
}

TEST_P(CudaAttention, SplitKeysGiveTheSame) {
  Twins t(GetParam());
  const HeadShape heads{8, 2, 128, 0.088F};
  const Sequence s(heads, 1408, 1408);
  for (const Window& w : {full_attention(), Window{200, 4, 0, kNoLimit}}) {
    const std::vector<uint16_t> whole = gpu_attention(t, s, w, 1408, 0, 0);
    for (const int64_t first : {int64_t{256}, int64_t{1280}}) {
      const std::vector<uint16_t> part = gpu_attention(t, s, w, 1408, first, first);
      const Floats expected = to_floats({whole.begin() + first * heads.q_dim(), whole.end()});
      EXPECT_LT(relative_error(to_floats(part), expected), kBf16AttentionTolerance) << first;
      // A short lane is computed in two halves, else the same kernel sees the same keys.
      if (first == 256 || GetParam() == Attention::kOwn) {
        EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first * heads.q_dim())) << first;
      }
    }
  }
}

// Short lanes side by side: each is what it is alone, whatever the number of its neighbours.
TEST_P(CudaAttention, StackedShortLanesGiveTheSame) {
  Twins t(GetParam());
  Backend& backend = t.gpu();
  const HeadShape heads{8, 2, 128, 0.088F};
  constexpr int64_t kLaneRows = 256;
  constexpr int64_t kSplit = 2048;
  constexpr std::size_t kLanes = 21;
  const Sequence base(heads, kSplit + kLaneRows - 9, kSplit + kLaneRows);
  const KvRows prefix{t.upload(base.kv), 0, kSplit + kLaneRows};
  void* q = t.upload(random_values(kLanes * kLaneRows * heads.q_dim(), 21));
  void* kv = t.upload(random_values(kLanes * kLaneRows * 2 * heads.kv_dim(), 22));
  const int64_t count = kLaneRows * heads.q_dim();
  void* together = t.poisoned(kLanes * count);
  void* alone = t.poisoned(kLanes * count);
  const auto call_of = [&](std::size_t lane, void* out) {
    const auto rows = static_cast<int64_t>(lane);
    return AttentionCall{static_cast<std::byte*>(q) + rows * count * 2,
                         static_cast<std::byte*>(out) + rows * count * 2,
                         kSplit,
                         kLaneRows,
                         base.n_tokens,
                         prefix,
                         {static_cast<std::byte*>(kv) + backend.kv_bytes(rows * kLaneRows, heads), kSplit, kLaneRows},
                         full_attention()};
  };
  std::vector<AttentionCall> calls;
  for (std::size_t lane = 0; lane < kLanes; ++lane) calls.push_back(call_of(lane, together));
  backend.attention(calls, heads);
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    const AttentionCall call = call_of(lane, alone);
    backend.attention({&call, 1}, heads);
  }
  EXPECT_EQ(t.bits(together, kLanes * count), t.bits(alone, kLanes * count));
  // Against the own kernel in one pass, which other tests hold to the CPU.
  Twins own(Attention::kOwn);
  backend.synchronize();
  void* expected = t.poisoned(kLanes * count);
  for (AttentionCall& call : calls) {
    call.out =
        static_cast<std::byte*>(expected) + (static_cast<std::byte*>(call.out) - static_cast<std::byte*>(together));
  }
  own.gpu().attention(calls, heads);
  own.gpu().synchronize();
  const auto real_rows = static_cast<std::ptrdiff_t>((kLaneRows - 9) * heads.q_dim());
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    Floats found = t.download(static_cast<std::byte*>(together) + static_cast<int64_t>(lane) * count * 2, real_rows);
    Floats wanted = t.download(static_cast<std::byte*>(expected) + static_cast<int64_t>(lane) * count * 2, real_rows);
    EXPECT_LT(relative_error(found, wanted), kBf16AttentionTolerance) << lane;
  }
}

// Plans that were built ahead compute what those built on demand do.
TEST_P(CudaAttention, PreparedCallsGiveTheSame) {
  const HeadShape heads{8, 2, 128, 0.088F};
  const Sequence s(heads, 2300, 2304);
  const Window w{200, 4, 0, kNoLimit};
  Twins on_demand(GetParam());
  Twins prepared(GetParam());
  const AttentionCall shape{nullptr, nullptr, 0, 2304, 2300, {}, {nullptr, 0, 2304}, w};
  prepared.gpu().prepare_attention({&shape, 1}, heads);
  EXPECT_EQ(gpu_attention(prepared, s, w, 2304, 0, 0), gpu_attention(on_demand, s, w, 2304, 0, 0));
}

INSTANTIATE_TEST_SUITE_P(Paths, CudaAttention, ::testing::Values(Attention::kCudnn, Attention::kOwn),
                         [](const auto& tested) { return tested.param == Attention::kOwn ? "own" : "cudnn"; });

TEST_F(CudaTest, SweepAgreesWithTheCpu) {
  const auto directory = std::filesystem::temp_directory_path() / ("winnow-cuda-test-" + std::to_string(getpid()));
  for (const char* family : {"qwen3", "qwen2", "llama", "mistral"}) {
    write_random_checkpoint(directory, {.model_type = family,
                                        .n_layers = 4,
                                        .hidden = 128,
                                        .n_heads = 4,
                                        .n_kv_heads = 2,
                                        .head_dim = 32,
                                        .ffn = 256,
                                        .vocab = 512,
                                        .seed = 3});
    const ModelConfig config = read_config(directory);
    const Checkpoint checkpoint(directory);
    std::vector<int32_t> tokens(1100);
    std::mt19937 generator(5);
    for (int32_t& token : tokens) token = static_cast<int32_t>(generator() % 512);
    for (const Window& w : {Window{100, 4, 0, kNoLimit}, Window{100, 0, 1060 - 32, kNoLimit}}) {
      SweepRequest request{.tokens = tokens,
                           .answer_start = 1060,
                           .window = w,
                           .base = Pattern(4, false),
                           .variants = {},
                           .per_token = false};
      for (std::size_t l = 0; l < 4; ++l) {
        request.variants.push_back(request.base);
        request.variants.back()[l] = true;
      }
      const auto run = [&](Backend& backend, const SweepRequest& what) {
        ModelWeights weights(config, checkpoint, backend);
        return sweep(backend, config, weights, what, {});
      };
      const auto cpu = make_cpu_backend({.n_threads = 0});
      const auto gpu = make_cuda_backend({});
      const SweepResult expected = run(*cpu, request);
      const SweepResult found = run(*gpu, request);
      const SweepResult again = run(*gpu, request);
      EXPECT_NEAR(found.base.nll_nats, expected.base.nll_nats, kBf16NllTolerance) << family;
      for (std::size_t l = 0; l < 4; ++l) {
        EXPECT_NEAR(found.variants[l].nll_nats, expected.variants[l].nll_nats, kBf16NllTolerance) << family << l;
        EXPECT_EQ(found.variants[l].nll_nats, again.variants[l].nll_nats) << family << l;
        SweepRequest alone = request;
        alone.variants = {request.variants[l]};
        EXPECT_EQ(run(*gpu, alone).variants[0].nll_nats, found.variants[l].nll_nats) << family << l;
      }
    }
  }
  std::filesystem::remove_all(directory);
}

// A long tail sweep of the kind that stacks its lanes, several short requests together, and both types of the residual.
TEST_F(CudaTest, StackedSweepsGiveWhatEachAloneGives) {
  const auto directory = std::filesystem::temp_directory_path() / ("winnow-cuda-test-" + std::to_string(getpid()));
  write_random_checkpoint(directory, {.model_type = "qwen3",
                                      .n_layers = 4,
                                      .hidden = 128,
                                      .n_heads = 4,
                                      .n_kv_heads = 2,
                                      .head_dim = 64,
                                      .ffn = 256,
                                      .vocab = 512,
                                      .seed = 4});
  const ModelConfig config = read_config(directory);
  const Checkpoint checkpoint(directory);
  std::vector<int32_t> tokens(5000);
  std::mt19937 generator(6);
  for (int32_t& token : tokens) token = static_cast<int32_t>(generator() % 512);
  std::vector<SweepRequest> requests;
  for (const int64_t length : {300, 5000, 1025, 129}) {
    const int64_t start = length - 40;
    for (const Window& w : {Window{100, 4, 0, kNoLimit}, Window{100, 0, start - 32, kNoLimit}}) {
      requests.push_back({.tokens = std::span(tokens).first(static_cast<std::size_t>(length)),
                          .answer_start = start,
                          .window = w,
                          .base = Pattern(4, false),
                          .variants = {},
                          .per_token = true});
      for (std::size_t l = 0; l < 4; ++l) {
        requests.back().variants.push_back(requests.back().base);
        requests.back().variants.back()[l] = true;
      }
    }
  }
  for (const DType residual : {DType::kBf16, DType::kF32}) {
    const auto gpu = make_cuda_backend({.residual = residual});
    const auto cpu = make_cpu_backend({.n_threads = 0});
    ModelWeights weights(config, checkpoint, *gpu);
    ModelWeights cpu_weights(config, checkpoint, *cpu);
    const std::vector<SweepResult> together = sweep(*gpu, config, weights, requests, {});
    for (std::size_t r = 0; r < requests.size(); ++r) {
      const SweepResult alone = sweep(*gpu, config, weights, requests[r], {});
      EXPECT_EQ(alone.base.token_nll_nats, together[r].base.token_nll_nats) << r;
      const SweepResult expected = sweep(*cpu, config, cpu_weights, requests[r], {});
      for (std::size_t v = 0; v < 4; ++v) {
        EXPECT_EQ(alone.variants[v].token_nll_nats, together[r].variants[v].token_nll_nats) << r << " " << v;
        EXPECT_NEAR(together[r].variants[v].nll_nats, expected.variants[v].nll_nats, kBf16NllTolerance) << r;
      }
    }
    gpu->reset_peak();
    const int64_t before = gpu->allocated_bytes();
    sweep(*gpu, config, weights, requests, {});
    EXPECT_LE(gpu->peak_allocated_bytes() - before, predict_sweep_bytes(config, *gpu, requests));
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace winnow
