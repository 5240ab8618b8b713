// Every operation of the CPU backend against a plain float64 reference, and the row contract of kernels/backend.h.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "base/error.h"
#include "kernels/backend.h"
#include "kernels/cpu/blas_core.h"
#include "kernels/cpu/cpu.h"
#include "tests/kernels/kernel_variants.h"
#include "tests/tolerances.h"

namespace winnow::kernels {
namespace {

using Floats = std::vector<float>;

Floats random_floats(int64_t count, uint32_t seed, float scale = 1.0F) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  Floats values(static_cast<std::size_t>(count));
  for (float& v : values) v = normal(generator);
  return values;
}

Matrix matrix(Floats& values, int64_t rows, int64_t cols) { return {values.data(), DType::kF32, rows, cols}; }

int64_t round_up(int64_t n, int64_t tile) { return (n + tile - 1) / tile * tile; }

class CpuBackendTest : public KernelVariantTest {
 protected:
  std::unique_ptr<Backend> backend_ = cpu::make_cpu_backend({.n_threads = 2});
  const int64_t tile_ = backend_->row_tile();
};
WINNOW_FOR_EACH_VARIANT(CpuBackendTest);

TEST(Window, EveryRowSeesWhatTheDefinitionSays) {
  for (const Window& w : {Window{1, 0, 0, kNoLimit}, Window{3, 2, 0, kNoLimit}, Window{4, 9, 5, kNoLimit},
                          Window{2, 1, -3, 7}, Window{20, 0, 0, kNoLimit}, full_attention()}) {
    for (int64_t t = 0; t < 12; ++t) {
      bool sees_all = true;
      for (int64_t j = 0; j < 14; ++j) {
        const bool obeys_window = t >= w.first_row && t < w.end_row;
        const bool expected = j <= t && (!obeys_window || t - j < w.keys || j < w.sinks);
        EXPECT_EQ(sees(w, t, j), expected) << "keys " << w.keys << " sinks " << w.sinks << " t " << t << " j " << j;
        sees_all = sees_all && (j > t || expected);
      }
      EXPECT_TRUE(sees_all || t >= first_affected_row(w)) << "row " << t << " lies before the first affected row";
    }
  }
}

TEST(Window, FirstAffectedRowIsTight) {
  EXPECT_EQ(first_affected_row({96, 4, 0, kNoLimit}), 100);
  EXPECT_FALSE(sees({96, 4, 0, kNoLimit}, 100, 4));
  EXPECT_EQ(first_affected_row({96, 4, 500, kNoLimit}), 500);
  EXPECT_EQ(first_affected_row({96, 4, 0, 100}), kNoLimit);
  EXPECT_EQ(first_affected_row(full_attention()), kNoLimit);
}

TEST(KernelVariants, WinnowCpuNamesOneOfThisBuild) {
  const std::vector<cpu::KernelVariant> variants = cpu::kernel_variants();
  const auto chosen = [](const char* name) {
    setenv("WINNOW_CPU", name, 1);
    return std::string(cpu::chosen_kernels().name);
  };
  for (const cpu::KernelVariant& variant : variants) {
    EXPECT_EQ(chosen(variant.name), variant.name);
    EXPECT_NE(cpu::make_cpu_backend({.n_threads = 1})->description().find(variant.name), std::string::npos);
  }
  EXPECT_EQ(chosen(""), variants.front().name);
  try {
    chosen("x86-64-v9");
    ADD_FAILURE() << "x86-64-v9 was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find(variants.back().name), std::string::npos) << error.what();
  }
  unsetenv("WINNOW_CPU");
  EXPECT_EQ(std::string(cpu::chosen_kernels().name), variants.front().name);
}

TEST(BlasCore, OfAProcessorThatOpenBlasDoesNotKnow) {
  constexpr cpu::VectorSupport kAvx512{.avx2 = true, .avx512 = true};
  constexpr cpu::VectorSupport kAvx2{.avx2 = true, .avx512 = false};
  EXPECT_EQ(cpu::better_blas_core("Prescott", kAvx512), "SkylakeX");
  EXPECT_EQ(cpu::better_blas_core("Prescott", kAvx2), "Haswell");
  EXPECT_EQ(cpu::better_blas_core("Sandybridge", kAvx2), "Haswell");
  EXPECT_EQ(cpu::better_blas_core("Prescott", {}), "");
  for (const char* known : {"Haswell", "Zen", "SkylakeX", "Cooperlake", "Sapphirerapids", "neoversen1"}) {
    EXPECT_EQ(cpu::better_blas_core(known, kAvx512), "") << known;
  }
}

class Exp2Test : public KernelVariantTest {
 protected:
  // 2^x.
  static float exp2(float x) {
    float values[16] = {x};
    cpu::chosen_kernels().kernels->exp2_row(values, 16, 0.0F);
    return values[0];
  }
};
WINNOW_FOR_EACH_VARIANT(Exp2Test);

TEST_P(Exp2Test, IsAccurateAndExactWhereTheRowContractNeedsIt) {
  for (float x = -126.0F; x < 127.0F; x += 0.0137F) {
    const double expected = std::exp2(static_cast<double>(x));
    EXPECT_NEAR(exp2(x), expected, 2e-7 * expected) << x;
  }
  EXPECT_EQ(exp2(0.0F), 1.0F);
  EXPECT_EQ(exp2(-INFINITY), 0.0F);
  EXPECT_EQ(exp2(-200.0F), 0.0F);
  EXPECT_TRUE(std::isnan(exp2(NAN)));
}

TEST_P(CpuBackendTest, LoadConvertsEveryDtypeAtAnyAlignment) {
  const float expected[] = {0.0F, -1.5F, 6.1035156e-5F, 5.9604645e-8F, 65504.0F, INFINITY};
  const uint16_t half[] = {0x0000, 0xBE00, 0x0400, 0x0001, 0x7BFF, 0x7C00};
  std::vector<std::byte> bytes(1 + sizeof half);
  std::memcpy(bytes.data() + 1, half, sizeof half);
  Floats loaded(6);
  backend_->load({bytes.data() + 1, DType::kF16, {6}, "half"}, WeightUse::kVector, loaded.data());
  for (int i = 0; i < 6; ++i) EXPECT_EQ(loaded[static_cast<std::size_t>(i)], expected[i]);
  const uint16_t brain[] = {0x3F80, 0xC000, 0x7F80, 0x0001, 0x8000, 0x4049};
  std::memcpy(bytes.data() + 1, brain, sizeof brain);
  backend_->load({bytes.data() + 1, DType::kBf16, {6}, "brain"}, WeightUse::kVector, loaded.data());
  EXPECT_EQ(loaded[0], 1.0F);
  EXPECT_EQ(loaded[1], -2.0F);
  EXPECT_EQ(loaded[2], INFINITY);
  EXPECT_EQ(loaded[5], 3.140625F);
}

TEST_P(CpuBackendTest, RmsNormMatchesTheReference) {
  for (const int64_t cols : {1, 7, 16, 33, 128, 1000}) {
    Floats x = random_floats(tile_ * cols, 1);
    Floats weight = random_floats(cols, 2);
    Floats out(x.size());
    backend_->rms_norm(x.data(), matrix(weight, cols, 1), 1e-6F, out.data(), tile_);
    for (int64_t r = 0; r < tile_; ++r) {
      double sum = 0.0;
      for (int64_t c = 0; c < cols; ++c) sum += std::pow(x[static_cast<std::size_t>(r * cols + c)], 2.0);
      const double inverse = 1.0 / std::sqrt(sum / static_cast<double>(cols) + 1e-6);
      for (int64_t c = 0; c < cols; ++c) {
        const auto i = static_cast<std::size_t>(r * cols + c);
        const double expected = x[i] * inverse * weight[static_cast<std::size_t>(c)];
        ASSERT_NEAR(out[i], expected, kElementwiseTolerance * (std::abs(expected) + 1e-3)) << "cols " << cols;
      }
    }
  }
}

TEST_P(CpuBackendTest, LinearMatchesTheReferenceWithBiasAndAccumulation) {
  for (const auto& [n_out, n_in] : {std::pair<int64_t, int64_t>{1, 1}, {5, 3}, {64, 128}, {1500, 40}}) {
    Floats x = random_floats(2 * tile_ * n_in, 1);
    Floats weight = random_floats(n_out * n_in, 2);
    Floats bias = random_floats(n_out, 3);
    Floats out = random_floats(2 * tile_ * n_out, 4);
    const Floats before = out;
    backend_->linear(x.data(), matrix(weight, n_out, n_in), matrix(bias, n_out, 1), out.data(), 2 * tile_, true);
    for (int64_t r = 0; r < 2 * tile_; ++r) {
      for (int64_t o = 0; o < n_out; ++o) {
        const auto i = static_cast<std::size_t>(r * n_out + o);
        double expected = before[i];
        double magnitude = std::abs(expected);
        for (int64_t k = 0; k < n_in; ++k) {
          const double term = static_cast<double>(x[static_cast<std::size_t>(r * n_in + k)]) *
                              weight[static_cast<std::size_t>(o * n_in + k)];
          expected += term;
          magnitude += std::abs(term);
        }
        expected += bias[static_cast<std::size_t>(o)];
        ASSERT_NEAR(out[i], expected, kFloatEpsilon * (magnitude + 1.0) * std::sqrt(static_cast<double>(n_in) + 2.0));
      }
    }
  }
}

TEST_P(CpuBackendTest, SwigluMatchesTheReference) {
  constexpr int64_t kFfn = 37;
  Floats gate_up = random_floats(tile_ * 2 * kFfn, 5, 20.0F);
  gate_up[0] = -1000.0F;
  gate_up[1] = 1000.0F;
  Floats out(static_cast<std::size_t>(tile_ * kFfn));
  backend_->swiglu(gate_up.data(), out.data(), tile_, kFfn);
  for (int64_t r = 0; r < tile_; ++r) {
    for (int64_t c = 0; c < kFfn; ++c) {
      const double gate = gate_up[static_cast<std::size_t>(r * 2 * kFfn + c)];
      const double up = gate_up[static_cast<std::size_t>(r * 2 * kFfn + kFfn + c)];
      const double expected = gate / (1.0 + std::exp(-gate)) * up;
      ASSERT_NEAR(out[static_cast<std::size_t>(r * kFfn + c)], expected,
                  (kElementwiseTolerance + std::abs(gate) * kFloatEpsilon) * std::abs(expected) + 1e-30);
    }
  }
}

// Queries, keys and values of one sequence, and a float64 attention over them.
struct Sequence {
  HeadShape heads;
  int64_t n_tokens;
  int64_t padded;
  Floats q, kv;

