#include "pipeline/sweep.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "kernels/error.h"
#include "kernels/profiled_backend.h"
#include "model/layer.h"
#include "pipeline/cached_prefix.h"
#include "pipeline/sweep_layout.h"

namespace winnow {

namespace {

// One pass over the layers. The stack holds the bases and then the lanes in the order of their birth. At layer l
//   - the bases and the lanes born before run the layer, each with its pattern's window for l;
//   - the lanes born at l copy the base's residual rows and attend with the base's own queries, keys and values,
//     which their windows have not touched yet.
// After the last layer only the rows that predict answer tokens are wanted: they are gathered into `scored_` first.
class Sweep {
 public:
  Sweep(Backend& backend, const ModelConfig& config, ModelWeights& weights, std::span<const SweepRequest> requests);
  std::vector<SweepResult> run(const StopCheck& stop);

  static int64_t predicted_bytes(const Backend& backend, const ModelConfig& config, const SweepLayout& layout);

 private:
  struct RowScores {
    std::vector<double> nll;    // (scored rows), nats
    std::vector<uint8_t> hits;  // (scored rows)
    std::vector<double> kl;     // (scored rows), nats; empty where no request wants it
  };

  void run_layer(int64_t layer);
  void run_bases(const LayerWeights& weights, int64_t layer);
  void run_lanes(const LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end);
  std::size_t group_end(std::size_t begin, std::size_t n_alive) const;
  void give_birth(int64_t layer);
  void gather_scored(int64_t layer);
  void keep_base_rows();
  std::vector<int32_t> targets() const;
  std::vector<int32_t> reference_tiles() const;
  RowScores score_rows();
  Score score_segment(const Segment& segment, const RowScores& scores) const;

  bool is_last(int64_t layer) const { return layout_.is_last(layer); }
  std::span<const Segment> bases() const { return std::span(layout_.segments).first(requests_.size()); }
  // Residual rows of the stack, or of the rows that leave the last layer.
  void* residual(int64_t at) const {
    return row_pointer(stack_->data(), backend_.residual_dtype(), at, config_.hidden);
  }
  void* scored(int64_t at) const { return row_pointer(scored_->data(), backend_.residual_dtype(), at, config_.hidden); }
  // Where the rows that leave a layer are.
  void* outgoing(const Segment& segment, int64_t layer) const {
    return is_last(layer) ? scored(segment.scored.at) : residual(segment.residual.at);
  }
  void* queries(const std::unique_ptr<Buffer>& buffer, int64_t row) const {
    return row_pointer(buffer->data(), backend_.activation_dtype(), row, config_.heads.q_dim());
  }
  void* keys(const std::unique_ptr<Buffer>& buffer, int64_t row) const {
    return static_cast<std::byte*>(buffer->data()) + backend_.kv_bytes(row, config_.heads);
  }
  RowAngles residual_angles(int64_t at) const { return angles_.from(at); }
  RowAngles scored_angles(int64_t at) const { return angles_.from(layout_.stack_rows + at); }

  void make_tables();
  // Keys of the rows before the base's own, of the layer at hand.
  void fetch_prefixes(int64_t layer);
  void set_prefix(AttentionCall& call, std::size_t request) const {
    if (call.prefix.n_rows > 0) call.prefix.data = prefix_keys_[request];
  }

