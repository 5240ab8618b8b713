// Attention of single rows over caches, and the moves of their keys, on the GPU: against the CPU's, and a row against
// itself in other company. Whole generations too. Skipped where there is no GPU.

#include <unistd.h>

#include <filesystem>
#include <numeric>

#include "kernels/cuda/cuda.h"
#include "model/checkpoint.h"
#include "model/random_checkpoint.h"
#include "model/safetensors.h"
#include "pipeline/engine/generation.h"
#include "tests/kernels/cuda_twins.h"
#include "tests/tolerances.h"

namespace winnow::kernels {
namespace {

class CudaDecodeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  }
};

// Angle zero everywhere: RoPE that changes nothing.
Floats identity_angles(int64_t n, int64_t head_dim) {
  Floats angles(static_cast<std::size_t>(n * head_dim), 0.0F);
  for (int64_t i = 0; i < n; ++i) std::fill_n(angles.begin() + i * head_dim, head_dim / 2, 1.0F);
  return angles;
}

// Keys and values of a sequence, brought into a cache.
struct Cached {
  std::unique_ptr<Buffer> memory;
  KvCache cache;
};

// values: kv (padded, 2 * kv_dim) of rows [0, padded), where the backend has them; angles and positions likewise.
Cached fill_cache(Ops& ops, const HeadShape& heads, Rows kv, const RowAngles& angles, const KvCache& shape,
                  int64_t row) {
  auto memory = ops.device().allocate(ops.device().kv_bytes(kv.n_rows, heads), "rows");
  const KvSpan rows = ops.device().kv_span(memory->bytes(), heads);
  ops.store_kv(kv, heads, {}, angles, rows);
  Cached cached;
  const int64_t n_slots = round_up(shape.n_sinks + shape.n_ring, ops.device().row_tile());
  cached.memory = ops.device().allocate(ops.device().kv_bytes(n_slots, heads), "cache");
  cached.cache = {ops.device().kv_span(cached.memory->bytes(), heads), shape.n_sinks, shape.n_ring};
  std::vector<KvCopy> copies;  // of the rows that are still there; more than a launch takes
  for (int64_t t = 0; t <= row; ++t) {
    if (t >= shape.n_sinks && t + shape.n_ring <= row) continue;
    copies.push_back({rows, t, cached.cache.kv, cached.cache.slot(t), 1});
  }
  ops.copy_kv(copies, heads);
  ops.device().synchronize();
  return cached;
}

TEST_F(CudaDecodeTest, RowsMatchTheirTwinsAndDoNotDependOnTheirCompany) {
  for (const HeadShape& heads : {HeadShape{4, 2, 32, 0.2F}, HeadShape{7, 1, 80, 0.1F}, HeadShape{32, 8, 128, 0.09F},
                                 HeadShape{8, 2, 256, 0.06F}}) {
    Twins t;
    constexpr int64_t kTokens = 1300;
    const int64_t padded = round_up(kTokens, 128);
    Floats q = random_values(padded * heads.q_dim(), 41);
    Floats kv = random_values(padded * 2 * heads.kv_dim(), 42);
    Floats angles = identity_angles(padded, heads.head_dim);
    std::vector<int32_t> positions(static_cast<std::size_t>(padded));
    std::iota(positions.begin(), positions.end(), 0);
    const auto device_positions = t.gpu().device().upload(positions, "positions");
    const RowAngles host_angles{Twins::host_matrix(angles, padded, heads.head_dim), positions};
    const RowAngles device_angles{{t.upload_float32(angles, heads.head_dim).data, DType::kF32, padded, heads.head_dim},
                                  device_positions->as<int32_t>()};
    const Rows device_q = t.upload(q, heads.q_dim());
    Floats sink_logits = random_values(heads.n_heads, 43, 2.0F);
    const Matrix host_sink_logits = Twins::host_matrix(sink_logits, heads.n_heads, 1);
    const Matrix device_sink_logits = t.float32_vector(sink_logits);

    std::vector<Cached> device_caches;
    std::vector<DecodeCall> calls;
    std::vector<Floats> expected;
    for (const Window& w : {full_attention(), Window{1, 0}, Window{96, 4}, Window{700, 130}, Window{40, 3, 0, 200}}) {
      for (const int64_t row : {0, 127, 128, 600, 1299}) {
        const bool is_kept_whole = w.keys >= kNoLimit || w.end_row < kNoLimit;
        const KvCache shape = is_kept_whole ? KvCache{{}, 0, kTokens} : KvCache{{}, w.sinks, w.keys};
        Floats host_kv = kv;
        const Cached host =
            fill_cache(t.cpu(), heads, Twins::host(host_kv, 2 * heads.kv_dim()), host_angles, shape, row);
        Floats out(static_cast<std::size_t>(heads.q_dim()));
        const bool has_sink_logits = row % 2 == 1;
        const DecodeCall host_call{
            Twins::host(q, heads.q_dim()).slice(row, 1),  Twins::host(out, heads.q_dim()), row, host.cache, w,
            has_sink_logits ? host_sink_logits : Matrix{}};
        t.cpu().decode_attention({&host_call, 1}, heads);
        expected.push_back(out);
        device_caches.push_back(
            fill_cache(t.gpu(), heads, t.upload(kv, 2 * heads.kv_dim()), device_angles, shape, row));
        calls.push_back({device_q.slice(row, 1), t.poisoned(1, heads.q_dim()), row, device_caches.back().cache, w,
                         has_sink_logits ? device_sink_logits : Matrix{}});
      }
    }
    // Twice over, so that there are more calls than a launch takes.
    std::vector<DecodeCall> together = calls;
    for (DecodeCall call : calls) {
      call.out = t.poisoned(1, heads.q_dim());
      together.push_back(call);
    }
    t.gpu().decode_attention(together, heads);
    for (std::size_t i = 0; i < calls.size(); ++i) {
      const std::vector<uint16_t> bits = t.bits(calls[i].out);
      EXPECT_LT(relative_error(t.download(calls[i].out), expected[i]), kBf16Tolerance)
          << "head_dim " << heads.head_dim << " W " << calls[i].window.keys << " t " << calls[i].row;
      EXPECT_EQ(t.bits(together[calls.size() + i].out), bits);
      DecodeCall alone = calls[i];
      alone.out = t.poisoned(1, heads.q_dim());
      t.gpu().decode_attention({&alone, 1}, heads);
      EXPECT_EQ(t.bits(alone.out), bits) << "t " << alone.row;
    }
  }
}

