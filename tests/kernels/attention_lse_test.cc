// Log-sum-exp over sets of keys on the CPU, against sums in float64.

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"
#include "tests/kernels/kernel_variants.h"
#include "tests/tolerances.h"

namespace winnow::kernels {
namespace {

std::vector<float> random_floats(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

class AttentionLse : public KernelVariantTest {};
WINNOW_FOR_EACH_VARIANT(AttentionLse);

TEST_P(AttentionLse, MatchesSumsOverTheKeysOfEverySet) {
  const auto ops = cpu::make_cpu_backend({.n_threads = 3});
  constexpr int64_t kRows = 320;
  constexpr int64_t kQueries = 7;
  for (const int64_t head_dim : {24, 64}) {
    for (const int64_t n_kv_heads : {1, 2, 4}) {
      const HeadShape heads{.n_heads = 4, .n_kv_heads = n_kv_heads, .head_dim = head_dim, .scale = 0.5F};
      const auto q = random_floats(kQueries * heads.q_dim(), 1);
      const auto kv_values = random_floats(kRows * 2 * heads.kv_dim(), 2);
      auto overwritten = kv_values;
      // Angles of 0: keys are stored as they are.
      std::vector<float> angles(static_cast<std::size_t>(kRows * head_dim), 0.0F);
      for (int64_t r = 0; r < kRows; ++r) std::fill_n(angles.begin() + r * head_dim, head_dim / 2, 1.0F);
      const std::vector<int32_t> positions(kRows, 0);
      const auto kv = ops->device().allocate(ops->device().kv_bytes(kRows, heads), "a test");
      const KvRows keys{ops->device().kv_span(kv->bytes(), heads), 0};
      ops->store_kv({overwritten.data(), DType::kF32, kRows, 2 * heads.kv_dim()}, heads, {},
                    {{angles.data(), DType::kF32, kRows, head_dim}, positions}, keys.kv);
      // All, a band across blocks, sinks and band, none.
      std::vector<KeySet> sets;
      for (int32_t row = 0; row < kQueries; ++row) {
        sets.push_back({0, 0, 200 + 13 * row});
        sets.push_back({0, 60 + row, 131});
        sets.push_back({3 + row, 150, 193 + row});
        sets.push_back({0, 5, 5});
      }
      const LseCall whole{.q = {q.data(), DType::kF32, kQueries, heads.q_dim()}, .keys = keys, .sets = sets, .lse = {}};
      std::vector<double> found(sets.size() * 4);
      LseCall call = whole;
      call.lse = found;
      ops->attention_lse(call, heads);
      for (int64_t row = 0; row < kQueries; ++row) {
        for (int64_t s = 0; s < 4; ++s) {
          const KeySet& set = sets[static_cast<std::size_t>(row * 4 + s)];
          for (int64_t head = 0; head < 4; ++head) {
            double sum = 0.0;
            for (int64_t key = 0; key < kRows; ++key) {
              if (!(key < set.sinks || (key >= set.begin && key < set.end))) continue;
              double score = 0.0;
              for (int64_t d = 0; d < head_dim; ++d) {
                score += static_cast<double>(q[static_cast<std::size_t>(row * heads.q_dim() + head * head_dim + d)]) *
                         kv_values[static_cast<std::size_t>(key * 2 * heads.kv_dim() +
                                                            head / (4 / n_kv_heads) * head_dim + d)];
              }
              sum += std::exp(score * 0.5);
            }
            const double lse = found[static_cast<std::size_t>((row * 4 + s) * 4 + head)];
            if (sum == 0.0) {
              EXPECT_EQ(lse, -INFINITY);
            } else {
              EXPECT_NEAR(lse, std::log(sum), kAttentionTolerance)
                  << "row " << row << ", set " << s << ", head " << head;
            }
          }
        }
      }
      // A row alone gets the same bits.
      LseCall one = whole;
      one.q = whole.q.slice(2, 1);
      one.sets = std::span(sets).subspan(8, 4);
      std::vector<double> of_row(16);
      one.lse = of_row;
      ops->attention_lse(one, heads);
      EXPECT_TRUE(std::equal(of_row.begin(), of_row.end(), found.begin() + 32));
    }
  }
}

}  // namespace
}  // namespace winnow::kernels
