#include "jobs/cli/commands/benchmark.h"

#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <thread>
#include <utility>

#include "base/random.h"
#include "kernels/tile.h"
#include "model/families.h"
#include "pipeline/engine/rotary_table.h"
#include "pipeline/engine/sweep.h"
#include "pipeline/run/layer_rules.h"

namespace winnow::commands {
namespace {

// Streams of the random numbers here; any two that differ.
constexpr uint64_t kActivations = 1;
constexpr uint64_t kTokens = 2;

double best_seconds(int n_repetitions, const std::function<void()>& step) {
  step();  // pages touched, caches and threads warm
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < n_repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    step();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

float uniform(RandomStream& random) { return static_cast<float>(random.next() >> 40) * 0x1p-23F - 1.0F; }

std::vector<int32_t> random_tokens(int64_t n, int64_t vocab) {
  RandomStream random(0, kTokens, 0);
  std::vector<int32_t> tokens(static_cast<std::size_t>(n));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(vocab));
  return tokens;
}

// The operations of one model, on rows of random activations.
class OperationTimer {
 public:
  OperationTimer(kernels::Ops& ops, const model::ModelConfig& config, const BenchmarkSize& size)
      : ops_(ops),
        config_(config),
        size_(size),
        n_rows_(kernels::round_up(size.n_tokens, ops.device().row_tile())),
        wide_(std::max({config.hidden, config.heads.q_dim(), 2 * config.heads.kv_dim(), 2 * config.ffn,
                        2 * config.experts.shared_ffn})),
        in_(rows(wide_, "the inputs")),
        out_(rows(wide_, "the outputs")),
        kv_(ops.device().allocate(ops.device().kv_bytes(n_rows_, config.heads), "keys and values")) {
    fill(activations(*in_, wide_));
  }

  void linear(const char* name, const kernels::Matrix& weight) {
    const double flop = 2.0 * n() * static_cast<double>(weight.rows * weight.cols);
    time(name, flop, 0.0,
         [&] { ops_.linear(activations(*in_, weight.cols), weight, {}, activations(*out_, weight.rows), false); });
  }

  void experts(const model::LayerWeights& layer) {
    const auto weights = static_cast<double>(config_.experts.router.top_k * 3 * config_.experts.ffn * config_.hidden);
    time("experts", 2.0 * n() * weights, 0.0, [&] {
      ops_.experts(activations(*in_, config_.hidden), layer.router, layer.experts, config_.family->activation,
                   activations(*out_, config_.hidden));
    });
  }

  void row_operations(const model::LayerWeights& layer, const kernels::Matrix& embedding) {
    const std::vector<int32_t> tokens = random_tokens(size_.n_tokens, config_.vocab);
    const auto hidden = static_cast<double>(config_.hidden);
    std::vector<int32_t> padded = tokens;
    padded.resize(static_cast<std::size_t>(n_rows_), -1);
    const auto ids = ops_.device().upload(padded, "token ids");
    time("embed", 0.0, n() * hidden * (static_cast<double>(kernels::size_bytes(embedding.dtype)) + element()),
         [&] { ops_.embed(embedding, ids->as<int32_t>(), 1.F, residual(*out_)); });
    time("copy", 0.0, 2.0 * n() * hidden * element(), [&] { ops_.copy_rows(residual(*in_), residual(*out_)); });
    time("rms_norm", 0.0, 2.0 * n() * hidden * element(),
         [&] { ops_.norm(residual(*in_), layer.attention_norm, activations(*out_, config_.hidden)); });
    time("swiglu", 0.0, 3.0 * n() * static_cast<double>(config_.ffn) * element(), [&] {
      ops_.gate(activations(*in_, 2 * config_.ffn), kernels::Activation::kSilu, activations(*out_, config_.ffn));
    });
  }

  // Rotates a copy, so that repetitions start from the same values.
  void rotary(const model::LayerWeights& layer, model::ModelWeights& weights) {
    const std::vector<engine::TurnedSequence> sequence = {{n_rows_, n_rows_}};
    const engine::RotaryTable table(ops_, config_, weights, sequence);
    std::vector<int32_t> rows(static_cast<std::size_t>(n_rows_));
    std::iota(rows.begin(), rows.end(), 0);
    const auto positions = ops_.device().upload(rows, "the rows' positions");
    const model::LayerAngles angles = table.angles(positions->as<int32_t>(), layer.rope);
    const auto kv_dim = static_cast<double>(config_.heads.kv_dim());
    const kernels::DType residual_dtype = ops_.device().residual_dtype();
    ops_.copy_rows(in_->rows(residual_dtype, wide_), out_->rows(residual_dtype, wide_));
    time("rope", 0.0, 2.0 * n() * static_cast<double>(config_.heads.q_dim()) * element(),
         [&] { ops_.rope(activations(*out_, config_.heads.q_dim()), config_.heads, layer.q_norm, angles.queries); });
    time("store_kv", 0.0, 4.0 * n() * kv_dim * element(), [&] {
      ops_.store_kv(activations(*out_, 2 * config_.heads.kv_dim()), config_.heads, layer.k_norm, angles.keys, keys());
    });
  }

