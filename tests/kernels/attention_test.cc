// Attention and decoding attention of the CPU backend against a plain float64 reference, and the row contract of
// kernels/ops.h.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"

#include "tests/kernels/cpu_backend_test.h"
#include "tests/tolerances.h"

namespace winnow::kernels {
namespace {

// Queries, keys and values of one sequence, and a float64 attention over them.
struct Sequence {
  HeadShape heads;
  int64_t n_tokens;
  int64_t padded;
  Floats q, kv;
  Floats sink_logits{};  // (n_heads), or none

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
  Matrix sink_matrix() const {
    return sink_logits.empty() ? Matrix{} : Matrix{sink_logits.data(), DType::kF32, heads.n_heads, 1};
  }
  std::vector<double> reference(int64_t t, int64_t head, const Window& window) const {
    std::vector<double> out(static_cast<std::size_t>(heads.head_dim), 0.0);
    double total = sink_logits.empty() ? 0.0 : std::exp(sink_logits[static_cast<std::size_t>(head)]);
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

class AttentionTest : public CpuBackendTest {
 protected:
  // Attention of rows [first_row, padded) with the keys before `split` in another buffer.
  Floats run(const Sequence& s, const Window& window, int64_t first_row, int64_t split) {
    return run_heads(s, {{std::nullopt, window}}, first_row, split);
  }
  // The same by a call for each of some key heads with their window, all into one output.
  using OfHeads = std::pair<std::optional<HeadRange>, Window>;
  Floats run_heads(const Sequence& s, const std::vector<OfHeads>& heads, int64_t first_row, int64_t split) {
    Floats angles = identity_angles(s.padded, s.heads.head_dim);
    const Matrix table = matrix(angles, s.padded, s.heads.head_dim);
    auto prefix = ops_->device().allocate(ops_->device().kv_bytes(s.padded, s.heads), "prefix");
    auto own = ops_->device().allocate(ops_->device().kv_bytes(s.padded - split, s.heads), "own");
    const KvRows prefix_rows{ops_->device().kv_span(prefix->bytes(), s.heads), 0};
    const KvRows own_rows{ops_->device().kv_span(own->bytes(), s.heads), split};
    Floats kv = s.kv;
    const std::vector<int32_t> positions = ascending(0, s.padded);
    const RowAngles row_angles{table, positions};
    ops_->store_kv(rows(kv, 2 * s.heads.kv_dim()), s.heads, {}, row_angles, prefix_rows.kv);
    kv = s.kv;
    ops_->store_kv(rows(kv, 2 * s.heads.kv_dim()).from(split), s.heads, {}, row_angles.from(split), own_rows.kv);
    // The prefix must not be read from the split on.
    std::ranges::fill(prefix_rows.kv.from(split).bytes(), std::byte{0x7F});
    Floats out(static_cast<std::size_t>((s.padded - first_row) * s.heads.q_dim()), NAN);
    std::vector<AttentionCall> calls;
    for (const auto& [range, window] : heads) {
      calls.push_back({.q = rows(s.q, s.heads.q_dim()).from(first_row),
                       .out = rows(out, s.heads.q_dim()),
                       .first_row = first_row,
                       .n_tokens = s.n_tokens,
                       .prefix = prefix_rows,
                       .own = own_rows,
                       .window = window,
                       .sink_logits = s.sink_matrix(),
                       .kv_heads = range});
    }
    ops_->attention(calls, s.heads);
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

TEST_P(AttentionTest, SinkLogitsAreOneMoreTermOfTheDenominator) {
  for (const int64_t head_dim : {6, 64}) {
    const HeadShape heads{6, 2, head_dim, 0.3F};
    Sequence s(heads, 150, tile_);
    s.sink_logits = {-3.0F, 0.0F, 1.5F, 4.0F, 12.0F, 30.0F};  // beside scores of about 1 up to far above them
    for (const Window& w : {full_attention(), Window{17, 0, 0, kNoLimit}, Window{17, 3, 40, kNoLimit}}) {
      const Floats out = run(s, w, 0, 0);
      for (int64_t t = 0; t < s.n_tokens; t += 1 + t / 16) {
        for (int64_t h = 0; h < heads.n_heads; ++h) {
          const std::vector<double> expected = s.reference(t, h, w);
          for (int64_t d = 0; d < head_dim; ++d) {
            ASSERT_NEAR(out[static_cast<std::size_t>(t * heads.q_dim() + h * head_dim + d)],
                        expected[static_cast<std::size_t>(d)], kAttentionTolerance)
                << "head_dim " << head_dim << " W " << w.keys << " S " << w.sinks << " t " << t << " head " << h;
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, SinkLogitsFarBelowTheScoresChangeNoBitAndFarAboveThemLeaveNothing) {
  const HeadShape heads{4, 2, 32, 0.2F};
  Sequence s(heads, 200, tile_);
  const Window w{40, 3, 0, kNoLimit};
  const Floats without = run(s, w, 0, 0);
  s.sink_logits.assign(4, -1e4F);
  EXPECT_EQ(run(s, w, 0, 0), without);
  s.sink_logits.assign(4, 1e4F);
  const Floats nothing = run(s, w, 0, 0);
  EXPECT_EQ(nothing, Floats(nothing.size(), 0.0F));
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

TEST_P(AttentionTest, HeadsAloneGiveTheirPartOfTheWholeAndLeaveTheOthers) {
  const HeadShape heads{6, 3, 32, 0.2F};
  Sequence s(heads, 300, tile_);
  s.sink_logits = {-1.0F, 0.0F, 1.5F, 2.0F, 0.5F, -0.5F};
  const Window w{40, 3, 0, kNoLimit};
  for (const int64_t first : {int64_t{0}, 2 * tile_}) {
    const Floats windowed = run(s, w, first, first);
    const Floats full = run(s, full_attention(), first, first);
    const Floats apart = run_heads(s, {{HeadRange{1, 3}, w}, {HeadRange{0, 1}, full_attention()}}, first, first);
    const Floats middle = run_heads(s, {{HeadRange{1, 2}, w}}, first, first);
    ASSERT_NE(windowed, full);
    for (std::size_t i = 0; i < windowed.size(); ++i) {
      const auto column = static_cast<int64_t>(i) % heads.q_dim();
      ASSERT_EQ(apart[i], column < 2 * heads.head_dim ? full[i] : windowed[i]) << i;
      const bool is_middle = column >= 2 * heads.head_dim && column < 4 * heads.head_dim;
      ASSERT_TRUE(is_middle ? middle[i] == windowed[i] : std::isnan(middle[i])) << i;
    }
  }
  for (const HeadRange& wrong : {HeadRange{0, 4}, HeadRange{-1, 2}, HeadRange{1, 1}}) {
    EXPECT_THROW(run_heads(s, {{wrong, w}}, 0, 0), Error);
  }
}

TEST_P(AttentionTest, ResultsDoNotDependOnTheNumberOfThreads) {
  const HeadShape heads{4, 1, 64, 0.125F};
  const Sequence s(heads, 400, tile_);
  const Window w{100, 4, 0, kNoLimit};
  const Floats two = run(s, w, 0, 0);
  ops_ = cpu::make_cpu_backend({.n_threads = 1});
  EXPECT_EQ(run(s, w, 0, 0), two);
  ops_ = cpu::make_cpu_backend({.n_threads = 5});
  EXPECT_EQ(run(s, w, 0, 0), two);
}

// A single row over a cache of `n_sinks` rows and the last `n_ring`, which were brought there row by row.
class DecodeTest : public AttentionTest {
 protected:
  Floats decode(const Sequence& s, const Window& window, int64_t n_sinks, int64_t n_ring, int64_t row) {
    Floats angles = identity_angles(s.padded, s.heads.head_dim);
    const std::vector<int32_t> positions = ascending(0, s.padded);
    auto memory_of_rows = ops_->device().allocate(ops_->device().kv_bytes(s.padded, s.heads), "rows");
    const KvSpan stored = ops_->device().kv_span(memory_of_rows->bytes(), s.heads);
    Floats kv = s.kv;
    ops_->store_kv(rows(kv, 2 * s.heads.kv_dim()), s.heads, {}, {matrix(angles, s.padded, s.heads.head_dim), positions},
                   stored);
    auto memory = ops_->device().allocate(ops_->device().kv_bytes(round_up(n_sinks + n_ring, tile_), s.heads), "cache");
    const KvCache cache{ops_->device().kv_span(memory->bytes(), s.heads), n_sinks, n_ring};
    for (int64_t t = 0; t <= row; ++t) {
      const KvCopy copy{stored, t, cache.kv, cache.slot(t), 1};
      ops_->copy_kv({&copy, 1}, s.heads);
    }
    Floats out(static_cast<std::size_t>(s.heads.q_dim()), NAN);
    const DecodeCall call{
        rows(s.q, s.heads.q_dim()).slice(row, 1), rows(out, s.heads.q_dim()), row, cache, window, s.sink_matrix()};
    ops_->decode_attention({&call, 1}, s.heads);
    return out;
  }
};
WINNOW_FOR_EACH_VARIANT(DecodeTest);

TEST_P(DecodeTest, RowIsThatOfAttentionBitForBit) {
  for (const HeadShape& heads : {HeadShape{6, 2, 6, 0.3F}, HeadShape{7, 1, 80, 0.1F}, HeadShape{2, 2, 128, 0.1F}}) {
    Sequence s(heads, 400, tile_);
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
      s.sink_logits = random_floats(heads.n_heads, 13);
      const Floats with_sinks = run(s, w, 0, 0);
      EXPECT_NE(with_sinks, whole);
      for (const int64_t row : {0, 63, 256, 399}) {
        const auto begin = with_sinks.begin() + row * heads.q_dim();
        EXPECT_EQ(decode(s, w, w.sinks, w.keys, row), Floats(begin, begin + heads.q_dim()))
            << "sink logits, W " << w.keys << " S " << w.sinks << " t " << row;
      }
      s.sink_logits.clear();
    }
  }
}

TEST_P(DecodeTest, CopiesOfManyRowsEqualCopiesOfOne) {
  const HeadShape heads{4, 2, 10, 1.0F};
  const int64_t bytes = ops_->device().kv_bytes(4 * tile_, heads);
  auto from = ops_->device().allocate(bytes, "rows");
  Floats values = random_floats(bytes / 4, 31);
  std::memcpy(from->data(), values.data(), static_cast<std::size_t>(bytes));
  auto at_once = ops_->device().allocate(bytes, "copies");
  auto one_by_one = ops_->device().allocate(bytes, "copies");
  const auto kv = [&](Buffer& memory) { return ops_->device().kv_span(memory.bytes(), heads); };
  const KvCopy many{kv(*from), 37, kv(*at_once), 5, 150};
  ops_->copy_kv({&many, 1}, heads);
  for (int64_t i = 0; i < 150; ++i) {
    const KvCopy one{kv(*from), 37 + i, kv(*one_by_one), 5 + i, 1};
    ops_->copy_kv({&one, 1}, heads);
  }
  EXPECT_EQ(std::memcmp(at_once->data(), one_by_one->data(), static_cast<std::size_t>(bytes)), 0);
  const auto* copied = static_cast<const float*>(at_once->data());
  EXPECT_GT(std::count_if(copied, copied + bytes / 4, [](float v) { return v != 0.0F; }),
            int64_t{300} * heads.kv_dim() - 9);
}

}  // namespace
}  // namespace winnow::kernels
