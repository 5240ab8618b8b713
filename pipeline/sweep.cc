#include "pipeline/sweep.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "kernels/error.h"
#include "model/layer.h"
#include "model/rope.h"

namespace winnow {

namespace {

int64_t round_down(int64_t row, int64_t tile) { return row / tile * tile; }
int64_t round_up(int64_t row, int64_t tile) { return (row + tile - 1) / tile * tile; }

// First layer whose window differs, or n_layers.
int64_t birth_layer(const Pattern& base, const Pattern& variant) {
  const auto difference = std::mismatch(base.begin(), base.end(), variant.begin());
  return difference.first - base.begin();
}

// (row, key) pairs of rows [first, end) under a window.
int64_t attention_pairs(const Window& window, int64_t first, int64_t end) {
  int64_t pairs = 0;
  for (int64_t t = first; t < end; ++t) {
    const int64_t band = band_start(window, t);
    pairs += t - band + 1 + std::min(window.sinks, band);
  }
  return pairs;
}

void check(const ModelConfig& config, const SweepRequest& request) {
  const auto n_layers = static_cast<std::size_t>(config.n_layers);
  bool sizes_match = request.base.size() == n_layers;
  for (const Pattern& variant : request.variants) sizes_match = sizes_match && variant.size() == n_layers;
  const auto n_tokens = static_cast<int64_t>(request.tokens.size());
  if (!sizes_match || request.answer_start < 1 || request.answer_start >= n_tokens || request.window.keys < 1) {
    fail(ExitCode::kInternal, "sweep: request does not fit the model");
  }
}

// The rows of one residual stream that an operation works on.
struct Rows {
  void* x = nullptr;      // (n_rows, hidden)
  int64_t first_row = 0;  // absolute
  int64_t n_rows = 0;
};

// One pass over the layers. The stack holds the base and then the lanes in the order of their birth, so that the lanes
// alive at a layer are its front part. At layer l
//   - the base and the lanes born before run the layer, each with its pattern's window for l;
//   - the lanes born at l copy the base's residual rows and attend with the base's own queries, keys and values,
//     which their windows have not touched yet.
// After the last layer only the rows that predict answer tokens are wanted: they are gathered into `scored_` first.
class Sweep {
 public:
  Sweep(Backend& backend, const ModelConfig& config, ModelWeights& weights, const SweepRequest& request);
  SweepResult run(const StopCheck& stop);

  static int64_t predicted_bytes(const Backend& backend, const ModelConfig& config, const SweepPlan& plan);

 private:
  struct Lane {
    std::size_t variant;
    int64_t birth;
  };
  // Rows that each buffer holds, from the plan alone.
  struct Sizes {
    int64_t lane_rows;        // of a lane in the stack
    int64_t score_rows;       // of the base after the last layer
    int64_t lane_score_rows;  // of a lane after the last layer
    int64_t group_rows;       // of lanes that go through attention together
  };
  static Sizes sizes_of(const SweepPlan& plan);

  void run_layer(int64_t layer);
  void run_base(const LayerWeights& weights, int64_t layer);
  void run_lanes(const LayerWeights& weights, int64_t layer, int64_t begin, int64_t end);
  void gather_scored(int64_t layer);
  SweepResult score();
  Score score_segment(int64_t segment, const std::vector<double>& nll, const std::vector<uint8_t>& hits) const;

  bool is_last(int64_t layer) const { return layer == config_.n_layers - 1; }
  // Segment 0 is the base, segment 1 + i lane i. Its residual rows, and those that leave attention at a layer.
  Rows residual(int64_t segment) const;
  Rows outgoing(int64_t segment, int64_t layer) const;
  const Window& window(const Pattern& pattern, int64_t layer) const {
    return pattern[static_cast<std::size_t>(layer)] ? request_.window : full_;
  }
  void* activations(const std::unique_ptr<Buffer>& buffer, int64_t row, int64_t cols) const {
    return row_pointer(backend_, buffer->data(), row, cols);
  }
  std::unique_ptr<Buffer> allocate_rows(int64_t n_rows, int64_t cols, const char* what) {
    return backend_.allocate(n_rows * cols * size_bytes(backend_.activation_dtype()), what);
  }
  int64_t n_lanes() const { return static_cast<int64_t>(lanes_.size()); }

