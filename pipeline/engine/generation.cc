#include "pipeline/engine/generation.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>

#include "base/clock.h"
#include "base/error.h"
#include "kernels/tile.h"
#include "pipeline/engine/forward.h"
#include "pipeline/engine/generation_prefill.h"
#include "pipeline/engine/kv_cache.h"
#include "pipeline/engine/pass_buffers.h"
#include "pipeline/engine/row_places.h"

namespace winnow::engine {

namespace {

struct Sequence {
  const GenerationRequest* request = nullptr;
  Generated* text = nullptr;
  std::unique_ptr<SequenceCache> cache;
  int64_t row = 0;  // that was computed last: it chose the last token
  int64_t at = 0;   // its place in the stack
};

std::vector<int64_t> first_new_rows(std::span<const GenerationRequest> requests) {
  std::vector<int64_t> rows;
  for (const GenerationRequest& request : requests) rows.push_back(static_cast<int64_t>(request.prompt.size()));
  return rows;
}

// Slots of all packed caches of the layer that has the most.
int64_t most_packed_slots(const kernels::Ops& ops, std::span<const GenerationRequest> requests) {
  int64_t most = 0;
  for (std::size_t layer = 0; layer < requests.front().windows.size(); ++layer) {
    int64_t n_slots = 0;
    for (const GenerationRequest& request : requests) {
      if (request.windows[layer].has_rounded_keys()) n_slots += cache_slots(ops, request, static_cast<int64_t>(layer));
    }
    most = std::max(most, n_slots);
  }
  return most;
}

// Every buffer of a stack of single rows.
struct StackBuffers {
  StackBuffers(const kernels::Ops& ops, const model::ModelConfig& config, std::span<const GenerationRequest> requests,
               int64_t n_rows)
      : list(ops, config),
        positions(list.integers(n_rows, "the new rows' positions")),
        tokens(list.integers(n_rows, "new tokens")),
        stack(list.residual(n_rows, "the rows of new tokens")),
        normed(list.hidden(Forward::normed_rows(ops, n_rows), "the final rows")),
        q(list.queries(n_rows, "the new rows' queries")),
        attention(list.queries(n_rows, "attention's output")),
        kv(list.keys(n_rows, "the new rows' keys and values")),
        unpacked(list.keys(most_packed_slots(ops, requests), "a layer's unpacked keys and values")) {}

  PassBuffers list;
  PassBuffers::IntegersId positions;
  PassBuffers::IntegersId tokens;  // -1 where nobody is
  PassBuffers::RowsId stack;       // residual
  PassBuffers::RowsId normed;      // a chunk of the rows that leave the last layer
  PassBuffers::RowsId q, attention;
  PassBuffers::KeysId kv;        // on their way to the caches
  PassBuffers::KeysId unpacked;  // what attention reads of the packed caches of one layer, layer after layer
};

class Generation {
 public:
  Generation(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
             std::span<const GenerationRequest> requests);
  GenerationReport run(std::span<const int32_t> stop_tokens, const StopCheck& stop);

  static int64_t predicted_bytes(const kernels::Ops& ops, const model::ModelConfig& config,
                                 std::span<const GenerationRequest> requests);

 private:
  void prefill(const StopCheck& stop);
  void decode_step(const StopCheck& stop);
  void decode_layer(int64_t layer, int64_t n_rows);
  int64_t place_rows();
  void upload_rows(int64_t n_rows);
  void choose(std::vector<Sequence*>& sequences, int64_t n_rows);
  void drop_finished(std::span<const int32_t> stop_tokens);

  auto at(auto buffer) const { return buffers_.list.at(buffer); }