  Backend& backend_;
  const ModelConfig& config_;
  ModelWeights& weights_;
  std::span<const SweepRequest> requests_;
  const SweepLayout layout_;
  std::unique_ptr<Buffer> rope_memory_;
  std::unique_ptr<Buffer> positions_;  // (stack rows + scored rows) int32
  std::unique_ptr<Buffer> tokens_;     // (base rows) int32, -1 where padded
  RowAngles angles_;                   // of the stack's rows, then of the scored rows
  DecoderLayer decoder_;
  std::unique_ptr<Buffer> stack_;                 // (stack rows, hidden) residual
  std::unique_ptr<Buffer> scored_;                // (scored rows, hidden) residual
  std::unique_ptr<Buffer> final_;                 // (chunk of scored rows, hidden), normed
  std::unique_ptr<Buffer> reference_;             // (the bases' scored rows, hidden), normed; for KL only
  std::unique_ptr<Buffer> base_q_;                // (base rows, q_dim)
  std::unique_ptr<Buffer> base_kv_;               // keys and values of the bases' rows
  std::unique_ptr<Buffer> group_q_;               // (group rows, q_dim)
  std::unique_ptr<Buffer> group_kv_;              // keys and values of the group's rows
  std::unique_ptr<Buffer> attention_;             // (rows of the bases or of a group, q_dim)
  std::vector<void*> prefix_keys_;                // by request, null without a prefix
  std::vector<std::unique_ptr<Buffer>> fetched_;  // by request, null unless its prefix is in the host's memory
};

// Bytes of every buffer of a sweep, in the order in which they are taken.
struct BufferSizes {
  int64_t rope, positions, tokens, stack, scored, final, reference, base_q, base_kv, group_q, group_kv, attention;
  BufferSizes(const Backend& backend, const ModelConfig& config, const SweepLayout& layout) {
    const HeadShape& heads = config.heads;
    const int64_t residual_row = config.hidden * size_bytes(backend.residual_dtype());
    const int64_t element = size_bytes(backend.activation_dtype());
    const int64_t query_row = heads.q_dim() * element;
    rope = layout.longest_rows * heads.head_dim * static_cast<int64_t>(sizeof(float));
    positions = (layout.stack_rows + layout.scored_rows) * static_cast<int64_t>(sizeof(int32_t));
    tokens = layout.base_rows * static_cast<int64_t>(sizeof(int32_t));
    stack = layout.stack_rows * residual_row;
    scored = layout.scored_rows * residual_row;
    final = std::min(layout.scored_rows, backend.chunk_rows()) * config.hidden * element;
    reference = layout.with_kl ? layout.base_scored_rows * config.hidden * element : 0;
    base_q = layout.base_rows * query_row;
    base_kv = backend.kv_bytes(layout.base_rows, heads);
    group_q = layout.group_rows * query_row;
    group_kv = backend.kv_bytes(layout.group_rows, heads);
    attention = std::max(layout.base_rows, layout.group_rows) * query_row;
  }
  int64_t total() const {
    return rope + positions + tokens + stack + scored + final + reference + base_q + base_kv + group_q + group_kv +
           attention;
  }
};

int64_t Sweep::predicted_bytes(const Backend& backend, const ModelConfig& config, const SweepLayout& layout) {
  return BufferSizes(backend, config, layout).total() + DecoderLayer::workspace_bytes(backend, config) +
         backend.workspace_bytes(std::max(layout.longest_rows, layout.group_rows), config.hidden, config.vocab,
                                 config.heads);
}

Sweep::Sweep(Backend& backend, const ModelConfig& config, ModelWeights& weights, std::span<const SweepRequest> requests)
    : backend_(backend),
      config_(config),
      weights_(weights),
      requests_(requests),
      layout_(config, requests, backend),
      decoder_(backend, config) {
  const BufferSizes sizes(backend, config, layout_);
  make_tables();
  stack_ = backend.allocate(sizes.stack, "the residual lanes");
  scored_ = backend.allocate(sizes.scored, "the answer rows");
  final_ = backend.allocate(sizes.final, "the final rows");
  reference_ = backend.allocate(sizes.reference, "the base's final rows");
  base_q_ = backend.allocate(sizes.base_q, "the base's queries");
  base_kv_ = backend.allocate(sizes.base_kv, "the base's keys and values");
  group_q_ = backend.allocate(sizes.group_q, "the lanes' queries");
  group_kv_ = backend.allocate(sizes.group_kv, "the lanes' keys and values");
  attention_ = backend.allocate(sizes.attention, "attention's output");
  prefix_keys_.assign(requests.size(), nullptr);
  fetched_.resize(requests.size());
  for (std::size_t r = 0; r < requests.size(); ++r) {
    if (requests[r].prefix_rows == 0) continue;
    if (requests[r].prefix == nullptr || requests[r].prefix->n_rows() != requests[r].prefix_rows) {
      fail(ExitCode::kInternal, "sweep: the prefix is not there");
    }
    if (!requests[r].prefix->is_on_host()) continue;
    fetched_[r] = backend.allocate(requests[r].prefix->layer_bytes(), "a layer of cached keys");
  }
}

// What the rows are, for the operations that ask for it: tokens, positions and the angles of all positions.
void Sweep::make_tables() {
  const int64_t n_positions = layout_.longest_rows;
  const std::span<const float> angles = weights_.rotary_table(n_positions);
  const HostTensor table{reinterpret_cast<const std::byte*>(angles.data()),
                         DType::kF32,
                         {n_positions, config_.heads.head_dim},
                         "rotary table"};
  rope_memory_ = backend_.allocate(table.count() * static_cast<int64_t>(sizeof(float)), "the rotary table");
  angles_.cos_sin = backend_.load(table, WeightUse::kTable, rope_memory_->data());

  std::vector<int32_t> positions;
  const auto add_positions = [&](const Rows& rows) {
    for (int64_t r = 0; r < rows.n_rows; ++r) positions.push_back(static_cast<int32_t>(rows.first_row + r));
  };
  for (const Segment& segment : layout_.segments) add_positions(segment.residual);
  for (const Segment& segment : layout_.segments) add_positions(segment.scored);
  positions_ = backend_.upload(positions, "the rows' positions");
  angles_.positions = static_cast<const int32_t*>(positions_->data());

  std::vector<int32_t> tokens(static_cast<std::size_t>(layout_.base_rows), -1);
  for (const Segment& base : bases()) {
    const auto own = requests_[base.request]
                         .tokens.first(static_cast<std::size_t>(base.n_tokens))
                         .subspan(static_cast<std::size_t>(base.residual.first_row));
    std::copy(own.begin(), own.end(), tokens.begin() + base.residual.at);
  }
  tokens_ = backend_.upload(tokens, "token ids");
}

// The rows that leave the last layer start from the residual rows that enter it: the base's for a lane born there.
void Sweep::gather_scored(int64_t layer) {
  for (const Segment& segment : layout_.segments) {
    const Segment& source = SweepLayout::has_own_keys(segment, layer) ? segment : layout_.base_of(segment);
    const Rows& from = source.residual;
    const Rows& to = segment.scored;
    backend_.copy(residual(from.at + to.first_row - from.first_row), scored(to.at), to.n_rows, config_.hidden);
  }
}

void Sweep::give_birth(int64_t layer) {
  for (const Segment& segment : layout_.segments) {
    if (segment.birth != layer) continue;
    const Rows& base = layout_.base_of(segment).residual;
    const Rows& rows = segment.residual;
    backend_.copy(residual(base.at + rows.first_row - base.first_row), residual(rows.at), rows.n_rows, config_.hidden);
  }
}

void Sweep::run_bases(const LayerWeights& weights, int64_t layer) {
  std::vector<AttentionCall> calls;
  int64_t n_rows = 0;
  for (const Segment& base : bases()) {
    const Rows& out = layout_.outgoing(base, layer);
    AttentionCall call = layout_.call(base, layer, requests_[base.request]);
    call.q = queries(base_q_, out.at);
    call.out = queries(attention_, out.at);
    call.own.data = keys(base_kv_, base.residual.at);
    set_prefix(call, base.request);
    calls.push_back(call);
    n_rows = out.end();
  }
  backend_.attention(calls, config_.heads);
  decoder_.finish(weights, attention_->data(), outgoing(layout_.segments.front(), layer), n_rows);
}

// Segments [begin, end) of the lanes through one layer, together.
void Sweep::run_lanes(const LayerWeights& weights, int64_t layer, std::size_t begin, std::size_t end) {
  const Segment& first = layout_.segments[begin];
  const int64_t first_out = layout_.outgoing(first, layer).at;
  std::vector<AttentionCall> calls;
  int64_t n_own_rows = 0;
  int64_t n_own_scored = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const Segment& lane = layout_.segments[i];
    const Segment& base = layout_.base_of(lane);
    const Rows& out = layout_.outgoing(lane, layer);
    const Rows& base_out = layout_.outgoing(base, layer);
    AttentionCall call = layout_.call(lane, layer, requests_[lane.request]);
    call.out = queries(attention_, out.at - first_out);
    if (SweepLayout::has_own_keys(lane, layer)) {
      n_own_rows = lane.residual.end() - first.residual.at;
      n_own_scored = lane.scored.end() - first.scored.at;
      call.q = queries(group_q_, out.at - first_out);
      call.prefix.data = keys(base_kv_, base.residual.at);
      call.own.data = keys(group_kv_, lane.residual.at - first.residual.at);
    } else {
      call.q = queries(base_q_, base_out.at + out.first_row - base_out.first_row);
      call.own.data = keys(base_kv_, base.residual.at);
    }
    if (base.residual.first_row > 0) set_prefix(call, lane.request);
    calls.push_back(call);
  }
  decoder_.attention_input(weights, residual(first.residual.at), residual_angles(first.residual.at), n_own_rows,
                           group_kv_->data(), is_last(layer) ? nullptr : group_q_->data());
  if (is_last(layer)) {
    decoder_.attention_input(weights, scored(first.scored.at), scored_angles(first.scored.at), n_own_scored, nullptr,
                             group_q_->data());
  }
  backend_.attention(calls, config_.heads);
  decoder_.finish(weights, attention_->data(), outgoing(first, layer),
                  layout_.outgoing(layout_.segments[end - 1], layer).end() - first_out);
}

// As many lanes from `begin` on as the buffers of a group hold.
std::size_t Sweep::group_end(std::size_t begin, std::size_t n_alive) const {
  const int64_t limit = layout_.segments[begin].residual.at + layout_.group_rows;
  std::size_t end = begin + 1;
  while (end < n_alive && layout_.segments[end].residual.end() <= limit) ++end;
  return end;
}

void Sweep::fetch_prefixes(int64_t layer) {
  for (std::size_t r = 0; r < requests_.size(); ++r) {
    if (requests_[r].prefix_rows == 0) continue;
    void* keys = requests_[r].prefix->layer(layer);
    if (fetched_[r]) backend_.transfer(keys, fetched_[r]->data(), fetched_[r]->size_bytes());
    prefix_keys_[r] = fetched_[r] ? fetched_[r]->data() : keys;
  }
}

void Sweep::run_layer(int64_t layer) {
  const LayerWeights& weights = weights_.layer(layer);
  fetch_prefixes(layer);
  decoder_.attention_input(weights, residual(0), residual_angles(0), layout_.base_rows, base_kv_->data(),
                           is_last(layer) ? nullptr : base_q_->data());
  if (is_last(layer)) {
    gather_scored(layer);
    decoder_.attention_input(weights, scored(0), scored_angles(0), bases().back().scored.end(), nullptr,
                             base_q_->data());
  } else {
    give_birth(layer);
  }
  run_bases(weights, layer);
  const auto n_alive = static_cast<std::size_t>(layout_.n_alive(layer));
  for (std::size_t begin = bases().size(); begin < n_alive;) {
    const std::size_t end = group_end(begin, n_alive);
    run_lanes(weights, layer, begin, end);
    begin = end;
  }
}

Score Sweep::score_segment(const Segment& segment, const RowScores& scores) const {
  const SweepRequest& request = requests_[segment.request];
  const Rows& base = layout_.base_of(segment).scored;
  Score score;
  double sum = 0.0;
  double sum_kl = 0.0;
  int64_t n_hits = 0;
  for (int64_t row = request.answer_start - 1; row < segment.n_tokens; ++row) {
    if (row < base.first_row) {
      const RowScore cached = request.prefix->score(row);
      sum += cached.nll_nats;
      n_hits += cached.is_argmax ? 1 : 0;
      if (request.per_token) score.token_nll_nats.push_back(static_cast<float>(cached.nll_nats));
      continue;
    }
    // Rows before the lane's first are the base's.
    const Rows& rows = row >= segment.scored.first_row ? segment.scored : base;
    const auto at = static_cast<std::size_t>(rows.at + row - rows.first_row);
    sum += scores.nll[at];
    n_hits += scores.hits[at];
    if (request.with_kl) sum_kl += scores.kl[at];
    if (request.per_token) score.token_nll_nats.push_back(static_cast<float>(scores.nll[at]));
  }
  const int64_t n_answer = segment.n_tokens - request.answer_start + 1;
  score.nll_nats = sum / static_cast<double>(n_answer);
  score.kl_nats = sum_kl / static_cast<double>(n_answer);
  score.exact_match = n_hits == n_answer;
  score.token_accuracy = static_cast<double>(n_hits) / static_cast<double>(n_answer);
  return score;
}

// Token that each scored row predicts; -1 for rows that predict none of the answer.
std::vector<int32_t> Sweep::targets() const {
  std::vector<int32_t> targets(static_cast<std::size_t>(layout_.scored_rows), -1);
  for (const Segment& segment : layout_.segments) {
    const SweepRequest& request = requests_[segment.request];
    const Rows& rows = segment.scored;
    for (int64_t row = std::max(rows.first_row, request.answer_start - 1); row < segment.n_tokens; ++row) {
      targets[static_cast<std::size_t>(rows.at + row - rows.first_row)] =
          request.tokens[static_cast<std::size_t>(row + 1)];
    }
  }
  return targets;
}

// For each tile of scored rows the tile of the base that holds the same rows; -1 where no KL is wanted.
std::vector<int32_t> Sweep::reference_tiles() const {
  const int64_t tile = backend_.row_tile();
  std::vector<int32_t> tiles(static_cast<std::size_t>(layout_.scored_rows / tile), -1);
  for (const Segment& segment : layout_.segments) {
    if (segment.is_base() || !requests_[segment.request].with_kl) continue;
    const Rows& rows = segment.scored;
    const Rows& base = layout_.base_of(segment).scored;
    for (int64_t row = 0; row < rows.n_rows; row += tile) {
      tiles[static_cast<std::size_t>((rows.at + row) / tile)] =
          static_cast<int32_t>((base.at + rows.first_row - base.first_row + row) / tile);
    }
  }
  return tiles;
}

// The bases' final rows, which the lanes' distributions are compared with.
void Sweep::keep_base_rows() {
  for (int64_t row = 0; row < layout_.base_scored_rows; row += backend_.chunk_rows()) {
    const int64_t n = std::min(backend_.chunk_rows(), layout_.base_scored_rows - row);
    backend_.rms_norm(scored(row), weights_.final_norm(), config_.rms_eps,
                      row_pointer(reference_->data(), backend_.activation_dtype(), row, config_.hidden), n);
  }
}

Sweep::RowScores Sweep::score_rows() {
  const auto n_rows = static_cast<std::size_t>(layout_.scored_rows);
  const std::vector<int32_t> targets = this->targets();
  RowScores scores{std::vector<double>(n_rows, 0.0), std::vector<uint8_t>(n_rows, 0), {}};
  std::vector<int32_t> tiles;
  if (layout_.with_kl) {
    keep_base_rows();
    scores.kl.assign(n_rows, 0.0);
    tiles = reference_tiles();
  }
  for (int64_t row = 0; row < layout_.scored_rows; row += backend_.chunk_rows()) {
    const int64_t n = std::min(backend_.chunk_rows(), layout_.scored_rows - row);
    backend_.rms_norm(scored(row), weights_.final_norm(), config_.rms_eps, final_->data(), n);
    TokenScores out{scores.nll.data() + row, scores.hits.data() + row};
    if (layout_.with_kl) {
      out.kl_nats = scores.kl.data() + row;
      out.reference = {reference_->data(),
                       std::span(tiles).subspan(static_cast<std::size_t>(row / backend_.row_tile()))};
    }
    backend_.token_nll(final_->data(), weights_.head(),
                       std::span(targets).subspan(static_cast<std::size_t>(row), static_cast<std::size_t>(n)), n, out);
  }
  backend_.synchronize();
  return scores;
}

std::vector<SweepResult> Sweep::run(const StopCheck& stop) {
  backend_.embed(weights_.embedding(), static_cast<const int32_t*>(tokens_->data()), stack_->data(), layout_.base_rows);
  for (int64_t layer = 0; layer < config_.n_layers; ++layer) {
    run_layer(layer);
    if (stop && stop()) throw Interrupted{};
  }
  const RowScores scores = score_rows();
  std::vector<SweepResult> results(requests_.size());
  for (const Segment& segment : layout_.segments) {
    SweepResult& result = results[segment.request];
    const Score score = score_segment(segment, scores);
    if (segment.is_base()) {
      result.base = score;
      result.variants.assign(requests_[segment.request].variants.size(), score);
    } else {
      result.variants[static_cast<std::size_t>(segment.variant)] = score;
    }
  }
  return results;
}

}  // namespace

