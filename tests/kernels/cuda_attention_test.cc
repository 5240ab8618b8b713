// Attention of the CUDA backend, cuDNN's and the own kernels, against the CPU's and against each other. Skipped where
// there is no GPU.

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "tests/kernels/cuda_twins.h"
#include "tests/tolerances.h"

namespace winnow::kernels {
namespace {

struct Sequence {
  HeadShape heads;
  int64_t n_tokens;
  Floats q;
  Floats kv;
  Floats norm;
  Floats angles;
  std::vector<int32_t> positions;
  Floats sink_logits{};  // (n_heads), or none
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
Floats cpu_attention(Ops& ops, const Sequence& s, const Window& window, int64_t padded) {
  Floats q = s.q;
  Floats kv = s.kv;
  Floats norm = s.norm;
  Floats angles = s.angles;
  const Matrix table{angles.data(), DType::kF32, padded, s.heads.head_dim};
  const HeadNorm head_norm{.norm = {{norm.data(), DType::kF32, s.heads.head_dim, 1}, {.eps = 1e-6F}}};
  const RowAngles row_angles{table, s.positions};
  const Rows q_rows = Twins::host(q, s.heads.q_dim());
  ops.rope(q_rows, s.heads, head_norm, row_angles);
  auto memory = ops.device().allocate(ops.device().kv_bytes(padded, s.heads), "keys");
  const KvRows keys{ops.device().kv_span(memory->bytes(), s.heads), 0};
  ops.store_kv(Twins::host(kv, 2 * s.heads.kv_dim()), s.heads, head_norm, row_angles, keys.kv);
  Floats out(static_cast<std::size_t>(padded * s.heads.q_dim()));
  Floats sink_logits = s.sink_logits;
  AttentionCall call{q_rows, Twins::host(out, s.heads.q_dim()), 0, s.n_tokens, {}, keys, window};
  if (!sink_logits.empty()) call.sink_logits = Twins::host_matrix(sink_logits, s.heads.n_heads, 1);
  ops.attention({&call, 1}, s.heads);
  return out;
}

std::vector<uint16_t> gpu_attention(Twins& t, const Sequence& s, const Window& window, int64_t padded, int64_t first,
                                    int64_t split) {
  Ops& ops = t.gpu();
  const Rows q = t.upload(s.q, s.heads.q_dim());
  const Matrix table{t.upload_float32(s.angles, s.heads.head_dim).data, DType::kF32, padded, s.heads.head_dim};
  const HeadNorm head_norm{.norm = {t.matrix(s.norm, s.heads.head_dim, 1), {.eps = 1e-6F}}};
  const auto positions = ops.device().upload(s.positions, "positions");
  const RowAngles row_angles{table, positions->as<int32_t>()};
  ops.rope(q, s.heads, head_norm, row_angles);
  auto prefix = ops.device().allocate(ops.device().kv_bytes(padded, s.heads), "keys");
  auto own = ops.device().allocate(ops.device().kv_bytes(padded - split, s.heads), "keys");
  const KvRows prefix_rows{ops.device().kv_span(prefix->bytes(), s.heads), 0};
  const KvRows own_rows{ops.device().kv_span(own->bytes(), s.heads), split};
  ops.store_kv(t.upload(s.kv, 2 * s.heads.kv_dim()), s.heads, head_norm, row_angles, prefix_rows.kv);
  // Once more from the values: the call before overwrote them.
  ops.store_kv(t.upload(s.kv, 2 * s.heads.kv_dim()).from(split), s.heads, head_norm, row_angles.from(split),
               own_rows.kv);
  const Rows out = t.poisoned(padded - first, s.heads.q_dim());
  // Where nothing lies before, the prefix is memory without rows.
  const KvRows before{prefix_rows.kv.slice(0, split), 0};
  AttentionCall call{q.from(first), out, first, s.n_tokens, before, own_rows, window};
  if (!s.sink_logits.empty()) call.sink_logits = t.float32_vector(s.sink_logits);
  ops.attention({&call, 1}, s.heads);
  return t.bits(out);
}

Floats to_floats(const std::vector<uint16_t>& bits) {
  Floats values;
  for (const uint16_t b : bits) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(b) << 16));
  return values;
}

// The paths that this GPU has.
std::vector<Attention> paths_here() {
  std::vector<Attention> paths = {Attention::kCudnn, Attention::kBuiltin};
  cudaDeviceProp properties{};
  EXPECT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  if (properties.major == 9) paths.push_back(Attention::kHopper);
  return paths;
}

class CudaAttention : public ::testing::TestWithParam<Attention> {
 protected:
  void SetUp() override {
    if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
    const std::vector<Attention> paths = paths_here();
    if (std::find(paths.begin(), paths.end(), GetParam()) == paths.end()) GTEST_SKIP() << "not a Hopper GPU";
  }
};

// The n real rows of a sequence, the rest of whose last tile is padding.
Floats real_rows(Floats rows, const Sequence& sequence, int64_t n) {
  rows.resize(static_cast<std::size_t>(n * sequence.heads.q_dim()));
  return rows;
}

double error_of_rows(Twins& twins, const Sequence& sequence, const Window& window, int64_t n) {
  const auto padded = static_cast<int64_t>(sequence.positions.size());
  return relative_error(real_rows(to_floats(gpu_attention(twins, sequence, window, padded, 0, 0)), sequence, n),
                        real_rows(cpu_attention(twins.cpu(), sequence, window, padded), sequence, n));
}

// All paths beside one another, for one dimension of heads: the CPU takes most of the time.
class CudaAttentionHeads : public ::testing::TestWithParam<int64_t> {};

TEST_P(CudaAttentionHeads, MatchTheirTwinOverOddShapes) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  const int64_t head_dim = GetParam();
  for (const int64_t group : {1, 4, 8}) {
    std::vector<std::pair<Attention, std::unique_ptr<Twins>>> paths;
    for (const Attention path : paths_here()) {
      if (path == Attention::kBuiltin && head_dim > 128) continue;
      if (path == Attention::kCudnn && (head_dim <= 128) != (group == 4)) continue;
      paths.emplace_back(path, std::make_unique<Twins>(path));
    }
    for (const int64_t n : {1, 127, 128, 129, 1000}) {
      if ((group == 8 || head_dim < 32 || head_dim > 128) && n != 1000) continue;
      if (head_dim > 128 && group == 4) continue;
      const int64_t padded = round_up(n, 128);
      const HeadShape heads{2 * group, 2, head_dim, 1.0F / std::sqrt(static_cast<float>(head_dim))};
      const Sequence s(heads, n, padded);
      for (const Window& w :
           {full_attention(), Window{1, 0, 0, kNoLimit}, Window{64, 1, 0, kNoLimit},
            Window{std::max<int64_t>(1, n - 1), 0, 0, kNoLimit}, Window{n, 0, 0, kNoLimit}, Window{100, 4, 0, kNoLimit},
            Window{64, 100, 0, kNoLimit}, Window{50, 4, n - 20, kNoLimit}, Window{50, 0, 0, n - 7}}) {
        const Floats expected = real_rows(cpu_attention(paths.front().second->cpu(), s, w, padded), s, n);
        for (const auto& [path, twins] : paths) {
          // cuDNN builds a plan for every length and window, which takes minutes over all of these.
          if (path == Attention::kCudnn && n != 129 && n != 1000) continue;
          const Floats found = real_rows(to_floats(gpu_attention(*twins, s, w, padded, 0, 0)), s, n);
          EXPECT_LT(relative_error(found, expected), kBf16AttentionTolerance)
              << "path " << static_cast<int>(path) << " n " << n << " head_dim " << head_dim << " group " << group
              << " W " << w.keys << " S " << w.sinks << " rows " << w.first_row << " to " << w.end_row;
        }
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Dims, CudaAttentionHeads, ::testing::Values(8, 24, 32, 64, 80, 96, 128, 192, 256),
                         ::testing::PrintToStringParamName());

// Some beside the scores, some far above and below them.
Floats some_sink_logits(int64_t n_heads) {
  Floats values = random_values(n_heads, 14, 2.0F);
  values.front() = 9.0F;
  values.back() = -40.0F;
  return values;
}

TEST_P(CudaAttention, SinkLogitsMatchTheirTwin) {
  Twins t(GetParam());
  const HeadShape heads{8, 2, 64, 0.125F};
  for (const int64_t n : {1, 129, 1000, 2300}) {
    const int64_t padded = round_up(n, 128);
    Sequence s(heads, n, padded);
    s.sink_logits = some_sink_logits(heads.n_heads);
    // Rows of one kind and of both, in one attention and in two that are merged.
    for (const Window& w : {full_attention(), Window{100, 0, 0, kNoLimit}, Window{100, 4, 0, kNoLimit},
                            Window{50, 4, n - n / 3, kNoLimit}}) {
      EXPECT_LT(error_of_rows(t, s, w, n), kBf16AttentionTolerance)
          << "n " << n << " W " << w.keys << " S " << w.sinks << " from row " << w.first_row;
    }
  }
}

TEST_P(CudaAttention, SplitKeysGiveTheSame) {
  Twins t(GetParam());
  const HeadShape heads{8, 2, 128, 0.088F};
  Sequence s(heads, 1408, 1408);
  for (const auto& [w, has_sink_logits] :
       {std::pair(full_attention(), false), std::pair(full_attention(), true),
        std::pair(Window{200, 4, 0, kNoLimit}, false), std::pair(Window{200, 4, 0, kNoLimit}, true)}) {
    s.sink_logits = has_sink_logits ? some_sink_logits(heads.n_heads) : Floats{};
    const std::vector<uint16_t> whole = gpu_attention(t, s, w, 1408, 0, 0);
    for (const int64_t first : {int64_t{256}, int64_t{1280}}) {
      const std::vector<uint16_t> part = gpu_attention(t, s, w, 1408, first, first);
      const Floats expected = to_floats({whole.begin() + first * heads.q_dim(), whole.end()});
      EXPECT_LT(relative_error(to_floats(part), expected), kBf16AttentionTolerance) << first;
      // A short lane is computed in two halves, else the same kernel sees the same keys.
      if (first == 256 || GetParam() != Attention::kCudnn) {
        EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first * heads.q_dim())) << first;
      }
    }
  }
}

// Short lanes side by side, of rows from `split` on: each is what it is alone, whatever the number of its neighbours.
void compare_stacked_lanes(Attention attention, const HeadShape& heads, int64_t split, bool has_sink_logits) {
  Twins t(attention);
  Ops& ops = t.gpu();
  const Matrix sink_logits = has_sink_logits ? t.float32_vector(some_sink_logits(heads.n_heads)) : Matrix{};
  constexpr int64_t kLaneRows = 256;
  constexpr std::size_t kLanes = 21;
  const Sequence base(heads, split + kLaneRows - 9, split + kLaneRows);
  const KvRows prefix{ops.device().kv_span(t.upload(base.kv, 2 * heads.kv_dim()).bytes(), heads), 0};
  const Rows q = t.upload(random_values(kLanes * kLaneRows * heads.q_dim(), 21), heads.q_dim());
  const Rows kv_rows = t.upload(random_values(kLanes * kLaneRows * 2 * heads.kv_dim(), 22), 2 * heads.kv_dim());
  const KvSpan kv = ops.device().kv_span(kv_rows.bytes(), heads);
  const Rows together = t.poisoned(kLanes * kLaneRows, heads.q_dim());
  const Rows alone = t.poisoned(kLanes * kLaneRows, heads.q_dim());
  const auto rows_of = [&](Rows rows, std::size_t lane) {
    return rows.slice(static_cast<int64_t>(lane) * kLaneRows, kLaneRows);
  };
  const auto call_of = [&](std::size_t lane, Rows out) {
    const KvRows own{kv.slice(static_cast<int64_t>(lane) * kLaneRows, kLaneRows), split};
    return AttentionCall{rows_of(q, lane), rows_of(out, lane), split, base.n_tokens, prefix, own,
                         full_attention(), sink_logits};
  };
  std::vector<AttentionCall> calls;
  for (std::size_t lane = 0; lane < kLanes; ++lane) calls.push_back(call_of(lane, together));
  ops.attention(calls, heads);
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    const AttentionCall call = call_of(lane, alone);
    ops.attention({&call, 1}, heads);
  }
  EXPECT_EQ(t.bits(together), t.bits(alone));
  // Against the own kernel in one pass, which other tests hold to the CPU.
  Twins own(Attention::kBuiltin);
  ops.device().synchronize();
  const Rows expected = t.poisoned(kLanes * kLaneRows, heads.q_dim());
  for (std::size_t lane = 0; lane < kLanes; ++lane) calls[lane].out = rows_of(expected, lane);
  own.gpu().attention(calls, heads);
  own.gpu().device().synchronize();
  constexpr int64_t kRealRows = kLaneRows - 9;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    Floats found = t.download(rows_of(together, lane).slice(0, kRealRows));
    Floats wanted = t.download(rows_of(expected, lane).slice(0, kRealRows));
    EXPECT_LT(relative_error(found, wanted), kBf16AttentionTolerance) << lane;
  }
}