  kernels::Ops& ops_;
  const model::ModelConfig& config_;
  model::ModelWeights& weights_;
  std::span<const GenerationRequest> requests_;
  Forward forward_;
  RowPlaces places_;
  StackBuffers buffers_;
  std::vector<Sequence> sequences_;
  std::vector<Sequence*> active_;
  GenerationReport report_;
};

std::vector<TurnedSequence> turned_sequences(std::span<const GenerationRequest> requests) {
  std::vector<TurnedSequence> sequences;
  for (const GenerationRequest& request : requests) {
    sequences.push_back({request.sequence_length(), request.sequence_length()});
  }
  return sequences;
}

int64_t longest_rows(std::span<const GenerationRequest> requests) {
  int64_t longest = 0;
  for (const GenerationRequest& request : requests) longest = std::max(longest, request.sequence_length());
  return longest;
}

int64_t Generation::predicted_bytes(const kernels::Ops& ops, const model::ModelConfig& config,
                                    std::span<const GenerationRequest> requests) {
  const int64_t most_rows = RowPlaces::natural(ops.device().row_tile()).most_rows(first_new_rows(requests));
  int64_t bytes = Forward::predicted_bytes(ops, config, turned_sequences(requests), longest_rows(requests)) +
                  StackBuffers(ops, config, requests, most_rows).list.size_bytes() +
                  Prefill::predicted_bytes(ops, config, requests);
  for (const GenerationRequest& request : requests) bytes += SequenceCache::predicted_bytes(ops, config, request);
  return bytes;
}

Generation::Generation(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                       std::span<const GenerationRequest> requests)
    : ops_(ops),
      config_(config),
      weights_(weights),
      requests_(requests),
      forward_(ops, config, weights, turned_sequences(requests)),
      // A row that is alone has the place of its position.
      places_(requests.size() > 1 ? RowPlaces(ops, config, weights) : RowPlaces::natural(ops.device().row_tile())),
      buffers_(ops, config, requests, places_.most_rows(first_new_rows(requests))) {
  report_.texts.resize(requests.size());
  buffers_.list.allocate(ops);
}

// All prompts, in groups whose rows go through a layer together, so that its weights are brought up once.
void Generation::prefill(const StopCheck& stop) {
  const auto start = Clock::now();
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    const GenerationRequest& request = requests_[i];
    const auto n_prompt = static_cast<int64_t>(request.prompt.size());
    sequences_.push_back(
        {&request, &report_.texts[i], std::make_unique<SequenceCache>(ops_, config_, request), n_prompt - 1, 0});
    report_.texts[i].cache_bytes = sequences_.back().cache->kept_bytes();
    report_.prompt_tokens += n_prompt;
  }
  for (Sequence& sequence : sequences_) active_.push_back(&sequence);
  const int64_t n_rows = place_rows();
  for (const auto& [begin, end] : Prefill::groups(ops_, requests_)) {
    std::vector<const SequenceCache*> caches;
    for (std::size_t i = begin; i < end; ++i) caches.push_back(sequences_[i].cache.get());
    Prefill group(forward_, requests_.subspan(begin, end - begin), caches);
    group.run(stop);
    for (std::size_t i = begin; i < end; ++i) {
      ops_.copy_rows(group.last_row(i - begin), at(buffers_.stack).slice(sequences_[i].at, 1));
    }
  }
  choose(active_, n_rows);
  report_.prefill_seconds = seconds_since(start);
}

// The next token of every sequence, from the rows that left the last layer.
void Generation::choose(std::vector<Sequence*>& sequences, int64_t n_rows) {
  const auto count = static_cast<std::size_t>(n_rows);
  // Any target will do for a row that is wanted: what is asked for is the argmax.
  std::vector<int32_t> targets(count, -1);
  for (const Sequence* sequence : sequences) targets[static_cast<std::size_t>(sequence->at)] = 0;
  std::vector<double> nll(count, 0.0);
  std::vector<uint8_t> hits(count, 0);
  std::vector<int32_t> argmax(count, -1);
  forward_.score(at(buffers_.stack).slice(0, n_rows), targets, at(buffers_.normed),
                 {.nll_nats = nll, .is_argmax = hits, .argmax = argmax});
  for (Sequence* sequence : sequences) {
    const auto row = static_cast<std::size_t>(sequence->at);
    if (!std::isfinite(nll[row])) {
      fail(ExitCode::kBadData, sequence->request->name + ": the logits of row " + std::to_string(sequence->row) +
                                   " are not finite; " + weights_.why_not_finite());
    }
    sequence->text->tokens.push_back(argmax[row]);
  }
}

void Generation::drop_finished(std::span<const int32_t> stop_tokens) {
  for (Sequence* sequence : active_) {
    Generated& text = *sequence->text;
    text.stopped = std::find(stop_tokens.begin(), stop_tokens.end(), text.tokens.back()) != stop_tokens.end();
    const auto n_new = static_cast<int64_t>(text.tokens.size());
    if (text.stopped || n_new == sequence->request->max_new_tokens) sequence->cache.reset();
  }
  active_.erase(std::remove_if(active_.begin(), active_.end(), [](const Sequence* s) { return s->cache == nullptr; }),
                active_.end());
}

// Gives every sequence a place for its row. Returns the rows of the stack.
int64_t Generation::place_rows() {
  std::vector<int64_t> rows;
  for (const Sequence* sequence : active_) rows.push_back(sequence->row);
  const RowPlaces::Stack stack = places_.stack(rows);
  for (std::size_t i = 0; i < active_.size(); ++i) active_[i]->at = stack.at[i];
  return stack.n_rows;
}

// What the rows of this step are: the last tokens and their positions.
void Generation::upload_rows(int64_t n_rows) {
  std::vector<int32_t> tokens(static_cast<std::size_t>(n_rows), -1);
  std::vector<int32_t> positions(static_cast<std::size_t>(n_rows), 0);
  for (const Sequence* sequence : active_) {
    tokens[static_cast<std::size_t>(sequence->at)] = sequence->text->tokens.back();
    positions[static_cast<std::size_t>(sequence->at)] =
        forward_.rotary.place(sequence->request->sequence_length(), sequence->row);
  }
  buffers_.list.upload(ops_, buffers_.tokens, tokens);
  buffers_.list.upload(ops_, buffers_.positions, positions);
}

void Generation::decode_layer(int64_t layer, int64_t n_rows) {
  const model::LayerWeights& weights = weights_.layer(layer);
  const kernels::Rows stack = at(buffers_.stack).slice(0, n_rows);
  const kernels::Rows q = at(buffers_.q).slice(0, n_rows);
  const kernels::Rows attention = at(buffers_.attention).slice(0, n_rows);
  const auto setting_of = [&](const Sequence* sequence) -> const LayerWindow& {
    return sequence->request->windows[static_cast<std::size_t>(layer)];
  };
  std::set<int32_t> ropes;
  for (const Sequence* sequence : active_) ropes.insert(rope_of(setting_of(sequence), weights));
  // The whole stack is turned by each embedding: of several, each serves the rows of its own sequences.
  for (const int32_t rope : ropes) {
    forward_.decoder.attention_input(weights, stack, forward_.rotary.angles(at(buffers_.positions), rope),
                                     at(buffers_.kv), q);
    CacheMoves moves;
    kernels::KvSpan unpacked = at(buffers_.unpacked);
    std::vector<kernels::DecodeCall> calls;
    for (const Sequence* sequence : active_) {
      if (rope_of(setting_of(sequence), weights) != rope) continue;
      const LayerCache& cache = sequence->cache->layer(layer);
      moves.store(cache, sequence->row, sequence->row + 1, at(buffers_.kv), sequence->row - sequence->at);
      kernels::KvSpan slots = cache.kv;
      if (cache.is_packed()) {
        slots = unpacked.slice(0, cache.packed.n_rows);
        unpacked = unpacked.from(slots.n_rows);
        moves.load_slots(cache, kernels::round_up(sequence->row + 1, ops_.device().row_tile()), slots);
      }
      calls.push_back({q.slice(sequence->at, 1), attention.slice(sequence->at, 1), sequence->row, cache.over(slots),
                       setting_of(sequence).window, weights.sink_logits});
    }
    moves.run(ops_, config_, layer);
    ops_.decode_attention(calls, config_.heads);
  }
  forward_.decoder.finish(weights, attention, stack);
}

void Generation::decode_step(const StopCheck& stop) {
  for (Sequence* sequence : active_) ++sequence->row;
  const int64_t n_rows = place_rows();
  upload_rows(n_rows);
  forward_.embed(at(buffers_.tokens), at(buffers_.stack).slice(0, n_rows));
  for (int64_t layer = 0; layer < config_.n_layers; ++layer) {
    decode_layer(layer, n_rows);
    if (stop && stop()) throw Interrupted{};
  }
  choose(active_, n_rows);
  report_.decoded_tokens += static_cast<int64_t>(active_.size());
}

GenerationReport Generation::run(std::span<const int32_t> stop_tokens, const StopCheck& stop) {
  prefill(stop);
  drop_finished(stop_tokens);
  const auto start = Clock::now();
  while (!active_.empty()) {
    decode_step(stop);
    drop_finished(stop_tokens);
  }
  report_.decode_seconds = seconds_since(start);
  return std::move(report_);
}

void check(const model::ModelConfig& config, const GenerationRequest& request) {
  const bool windows_fit = request.windows.size() == static_cast<std::size_t>(config.n_layers) &&
                           std::all_of(request.windows.begin(), request.windows.end(), [](const LayerWindow& layer) {
                             return layer.window.keys >= 1 && layer.window.sinks >= 0 && layer.windowed_heads.empty() &&
                                    layer.kv_first_row == 0;
                           });
  const bool fits = windows_fit && !request.prompt.empty() && request.max_new_tokens >= 1;
  if (!fits) fail(ExitCode::kInternal, "generation: request does not fit the model");
}

}  // namespace

int64_t predict_generation_bytes(const model::ModelConfig& config, const kernels::Ops& ops,
                                 std::span<const GenerationRequest> requests) {
  return requests.empty() ? 0 : Generation::predicted_bytes(ops, config, requests);
}

GenerationReport generate(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                          std::span<const GenerationRequest> requests, std::span<const int32_t> stop_tokens,
                          const StopCheck& stop) {
  if (requests.empty()) return {};
  for (const GenerationRequest& request : requests) check(config, request);
  return Generation(ops, config, weights, requests).run(stop_tokens, stop);
}

bool matches_answer(std::span<const int32_t> generated, std::span<const int32_t> answer,
                    std::span<const int32_t> stop_tokens) {
  for (std::size_t i = 0; i < answer.size(); ++i) {
    if (i >= generated.size() || generated[i] != answer[i]) return false;
    if (std::find(stop_tokens.begin(), stop_tokens.end(), answer[i]) != stop_tokens.end()) return true;
  }
  return true;
}

}  // namespace winnow::engine
