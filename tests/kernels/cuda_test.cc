// Every row-wise operation of the CUDA backend against its CPU twin, and whole sweeps. Skipped where there is no GPU.

#include "kernels/cuda/cuda.h"
#include "kernels/cpu/cpu.h"
#include "pipeline/engine/cached_prefix.h"
#include "pipeline/engine/sweep.h"
#include "tests/kernels/cuda_twins.h"
#include "tests/small_model.h"
#include "tests/tolerances.h"

namespace winnow::kernels {
namespace {

model::RandomCheckpoint shape_of(const char* family, int64_t head_dim, uint64_t seed) {
  return {.model_type = family,
          .n_layers = 4,
          .hidden = 128,
          .n_heads = 4,
          .n_kv_heads = 2,
          .head_dim = head_dim,
          .ffn = 256,
          .vocab = 512,
          .seed = seed};
}

class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  }
};

TEST_F(CudaTest, RowWiseOperationsMatchTheirTwins) {
  Twins t;
  for (const int64_t cols : {64, 128, 2560}) {
    constexpr int64_t kRows = 256;
    Floats x = random_values(kRows * cols, 1);
    Floats weight = random_values(cols, 2);
    Floats expected(x.size());
    t.cpu().norm(Twins::host(x, cols), {Twins::host_matrix(weight, cols, 1), {.eps = 1e-6F}},
                 Twins::host(expected, cols));
    const Rows out = t.poisoned(kRows, cols);
    t.gpu().norm(t.upload(x, cols), {t.matrix(weight, cols, 1), {.eps = 1e-6F}}, out);
    EXPECT_LT(relative_error(t.download(out), expected), kBf16Tolerance) << "rms_norm " << cols;

    Floats gate_up = random_values(kRows * 2 * cols, 3, 4.0F);
    t.cpu().gate(Twins::host(gate_up, 2 * cols), Activation::kSilu, Twins::host(expected, cols));
    const Rows gated = t.poisoned(kRows, cols);
    t.gpu().gate(t.upload(gate_up, 2 * cols), Activation::kSilu, gated);
    EXPECT_LT(relative_error(t.download(gated), expected), kBf16Tolerance) << "swiglu " << cols;

    std::vector<int32_t> tokens(kRows, -1);
    for (std::size_t i = 0; i < 5; ++i) tokens[i] = static_cast<int32_t>((3 * i + 1) % 8);
    const auto device_tokens = t.gpu().device().upload(tokens, "tokens");
    Floats table = random_values(8 * cols, 4);
    t.cpu().embed(Twins::host_matrix(table, 8, cols), tokens, 1.F, Twins::host(expected, cols));
    const Rows embedded = t.poisoned(kRows, cols);
    t.gpu().embed(t.matrix(table, 8, cols), device_tokens->as<int32_t>(), 1.F, embedded);
    EXPECT_EQ(t.download(embedded), expected) << "embed " << cols;
  }
}

