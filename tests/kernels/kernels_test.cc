// The window, the choice of kernels, and the operations of the CPU backend against a plain float64 reference, with the
// row contract of kernels/ops.h. attention_test.cc and token_nll_test.cc have the largest ones.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/blas_core.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"
#include "tests/kernels/cpu_backend_test.h"
#include "tests/tolerances.h"

namespace winnow::kernels {
namespace {

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
    EXPECT_NE(cpu::make_cpu_backend({.n_threads = 1})->device().description().find(variant.name), std::string::npos);
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
  ops_->device().load({bytes.data() + 1, DType::kF16, {6}, "half"}, WeightUse::kVector,
                      std::as_writable_bytes(std::span(loaded)));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(loaded[static_cast<std::size_t>(i)], expected[i]);
  const uint16_t brain[] = {0x3F80, 0xC000, 0x7F80, 0x0001, 0x8000, 0x4049};
  std::memcpy(bytes.data() + 1, brain, sizeof brain);
  ops_->device().load({bytes.data() + 1, DType::kBf16, {6}, "brain"}, WeightUse::kVector,
                      std::as_writable_bytes(std::span(loaded)));
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
    ops_->norm(rows(x, cols), {matrix(weight, cols, 1), {.eps = 1e-6F}}, rows(out, cols));
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
    ops_->linear(rows(x, n_in), matrix(weight, n_out, n_in), matrix(bias, n_out, 1), rows(out, n_out), true);
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
  ops_->gate(rows(gate_up, 2 * kFfn), Activation::kSilu, rows(out, kFfn));
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

TEST_P(CpuBackendTest, LinearRowIsTheSameAtEveryStackSizeAndThreadCount) {
  constexpr int64_t kIn = 128;
  constexpr int64_t kOut = 1100;
  Floats x = random_floats(8 * tile_ * kIn, 1);
  Floats weight = random_floats(kOut * kIn, 2);
  Floats whole(static_cast<std::size_t>(8 * tile_ * kOut));
  ops_->linear(rows(x, kIn), matrix(weight, kOut, kIn), {}, rows(whole, kOut), false);
  for (const int threads : {1, 3}) {
    const auto other = cpu::make_cpu_backend({.n_threads = threads});
    for (int64_t first = 0; first < 8; ++first) {
      for (const int64_t n : {int64_t{1}, 8 - first}) {
        Floats part(static_cast<std::size_t>(n * tile_ * kOut));
        other->linear(rows(x, kIn).slice(first * tile_, n * tile_), matrix(weight, kOut, kIn), {}, rows(part, kOut),
                      false);
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
  ops_->rope(rows(q, heads.q_dim()), heads, {.norm = {matrix(norm, 6, 1), {.eps = 1e-6F}}},
             {matrix(angles, 200, 6), positions});
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

// Against the arccos of the cosine, which holds where that is not near 1.
TEST_P(CpuBackendTest, AnglesOfRowsAreThoseOfTheirCosines) {
  constexpr int64_t kAngleRows = 6;
  constexpr int64_t kCols = 33;
  std::vector<float> a, b;
  for (int64_t i = 0; i < kAngleRows * kCols; ++i) {
    a.push_back(std::sin(0.7F * static_cast<float>(i)));
    b.push_back(std::cos(0.3F * static_cast<float>(i * i % 91)));
  }
  for (int64_t i = 0; i < kCols; ++i) {
    const auto at = static_cast<std::size_t>(i);
    b[at] = 2.0F * a[at];                       // the same direction
    b[kCols + at] = -a[kCols + at];             // the opposite one
    a[2 * kCols + at] = 0.0F;                   // none
    a[3 * kCols + at] = b[3 * kCols + at] = 0;  // none, and as it was
  }
  std::vector<double> found(kAngleRows);
  ops_->row_angles({a.data(), DType::kF32, kAngleRows, kCols}, {b.data(), DType::kF32, kAngleRows, kCols}, found);
  EXPECT_EQ(found[0], 0.0);
  EXPECT_EQ(found[1], 1.0);
  EXPECT_EQ(found[2], 0.5);
  EXPECT_EQ(found[3], 0.0);
  for (int64_t row = 4; row < kAngleRows; ++row) {
    double product = 0.0, of_a = 0.0, of_b = 0.0;
    for (int64_t i = 0; i < kCols; ++i) {
      const auto at = static_cast<std::size_t>(row * kCols + i);
      product += static_cast<double>(a[at]) * b[at];
      of_a += static_cast<double>(a[at]) * a[at];
      of_b += static_cast<double>(b[at]) * b[at];
    }
    const double expected = std::acos(product / std::sqrt(of_a * of_b)) / std::acos(-1.0);
    EXPECT_NEAR(found[static_cast<std::size_t>(row)], expected, kDoubleSumTolerance);
    EXPECT_GT(expected, 0.1);
  }
}

TEST_P(CpuBackendTest, AllocationsAreCountedAndZeroed) {
  const int64_t before = ops_->device().allocated_bytes();
  {
    const auto buffer = ops_->device().allocate(1000, "a test");
    EXPECT_EQ(ops_->device().allocated_bytes(), before + 1000);
    for (int i = 0; i < 1000; ++i) ASSERT_EQ(static_cast<const char*>(buffer->data())[i], 0);
  }
  EXPECT_EQ(ops_->device().allocated_bytes(), before);
  EXPECT_GE(ops_->device().peak_allocated_bytes(), before + 1000);
}

}  // namespace
}  // namespace winnow::kernels
