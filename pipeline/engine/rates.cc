#include "pipeline/engine/rates.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/clock.h"
#include "kernels/tile.h"
#include "pipeline/engine/forward.h"
#include "pipeline/engine/signals/functions.h"
#include "pipeline/engine/sweep_layout.h"
#include "pipeline/engine/sweep_pass.h"
#include "pipeline/engine/sweep_price.h"

namespace winnow::engine {
namespace {

// Seconds of one call: as many as the clock can tell, after one call that warms up, unless that took long. The middle
// one of three times: another process may have had the machine in one of them.
double seconds_of(kernels::Ops& ops, const std::function<void()>& work) {
  // A CPU is shared with other processes, which a longer time evens out.
  const double enough = ops.device().free_bytes() ? 0.001 : 0.003;
  constexpr double kLong = 0.5;
  const auto time = [&](int repeats) {
    const auto begin = Clock::now();
    for (int i = 0; i < repeats; ++i) work();
    ops.device().synchronize();
    return seconds_since(begin);
  };
  // The first call warms up: it may build a plan or load code.
  if (const double seconds = time(1); seconds > kLong) return seconds;
  int repeats = 1;
  double first = time(repeats);
  while (first < enough && repeats < 1 << 16) {
    repeats = static_cast<int>(std::clamp(1.2 * enough / std::max(first, 1e-9) * repeats, repeats + 1.0, 65536.0));
    first = time(repeats);
  }
  if (first > kLong) return first / repeats;
  std::array<double, 3> times = {first, time(repeats), time(repeats)};
  std::ranges::sort(times);
  return times[1] / repeats;
}

// Rows of a measurement, with their memory.
struct OwnedRows {
  OwnedRows(kernels::Ops& ops, int64_t n_rows, int64_t cols, kernels::DType dtype)
      : memory(ops.device().allocate(n_rows * cols * kernels::size_bytes(dtype), "a measurement of speed")),
        rows(memory->rows(dtype, cols)) {}
  std::unique_ptr<kernels::Buffer> memory;
  kernels::Rows rows;
};

using Calls = std::vector<kernels::AttentionCall>;

int64_t rows_of(const Calls& calls) {
  int64_t n_rows = 0;
  for (const kernels::AttentionCall& call : calls) n_rows += call.q.n_rows;
  return n_rows;
}

// A share of a launch's work: of fewer calls, then of the middle rows of each, which see as many keys as the mean.
Calls cut(const Calls& calls, double share, int64_t most_rows, int64_t tile) {
  share = std::min(share, static_cast<double>(most_rows) / static_cast<double>(rows_of(calls)));
  if (share >= 1.0) return calls;
  Calls fewer;
  const auto n_calls = static_cast<double>(calls.size());
  const double n_kept = std::max(1.0, std::floor(n_calls * share));
  for (double i = 0.5; i < n_kept; ++i) fewer.push_back(calls[static_cast<std::size_t>(i * n_calls / n_kept)]);
  const double of_rows = std::min(1.0, share * n_calls / n_kept);
  for (kernels::AttentionCall& call : fewer) {
    const auto wanted = static_cast<int64_t>(of_rows * static_cast<double>(call.q.n_rows));
    const int64_t n_rows = std::clamp(kernels::round_down(wanted, tile), tile, call.q.n_rows);
    call.first_row += kernels::round_down((call.q.n_rows - n_rows) / 2, tile);
    call.q.n_rows = n_rows;
  }
  return fewer;
}

int64_t keys_of(const kernels::AttentionCall& call) { return call.prefix.n_rows() + call.own.n_rows(); }

// The launches of attention that these sweeps make: in the first layer, in the middle, where half of the lanes are
// there, and in the last, which answer rows leave alone.
std::vector<Calls> launches_of(const kernels::Ops& ops, const model::ModelConfig& config,
                               std::span<const SweepRequest> samples) {
  constexpr int64_t kMostTogether = 64;
  constexpr std::size_t kMostLaunches = 10;  // a library may have to make ready for each
  std::vector<Calls> launches;
  AttentionRates known;
  for (const SweepRequest& sample : samples) {
    const std::vector<SweepRequest> requests = stacked(sample, ops.device().stack_rows(), kMostTogether);
    const SweepLayout layout(config, requests, ops);
    const SweepSteps steps{
        .input = [](int64_t, bool, bool) {},
        .attend =
            [&](std::span<const kernels::AttentionCall> calls) {
              const AttentionLaunch launch = launch_of(calls, config.heads);
              if (launches.size() == kMostLaunches || known.distance_to(launch) < AttentionRates::kNear) return;
              known.add(launch, 1.0);
              launches.emplace_back(calls.begin(), calls.end());
            },
        .finish = [](int64_t) {}};
    for (const int64_t layer : {int64_t{0}, config.n_layers / 2, config.n_layers - 1}) {
      walk_layer(layout, layer, steps);
    }
  }
  return launches;
}

// Amounts of rows that are timed: a tile, then more, up to a chunk.
std::vector<int64_t> row_counts(const kernels::Device& device) {
  std::vector<int64_t> counts;
  for (int64_t n = device.row_tile(); n < device.chunk_rows(); n *= n < 8 * device.row_tile() ? 2 : 4) {
    counts.push_back(n);
  }
  counts.push_back(device.chunk_rows());
  return counts;
}

class RateMeasurer {
 public:
  RateMeasurer(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
               std::span<const SweepRequest> samples)
      : ops_(ops),
        config_(config),
        weights_(weights),
        samples_(samples),
        launches_(launches_of(ops, config, samples)),
        chunk_(ops.device().chunk_rows()),
        forward_(ops, config, weights,
                 std::vector<TurnedSequence>{{std::max(chunk_, samples.front().whole_length()), chunk_}}),
        x_(ops, chunk_, config.hidden, ops.device().residual_dtype()) {
    int64_t n_rows = chunk_;
    n_keys_ = chunk_;
    for (Calls& calls : launches_) {
      calls = cut(calls, 1.0, most_rows(), ops.device().row_tile());
      n_rows = std::max(n_rows, rows_of(calls));
      for (const kernels::AttentionCall& call : calls) n_keys_ = std::max(n_keys_, keys_of(call));
    }
    q_.emplace(ops, n_rows, config.heads.q_dim(), ops.device().activation_dtype());
    out_.emplace(ops, n_rows, config.heads.q_dim(), ops.device().activation_dtype());
    kv_ = ops.device().allocate(ops.device().kv_bytes(n_keys_, config.heads), "keys and values");
    prepare_rows();
  }

