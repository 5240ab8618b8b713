#include "pipeline/engine/rates.h"

#include <chrono>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/tile.h"
#include "pipeline/engine/forward.h"

namespace winnow::engine {
namespace {

// Seconds of one call: repeated until the clock can tell, after one call that warms up, unless that took long.
double seconds_of(kernels::Ops& ops, const std::function<void()>& work) {
  constexpr double kEnough = 0.01;
  constexpr double kLong = 0.5;
  using Clock = std::chrono::steady_clock;
  const auto time = [&](int repeats) {
    const auto begin = Clock::now();
    for (int i = 0; i < repeats; ++i) work();
    ops.device().synchronize();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  // The first call warms up: it may build a plan or load code.
  double seconds = time(1);
  if (seconds > kLong) return seconds;
  for (int repeats = 1; repeats <= 1 << 16; repeats *= 4) {
    seconds = time(repeats);
    if (seconds >= kEnough) return seconds / repeats;
  }
  return seconds / (1 << 16);
}

// Keys before the rows whose attention is timed: near the diagonal half a tile is masked, which long sequences hardly
// notice.
constexpr int64_t kEarlierKeys = 1024;

// Rows of a measurement, with their memory.
struct OwnedRows {
  OwnedRows(kernels::Ops& ops, int64_t n_rows, int64_t cols, kernels::DType dtype)
      : memory(ops.device().allocate(n_rows * cols * kernels::size_bytes(dtype), "a measurement of speed")),
        rows(memory->rows(dtype, cols)) {}
  std::unique_ptr<kernels::Buffer> memory;
  kernels::Rows rows;
};

double time_score_row(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights) {
  const int64_t n_rows = ops.device().row_tile();
  const OwnedRows x(ops, n_rows, config.hidden, ops.device().activation_dtype());
  const std::vector<int32_t> targets(static_cast<std::size_t>(n_rows), 0);
  std::vector<double> nll(static_cast<std::size_t>(n_rows));
  std::vector<uint8_t> hits(static_cast<std::size_t>(n_rows));
  return seconds_of(ops,
                    [&] {
                      ops.token_nll(x.rows, weights.head(), {}, targets, {nll, hits});
                    }) /
         static_cast<double>(n_rows);
}

}  // namespace

Rates measure_rates(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights) {
  const kernels::HeadShape& heads = config.heads;
  const int64_t n_rows = ops.device().chunk_rows();
  const OwnedRows x(ops, n_rows, config.hidden, ops.device().residual_dtype());
  const OwnedRows q(ops, n_rows, heads.q_dim(), ops.device().activation_dtype());
  const OwnedRows out(ops, n_rows, heads.q_dim(), ops.device().activation_dtype());
  const int64_t first_row = kernels::round_up(kEarlierKeys, ops.device().row_tile());
  const int64_t n_keys = first_row + n_rows;
  const auto kv = ops.device().allocate(ops.device().kv_bytes(n_keys, heads), "keys and values");
  const kernels::KvRows keys{.kv = ops.device().kv_span(kv->bytes(), heads), .first_row = 0};
  std::vector<int32_t> rows(static_cast<std::size_t>(n_rows));
  std::iota(rows.begin(), rows.end(), 0);
  const auto positions = ops.device().upload(rows, "the rows' positions");
  Forward forward(ops, config, weights, std::vector<TurnedSequence>{{n_rows, n_rows}});

  Rates rates;
  int64_t index = 0;
  // Another layer each time: the one in place is not loaded again.
  rates.per_layer_load = seconds_of(ops, [&] { weights.layer(index++ % config.n_layers); });
  if (config.n_layers == 1) rates.per_layer_load = 0.0;
  const model::LayerWeights& layer = weights.layer(0);
  const model::LayerAngles row_angles = forward.rotary.angles(positions->as<int32_t>(), layer.rope);
  rates.per_row_layer = seconds_of(ops,
                                   [&] {
                                     forward.decoder.attention_input(layer, x.rows, row_angles, keys.kv, q.rows);
                                     forward.decoder.finish(layer, q.rows, x.rows);
                                   }) /
                        static_cast<double>(n_rows);
  const kernels::AttentionCall call{.q = q.rows,
                                    .out = out.rows,
                                    .first_row = first_row,
                                    .n_tokens = n_keys,
                                    .prefix = {},
                                    .own = keys,
                                    .window = kernels::full_attention(),
                                    .sink_logits = layer.sink_logits};
  const double pairs =
      static_cast<double>(n_rows) * (static_cast<double>(first_row) + 0.5 * static_cast<double>(n_rows + 1));
  rates.per_attention_pair = seconds_of(ops, [&] { ops.attention({&call, 1}, heads); }) / pairs;
  rates.per_score_row = time_score_row(ops, config, weights);
  return rates;
}

Ceilings measure_ceilings(kernels::Ops& ops) {
  // A GPU needs large matrices, which would keep a CPU busy for long.
  const int64_t side = ops.device().free_bytes() ? 8192 : 1024;
  const OwnedRows x(ops, side, side, ops.device().activation_dtype());
  const OwnedRows weight(ops, side, side, ops.device().activation_dtype());
  const OwnedRows out(ops, side, side, ops.device().activation_dtype());
  // Zeros would run faster than real values.
  std::vector<float> values(static_cast<std::size_t>(side * side));
  uint32_t state = 1;
  for (float& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(static_cast<int32_t>(state >> 8) - (1 << 23)) * 0x1p-23F;
  }
  const kernels::HostTensor host{.data = reinterpret_cast<const std::byte*>(values.data()),
                                 .dtype = kernels::DType::kF32,
                                 .shape = {side, side},
                                 .name = "random values"};
  ops.device().load(host, kernels::WeightUse::kLinear, x.rows.bytes());
  const kernels::Matrix matrix = ops.device().load(host, kernels::WeightUse::kLinear, weight.rows.bytes());
  Ceilings ceilings;
  const double product = seconds_of(ops, [&] { ops.linear(x.rows, matrix, {}, out.rows, false); });
  ceilings.flop_per_second = 2.0 * static_cast<double>(side * side * side) / product;
  const kernels::Rows from = x.memory->rows(ops.device().residual_dtype(), side);
  const kernels::Rows to = out.memory->rows(ops.device().residual_dtype(), side);
  const double copy = seconds_of(ops, [&] { ops.copy_rows(from, to); });
  ceilings.bytes_per_second = 2.0 * static_cast<double>(from.size_bytes()) / copy;
  return ceilings;
}

double predict_seconds(const Rates& rates, const model::ModelConfig& config, const SweepPlan& plan, int64_t n_answer) {
  return rates.per_layer_load * static_cast<double>(config.n_layers) +
         rates.per_row_layer * static_cast<double>(plan.row_layers) +
         rates.per_attention_pair * static_cast<double>(plan.attention_pairs) +
         rates.per_score_row * static_cast<double>(n_answer * (1 + plan.n_lanes));
}

}  // namespace winnow::engine