TEST_P(CudaAttention, StackedShortLanesGiveTheSame) {
  const HeadShape wide{8, 2, 128, 0.088F};
  compare_stacked_lanes(GetParam(), wide, 2048, false);
  compare_stacked_lanes(GetParam(), wide, 2048, true);
  // Hopper's kernel splits the keys of such lanes.
  compare_stacked_lanes(GetParam(), {14, 2, 64, 0.125F}, 8192, true);
}

// Calls on some heads each, with windows of their own, against the CPU's, and against one call for all of them.
TEST_P(CudaAttention, HeadsAloneGiveTheirPartOfTheWholeAndLeaveTheOthers) {
  Twins t(GetParam());
  Ops& ops = t.gpu();
  const Window w{200, 4, 0, kNoLimit};
  for (const int64_t head_dim : {64, 128}) {
    const HeadShape heads{12, 3, head_dim, 0.1F};
    constexpr int64_t kRows = 2432;
    constexpr int64_t kTokens = 2400;
    const Sequence s(heads, kTokens, kRows);
    const KvRows keys{ops.device().kv_span(t.upload(s.kv, 2 * heads.kv_dim()).bytes(), heads), 0};
    const Rows q = t.upload(s.q, heads.q_dim());
    const auto call_of = [&](const Rows& out, const Window& window, std::optional<HeadRange> range) {
      AttentionCall call{q, out, 0, kTokens, {}, keys, window};
      call.kv_heads = range;
      return call;
    };
    const Rows windowed = t.poisoned(kRows, heads.q_dim());
    const Rows full = t.poisoned(kRows, heads.q_dim());
    const Rows apart = t.poisoned(kRows, heads.q_dim());
    const Rows middle = t.poisoned(kRows, heads.q_dim());
    const std::vector<AttentionCall> whole = {call_of(windowed, w, {}), call_of(full, full_attention(), {})};
    ops.attention(whole, heads);
    const std::vector<AttentionCall> parts = {call_of(apart, w, HeadRange{1, 3}),
                                              call_of(apart, full_attention(), HeadRange{0, 1}),
                                              call_of(middle, w, HeadRange{1, 2})};
    ops.attention(parts, heads);
    const std::vector<uint16_t> poison = t.bits(t.poisoned(kRows, heads.q_dim()));
    const std::vector<uint16_t> apart_bits = t.bits(apart);
    const std::vector<uint16_t> middle_bits = t.bits(middle);
    const Floats windowed_values = to_floats(t.bits(windowed));
    const Floats full_values = to_floats(t.bits(full));
    Floats expected = full_values;
    int64_t n_wrong = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto column = static_cast<int64_t>(i) % heads.q_dim();
      if (column >= 4 * head_dim) expected[i] = windowed_values[i];
      const bool is_middle = column >= 4 * head_dim && column < 8 * head_dim;
      n_wrong += middle_bits[i] == (is_middle ? apart_bits[i] : poison[i]) ? 0 : 1;
    }
    EXPECT_EQ(n_wrong, 0) << head_dim;
    // Some heads go through the own kernel where the whole goes through cuDNN.
    const Floats found = to_floats(apart_bits);
    if (GetParam() != Attention::kCudnn) {
      EXPECT_TRUE(std::equal(found.begin(), found.begin() + kTokens * heads.q_dim(), expected.begin())) << head_dim;
    }
    EXPECT_LT(relative_error(real_rows(found, s, kTokens), real_rows(expected, s, kTokens)), kBf16AttentionTolerance)
        << head_dim;
  }
}