  void attention(const char* name, const kernels::Window& window, const kernels::Matrix& sink_logits) {
    kernels::AttentionCall call;
    call.q = activations(*in_, config_.heads.q_dim());
    call.out = activations(*out_, config_.heads.q_dim());
    call.n_tokens = size_.n_tokens;
    call.own = {keys(), 0};
    call.window = window;
    call.sink_logits = sink_logits;
    const double flop = 4.0 * static_cast<double>(kernels::attention_pairs(window, 0, size_.n_tokens)) *
                        static_cast<double>(config_.heads.q_dim());
    time(name, flop, 0.0, [&] { ops_.attention(std::span(&call, 1), config_.heads); });
  }

  void token_nll(const kernels::Matrix& head) {
    std::vector<int32_t> targets = random_tokens(size_.answer_tokens, config_.vocab);
    targets.resize(static_cast<std::size_t>(kernels::round_up(size_.answer_tokens, ops_.device().row_tile())), -1);
    std::vector<double> nll(targets.size());
    std::vector<uint8_t> hits(targets.size());
    const double flop =
        2.0 * static_cast<double>(size_.answer_tokens) * static_cast<double>(config_.vocab * config_.hidden);
    const kernels::Rows x = activations(*in_, config_.hidden).slice(0, static_cast<int64_t>(targets.size()));
    time("token_nll", flop, 0.0, [&] { ops_.token_nll(x, head, {}, targets, {nll, hits}); });
  }

  std::vector<OperationTime> take() { return std::move(times_); }

 private:
  double element() const { return static_cast<double>(kernels::size_bytes(ops_.device().activation_dtype())); }
  // Random values, the same ones again and again.
  void fill(kernels::Rows rows) {
    RandomStream random(0, kActivations, 0);
    std::vector<float> values(static_cast<std::size_t>(std::min<int64_t>(rows.count(), 1 << 20)));
    for (float& value : values) value = uniform(random);
    for (int64_t at = 0; at < rows.count(); at += static_cast<int64_t>(values.size())) {
      const int64_t n = std::min<int64_t>(rows.count() - at, static_cast<int64_t>(values.size()));
      const kernels::HostTensor host{
          reinterpret_cast<const std::byte*>(values.data()), kernels::DType::kF32, {n}, "random values", "F32"};
      ops_.device().load(host, kernels::WeightUse::kLinear,
                         rows.bytes().subspan(static_cast<std::size_t>(at * kernels::size_bytes(rows.dtype))));
    }
  }
  double n() const { return static_cast<double>(size_.n_tokens); }
  // All rows of a measurement, with fewer columns than the buffer has room for.
  kernels::Rows activations(kernels::Buffer& buffer, int64_t cols) const {
    return buffer.rows(ops_.device().activation_dtype(), cols).slice(0, n_rows_);
  }
  kernels::Rows residual(kernels::Buffer& buffer) const {
    return buffer.rows(ops_.device().residual_dtype(), config_.hidden).slice(0, n_rows_);
  }
  kernels::KvSpan keys() const { return ops_.device().kv_span(kv_->bytes(), config_.heads); }
  std::unique_ptr<kernels::Buffer> rows(int64_t cols, const char* what) {
    return ops_.device().allocate(n_rows_ * cols * kernels::size_bytes(ops_.device().activation_dtype()), what);
  }
  void time(const char* name, double flop, double bytes, const std::function<void()>& step) {
    const double seconds = best_seconds(size_.n_repetitions, [&] {
      step();
      ops_.device().synchronize();
    });
    times_.push_back({name, seconds, flop, bytes});
  }

  kernels::Ops& ops_;
  const model::ModelConfig& config_;
  const BenchmarkSize& size_;
  const int64_t n_rows_;
  const int64_t wide_;
  std::unique_ptr<kernels::Buffer> in_;   // (n_rows, wide)
  std::unique_ptr<kernels::Buffer> out_;  // (n_rows, wide)
  std::unique_ptr<kernels::Buffer> kv_;
  std::vector<OperationTime> times_;
};

// OpenBLAS's own threads for as long as this lives.
class BlasThreads {
 public:
  explicit BlasThreads(int n) : former_(openblas_get_num_threads()) { openblas_set_num_threads(n); }
  BlasThreads(const BlasThreads&) = delete;
  BlasThreads& operator=(const BlasThreads&) = delete;
  ~BlasThreads() { openblas_set_num_threads(former_); }