void check_finite(const SweepRequest& request, const SweepResult& result) {
  if (!std::isfinite(result.base.nll_nats)) fail(ExitCode::kBadData, "the NLL of the base pattern is not finite");
  for (std::size_t v = 0; v < result.variants.size(); ++v) {
    if (std::isfinite(result.variants[v].nll_nats)) continue;
    const int64_t layer = birth_layer(request.base, request.variants[v]);
    fail(ExitCode::kBadData,
         "the NLL of the pattern that differs from the base at layer " + std::to_string(layer) + " is not finite");
  }
}

SweepPlan plan_sweep(const ModelConfig& config, const SweepRequest& request, int64_t row_tile) {
  const RowRange range = row_range(config, request, row_tile);
  SweepPlan plan{.n_rows = range.n_rows,
                 .padded_rows = range.padded_rows,
                 .lane_first_row = range.lane_first_row,
                 .first_score_row = range.first_score_row};

  std::vector<int64_t> births;
  for (const Pattern& variant : request.variants) {
    const int64_t birth = birth_layer(request.base, variant);
    if (birth < config.n_layers && plan.lane_first_row < plan.padded_rows) births.push_back(birth);
  }
  plan.n_lanes = static_cast<int64_t>(births.size());
  const int64_t lane_rows = plan.padded_rows - plan.lane_first_row;
  const Window full = full_attention();
  const int64_t lane_pairs[2] = {attention_pairs(full, plan.lane_first_row, plan.n_rows),
                                 attention_pairs(request.window, plan.lane_first_row, plan.n_rows)};
  const int64_t base_pairs[2] = {attention_pairs(full, range.base_first_row, plan.n_rows),
                                 attention_pairs(request.window, range.base_first_row, plan.n_rows)};
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const auto l = static_cast<std::size_t>(layer);
    plan.row_layers += plan.padded_rows - range.base_first_row;
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

int64_t predict_sweep_bytes(const ModelConfig& config, const Backend& backend, std::span<const SweepRequest> requests) {
  int64_t fetched = 0;
  for (const SweepRequest& request : requests) {
    if (request.prefix != nullptr && request.prefix->is_on_host()) fetched += request.prefix->layer_bytes();
  }
  return Sweep::predicted_bytes(backend, config, SweepLayout(config, requests, backend)) + fetched;
}

std::vector<SweepResult> sweep(Backend& backend, const ModelConfig& config, ModelWeights& weights,
                               std::span<const SweepRequest> requests, const StopCheck& stop) {
  return Sweep(backend, config, weights, requests).run(stop);
}

SweepResult sweep(Backend& backend, const ModelConfig& config, ModelWeights& weights, const SweepRequest& request,
                  const StopCheck& stop) {
  SweepResult result = std::move(sweep(backend, config, weights, std::span(&request, 1), stop).front());
  check_finite(request, result);
  return result;
}

}  // namespace winnow
