#include "pipeline/engine/sweep_price.h"

#include <algorithm>
#include <map>
#include <set>

#include "kernels/tile.h"
#include "pipeline/engine/signals/functions.h"

namespace winnow::engine {
namespace {

int64_t rows_of(const SweepLayout& layout, std::size_t begin, std::size_t end, int64_t layer) {
  return layout.outgoing(layout.segments[end - 1], layer).end() - layout.outgoing(layout.segments[begin], layer).at;
}

// Of the bases' rows, and those before them, in every type that a segment has in this layer.
void walk_rounded_bases(const SweepLayout& layout, int64_t layer, const SweepSteps& steps) {
  std::map<KvType, std::set<std::size_t>> requests;
  for (const Segment& segment : std::span(layout.segments).first(static_cast<std::size_t>(layout.n_active(layer)))) {
    const LayerWindow& setting = SweepLayout::setting(segment, layer);
    if (setting.has_rounded_keys()) requests[setting.kv].insert(segment.request);
  }
  for (const auto& [type, of_type] : requests) {
    int64_t n_rows = 0;
    for (const std::size_t request : of_type)
      n_rows += layout.segments[request].residual.first_row + layout.segments[request].residual.n_rows;
    steps.round(type, n_rows);
  }
}

// Of the keys that lanes have for themselves.
void walk_rounded_lanes(const SweepLayout& layout, int64_t layer, std::size_t begin, std::size_t end,
                        const SweepSteps& steps) {
  std::map<KvType, int64_t> n_rows;
  for (std::size_t i = begin; i < end; ++i) {
    const Segment& lane = layout.segments[i];
    const LayerWindow& setting = SweepLayout::setting(lane, layer);
    if (!setting.has_rounded_keys() || !SweepLayout::has_own_keys(lane, layer)) continue;
    n_rows[setting.kv] += lane.residual.n_rows;
  }
  for (const auto& [type, of_type] : n_rows) steps.round(type, of_type);
}

void walk_bases(const SweepLayout& layout, int64_t layer, std::size_t n_bases, const SweepSteps& steps) {
  const int64_t leaving = rows_of(layout, 0, n_bases, layer);
  steps.input(layout.base_rows, true, !layout.is_last(layer));
  if (layout.is_last(layer)) steps.input(leaving, false, true);
  walk_rounded_bases(layout, layer, steps);
  std::vector<kernels::AttentionCall> calls;
  for (std::size_t i = 0; i < n_bases; ++i) {
    const Segment& base = layout.segments[i];
    add_attention(layout.call(base, layer), SweepLayout::setting(base, layer), calls);
  }
  steps.attend(calls);
  steps.finish(leaving);
}

void walk_lanes(const SweepLayout& layout, int64_t layer, std::size_t begin, std::size_t end, const SweepSteps& steps) {
  const Segment& first = layout.segments[begin];
  std::vector<kernels::AttentionCall> calls;
  int64_t n_own_rows = 0;
  int64_t n_own_scored = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const Segment& lane = layout.segments[i];
    add_attention(layout.call(lane, layer), SweepLayout::setting(lane, layer), calls);
    if (!SweepLayout::has_own_keys(lane, layer)) continue;
    n_own_rows = lane.residual.end() - first.residual.at;
    n_own_scored = lane.scored.end() - first.scored.at;
  }
  steps.input(n_own_rows, true, !layout.is_last(layer));
  if (layout.is_last(layer)) steps.input(n_own_scored, false, true);
  walk_rounded_lanes(layout, layer, begin, end, steps);
  steps.attend(calls);
  steps.finish(rows_of(layout, begin, end, layer));
}

// A call over more rows than a chunk is one over chunks.
double seconds_in_chunks(const Curve& curve, int64_t n_rows, int64_t chunk_rows) {
  const int64_t whole = n_rows / chunk_rows;
  return static_cast<double>(whole) * curve.seconds_of(static_cast<double>(chunk_rows)) +
         curve.seconds_of(static_cast<double>(n_rows % chunk_rows));
}

// Part of the products of a layer's input that makes keys and values.
double key_share(const kernels::HeadShape& heads) {
  const auto keys = static_cast<double>(2 * heads.kv_dim());
  return keys / (keys + static_cast<double>(heads.q_dim()));
}

// Sums prices.
class Bill {
 public:
  Bill(const Rates& rates, const kernels::HeadShape& heads)
      : rates_(rates), heads_(heads), key_share_(key_share(heads)) {}