  Backend& backend_;
  const ModelConfig& config_;
  ModelWeights& weights_;
  const SweepRequest& request_;
  const SweepPlan plan_;
  const Sizes sizes_;
  const Window full_ = full_attention();
  std::vector<Lane> lanes_;  // in the order of birth
  std::unique_ptr<Buffer> rope_memory_;
  std::unique_ptr<DecoderLayer> decoder_;
  std::unique_ptr<Buffer> stack_;      // (base rows + lanes x lane rows, hidden)
  std::unique_ptr<Buffer> scored_;     // (base score rows + lanes x lane score rows, hidden)
  std::unique_ptr<Buffer> base_q_;     // (base rows, q_dim)
  std::unique_ptr<Buffer> base_kv_;    // keys and values of the base's rows
  std::unique_ptr<Buffer> group_q_;    // (group rows, q_dim)
  std::unique_ptr<Buffer> group_kv_;   // keys and values of the group's rows
  std::unique_ptr<Buffer> attention_;  // (group rows, q_dim)
};

Sweep::Sizes Sweep::sizes_of(const SweepPlan& plan) {
  const int64_t lane_rows = plan.padded_rows - plan.lane_first_row;
  const int64_t lanes_in_group =
      lane_rows == 0 ? 0 : std::min(plan.n_lanes, std::max<int64_t>(1, plan.padded_rows / lane_rows));
  return {.lane_rows = lane_rows,
          .score_rows = plan.padded_rows - plan.first_score_row,
          .lane_score_rows = plan.padded_rows - std::max(plan.first_score_row, plan.lane_first_row),
          .group_rows = lanes_in_group * lane_rows};
}

int64_t Sweep::predicted_bytes(const Backend& backend, const ModelConfig& config, const SweepPlan& plan) {
  const Sizes sizes = sizes_of(plan);
  const int64_t element = size_bytes(backend.activation_dtype());
  const int64_t stack_rows = plan.padded_rows + plan.n_lanes * sizes.lane_rows;
  const int64_t scored_rows = sizes.score_rows + plan.n_lanes * sizes.lane_score_rows;
  const int64_t query_rows = plan.padded_rows + sizes.group_rows + std::max(plan.padded_rows, sizes.group_rows);
  return ((stack_rows + scored_rows) * config.hidden + query_rows * config.heads.q_dim()) * element +
         backend.kv_bytes(plan.padded_rows, config.heads) + backend.kv_bytes(sizes.group_rows, config.heads) +
         plan.n_rows * config.heads.head_dim * static_cast<int64_t>(sizeof(float)) +
         DecoderLayer::workspace_bytes(backend, config) +
         backend.workspace_bytes(plan.padded_rows, config.hidden, config.vocab, config.heads);
}

Sweep::Sweep(Backend& backend, const ModelConfig& config, ModelWeights& weights, const SweepRequest& request)
    : backend_(backend),
      config_(config),
      weights_(weights),
      request_(request),
      plan_(plan_sweep(config, request, backend.row_tile())),
      sizes_(sizes_of(plan_)) {
  const HeadShape& heads = config.heads;
  if (plan_.n_lanes > 0) {
    for (std::size_t v = 0; v < request.variants.size(); ++v) {
      const int64_t birth = birth_layer(request.base, request.variants[v]);
      if (birth < config.n_layers) lanes_.push_back({v, birth});
    }
    std::stable_sort(lanes_.begin(), lanes_.end(), [](const Lane& a, const Lane& b) { return a.birth < b.birth; });
  }
  const std::vector<float> angles = rope_table(config.rope, heads.head_dim, plan_.n_rows);
  const HostTensor table{
      reinterpret_cast<const std::byte*>(angles.data()), DType::kF32, {plan_.n_rows, heads.head_dim}, "rotary table"};
  rope_memory_ = backend.allocate(static_cast<int64_t>(angles.size() * sizeof(float)), "the rotary table");
  decoder_ =
      std::make_unique<DecoderLayer>(backend, config, backend.load(table, WeightUse::kTable, rope_memory_->data()));

  stack_ = allocate_rows(plan_.padded_rows + n_lanes() * sizes_.lane_rows, config.hidden, "the residual lanes");
  scored_ = allocate_rows(sizes_.score_rows + n_lanes() * sizes_.lane_score_rows, config.hidden, "the answer rows");
  base_q_ = allocate_rows(plan_.padded_rows, heads.q_dim(), "the base's queries");
  base_kv_ = backend.allocate(backend.kv_bytes(plan_.padded_rows, heads), "the base's keys and values");
  group_q_ = allocate_rows(sizes_.group_rows, heads.q_dim(), "the lanes' queries");
  group_kv_ = backend.allocate(backend.kv_bytes(sizes_.group_rows, heads), "the lanes' keys and values");
  attention_ = allocate_rows(std::max(plan_.padded_rows, sizes_.group_rows), heads.q_dim(), "attention's output");
}

Rows Sweep::residual(int64_t segment) const {
  if (segment == 0) return {stack_->data(), 0, plan_.padded_rows};
  const int64_t row = plan_.padded_rows + (segment - 1) * sizes_.lane_rows;
  return {activations(stack_, row, config_.hidden), plan_.lane_first_row, sizes_.lane_rows};
}

Rows Sweep::outgoing(int64_t segment, int64_t layer) const {
  if (!is_last(layer)) return residual(segment);
  if (segment == 0) return {scored_->data(), plan_.first_score_row, sizes_.score_rows};
  const int64_t row = sizes_.score_rows + (segment - 1) * sizes_.lane_score_rows;
  return {activations(scored_, row, config_.hidden), std::max(plan_.first_score_row, plan_.lane_first_row),
          sizes_.lane_score_rows};
}

// The rows that leave the last layer start from the residual rows that enter it: the base's for a lane born there.
void Sweep::gather_scored(int64_t layer) {
  for (int64_t segment = 0; segment <= n_lanes(); ++segment) {
    const bool has_own_rows = segment == 0 || lanes_[static_cast<std::size_t>(segment - 1)].birth < layer;
    const Rows from = residual(has_own_rows ? segment : 0);
    const Rows to = outgoing(segment, layer);
    backend_.copy(row_pointer(backend_, from.x, to.first_row - from.first_row, config_.hidden), to.x, to.n_rows,
                  config_.hidden);
  }
}

void Sweep::run_base(const LayerWeights& weights, int64_t layer) {
  const Rows out = outgoing(0, layer);
  const KvRows kv{base_kv_->data(), 0, plan_.padded_rows};
  const AttentionCall call{.q = activations(base_q_, out.first_row, config_.heads.q_dim()),
                           .out = attention_->data(),
                           .first_row = out.first_row,
                           .n_rows = out.n_rows,
                           .n_tokens = plan_.n_rows,
                           .prefix = {},
                           .own = kv,
                           .window = window(request_.base, layer)};
  backend_.attention({&call, 1}, config_.heads);
  decoder_->finish(weights, attention_->data(), out.x, out.n_rows);
}

// Lanes [begin, end) through one layer, together.
void Sweep::run_lanes(const LayerWeights& weights, int64_t layer, int64_t begin, int64_t end) {
  const int64_t q_dim = config_.heads.q_dim();
  const KvRows base_kv{base_kv_->data(), 0, plan_.padded_rows};
  std::vector<AttentionCall> calls;
  for (int64_t i = begin; i < end; ++i) {
    const Lane& lane = lanes_[static_cast<std::size_t>(i)];
    const Rows in = residual(1 + i);
    const Rows out = outgoing(1 + i, layer);
    AttentionCall call{.q = activations(base_q_, out.first_row, q_dim),
                       .out = activations(attention_, (i - begin) * out.n_rows, q_dim),
                       .first_row = out.first_row,
                       .n_rows = out.n_rows,
                       .n_tokens = plan_.n_rows,
                       .prefix = {},
                       .own = base_kv,
                       .window = window(request_.variants[lane.variant], layer)};
    if (lane.birth < layer) {
      void* kv = static_cast<std::byte*>(group_kv_->data()) + (i - begin) * backend_.kv_bytes(in.n_rows, config_.heads);
      void* q = activations(group_q_, (i - begin) * out.n_rows, q_dim);
      const KvRows own{kv, in.first_row, in.n_rows};
      decoder_->attention_input(weights, in.x, in.first_row, in.n_rows, own, q, out.first_row);
      call.q = q;
      call.prefix = base_kv;
      call.own = own;
    }
    calls.push_back(call);
  }
  backend_.attention(calls, config_.heads);
  const Rows first = outgoing(1 + begin, layer);
  decoder_->finish(weights, attention_->data(), first.x, (end - begin) * first.n_rows);
}

void Sweep::run_layer(int64_t layer) {
  const LayerWeights& weights = weights_.layer(layer);
  int64_t n_alive = 0;
  while (n_alive < n_lanes() && lanes_[static_cast<std::size_t>(n_alive)].birth <= layer) ++n_alive;

  // Queries at their absolute rows, as the lanes born here look for them there.
  const Rows base = residual(0);
  const int64_t q_first = is_last(layer) ? plan_.first_score_row : 0;
  decoder_->attention_input(weights, base.x, 0, base.n_rows, KvRows{base_kv_->data(), 0, base.n_rows},
                            activations(base_q_, q_first, config_.heads.q_dim()), q_first);
  if (is_last(layer)) {
    gather_scored(layer);
  } else {
    for (int64_t i = n_alive - 1; i >= 0 && lanes_[static_cast<std::size_t>(i)].birth == layer; --i) {
      const Rows lane = residual(1 + i);
      backend_.copy(row_pointer(backend_, base.x, lane.first_row, config_.hidden), lane.x, lane.n_rows, config_.hidden);
    }
  }
  run_base(weights, layer);
  const int64_t lanes_in_group = sizes_.lane_rows == 0 ? 1 : std::max<int64_t>(1, sizes_.group_rows / sizes_.lane_rows);
  for (int64_t begin = 0; begin < n_alive; begin += lanes_in_group) {
    run_lanes(weights, layer, begin, std::min(n_alive, begin + lanes_in_group));
  }
}

Score Sweep::score_segment(int64_t segment, const std::vector<double>& nll, const std::vector<uint8_t>& hits) const {
  const Rows rows = outgoing(segment, config_.n_layers - 1);
  const int64_t offset = segment == 0 ? 0 : sizes_.score_rows + (segment - 1) * sizes_.lane_score_rows;  // in `scored_`
  Score score;
  double sum = 0.0;
  int64_t n_hits = 0;
  for (int64_t row = request_.answer_start - 1; row < plan_.n_rows; ++row) {
    // Rows before the lane's first are the base's.
    const bool own = row >= rows.first_row;
    const auto at = static_cast<std::size_t>(own ? offset + row - rows.first_row : row - plan_.first_score_row);
    sum += nll[at];
    n_hits += hits[at];
    if (request_.per_token) score.token_nll_nats.push_back(static_cast<float>(nll[at]));
  }
  const int64_t n_answer = plan_.n_rows - request_.answer_start + 1;
  score.nll_nats = sum / static_cast<double>(n_answer);
  score.exact_match = n_hits == n_answer;
  score.token_accuracy = static_cast<double>(n_hits) / static_cast<double>(n_answer);
  return score;
}

SweepResult Sweep::score() {
  const int64_t n_scored = sizes_.score_rows + n_lanes() * sizes_.lane_score_rows;
  std::vector<int32_t> targets(static_cast<std::size_t>(n_scored), -1);
  for (int64_t segment = 0, at = 0; segment <= n_lanes(); ++segment) {
    const Rows rows = outgoing(segment, config_.n_layers - 1);
    for (int64_t row = rows.first_row; row < rows.first_row + rows.n_rows; ++row, ++at) {
      if (row < request_.answer_start - 1 || row >= plan_.n_rows) continue;
      targets[static_cast<std::size_t>(at)] = request_.tokens[static_cast<std::size_t>(row + 1)];
    }
  }
  std::vector<double> nll(static_cast<std::size_t>(n_scored), 0.0);
  std::vector<uint8_t> hits(static_cast<std::size_t>(n_scored), 0);
  backend_.rms_norm(scored_->data(), weights_.final_norm(), config_.rms_eps, scored_->data(), n_scored);
  backend_.token_nll(scored_->data(), weights_.head(), targets, n_scored, {nll.data(), hits.data()});
  backend_.synchronize();

  SweepResult result;
  result.base = score_segment(0, nll, hits);
  result.variants.assign(request_.variants.size(), result.base);
  for (int64_t i = 0; i < n_lanes(); ++i) {
    result.variants[lanes_[static_cast<std::size_t>(i)].variant] = score_segment(1 + i, nll, hits);
  }
  return result;
}

SweepResult Sweep::run(const StopCheck& stop) {
  backend_.embed(weights_.embedding(), request_.tokens.first(static_cast<std::size_t>(plan_.n_rows)), stack_->data(),
                 plan_.padded_rows);
  for (int64_t layer = 0; layer < config_.n_layers; ++layer) {
    run_layer(layer);
    if (stop && stop()) throw Interrupted{};
  }
  return score();
}

void check_finite(const SweepRequest& request, const SweepResult& result) {
  if (!std::isfinite(result.base.nll_nats)) fail(ExitCode::kBadData, "the NLL of the base pattern is not finite");
  for (std::size_t v = 0; v < result.variants.size(); ++v) {
    if (std::isfinite(result.variants[v].nll_nats)) continue;
    const int64_t layer = birth_layer(request.base, request.variants[v]);
    fail(ExitCode::kBadData,
         "the NLL of the pattern that differs from the base at layer " + std::to_string(layer) + " is not finite");
  }
}

}  // namespace

SweepPlan plan_sweep(const ModelConfig& config, const SweepRequest& request, int64_t row_tile) {
  check(config, request);
  SweepPlan plan;
  plan.n_rows = static_cast<int64_t>(request.tokens.size()) - 1;
  plan.padded_rows = round_up(plan.n_rows, row_tile);
  const int64_t first_affected = first_affected_row(request.window);
  plan.lane_first_row = first_affected >= plan.n_rows ? plan.padded_rows : round_down(first_affected, row_tile);
  plan.first_score_row = round_down(request.answer_start - 1, row_tile);

  std::vector<int64_t> births;
  for (const Pattern& variant : request.variants) {
    const int64_t birth = birth_layer(request.base, variant);
    if (birth < config.n_layers && plan.lane_first_row < plan.padded_rows) births.push_back(birth);
  }
  plan.n_lanes = static_cast<int64_t>(births.size());
  const int64_t lane_rows = plan.padded_rows - plan.lane_first_row;
  plan.stack_rows = plan.padded_rows + plan.n_lanes * lane_rows;
  const Window full = full_attention();
  const int64_t lane_pairs[2] = {attention_pairs(full, plan.lane_first_row, plan.n_rows),
                                 attention_pairs(request.window, plan.lane_first_row, plan.n_rows)};
  const int64_t base_pairs[2] = {attention_pairs(full, 0, plan.n_rows),
                                 attention_pairs(request.window, 0, plan.n_rows)};
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const auto l = static_cast<std::size_t>(layer);
    plan.row_layers += plan.padded_rows;
    plan.attention_pairs += base_pairs[request.base[l] ? 1 : 0];
    std::size_t lane = 0;
    for (const Pattern& variant : request.variants) {
      if (lane == births.size()) break;
      const int64_t birth = birth_layer(request.base, variant);
      if (birth == config.n_layers) continue;
      if (birth <= layer) {
        plan.row_layers += lane_rows;
        plan.attention_pairs += lane_pairs[variant[l] ? 1 : 0];
      }
      ++lane;
    }
  }
  return plan;
}

int64_t predict_sweep_bytes(const ModelConfig& config, const Backend& backend, const SweepPlan& plan) {
  return Sweep::predicted_bytes(backend, config, plan);
}

SweepResult sweep(Backend& backend, const ModelConfig& config, ModelWeights& weights, const SweepRequest& request,
                  const StopCheck& stop) {
  SweepResult result = Sweep(backend, config, weights, request).run(stop);
  check_finite(request, result);
  return result;
}

}  // namespace winnow