// Plans that were built ahead compute what those built on demand do.
TEST_P(CudaAttention, PreparedCallsGiveTheSame) {
  const HeadShape heads{8, 2, 128, 0.088F};
  const Sequence s(heads, 2300, 2304);
  const Window w{200, 4, 0, kNoLimit};
  Twins on_demand(GetParam());
  Twins prepared(GetParam());
  const AttentionCall shape{.q = {.n_rows = 2304},
                            .out = {},
                            .first_row = 0,
                            .n_tokens = 2300,
                            .prefix = {},
                            .own = {{.n_rows = 2304}, 0},
                            .window = w};
  prepared.gpu().prepare_attention({&shape, 1}, heads);
  EXPECT_EQ(gpu_attention(prepared, s, w, 2304, 0, 0), gpu_attention(on_demand, s, w, 2304, 0, 0));
}

INSTANTIATE_TEST_SUITE_P(Paths, CudaAttention,
                         ::testing::Values(Attention::kCudnn, Attention::kBuiltin, Attention::kHopper),
                         [](const auto& tested) {
                           if (tested.param == Attention::kHopper) return "hopper";
                           return tested.param == Attention::kBuiltin ? "own" : "cudnn";
                         });

TEST(CudaAttentionLse, MatchesItsTwin) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no GPU answers";
  Twins t;
  constexpr int64_t kRows = 384;
  constexpr int64_t kQueries = 37;
  for (const auto& [n_heads, n_kv_heads, head_dim] :
       {std::tuple(4, 2, 64), std::tuple(8, 1, 32), std::tuple(24, 2, 128), std::tuple(3, 3, 40),
        std::tuple(2, 2, 256)}) {
    const HeadShape heads{.n_heads = n_heads, .n_kv_heads = n_kv_heads, .head_dim = head_dim, .scale = 0.1F};
    Floats q = random_values(kQueries * heads.q_dim(), 1, 2.0F);
    Floats kv_values = random_values(kRows * 2 * heads.kv_dim(), 2);
    Floats angles(static_cast<std::size_t>(kRows * head_dim), 0.0F);
    for (int64_t r = 0; r < kRows; ++r) std::fill_n(angles.begin() + r * head_dim, head_dim / 2, 1.0F);
    const std::vector<int32_t> positions(kRows, 0);
    // Angles of 0: keys are stored as they are.
    const auto gpu_positions = t.gpu().device().upload(positions, "a test");
    const auto gpu_kv = t.gpu().device().allocate(t.gpu().device().kv_bytes(kRows, heads), "a test");
    const KvRows gpu_keys{t.gpu().device().kv_span(gpu_kv->bytes(), heads), 0};
    const Matrix gpu_angles{t.upload_float32(angles, head_dim).data, DType::kF32, kRows, head_dim};
    t.gpu().store_kv(t.upload(kv_values, 2 * heads.kv_dim()), heads, {}, {gpu_angles, gpu_positions->as<int32_t>()},
                     gpu_keys.kv);
    const auto cpu_kv = t.cpu().device().allocate(t.cpu().device().kv_bytes(kRows, heads), "a test");
    const KvRows cpu_keys{t.cpu().device().kv_span(cpu_kv->bytes(), heads), 0};
    t.cpu().store_kv(Twins::host(kv_values, 2 * heads.kv_dim()), heads, {},
                     {{angles.data(), DType::kF32, kRows, head_dim}, positions}, cpu_keys.kv);
    std::vector<KeySet> sets;
    for (int32_t row = 0; row < kQueries; ++row) {
      sets.push_back({0, 0, 340 + row});
      sets.push_back({row % 5, 200 + row, 300});
      sets.push_back({0, 7, 7});
    }
    std::vector<double> expected(static_cast<std::size_t>(kQueries * 3 * n_heads));
    const auto found_memory = t.gpu().device().allocate_host(static_cast<int64_t>(expected.size() * 8), "a test");
    const std::span<double> found = found_memory->as<double>();
    t.cpu().attention_lse({Twins::host(q, heads.q_dim()), cpu_keys, sets, expected}, heads);
    const Rows gpu_q = t.upload(q, heads.q_dim());
    t.gpu().attention_lse({gpu_q, gpu_keys, sets, found}, heads);
    t.gpu().device().synchronize();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (std::isinf(expected[i])) {
        EXPECT_EQ(found[i], expected[i]) << i;
      } else {
        EXPECT_NEAR(found[i], expected[i], kAttentionTolerance * (1.0 + std::abs(expected[i]))) << i;
      }
    }
    // A row alone gets the same bits.
    const auto alone_memory = t.gpu().device().allocate_host(static_cast<int64_t>(3 * n_heads * 8), "a test");
    const std::span<double> alone = alone_memory->as<double>();
    t.gpu().attention_lse({gpu_q.slice(5, 1), gpu_keys, std::span(sets).subspan(15, 3), alone}, heads);
    t.gpu().device().synchronize();
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), found.begin() + 15 * n_heads)) << n_heads;
  }
}

}  // namespace
}  // namespace winnow::kernels