  void input(int64_t n_rows, bool has_keys, bool has_queries) {
    const double share = (has_keys ? key_share_ : 0.0) + (has_queries ? 1.0 - key_share_ : 0.0);
    seconds += share * seconds_in_chunks(rates_.input_rows, n_rows, rates_.chunk_rows);
  }
  void attend(std::span<const kernels::AttentionCall> calls) {
    seconds += rates_.attention.seconds_of(launch_of(calls, heads_));
  }
  void finish(int64_t n_rows) { seconds += seconds_in_chunks(rates_.finish_rows, n_rows, rates_.chunk_rows); }
  void round(KvType type, int64_t n_rows) {
    const auto curve = rates_.rounded_rows.find(type);
    if (curve != rates_.rounded_rows.end()) seconds += curve->second.seconds_of(static_cast<double>(n_rows));
  }
  void score(int64_t n_rows) { seconds += seconds_in_chunks(rates_.score_rows, n_rows, rates_.chunk_rows); }
  void compare(int64_t n_rows) {
    const Curve& curve = rates_.compare_rows.is_empty() ? rates_.score_rows : rates_.compare_rows;
    seconds += seconds_in_chunks(curve, n_rows, rates_.chunk_rows);
  }
  SweepSteps steps() {
    return {.input = [this](int64_t n, bool keys, bool queries) { input(n, keys, queries); },
            .attend = [this](std::span<const kernels::AttentionCall> calls) { attend(calls); },
            .finish = [this](int64_t n) { finish(n); },
            .round = [this](KvType type, int64_t n) { round(type, n); }};
  }

  double seconds = 0.0;

 private:
  const Rates& rates_;
  const kernels::HeadShape& heads_;
  double key_share_;
};

// Rows with a score of their own, and of them those that are compared with the base's.
void add_scores(const SweepLayout& layout, std::span<const SweepRequest> requests, Bill& bill) {
  int64_t n_compared = 0;
  for (const Segment& segment : layout.segments) {
    const bool has_kl = requests[segment.request].with_kl && !segment.is_base() && !segment.is_removed();
    if (has_kl) n_compared += segment.scored.n_rows;
  }
  bill.score(layout.scored_rows - n_compared);
  bill.compare(n_compared);
}

// Pairs of (query, key) that the signals of the layers look at, which are measured once a variant.
double signal_pairs(const model::ModelConfig& config, std::span<const SweepRequest> requests) {
  double pairs = 0.0;
  for (const SweepRequest& request : requests) {
    if (!measures_layers(request.signals)) continue;
    const auto n_tokens = static_cast<int64_t>(request.tokens.size());
    const int64_t n_queries = signal_queries(request.signals, n_tokens, request.answer_start);
    for (const LayerWindows& variant : request.variants) {
      if (fork_layer_of(request.base, variant) == config.n_layers) continue;
      pairs += static_cast<double>(n_queries) * static_cast<double>(n_tokens);
    }
  }
  return pairs;
}

}  // namespace

void walk_layer(const SweepLayout& layout, int64_t layer, const SweepSteps& steps) {
  const auto n_bases = static_cast<std::size_t>(
      std::find_if(layout.segments.begin(), layout.segments.end(), [](const Segment& s) { return !s.is_base(); }) -
      layout.segments.begin());
  walk_bases(layout, layer, n_bases, steps);
  const auto n_attending = static_cast<std::size_t>(layout.n_attending(layer));
  for (std::size_t begin = n_bases; begin < n_attending;) {
    const std::size_t end = layout.group_end(layer, begin, n_attending);
    walk_lanes(layout, layer, begin, end, steps);
    begin = end;
  }
  const auto n_active = static_cast<std::size_t>(layout.n_active(layer));
  if (n_attending < n_active) steps.finish(rows_of(layout, n_attending, n_active, layer));
}