 private:
  int former_;
};

}  // namespace

std::vector<OperationTime> time_operations(kernels::Ops& ops, const model::ModelConfig& config,
                                           model::ModelWeights& weights, const BenchmarkSize& size) {
  OperationTimer timer(ops, config, size);
  const model::LayerWeights& layer = weights.layer(0);
  timer.linear("linear q", layer.q);
  timer.linear("linear kv", layer.kv);
  timer.linear("linear o", layer.o);
  if (layer.router.weight) timer.experts(layer);
  if (layer.gate_up) {
    timer.linear("linear gate+up", layer.gate_up);
    timer.linear("linear down", layer.down);
  }
  timer.rotary(layer, weights);
  timer.attention("attention full", kernels::full_attention(), layer.sink_logits);
  timer.attention("attention window", size.window, layer.sink_logits);
  timer.row_operations(layer, weights.embedding());
  timer.token_nll(weights.head());
  return timer.take();
}

OperationTime time_large_sgemm(int n_threads, int n_repetitions) {
  constexpr int kSide = 2048;
  const std::vector<float> a(std::size_t{kSide} * kSide, 0.5F);
  std::vector<float> c(a.size());
  const BlasThreads threads(n_threads);
  const double seconds = best_seconds(n_repetitions, [&] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kSide, kSide, kSide, 1.0F, a.data(), kSide, a.data(), kSide,
                0.0F, c.data(), kSide);
  });
  return {"large sgemm", seconds, 2.0 * kSide * kSide * kSide, 0.0};
}

OperationTime time_memory_copy(int n_threads, int n_repetitions) {
  constexpr std::size_t kBytes = std::size_t{256} << 20;  // beyond every cache
  const std::vector<char> from(kBytes, 1);
  std::vector<char> to(kBytes);
  const std::size_t share = kBytes / static_cast<std::size_t>(n_threads);
  const double seconds = best_seconds(n_repetitions, [&] {
    std::vector<std::jthread> threads;
    for (std::size_t begin = 0; begin < kBytes; begin += share) {
      const std::size_t count = std::min(share, kBytes - begin);
      threads.emplace_back([&from, &to, begin, count] { std::memcpy(&to[begin], &from[begin], count); });
    }
  });
  return {"memory copy", seconds, 0.0, 2.0 * static_cast<double>(kBytes)};
}

SweepTimes time_sweep(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                      const BenchmarkSize& size) {
  const std::vector<int32_t> tokens = random_tokens(size.n_tokens, config.vocab);
  engine::SweepRequest request;
  request.tokens = tokens;
  request.answer_start = size.n_tokens - size.answer_tokens;
  // As calibrate does: layers with a window of their own keep it.
  const engine::LayerRules rules = run::rules_of(config);
  const engine::Pattern full(static_cast<std::size_t>(config.n_layers), false);
  std::vector<engine::LayerWindows> all = {engine::layer_windows_of(full, size.window, rules)};
  for (std::size_t l = 0; l < full.size(); ++l) {
    engine::Pattern pattern = full;
    pattern[l] = true;
    if (!rules.has_native(l)) all.push_back(engine::layer_windows_of(pattern, size.window, rules));
  }

  SweepTimes times;
  times.n_passes = static_cast<int64_t>(all.size());
  std::vector<double> separate;
  const auto start = std::chrono::steady_clock::now();
  for (const engine::LayerWindows& windows : all) {
    request.base = windows;
    separate.push_back(engine::sweep(ops, config, weights, request, {}).base.nll_nats);
  }
  const auto middle = std::chrono::steady_clock::now();
  request.base = all.front();
  request.variants.assign(all.begin() + 1, all.end());
  const engine::SweepResult swept = engine::sweep(ops, config, weights, request, {});
  const auto end = std::chrono::steady_clock::now();

  times.separate_seconds = std::chrono::duration<double>(middle - start).count();
  times.sweep_seconds = std::chrono::duration<double>(end - middle).count();
  times.largest_difference = std::abs(swept.base.nll_nats - separate.front());
  for (std::size_t v = 0; v < swept.variants.size(); ++v) {
    times.largest_difference =
        std::max(times.largest_difference, std::abs(swept.variants[v].nll_nats - separate[v + 1]));
  }
  return times;
}

}  // namespace winnow::commands