  Sequence(const HeadShape& shape, int64_t n, int64_t tile)
      : heads(shape),
        n_tokens(n),
        padded(round_up(n, tile)),
        q(random_floats(padded * shape.q_dim(), 11)),
        kv(random_floats(padded * 2 * shape.kv_dim(), 12)) {}

  double score(int64_t t, int64_t head, int64_t j) const {
    const int64_t kv_head = head / (heads.n_heads / heads.n_kv_heads);
    double sum = 0.0;
    for (int64_t d = 0; d < heads.head_dim; ++d) {
      sum += static_cast<double>(q[static_cast<std::size_t>(t * heads.q_dim() + head * heads.head_dim + d)]) *
             kv[static_cast<std::size_t>(j * 2 * heads.kv_dim() + kv_head * heads.head_dim + d)];
    }
    return sum * heads.scale;
  }
  std::vector<double> reference(int64_t t, int64_t head, const Window& window) const {
    std::vector<double> out(static_cast<std::size_t>(heads.head_dim), 0.0);
    double total = 0.0;
    const int64_t kv_head = head / (heads.n_heads / heads.n_kv_heads);
    for (int64_t j = 0; j <= t; ++j) {
      if (!sees(window, t, j)) continue;
      const double p = std::exp(score(t, head, j));
      total += p;
      for (int64_t d = 0; d < heads.head_dim; ++d) {
        out[static_cast<std::size_t>(d)] +=
            p * kv[static_cast<std::size_t>(j * 2 * heads.kv_dim() + heads.kv_dim() + kv_head * heads.head_dim + d)];
      }
    }
    for (double& o : out) o /= total;
    return out;
  }
};

// Angle zero everywhere: RoPE that changes nothing.
Floats identity_angles(int64_t n, int64_t head_dim) {
  Floats angles(static_cast<std::size_t>(n * head_dim), 0.0F);
  for (int64_t i = 0; i < n; ++i) std::fill_n(angles.begin() + i * head_dim, head_dim / 2, 1.0F);
  return angles;
}

std::vector<int32_t> ascending(int64_t first, int64_t n) {
  std::vector<int32_t> values(static_cast<std::size_t>(n));
  std::iota(values.begin(), values.end(), static_cast<int32_t>(first));
  return values;
}

class AttentionTest : public CpuBackendTest {
 protected:
  // Attention of rows [first_row, padded) with the keys before `split` in another buffer.
  Floats run(const Sequence& s, const Window& window, int64_t first_row, int64_t split) {
    Floats angles = identity_angles(s.padded, s.heads.head_dim);
    const Matrix table = matrix(angles, s.padded, s.heads.head_dim);
    auto prefix = backend_->allocate(backend_->kv_bytes(s.padded, s.heads), "prefix");
    auto own = backend_->allocate(backend_->kv_bytes(s.padded - split, s.heads), "own");
    const KvRows prefix_rows{prefix->data(), 0, s.padded};
    const KvRows own_rows{own->data(), split, s.padded - split};
    Floats kv = s.kv;
    const std::vector<int32_t> positions = ascending(0, s.padded);
    const RowAngles row_angles{table, positions.data()};
    backend_->store_kv(kv.data(), s.heads, {}, row_angles, s.padded, prefix->data());
    kv = s.kv;
    backend_->store_kv(kv.data() + split * 2 * s.heads.kv_dim(), s.heads, {}, row_angles.from(split), s.padded - split,
                       own->data());
    // The prefix must not be read from the split on.
    std::memset(static_cast<std::byte*>(prefix->data()) + backend_->kv_bytes(split, s.heads), 0x7F,
                static_cast<std::size_t>(backend_->kv_bytes(s.padded - split, s.heads)));
    Floats out(static_cast<std::size_t>((s.padded - first_row) * s.heads.q_dim()), NAN);
    const AttentionCall call{.q = s.q.data() + first_row * s.heads.q_dim(),
                             .out = out.data(),
                             .first_row = first_row,
                             .n_rows = s.padded - first_row,
                             .n_tokens = s.n_tokens,
                             .prefix = prefix_rows,
                             .own = own_rows,
                             .window = window};
    backend_->attention({&call, 1}, s.heads);
    return out;
  }
};
WINNOW_FOR_EACH_VARIANT(AttentionTest);

TEST_P(AttentionTest, MatchesTheReferenceOverOddShapes) {
  for (const int64_t head_dim : {2, 6, 32, 80, 128}) {
    for (const int64_t group : {1, 4}) {
      for (const int64_t n : {1, 63, 64, 65, 300}) {
        const HeadShape heads{2 * group, 2, head_dim, 0.3F};
        const Sequence s(heads, n, tile_);
        for (const Window& w : {full_attention(), Window{1, 0, 0, kNoLimit}, Window{64, 3, 0, kNoLimit},
                                Window{n, 0, 0, kNoLimit}, Window{17, 70, 0, kNoLimit}, Window{30, 2, n - 20, kNoLimit},
                                Window{30, 0, 0, n - 7}, Window{5, 1000, 0, kNoLimit}}) {
          const Floats out = run(s, w, 0, 0);
          for (int64_t t = 0; t < n; t += 1 + t / 16) {
            for (int64_t h = 0; h < heads.n_heads; ++h) {
              const std::vector<double> expected = s.reference(t, h, w);
              for (int64_t d = 0; d < head_dim; ++d) {
                ASSERT_NEAR(out[static_cast<std::size_t>(t * heads.q_dim() + h * head_dim + d)],
                            expected[static_cast<std::size_t>(d)], kAttentionTolerance)
                    << "n " << n << " head_dim " << head_dim << " W " << w.keys << " S " << w.sinks << " t " << t;
              }
            }
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, RowDoesNotDependOnSplitFirstRowNorOnWhatItsNeighboursSee) {
  const HeadShape heads{4, 2, 32, 0.2F};
  const Sequence s(heads, 500, tile_);
  for (const Window& w : {full_attention(), Window{40, 3, 0, kNoLimit}, Window{40, 3, 333, 450}}) {
    const Floats whole = run(s, w, 0, 0);
    for (const int64_t first : {int64_t{0}, tile_, 5 * tile_}) {
      const Floats part = run(s, w, first, first);
      EXPECT_EQ(std::memcmp(part.data(), whole.data() + first * heads.q_dim(), part.size() * sizeof(float)), 0);
    }
  }
  // Rows that see everything under either window agree bit for bit, though other rows of their tile need other keys.
  const Floats full = run(s, full_attention(), 0, 0);
  const Window tail{40, 3, 333, kNoLimit};
  const Floats windowed = run(s, tail, 0, 0);
  EXPECT_EQ(std::memcmp(full.data(), windowed.data(), static_cast<std::size_t>(333 * heads.q_dim()) * sizeof(float)),
            0);
  EXPECT_NE(full[static_cast<std::size_t>(333 * heads.q_dim())],
            windowed[static_cast<std::size_t>(333 * heads.q_dim())]);
}

TEST_P(AttentionTest, ResultsDoNotDependOnTheNumberOfThreads) {
  const HeadShape heads{4, 1, 64, 0.125F};
  const Sequence s(heads, 400, tile_);
  const Window w{100, 4, 0, kNoLimit};
  const Floats two = run(s, w, 0, 0);
  backend_ = cpu::make_cpu_backend({.n_threads = 1});
  EXPECT_EQ(run(s, w, 0, 0), two);
  backend_ = cpu::make_cpu_backend({.n_threads = 5});
  EXPECT_EQ(run(s, w, 0, 0), two);
}

// A single row over a cache of `n_sinks` rows and the last `n_ring`, which were brought there row by row.
class DecodeTest : public AttentionTest {
 protected:
  Floats decode(const Sequence& s, const Window& window, int64_t n_sinks, int64_t n_ring, int64_t row) {
    Floats angles = identity_angles(s.padded, s.heads.head_dim);
    const std::vector<int32_t> positions = ascending(0, s.padded);
    auto rows = backend_->allocate(backend_->kv_bytes(s.padded, s.heads), "rows");
    Floats kv = s.kv;
    backend_->store_kv(kv.data(), s.heads, {}, {matrix(angles, s.padded, s.heads.head_dim), positions.data()}, s.padded,
                       rows->data());
    auto memory = backend_->allocate(backend_->kv_bytes(round_up(n_sinks + n_ring, tile_), s.heads), "cache");
    const KvCache cache{memory->data(), n_sinks, n_ring};
    for (int64_t t = 0; t <= row; ++t) {
      const KvCopy copy{rows->data(), t, memory->data(), cache.slot(t), 1};
      backend_->copy_kv({&copy, 1}, s.heads);
    }
    Floats out(static_cast<std::size_t>(s.heads.q_dim()), NAN);
    const DecodeCall call{s.q.data() + row * s.heads.q_dim(), out.data(), row, cache, window};
    backend_->decode_attention({&call, 1}, s.heads);
    return out;
  }
};
WINNOW_FOR_EACH_VARIANT(DecodeTest);

TEST_P(DecodeTest, RowIsThatOfAttentionBitForBit) {
  for (const HeadShape& heads : {HeadShape{6, 2, 6, 0.3F}, HeadShape{7, 1, 80, 0.1F}, HeadShape{2, 2, 128, 0.1F}}) {
    const Sequence s(heads, 400, tile_);
    for (const Window& w : {Window{1, 0}, Window{64, 0}, Window{50, 3}, Window{17, 70}, Window{100, 200}}) {
      const Floats whole = run(s, w, 0, 0);
      const Floats full = run(s, full_attention(), 0, 0);
      for (const int64_t row : {0, 63, 64, 127, 190, 255, 256, 333, 399}) {
        const auto from = [&](const Floats& rows) {
          return Floats(rows.begin() + row * heads.q_dim(), rows.begin() + (row + 1) * heads.q_dim());
        };
        EXPECT_EQ(decode(s, w, w.sinks, w.keys, row), from(whole))
            << "W " << w.keys << " S " << w.sinks << " t " << row;
        EXPECT_EQ(decode(s, w, 0, 400, row), from(whole)) << "a cache that forgets nothing, t " << row;
        EXPECT_EQ(decode(s, full_attention(), 0, 400, row), from(full)) << "t " << row;
      }
    }
  }
}

TEST_P(DecodeTest, CopiesOfManyRowsEqualCopiesOfOne) {
  const HeadShape heads{4, 2, 10, 1.0F};
  const int64_t bytes = backend_->kv_bytes(4 * tile_, heads);
  auto from = backend_->allocate(bytes, "rows");
  Floats values = random_floats(bytes / 4, 31);
  std::memcpy(from->data(), values.data(), static_cast<std::size_t>(bytes));
  auto at_once = backend_->allocate(bytes, "copies");
  auto one_by_one = backend_->allocate(bytes, "copies");
  const KvCopy many{from->data(), 37, at_once->data(), 5, 150};
  backend_->copy_kv({&many, 1}, heads);
  for (int64_t i = 0; i < 150; ++i) {
    const KvCopy one{from->data(), 37 + i, one_by_one->data(), 5 + i, 1};
    backend_->copy_kv({&one, 1}, heads);
  }
  EXPECT_EQ(std::memcmp(at_once->data(), one_by_one->data(), static_cast<std::size_t>(bytes)), 0);
  const auto* copied = static_cast<const float*>(at_once->data());
  EXPECT_GT(std::count_if(copied, copied + bytes / 4, [](float v) { return v != 0.0F; }),
            int64_t{300} * heads.kv_dim() - 9);
}

TEST_P(CpuBackendTest, LinearRowIsTheSameAtEveryStackSizeAndThreadCount) {
  constexpr int64_t kIn = 128;
  constexpr int64_t kOut = 1100;
  Floats x = random_floats(8 * tile_ * kIn, 1);
  Floats weight = random_floats(kOut * kIn, 2);
  Floats whole(static_cast<std::size_t>(8 * tile_ * kOut));
  backend_->linear(x.data(), matrix(weight, kOut, kIn), {}, whole.data(), 8 * tile_, false);
  for (const int threads : {1, 3}) {
    const auto other = cpu::make_cpu_backend({.n_threads = threads});
    for (int64_t first = 0; first < 8; ++first) {
      for (const int64_t n : {int64_t{1}, 8 - first}) {
        Floats part(static_cast<std::size_t>(n * tile_ * kOut));
        other->linear(x.data() + first * tile_ * kIn, matrix(weight, kOut, kIn), {}, part.data(), n * tile_, false);
        ASSERT_EQ(std::memcmp(part.data(), whole.data() + first * tile_ * kOut, part.size() * sizeof(float)), 0);
      }
    }
  }
}

TEST_P(CpuBackendTest, RopeRotatesByAbsolutePositionAfterTheHeadNorm) {
  const HeadShape heads{2, 1, 6, 1.0F};
  Floats angles(static_cast<std::size_t>(200 * 6));
  for (int64_t p = 0; p < 200; ++p) {
    for (int64_t i = 0; i < 3; ++i) {
      const double angle = static_cast<double>(p) / std::pow(10.0, static_cast<double>(i));
      angles[static_cast<std::size_t>(p * 6 + i)] = static_cast<float>(std::cos(angle));
      angles[static_cast<std::size_t>(p * 6 + 3 + i)] = static_cast<float>(std::sin(angle));
    }
  }
  Floats norm = random_floats(6, 3);
  const Floats before = random_floats(tile_ * heads.q_dim(), 4);
  Floats q = before;
  const std::vector<int32_t> positions = ascending(tile_, tile_);
  backend_->rope(q.data(), heads, {matrix(norm, 6, 1), 1e-6F}, {matrix(angles, 200, 6), positions.data()}, tile_);
  for (int64_t r = 0; r < tile_; ++r) {
    for (int64_t h = 0; h < 2; ++h) {
      const auto at = static_cast<std::size_t>(r * 12 + h * 6);
      double square = 0.0;
      for (std::size_t d = 0; d < 6; ++d) square += static_cast<double>(before[at + d]) * before[at + d];
      const double inverse = 1.0 / std::sqrt(square / 6.0 + 1e-6);
      for (std::size_t i = 0; i < 3; ++i) {
        const double angle = static_cast<double>(tile_ + r) / std::pow(10.0, static_cast<double>(i));
        const double first = before[at + i] * inverse * norm[i];
        const double second = before[at + 3 + i] * inverse * norm[3 + i];
        EXPECT_NEAR(q[at + i], first * std::cos(angle) - second * std::sin(angle), 2e-6);
        EXPECT_NEAR(q[at + 3 + i], second * std::cos(angle) + first * std::sin(angle), 2e-6);
      }
    }
  }
}

TEST_P(CpuBackendTest, TokenNllAndArgmaxMatchTheReference) {
  for (const int64_t vocab : {3, 511, 512, 1300}) {
    constexpr int64_t kHidden = 24;
    Floats x = random_floats(2 * tile_ * kHidden, 21);
    Floats head = random_floats(vocab * kHidden, 22);
    std::copy_n(head.begin(), kHidden, head.begin() + 2 * kHidden);  // tokens 0 and 2 tie: the lower one counts
    std::vector<int32_t> targets(static_cast<std::size_t>(2 * tile_), -1);
    for (std::size_t i = 3; i < 2U * static_cast<std::size_t>(tile_); i += 7) {
      targets[i] = static_cast<int32_t>((i * 31) % static_cast<std::size_t>(vocab));
    }
    std::vector<double> nll(targets.size(), -1.0);
    std::vector<uint8_t> hit(targets.size(), 9);
    std::vector<int32_t> most_likely(targets.size(), -7);
    backend_->token_nll(x.data(), matrix(head, vocab, kHidden), targets, 2 * tile_,
                        {.nll_nats = nll.data(), .is_argmax = hit.data(), .argmax = most_likely.data()});
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (targets[i] < 0) {
        EXPECT_EQ(nll[i], -1.0);
        EXPECT_EQ(most_likely[i], -7);
        continue;
      }
      double total = 0.0;
      double best = -INFINITY;
      int64_t argmax = -1;
      double target = 0.0;
      for (int64_t v = 0; v < vocab; ++v) {
        double logit = 0.0;
        for (std::size_t k = 0; k < kHidden; ++k) {
          logit += static_cast<double>(x[i * kHidden + k]) * head[static_cast<std::size_t>(v) * kHidden + k];
        }
        total += std::exp(logit);
        if (logit > best) {
          best = logit;
          argmax = v;
        }
        if (v == targets[i]) target = logit;
      }
      const double expected = std::log(total) - target;
      EXPECT_NEAR(nll[i], expected, kNllTolerance * (1.0 + expected));
      EXPECT_EQ(hit[i], argmax == targets[i] ? 1 : 0);
      EXPECT_EQ(most_likely[i], argmax);
    }
  }
}

// log p of every token, from a hidden state.
std::vector<double> log_probabilities(const float* x, const Floats& head, int64_t vocab, int64_t hidden) {
  std::vector<double> logits(static_cast<std::size_t>(vocab), 0.0);
  double total = 0.0;
  for (std::size_t v = 0; v < logits.size(); ++v) {
    for (int64_t k = 0; k < hidden; ++k) {
      logits[v] += static_cast<double>(x[k]) * head[v * static_cast<std::size_t>(hidden) + static_cast<std::size_t>(k)];
    }
    total += std::exp(logits[v]);
  }
  for (double& logit : logits) logit -= std::log(total);
  return logits;
}

TEST_P(CpuBackendTest, KlMatchesTheReferenceAndIsZeroForEqualRows) {
  for (const int64_t vocab : {3, 511, 512, 1300}) {
    constexpr int64_t kHidden = 24;
    constexpr int64_t kTiles = 5;
    Floats head = random_floats(vocab * kHidden, 22);
    Floats reference = random_floats(2 * tile_ * kHidden, 23);
    Floats x = random_floats(kTiles * tile_ * kHidden, 24);
    // Four rows are compared with tile 1 or 0, one tile with none; row 9 of tile 2 equals its reference, row 10 nearly.
    const std::vector<int32_t> tiles = {1, 0, 1, -1, 1};
    const int64_t equal = 2 * tile_ + 9;
    std::copy_n(reference.begin() + (tile_ + 9) * kHidden, 2 * kHidden, x.begin() + equal * kHidden);
    x[static_cast<std::size_t>((equal + 1) * kHidden)] += 0.01F;
    std::vector<int32_t> targets(static_cast<std::size_t>(kTiles * tile_), 1);
    targets[7] = -1;
    std::vector<double> nll(targets.size()), kl(targets.size(), -1.0);
    std::vector<uint8_t> hit(targets.size());
    TokenScores out{nll.data(), hit.data(), kl.data(), {reference.data(), tiles}};
    backend_->token_nll(x.data(), matrix(head, vocab, kHidden), targets, kTiles * tile_, out);
    EXPECT_EQ(kl[static_cast<std::size_t>(equal)], 0.0) << vocab;
    for (int64_t i = 0; i < kTiles * tile_; ++i) {
      const int32_t tile = tiles[static_cast<std::size_t>(i / tile_)];
      const double found = kl[static_cast<std::size_t>(i)];
      if (i == 7 || tile < 0) {
        EXPECT_EQ(found, -1.0) << i;
        continue;
      }
      const auto p = log_probabilities(&reference[static_cast<std::size_t>((tile * tile_ + i % tile_) * kHidden)], head,
                                       vocab, kHidden);
      const auto q = log_probabilities(&x[static_cast<std::size_t>(i * kHidden)], head, vocab, kHidden);
      double expected = 0.0;
      for (std::size_t v = 0; v < p.size(); ++v) expected += std::exp(p[v]) * (p[v] - q[v]);
      EXPECT_NEAR(found, expected, kNllTolerance * (1.0 + expected)) << "vocab " << vocab << ", row " << i;
    }
    // Alone a tile gets the same bits, and its NLL does not notice the reference.
    std::vector<double> alone_nll(static_cast<std::size_t>(tile_)), alone_kl(static_cast<std::size_t>(tile_));
    TokenScores alone{alone_nll.data(), hit.data(), alone_kl.data(), {reference.data(), std::span(tiles).subspan(4)}};
    backend_->token_nll(&x[static_cast<std::size_t>(4 * tile_ * kHidden)], matrix(head, vocab, kHidden),
                        std::span(targets).last(static_cast<std::size_t>(tile_)), tile_, alone);
    EXPECT_TRUE(std::equal(alone_kl.begin(), alone_kl.end(), kl.end() - tile_));
    EXPECT_TRUE(std::equal(alone_nll.begin(), alone_nll.end(), nll.end() - tile_));
  }
}

TEST_P(CpuBackendTest, AllocationsAreCountedAndZeroed) {
  const int64_t before = backend_->allocated_bytes();
  {
    const auto buffer = backend_->allocate(1000, "a test");
    EXPECT_EQ(backend_->allocated_bytes(), before + 1000);
    for (int i = 0; i < 1000; ++i) ASSERT_EQ(static_cast<const char*>(buffer->data())[i], 0);
  }
  EXPECT_EQ(backend_->allocated_bytes(), before);
  EXPECT_GE(backend_->peak_allocated_bytes(), before + 1000);
}

}  // namespace
}  // namespace winnow::kernels