std::vector<SweepRequest> stacked(const SweepRequest& request, int64_t stack_rows, int64_t most) {
  constexpr int64_t kFullStacks = 4;  // of lanes: in the first layers there are few
  const int64_t n_rows = static_cast<int64_t>(request.tokens.size()) - request.prefix_rows;
  // Beside a prefix every lane has the base's rows.
  const int64_t n_lane_rows = request.prefix_rows > 0 ? static_cast<int64_t>(request.variants.size()) * n_rows : 0;
  const int64_t n_enough = std::max<int64_t>(1, kFullStacks * stack_rows / std::max<int64_t>(1, n_lane_rows));
  const int64_t n = std::min({most, stack_rows / n_rows, n_enough});
  return {static_cast<std::size_t>(std::max<int64_t>(n, 1)), request};
}

double predict_seconds(const Rates& rates, const model::ModelConfig& config, const kernels::Ops& ops,
                       std::span<const SweepRequest> requests) {
  if (requests.empty()) return 0.0;
  const SweepLayout layout(config, requests, ops);
  Bill bill(rates, config.heads);
  const SweepSteps steps = bill.steps();
  for (int64_t layer = 0; layer < config.n_layers; ++layer) walk_layer(layout, layer, steps);
  add_scores(layout, requests, bill);
  const double loading = rates.per_layer_load * static_cast<double>(config.n_layers);
  const double computing = bill.seconds + rates.per_signal_pair * signal_pairs(config, requests);
  return (rates.loads_beside ? std::max(loading, computing) : loading + computing) +
         rates.set_up_bytes.seconds_of(static_cast<double>(predict_sweep_bytes(config, ops, requests)));
}

double predict_generation_seconds(const Rates& rates, const model::ModelConfig& config, const kernels::Ops& ops,
                                  std::span<const GenerationRequest> requests, std::span<const int64_t> n_tokens) {
  // The prompts, each in one call a layer.
  Bill bill(rates, config.heads);
  const int64_t tile = ops.device().row_tile();
  int64_t stacked_rows = 0;
  int64_t n_groups = 0;
  for (const GenerationRequest& request : requests) {
    const auto n_prompt = static_cast<int64_t>(request.prompt.size());
    const int64_t n_rows = kernels::round_up(n_prompt, tile);
    if (n_groups == 0 || stacked_rows + n_rows > ops.device().stack_rows()) {
      ++n_groups;
      stacked_rows = 0;
    }
    stacked_rows += n_rows;
    for (int64_t layer = 0; layer < config.n_layers; ++layer) {
      const bool is_last = layer == config.n_layers - 1;
      kernels::AttentionCall call;
      call.q.n_rows = is_last ? tile : n_rows;
      call.first_row = n_rows - call.q.n_rows;
      call.n_tokens = n_prompt;
      std::vector<kernels::AttentionCall> calls;
      const LayerWindow& setting = request.windows[static_cast<std::size_t>(layer)];
      add_attention(call, setting, calls);
      bill.input(n_rows, true, !is_last);
      if (is_last) bill.input(tile, false, true);
      if (setting.has_rounded_keys()) bill.round(setting.kv, n_rows);
      bill.attend(calls);
      bill.finish(call.q.n_rows);
    }
  }
  // Then a row for every text that is not at its end, a step at a time. One that is rounded is so where it would be
  // copied, which takes next to nothing either way.
  const int64_t n_steps = n_tokens.empty() ? 0 : *std::ranges::max_element(n_tokens);
  for (int64_t step = 0; step < n_steps; ++step) {
    int64_t n_active = 0;
    double pairs = 0.0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (step >= n_tokens[i]) continue;
      ++n_active;
      if (step == 0) continue;  // the prefill's
      const int64_t row = static_cast<int64_t>(requests[i].prompt.size()) + step - 1;
      for (const LayerWindow& layer : requests[i].windows) {
        pairs += static_cast<double>(kernels::attention_pairs(layer.window, row, row + 1));
      }
    }
    const int64_t n_rows = kernels::round_up(n_active, tile);
    bill.score(n_rows);
    if (step == 0) continue;
    const auto n_layers = static_cast<double>(config.n_layers);
    bill.seconds += n_layers * (rates.per_layer_load + rates.input_rows.seconds_of(static_cast<double>(n_rows)) +
                                rates.finish_rows.seconds_of(static_cast<double>(n_rows)) +
                                rates.per_decode_call * static_cast<double>(n_active)) +
                    rates.per_decode_pair * pairs;
  }
  return bill.seconds + rates.per_layer_load * static_cast<double>(n_groups * config.n_layers);
}

}  // namespace winnow::engine