  Rates run(std::span<const KvType> more_types) {
    const auto begin = Clock::now();
    rates_.chunk_rows = chunk_;
    time_loading();
    layer_ = &weights_.layer(config_.n_layers / 2);
    fill();
    time_rows();
    for (const Calls& calls : launches_) time_attention(calls);
    time_rounding(more_types);
    time_scores();
    if (measures_layers(samples_.front().signals)) time_signals();
    time_decoding();
    time_set_up();
    rates_.measuring_seconds = seconds_since(begin);
    return std::move(rates_);
  }

 private:
  static constexpr int64_t kMostBytes = int64_t{128} << 20;  // of a launch's queries
  static constexpr int64_t kMostChunks = 16;                 // of rows that a launch, or keys that are no zeros, have
  static constexpr double kLaunchSeconds = 0.006;            // a launch that takes longer is cut
  static constexpr double kFirstFlop = 3e8;                  // of the launch that finds out

  int64_t most_rows() const {
    const int64_t row_bytes = config_.heads.q_dim() * kernels::size_bytes(ops_.device().activation_dtype());
    return std::min(kMostBytes / row_bytes, kMostChunks * chunk_);
  }
  kernels::KvSpan keys() const { return ops_.device().kv_span(kv_->bytes(), config_.heads); }
  model::LayerAngles angles() const { return forward_.rotary.angles(positions_->as<int32_t>(), layer_->rope); }

  // Rows as a model has them: zeros go through a device at another speed, and all to the same experts.
  void prepare_rows() {
    const std::span<const int32_t> known = samples_.front().tokens;
    std::vector<int32_t> tokens;
    std::vector<int32_t> positions;
    for (int64_t row = 0; row < chunk_; ++row) {
      tokens.push_back(known[static_cast<std::size_t>(row) % known.size()]);
      positions.push_back(forward_.rotary.place(std::max(chunk_, samples_.front().whole_length()), row));
    }
    tokens_ = ops_.device().upload(tokens, "tokens of a measurement");
    positions_ = ops_.device().upload(positions, "the rows' positions");
    forward_.embed(tokens_->as<int32_t>(), x_.rows);
  }