TEST_F(CudaDecodeTest, TheArgmaxIsThatOfTheTwin) {
  Twins t;
  for (const int64_t vocab : {64, 1000, 40000}) {
    constexpr int64_t kHidden = 128;
    constexpr int64_t kRows = 256;
    Floats x = random_values(kRows * kHidden, 9);
    Floats head = random_values(vocab * kHidden, 10, 0.2F);
    std::copy_n(head.begin(), kHidden, head.begin() + 7 * kHidden);  // tokens 0 and 7 tie: the lower one counts
    std::vector<int32_t> targets(kRows, 3);
    for (std::size_t i = 0; i < kRows; i += 5) targets[i] = -1;
    std::vector<double> nll(kRows);
    std::vector<uint8_t> hit(kRows);
    std::vector<int32_t> expected(kRows, -7);
    std::vector<int32_t> found(kRows, -7);
    t.cpu().token_nll(Twins::host(x, kHidden), Twins::host_matrix(head, vocab, kHidden), {}, targets,
                      {.nll_nats = nll, .is_argmax = hit, .argmax = expected});
    t.gpu().token_nll(t.upload(x, kHidden), t.matrix(head, vocab, kHidden), {}, targets,
                      {.nll_nats = nll, .is_argmax = hit, .argmax = found});
    EXPECT_EQ(found, expected) << vocab;
  }
}

// A random model on disk.
struct Model {
  std::filesystem::path directory;
  model::ModelConfig config;
  std::unique_ptr<model::Checkpoint> checkpoint;
  Model() : directory(std::filesystem::temp_directory_path() / ("winnow-cuda-decode-" + std::to_string(getpid()))) {
    model::write_random_checkpoint(
        directory,
        {.n_layers = 3, .hidden = 128, .n_heads = 8, .n_kv_heads = 2, .head_dim = 64, .ffn = 256, .vocab = 500});
    config = model::read_config(directory);
    checkpoint = std::make_unique<model::Checkpoint>(directory);
  }
  ~Model() { std::filesystem::remove_all(directory); }
};

TEST_F(CudaDecodeTest, GenerationIsTheSameInAnyCompanyAndFollowsTheSweep) {
  const Model model;
  for (const Attention attention : {Attention::kAuto, Attention::kBuiltin}) {
    const auto gpu = cuda::make_cuda_backend({.device = 0, .attention = attention});
    model::ModelWeights weights(model.config, *model.checkpoint, *gpu);
    std::vector<std::vector<int32_t>> prompts;
    std::vector<engine::GenerationRequest> requests;
    const Window windows[] = {{96, 0}, {96, 4}, {40, 200}, {3000, 4}, {96, 4}};
    for (std::size_t i = 0; i < 10; ++i) {
      prompts.emplace_back();
      const std::size_t n = i < 2 ? 9000 + 300 * i : 100 + 263 * i;  // the first two take more than one chunk
      for (std::size_t t = 0; t < n; ++t) prompts.back().push_back(static_cast<int32_t>((t * t + 7 * i + t / 3) % 500));
    }
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      Window window = windows[i % 5];
      if (i % 5 == 4) window.first_row = static_cast<int64_t>(prompts[i].size());
      requests.push_back({.prompt = prompts[i],
                          .windows = engine::layer_windows_of({true, i % 2 == 0, true}, window),
                          .max_new_tokens = 24,
                          .name = "prompt " + std::to_string(i)});
    }
    const engine::GenerationReport together = engine::generate(*gpu, model.config, weights, requests, {}, {});
    int64_t n_hits = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const std::vector<int32_t>& tokens = together.texts[i].tokens;
      ASSERT_EQ(tokens.size(), 24U);
      const engine::GenerationReport alone =
          engine::generate(*gpu, model.config, weights, std::span(&requests[i], 1), {}, {});
      EXPECT_EQ(alone.texts[0].tokens, tokens) << requests[i].name;
      std::vector<int32_t> all = prompts[i];
      all.insert(all.end(), tokens.begin(), tokens.end());
      const engine::SweepRequest sweep_request{.tokens = all,
                                               .answer_start = static_cast<int64_t>(prompts[i].size()),
                                               .base = requests[i].windows,
                                               .variants = {},
                                               .per_token = false};
      const engine::Score score = engine::sweep(*gpu, model.config, weights, sweep_request, {}).base;
      n_hits += std::lround(score.token_accuracy * 24.0);
    }
    // Attention of single rows adds up in another order: bfloat16 may decide a close race otherwise.
    EXPECT_GE(n_hits, 10 * 24 * 95 / 100);
  }
}

}  // namespace
}  // namespace winnow::kernels