TEST_F(CudaTest, AnglesOfRowsMatchTheirTwins) {
  Twins t;
  for (const int64_t cols : {64, 576, 2560}) {
    constexpr int64_t kRows = 37;
    Floats a = random_values(kRows * cols, 1);
    Floats b = random_values(kRows * cols, 2);
    std::fill_n(a.begin(), cols, 0.0F);                     // a row of zeros
    std::copy_n(a.begin() + cols, cols, b.begin() + cols);  // one that does not turn
    for (int64_t i = 0; i < cols; ++i) b[2 * cols + i] = -a[2 * cols + i];
    std::vector<double> expected(kRows);
    t.cpu().row_angles(Twins::host(a, cols), Twins::host(b, cols), expected);
    EXPECT_EQ(expected[0], 0.5);
    EXPECT_EQ(expected[1], 0.0);
    EXPECT_EQ(expected[2], 1.0);
    const auto memory = t.gpu().device().allocate_host(kRows * 8, "a test");
    for (const bool is_float32 : {false, true}) {
      const Rows of_a = is_float32 ? t.upload_float32(a, cols) : t.upload(a, cols);
      const Rows of_b = is_float32 ? t.upload_float32(b, cols) : t.upload(b, cols);
      t.gpu().row_angles(of_a, of_b, memory->as<double>());
      t.gpu().device().synchronize();
      for (int64_t row = 0; row < kRows; ++row) {
        EXPECT_NEAR(memory->as<double>()[row], expected[row], kDoubleSumTolerance) << cols << " " << row;
      }
    }
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
  const Rows rows = t.upload_float32(residual, kOut);
  t.gpu().linear(t.upload(x, kIn), t.matrix(weight, kOut, kIn), t.matrix(bias, kOut, 1), rows, true);
  t.cpu().linear(Twins::host(x, kIn), Twins::host_matrix(weight, kOut, kIn), Twins::host_matrix(bias, kOut, 1),
                 Twins::host(residual, kOut), true);
  Floats found(residual.size());
  t.gpu().device().synchronize();
  ASSERT_EQ(cudaMemcpy(found.data(), rows.data, found.size() * 4, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_LT(relative_error(found, residual), kAttentionTolerance);
  Floats expected(residual.size());
  t.cpu().norm(Twins::host(residual, kOut), {Twins::host_matrix(norm, kOut, 1), {.eps = 1e-6F}},
               Twins::host(expected, kOut));
  const Rows out = t.poisoned(kRows, kOut);
  t.gpu().norm(rows, {t.matrix(norm, kOut, 1), {.eps = 1e-6F}}, out);
  EXPECT_LT(relative_error(t.download(out), expected), kBf16Tolerance);
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
    t.cpu().linear(Twins::host(x, n_in), Twins::host_matrix(weight, n_out, n_in), Twins::host_matrix(bias, n_out, 1),
                   Twins::host(expected, n_out), true);
    const Rows device_x = t.upload(x, n_in);
    const Matrix device_weight = t.matrix(weight, n_out, n_in);
    const Matrix device_bias = t.matrix(bias, n_out, 1);
    const Rows whole = t.upload(before, n_out);
    t.gpu().linear(device_x, device_weight, device_bias, whole, true);
    EXPECT_LT(relative_error(t.download(whole), expected), kBf16Tolerance) << n_out << " x " << n_in;
    const std::vector<uint16_t> bits = t.bits(whole);
    for (const int64_t n : {128, 256, 384, 896}) {
      for (const int64_t first : {int64_t{0}, int64_t{128}}) {
        const Floats part_before(before.begin() + first * n_out, before.begin() + (first + n) * n_out);
        const Rows part = t.upload(part_before, n_out);
        t.gpu().linear(device_x.slice(first, n), device_weight, device_bias, part, true);
        const std::vector<uint16_t> part_bits = t.bits(part);
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
    t.cpu().token_nll(Twins::host(x, kHidden), Twins::host_matrix(head, vocab, kHidden), {}, targets,
                      {expected, expected_hit});
    t.gpu().token_nll(t.upload(x, kHidden), t.matrix(head, vocab, kHidden), {}, targets, {found, hit});
    for (std::size_t i = 0; i < kRows; ++i) {
      EXPECT_NEAR(found[i], expected[i], kNllTolerance * (1.0 + expected[i])) << "vocab " << vocab << " row " << i;
    }
    EXPECT_EQ(hit, expected_hit) << vocab;
  }
}

// More rows than are held at a time, with references in several tiles, and rows that equal theirs.
TEST_F(CudaTest, KlMatchesItsTwin) {
  Twins t;
  constexpr int64_t kHidden = 128;
  constexpr int64_t kTile = 128;
  constexpr int64_t kRows = 2304;
  const int64_t tile = t.gpu().device().row_tile();
  ASSERT_EQ(tile, kTile);
  for (const int64_t vocab : {64, 1000, 40000}) {
    Floats head = random_values(vocab * kHidden, 10, 0.2F);
    Floats reference = random_values(3 * kTile * kHidden, 11);
    Floats x(static_cast<std::size_t>(kRows * kHidden));
    const Floats noise = random_values(kRows * kHidden, 12, 0.1F);
    std::vector<int32_t> tiles;
    for (int64_t i = 0; i < kRows / kTile; ++i) tiles.push_back(static_cast<int32_t>(i % 4) - 1);
    for (int64_t row = 0; row < kRows; ++row) {
      const int64_t from = std::max(tiles[static_cast<std::size_t>(row / kTile)], 0) * kTile + row % kTile;
      for (int64_t k = 0; k < kHidden; ++k) {
        const float difference = row % 5 == 0 ? 0.0F : noise[static_cast<std::size_t>(row * kHidden + k)];
        x[static_cast<std::size_t>(row * kHidden + k)] =
            round_to_bf16(reference[static_cast<std::size_t>(from * kHidden + k)] + difference);
      }
    }
    std::vector<int32_t> targets(kRows, 1);
    targets[6] = -1;
    std::vector<double> nll(kRows), expected(kRows, -1.0), found(kRows, -1.0);
    std::vector<uint8_t> hit(kRows);
    // The CPU's tiles are smaller: two of them are one of the GPU's.
    const int64_t cpu_tile = t.cpu().device().row_tile();
    std::vector<int32_t> cpu_tiles;
    for (int64_t row = 0; row < kRows; row += cpu_tile) {
      const int32_t of_gpu = tiles[static_cast<std::size_t>(row / kTile)];
      cpu_tiles.push_back(of_gpu < 0 ? -1 : static_cast<int32_t>((of_gpu * kTile + row % kTile) / cpu_tile));
    }
    t.cpu().token_nll(Twins::host(x, kHidden), Twins::host_matrix(head, vocab, kHidden), {}, targets,
                      {nll, hit, expected, {Twins::host(reference, kHidden), cpu_tiles}});
    t.gpu().token_nll(t.upload(x, kHidden), t.matrix(head, vocab, kHidden), {}, targets,
                      {nll, hit, found, {t.upload(reference, kHidden), tiles}});
    for (std::size_t i = 0; i < kRows; ++i) {
      EXPECT_NEAR(found[i], expected[i], kNllTolerance * (1.0 + expected[i])) << "vocab " << vocab << " row " << i;
      const bool has_reference = tiles[i / kTile] >= 0 && targets[i] >= 0;
      if (has_reference && i % 5 == 0) {
        EXPECT_EQ(found[i], 0.0) << i;
      }
      EXPECT_EQ(found[i] == -1.0, !has_reference) << i;
    }
  }
}

TEST_F(CudaTest, SweepAgreesWithTheCpu) {
  for (const char* family : {"qwen3", "qwen2", "llama", "mistral"}) {
    const Model model(shape_of(family, 32, 3));
    const model::ModelConfig& config = model.config;
    const model::Checkpoint& checkpoint = *model.checkpoint;
    const std::vector<int32_t> tokens = random_tokens(1100, 512, 5);
    for (const Window& w : {Window{100, 4, 0, kNoLimit}, Window{100, 0, 1060 - 32, kNoLimit}}) {
      engine::SweepRequest request{
          .tokens = tokens,
          .answer_start = 1060,
          .base = engine::LayerWindows(4, {kernels::full_attention()}),
          .variants = {},
          .per_token = false,
          .with_kl = true,
          .signals = {
              .names = {"sensitivity", "mass", "lazy", "angular"}, .removed_rows = 32, .lazy = {.recent = 200}}};
      for (std::size_t l = 0; l < 4; ++l) {
        request.variants.push_back(request.base);
        request.variants.back()[l].window = w;
      }
      const auto run = [&](Ops& ops, const engine::SweepRequest& what) {
        model::ModelWeights weights(config, checkpoint, ops);
        return engine::sweep(ops, config, weights, what, {});
      };
      const auto cpu = cpu::make_cpu_backend({.n_threads = 0});
      const auto gpu = cuda::make_cuda_backend({});
      const engine::SweepResult expected = run(*cpu, request);
      const engine::SweepResult found = run(*gpu, request);
      const engine::SweepResult again = run(*gpu, request);
      EXPECT_NEAR(found.base.nll_nats, expected.base.nll_nats, kBf16NllTolerance) << family;
      for (std::size_t l = 0; l < 4; ++l) {
        EXPECT_NEAR(found.variants[l].nll_nats, expected.variants[l].nll_nats, kBf16NllTolerance) << family << l;
        EXPECT_EQ(found.variants[l].nll_nats, again.variants[l].nll_nats) << family << l;
        EXPECT_NEAR(found.variants[l].kl_nats, expected.variants[l].kl_nats, kBf16KlTolerance) << family << l;
        EXPECT_EQ(found.variants[l].kl_nats, again.variants[l].kl_nats) << family << l;
        const engine::SignalValues& a = found.variants[l].signals;
        const engine::SignalValues& b = expected.variants[l].signals;
        EXPECT_NEAR(engine::value_of(a, "nll_removed"), engine::value_of(b, "nll_removed"), kBf16NllTolerance)
            << family << l;
        EXPECT_EQ(a.at("nll_removed"), again.variants[l].signals.at("nll_removed")) << family << l;
        for (const char* of_attention :
             {"lazy_ratio", "lazy_ratio_compat", "attention_mass_outside_kv_head", "angular_distance"}) {
          for (std::size_t i = 0; i < b.at(of_attention).size(); ++i) {
            EXPECT_NEAR(a.at(of_attention).at(i), b.at(of_attention)[i], kBf16AttentionTolerance) << family << l;
          }
        }
        engine::SweepRequest alone = request;
        alone.variants = {request.variants[l]};
        const engine::Score by_itself = run(*gpu, alone).variants[0];
        EXPECT_EQ(by_itself.nll_nats, found.variants[l].nll_nats) << family << l;
        EXPECT_EQ(by_itself.kl_nats, found.variants[l].kl_nats) << family << l;
        EXPECT_EQ(by_itself.signals, a) << family << l;
      }
    }
  }
}

// A long tail sweep of the kind that stacks its lanes, several short requests together, and both types of the residual.
TEST_F(CudaTest, StackedSweepsGiveWhatEachAloneGives) {
  const Model model(shape_of("qwen3", 64, 4));
  const model::ModelConfig& config = model.config;
  const model::Checkpoint& checkpoint = *model.checkpoint;
  const std::vector<int32_t> tokens = random_tokens(5000, 512, 6);
  std::vector<engine::SweepRequest> requests;
  for (const int64_t length : {300, 5000, 1025, 129}) {
    const int64_t start = length - 40;
    for (const Window& w : {Window{100, 4, 0, kNoLimit}, Window{100, 0, start - 32, kNoLimit}}) {
      requests.push_back({.tokens = std::span(tokens).first(static_cast<std::size_t>(length)),
                          .answer_start = start,
                          .base = engine::LayerWindows(4, {kernels::full_attention()}),
                          .variants = {},
                          .per_token = true});
      for (std::size_t l = 0; l < 4; ++l) {
        requests.back().variants.push_back(requests.back().base);
        requests.back().variants.back()[l].window = w;
      }
    }
  }
  for (const DType residual : {DType::kBf16, DType::kF32}) {
    const auto gpu = cuda::make_cuda_backend({.residual = residual});
    const auto cpu = cpu::make_cpu_backend({.n_threads = 0});
    model::ModelWeights weights(config, checkpoint, *gpu);
    model::ModelWeights cpu_weights(config, checkpoint, *cpu);
    const std::vector<engine::SweepResult> together = engine::sweep(*gpu, config, weights, requests, {});
    for (std::size_t r = 0; r < requests.size(); ++r) {
      const engine::SweepResult alone = engine::sweep(*gpu, config, weights, requests[r], {});
      EXPECT_EQ(alone.base.token_nll_nats, together[r].base.token_nll_nats) << r;
      const engine::SweepResult expected = engine::sweep(*cpu, config, cpu_weights, requests[r], {});
      for (std::size_t v = 0; v < 4; ++v) {
        EXPECT_EQ(alone.variants[v].token_nll_nats, together[r].variants[v].token_nll_nats) << r << " " << v;
        EXPECT_NEAR(together[r].variants[v].nll_nats, expected.variants[v].nll_nats, kBf16NllTolerance) << r;
      }
    }
    gpu->device().reset_peak();
    const int64_t before = gpu->device().allocated_bytes();
    engine::sweep(*gpu, config, weights, requests, {});
    EXPECT_LE(gpu->device().peak_allocated_bytes() - before, engine::predict_sweep_bytes(config, *gpu, requests));
  }
}

TEST_F(CudaTest, TransferBringsBytesToTheHostAndBackAsItsTwinDoes) {
  Twins twins;
  const Floats values = random_values(5000, 8);
  const Rows there = twins.upload(values, 5000);
  const auto pinned = twins.gpu().device().allocate_host(10000, "a test");
  const auto back = twins.gpu().device().allocate(10000, "a test");
  const int64_t before = twins.gpu().device().allocated_bytes();
  twins.gpu().copy_async(there.bytes(), pinned->bytes());
  twins.gpu().copy_async(pinned->bytes(), back->bytes());
  EXPECT_EQ(twins.bits(back->rows(DType::kBf16, 5000)), twins.bits(there));
  const auto* host = static_cast<const uint16_t*>(pinned->data());
  EXPECT_EQ(std::vector<uint16_t>(host, host + 5000), twins.bits(there));
  EXPECT_EQ(twins.gpu().device().allocated_bytes(), before);

  const auto cpu_host = twins.cpu().device().allocate_host(20000, "a test");
  twins.cpu().copy_async(std::as_bytes(std::span(values)), cpu_host->bytes());
  const auto* copied = static_cast<const float*>(cpu_host->data());
  EXPECT_EQ(Floats(copied, copied + 5000), values);
}

// Cached keys and values on the GPU and in the host's memory give the same bits; and what the whole sweep gives, but
// for how attention is cut into pieces.
TEST_F(CudaTest, TailSweepsAgainstACachedPrefixAgreeWithWholeOnes) {
  const Model model(shape_of("qwen3", 64, 4));
  const model::ModelConfig& config = model.config;
  const model::Checkpoint& checkpoint = *model.checkpoint;
  const auto gpu = cuda::make_cuda_backend({});
  model::ModelWeights weights(config, checkpoint, *gpu);
  const std::vector<int32_t> tokens = random_tokens(5000, 512, 6);
  for (const int64_t length : {300, 5000}) {
    const Window window{100, 4, length - 72, kNoLimit};
    engine::SweepRequest request{.tokens = std::span(tokens).first(static_cast<std::size_t>(length)),
                                 .answer_start = length - 40,
                                 .base = {},
                                 .variants = {},
                                 .per_token = true};
    set_patterns(request, window, {true, false, true, true},
                 {{true, true, true, true}, {false, false, true, true}, {true, false, true, false}});
    const engine::SweepResult whole = engine::sweep(*gpu, config, weights, request, {});
    request.prefix_rows = engine::cached_rows(length, window, gpu->device().row_tile());
    const engine::CachedPrefix near(*gpu, config, weights, request, engine::CachedPrefix::Place::kBackend, {});
    const engine::CachedPrefix far(*gpu, config, weights, request, engine::CachedPrefix::Place::kHost, {});
    request.prefix = &near;
    const engine::SweepResult tail = engine::sweep(*gpu, config, weights, request, {});
    request.prefix = &far;
    const engine::SweepResult fetched = engine::sweep(*gpu, config, weights, request, {});
    EXPECT_NEAR(tail.base.nll_nats, whole.base.nll_nats, kBf16NllTolerance) << length;
    EXPECT_EQ(tail.base.token_nll_nats, fetched.base.token_nll_nats) << length;
    for (std::size_t v = 0; v < 3; ++v) {
      EXPECT_NEAR(tail.variants[v].nll_nats, whole.variants[v].nll_nats, kBf16NllTolerance) << length << " " << v;
      EXPECT_EQ(tail.variants[v].token_nll_nats, fetched.variants[v].token_nll_nats) << length << " " << v;
    }
  }
}

}  // namespace
}  // namespace winnow::kernels