  // Queries, keys and values of the rows, over and over.
  void fill() {
    for (int64_t row = 0; row < q_->rows.n_rows; row += chunk_) {
      const int64_t n = std::min(chunk_, q_->rows.n_rows - row);
      forward_.decoder.attention_input(*layer_, x_.rows.slice(0, n), angles(), {}, q_->rows.slice(row, n));
    }
    const int64_t n_filled = std::min(n_keys_, kMostChunks * chunk_);
    for (int64_t row = 0; row < n_filled; row += chunk_) {
      const int64_t n = std::min(chunk_, n_filled - row);
      forward_.decoder.attention_input(*layer_, x_.rows.slice(0, n), angles(), keys().slice(row, n), {});
    }
  }

  void time_rows() {
    for (const int64_t n : row_counts(ops_.device())) {
      const auto amount = static_cast<double>(n);
      rates_.input_rows.add(amount, seconds_of(ops_, [&] {
                              forward_.decoder.attention_input(*layer_, x_.rows.slice(0, n), angles(),
                                                               keys().slice(0, n), out_->rows.slice(0, n));
                            }));
      rates_.finish_rows.add(amount, seconds_of(ops_, [&] {
                               forward_.decoder.finish(*layer_, q_->rows.slice(0, n), x_.rows.slice(0, n));
                             }));
    }
  }

  double time_launch(Calls calls) {
    int64_t at = 0;
    for (kernels::AttentionCall& call : calls) {
      const int64_t n_rows = call.q.n_rows;
      call.q = q_->rows.slice(at, n_rows);
      call.out = out_->rows.slice(at, n_rows);
      at += n_rows;
      call.own.kv = keys().slice(call.prefix.n_rows(), call.own.n_rows());
      if (call.prefix.n_rows() > 0) call.prefix.kv = keys().slice(0, call.prefix.n_rows());
      call.sink_logits = layer_->sink_logits;
    }
    const double seconds = seconds_of(ops_, [&] { ops_.attention(calls, config_.heads); });
    rates_.attention.add(launch_of(calls, config_.heads), seconds);
    return seconds;
  }

  // Another layer each time: the one in place is not loaded again. Of layers that come beside the operations the first
  // is there already, so several are timed.
  void time_loading() {
    rates_.loads_beside = weights_.loads_beside();
    if (config_.n_layers == 1) return;
    int64_t index = 0;
    const int64_t n_timed = rates_.loads_beside ? std::min<int64_t>(config_.n_layers, 8) : 1;
    const auto load_some = [&] {
      for (int64_t i = 0; i < n_timed; ++i) weights_.layer(index++ % config_.n_layers);
    };
    rates_.per_layer_load = seconds_of(ops_, load_some) / static_cast<double>(n_timed);
  }

  // A launch that takes long is timed in part: first a piece of it, to find out.
  void time_attention(const Calls& calls) {
    const int64_t tile = ops_.device().row_tile();
    const double pairs = launch_of(calls, config_.heads).pairs;
    const double flop = 4.0 * pairs * static_cast<double>(config_.heads.q_dim());
    const Calls piece = cut(calls, kFirstFlop / flop, most_rows(), tile);
    const double seconds = time_launch(piece);
    const double timed_pairs = launch_of(piece, config_.heads).pairs;
    if (pairs <= timed_pairs || seconds >= kLaunchSeconds) return;
    time_launch(cut(calls, timed_pairs / pairs * kLaunchSeconds / seconds, most_rows(), tile));
  }

  // In the types that layers of the requests have, and in more; mostly there are none.
  void time_rounding(std::span<const KvType> more_types) {
    std::set<KvType> types(more_types.begin(), more_types.end());
    for (const SweepRequest& sample : samples_) {
      for (const LayerWindow& layer : sample.base) types.insert(layer.kv);
      for (const LayerWindows& variant : sample.variants) {
        for (const LayerWindow& layer : variant) types.insert(layer.kv);
      }
    }
    types.erase(KvType::kStored);
    for (const KvType type : types) {
      const kernels::KvRounding rounding = config_.kv_rounding(type, config_.n_layers / 2);
      for (const int64_t n : row_counts(ops_.device())) {
        const kernels::KvSpan rows = keys().slice(0, n);
        const kernels::KvCopy in_place{rows, 0, rows, 0, n};
        rates_.rounded_rows[type].add(static_cast<double>(n), seconds_of(ops_, [&] {
                                        ops_.round_kv(std::span(&in_place, 1), rounding, config_.heads);
                                      }));
      }
    }
  }

  // Of each tile as many rows have a target as in a sweep.
  void time_scores() {
    const SweepRequest& sample = samples_.front();
    const int64_t tile = ops_.device().row_tile();
    const int64_t n_answer = static_cast<int64_t>(sample.tokens.size()) - sample.answer_start;
    const OwnedRows normed(ops_, chunk_, config_.hidden, ops_.device().activation_dtype());
    const OwnedRows reference(ops_, tile, config_.hidden, ops_.device().activation_dtype());
    ops_.norm(x_.rows.slice(0, tile), weights_.final_norm(), reference.rows);
    for (const int64_t n : row_counts(ops_.device())) {
      std::vector<int32_t> targets;
      for (int64_t row = 0; row < n; ++row) targets.push_back(row % tile < n_answer ? 0 : -1);
      const std::vector<int32_t> tiles(static_cast<std::size_t>(n / tile), 0);
      std::vector<double> nll(targets.size());
      std::vector<double> kl(targets.size());
      std::vector<uint8_t> hits(targets.size());
      kernels::TokenScores out{nll, hits};
      const auto score = [&] { forward_.score(x_.rows.slice(0, n), targets, normed.rows, out); };
      rates_.score_rows.add(static_cast<double>(n), seconds_of(ops_, score));
      if (!sample.with_kl) continue;
      out.kl_nats = kl;
      out.reference = {reference.rows, tiles};
      rates_.compare_rows.add(static_cast<double>(n), seconds_of(ops_, score));
    }
  }

  void time_signals() {
    const int64_t n_rows = ops_.device().row_tile();
    constexpr int64_t kSets = 3;
    const auto end = static_cast<int32_t>(n_keys_);
    std::vector<kernels::KeySet> sets(static_cast<std::size_t>(kSets * n_rows), {.sinks = 0, .begin = 0, .end = end});
    const auto n_results = static_cast<int64_t>(sets.size()) * config_.heads.n_heads;
    const auto lse =
        ops_.device().allocate_host(n_results * static_cast<int64_t>(sizeof(double)), "a trial's log-sum-exps");
    const kernels::LseCall call{
        .q = q_->rows.slice(0, n_rows), .keys = {keys().slice(0, n_keys_), 0}, .sets = sets, .lse = lse->as<double>()};
    rates_.per_signal_pair =
        seconds_of(ops_, [&] { ops_.attention_lse(call, config_.heads); }) / static_cast<double>(n_rows * n_keys_);
  }

  // Single rows, each over a cache: over few keys for what a call costs, over many for what a key does.
  void time_decoding() {
    const int64_t few = ops_.device().row_tile();
    const auto time = [&](int64_t n_keys) {
      const kernels::KvCache cache{.kv = keys().slice(0, n_keys), .n_ring = n_keys};
      std::vector<kernels::DecodeCall> calls;
      for (int64_t row = 0; row < few; ++row) {
        calls.push_back({.q = q_->rows.slice(row, 1),
                         .out = out_->rows.slice(row, 1),
                         .row = n_keys - 1,
                         .cache = cache,
                         .window = kernels::full_attention(),
                         .sink_logits = layer_->sink_logits});
      }
      return seconds_of(ops_, [&] { ops_.decode_attention(calls, config_.heads); }) / static_cast<double>(few);
    };
    const double of_few = time(few);
    rates_.per_decode_pair = of_few / static_cast<double>(few);
    if (n_keys_ > few) {
      rates_.per_decode_pair = std::max(0.0, time(n_keys_) - of_few) / static_cast<double>(n_keys_ - few);
    }
    rates_.per_decode_call = std::max(0.0, of_few - rates_.per_decode_pair * static_cast<double>(few));
  }

  // The memory and the tables of a sweep: two small ones say what larger ones take.
  void time_set_up() {
    for (const std::size_t n_tokens : {std::size_t{512}, std::size_t{2048}}) {
      SweepRequest request;
      request.tokens = samples_.front().tokens.first(std::min(n_tokens, samples_.front().tokens.size()));
      if (request.tokens.size() < 2) return;
      request.answer_start = 1;
      request.base = samples_.front().base;
      request.sequence_length = samples_.front().whole_length();
      const double seconds =
          seconds_of(ops_, [&] { const SweepPass pass(ops_, config_, weights_, std::span(&request, 1)); });
      rates_.set_up_bytes.add(static_cast<double>(predict_sweep_bytes(config_, ops_, {&request, 1})), seconds);
    }
  }

  kernels::Ops& ops_;
  const model::ModelConfig& config_;
  model::ModelWeights& weights_;
  std::span<const SweepRequest> samples_;
  std::vector<Calls> launches_;
  int64_t chunk_;
  int64_t n_keys_ = 0;
  Forward forward_;
  OwnedRows x_;  // (chunk, hidden)
  std::optional<OwnedRows> q_, out_;
  std::unique_ptr<kernels::Buffer> kv_, tokens_, positions_;
  const model::LayerWeights* layer_ = nullptr;
  Rates rates_;
};

}  // namespace

void Curve::add(double amount, double seconds) {
  const auto at = std::ranges::lower_bound(points_, amount, {}, &std::pair<double, double>::first);
  if (at != points_.end() && at->first == amount) {
    at->second = seconds;
  } else {
    points_.insert(at, {amount, seconds});
  }
}

double Curve::seconds_of(double amount) const {
  if (points_.empty() || amount <= 0.0) return 0.0;
  const auto& [last_amount, last_seconds] = points_.back();
  if (points_.size() == 1 || amount >= last_amount) return last_seconds * (amount / last_amount);
  auto upper = std::ranges::upper_bound(points_, amount, {}, &std::pair<double, double>::first);
  if (upper == points_.begin()) ++upper;
  const auto& [amount_0, seconds_0] = *(upper - 1);
  const auto& [amount_1, seconds_1] = *upper;
  return std::max(0.0, seconds_0 + (seconds_1 - seconds_0) * (amount - amount_0) / (amount_1 - amount_0));
}

AttentionLaunch launch_of(std::span<const kernels::AttentionCall> calls, const kernels::HeadShape& heads) {
  AttentionLaunch launch;
  for (const kernels::AttentionCall& call : calls) {
    const int64_t end = std::min(call.end_row(), call.n_tokens);
    const auto share = static_cast<double>(call.query_heads(heads).count()) / static_cast<double>(heads.n_heads);
    const double pairs = share * static_cast<double>(kernels::attention_pairs(call.window, call.first_row, end));
    launch.rows += share * static_cast<double>(call.q.n_rows);
    launch.pairs += pairs;
    if (kernels::first_affected_row(call.window) < end) launch.windowed_pairs += pairs;
  }
  return launch;
}

namespace {

double distance(const AttentionLaunch& a, const AttentionLaunch& b) {
  const double rows = std::log2(a.rows / b.rows);
  const double keys = std::log2((a.pairs / a.rows) / (b.pairs / b.rows));
  const double windows = 2.0 * (a.windowed_pairs / a.pairs - b.windowed_pairs / b.pairs);
  return std::sqrt(rows * rows + keys * keys + windows * windows);
}

}  // namespace

void AttentionRates::add(const AttentionLaunch& launch, double seconds) {
  if (launch.pairs > 0.0) samples_.push_back({launch, seconds / launch.pairs});
}

double AttentionRates::distance_to(const AttentionLaunch& launch) const {
  double nearest = std::numeric_limits<double>::max();
  if (launch.pairs <= 0.0) return 0.0;  // nothing to learn
  for (const Sample& sample : samples_) nearest = std::min(nearest, distance(sample.launch, launch));
  return nearest;
}

double AttentionRates::seconds_of(const AttentionLaunch& launch) const {
  if (samples_.empty() || launch.pairs <= 0.0) return 0.0;
  double sum = 0.0;
  double weights = 0.0;
  for (const Sample& sample : samples_) {
    const double far = distance(sample.launch, launch);
    const double weight = 1.0 / (far * far * far + 1e-6);
    sum += weight * std::log(sample.seconds_per_pair);
    weights += weight;
  }
  return launch.pairs * std::exp(sum / weights);
}

Rates measure_rates(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                    std::span<const SweepRequest> samples, std::span<const KvType> more_types) {
  if (samples.empty()) return {};
  return RateMeasurer(ops, config, weights, samples).run(more_types);
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

}  // namespace winnow::engine
