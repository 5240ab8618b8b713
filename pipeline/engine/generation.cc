#include "pipeline/engine/generation.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/clock.h"
#include "base/error.h"
#include "model/layer.h"
#include "pipeline/engine/generation_prefill.h"
#include "pipeline/engine/kv_cache.h"
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

class Generation {
 public:
  Generation(kernels::Backend& backend, const model::ModelConfig& config, model::ModelWeights& weights,
             std::span<const GenerationRequest> requests);
  GenerationReport run(std::span<const int32_t> stop_tokens, const StopCheck& stop);

  static int64_t predicted_bytes(const kernels::Backend& backend, const model::ModelConfig& config,
                                 std::span<const GenerationRequest> requests);

 private:
  void prefill(const StopCheck& stop);
  void decode_step(const StopCheck& stop);
  void decode_layer(int64_t layer, int64_t n_rows);
  int64_t place_rows();
  void upload_rows(int64_t n_rows);
  void choose(std::vector<Sequence*>& sequences, int64_t n_rows);
  void drop_finished(std::span<const int32_t> stop_tokens);

  void* residual(int64_t at) const {
    return kernels::row_pointer(stack_->data(), backend_.residual_dtype(), at, config_.hidden);
  }
  void* queries(const std::unique_ptr<kernels::Buffer>& buffer, int64_t row) const {
    return kernels::row_pointer(buffer->data(), backend_.activation_dtype(), row, config_.heads.q_dim());
  }

  kernels::Backend& backend_;
  const model::ModelConfig& config_;
  model::ModelWeights& weights_;
  std::span<const GenerationRequest> requests_;
  model::DecoderLayer decoder_;
  RotaryTable rotary_;
  RowPlaces places_;
  std::vector<Sequence> sequences_;
  std::vector<Sequence*> active_;
  GenerationReport report_;
  std::unique_ptr<kernels::Buffer> stack_;      // (stack rows, hidden) residual
  std::unique_ptr<kernels::Buffer> final_;      // (chunk, hidden), normed
  std::unique_ptr<kernels::Buffer> q_;          // (stack rows, q_dim)
  std::unique_ptr<kernels::Buffer> attention_;  // (stack rows, q_dim)
  std::unique_ptr<kernels::Buffer> kv_;         // of the stack rows, on their way to the caches
  std::unique_ptr<kernels::Buffer> positions_;  // (stack rows) int32
  std::unique_ptr<kernels::Buffer> tokens_;     // (stack rows) int32, -1 where nobody is
};

// Bytes of the buffers of a stack of single rows.
struct StackSizes {
  int64_t residual, final, query, kv, integers;
  StackSizes(const kernels::Backend& backend, const model::ModelConfig& config, int64_t n_rows) {
    const int64_t element = kernels::size_bytes(backend.activation_dtype());
    residual = n_rows * config.hidden * kernels::size_bytes(backend.residual_dtype());
    final = std::min(n_rows, backend.chunk_rows()) * config.hidden * element;
    query = n_rows * config.heads.q_dim() * element;
    kv = backend.kv_bytes(n_rows, config.heads);
    integers = n_rows * static_cast<int64_t>(sizeof(int32_t));
  }
  int64_t total() const { return residual + final + 2 * query + kv + 2 * integers; }
};

int64_t longest_rows(std::span<const GenerationRequest> requests) {
  int64_t longest = 0;
  for (const GenerationRequest& request : requests) {
    longest = std::max(longest, static_cast<int64_t>(request.prompt.size()) + request.max_new_tokens);
  }
  return longest;
}

int64_t Generation::predicted_bytes(const kernels::Backend& backend, const model::ModelConfig& config,
                                    std::span<const GenerationRequest> requests) {
  int64_t bytes =
      model::DecoderLayer::workspace_bytes(backend, config) + RotaryTable::bytes(config, longest_rows(requests)) +
      StackSizes(backend, config, RowPlaces::natural(backend.row_tile()).most_rows(first_new_rows(requests))).total() +
      Prefill::predicted_bytes(backend, config, requests) +
      backend.workspace_bytes(longest_rows(requests), config.hidden, config.vocab, config.heads);
  for (const GenerationRequest& request : requests) bytes += SequenceCache::predicted_bytes(backend, config, request);
  return bytes;
}

Generation::Generation(kernels::Backend& backend, const model::ModelConfig& config, model::ModelWeights& weights,
                       std::span<const GenerationRequest> requests)
    : backend_(backend),
      config_(config),
      weights_(weights),
      requests_(requests),
      decoder_(backend, config),
      rotary_(backend, config, weights, longest_rows(requests)),
      // A row that is alone has the place of its position.
      places_(requests.size() > 1 ? RowPlaces(backend, config, weights) : RowPlaces::natural(backend.row_tile())) {
  report_.texts.resize(requests.size());
  const StackSizes sizes(backend, config, places_.most_rows(first_new_rows(requests)));
  stack_ = backend.allocate(sizes.residual, "the rows of new tokens");
  final_ = backend.allocate(sizes.final, "the final rows");
  q_ = backend.allocate(sizes.query, "the new rows' queries");
  attention_ = backend.allocate(sizes.query, "attention's output");
  kv_ = backend.allocate(sizes.kv, "the new rows' keys and values");
}

// All prompts, in groups whose rows go through a layer together, so that its weights are brought up once.
void Generation::prefill(const StopCheck& stop) {
  const auto start = Clock::now();
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    const GenerationRequest& request = requests_[i];
    const auto n_prompt = static_cast<int64_t>(request.prompt.size());
    sequences_.push_back(
        {&request, &report_.texts[i], std::make_unique<SequenceCache>(backend_, config_, request), n_prompt - 1, 0});
    report_.texts[i].cache_bytes = sequences_.back().cache->size_bytes();
    report_.prompt_tokens += n_prompt;
  }
  for (Sequence& sequence : sequences_) active_.push_back(&sequence);
  const int64_t n_rows = place_rows();
  for (const auto& [begin, end] : Prefill::groups(backend_, requests_)) {
    std::vector<const SequenceCache*> caches;
    for (std::size_t i = begin; i < end; ++i) caches.push_back(sequences_[i].cache.get());
    Prefill group({backend_, config_, weights_, decoder_, rotary_}, requests_.subspan(begin, end - begin), caches);
    group.run(stop);
    for (std::size_t i = begin; i < end; ++i) {
      backend_.copy(group.last_row(i - begin), residual(sequences_[i].at), 1, config_.hidden);
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
  for (int64_t row = 0; row < n_rows; row += backend_.chunk_rows()) {
    const int64_t n = std::min(backend_.chunk_rows(), n_rows - row);
    backend_.rms_norm(residual(row), weights_.final_norm(), config_.rms_eps, final_->data(), n);
    backend_.token_nll(final_->data(), weights_.head(),
                       std::span(targets).subspan(static_cast<std::size_t>(row), static_cast<std::size_t>(n)), n,
                       {.nll_nats = nll.data() + row, .is_argmax = hits.data() + row, .argmax = argmax.data() + row});
  }
  for (Sequence* sequence : sequences) {
    const auto at = static_cast<std::size_t>(sequence->at);
    if (!std::isfinite(nll[at])) {
      fail(ExitCode::kBadData, sequence->request->name + ": the logits of row " + std::to_string(sequence->row) +
                                   " are not finite; " + weights_.why_not_finite());
    }
    sequence->text->tokens.push_back(argmax[at]);
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
    positions[static_cast<std::size_t>(sequence->at)] = static_cast<int32_t>(sequence->row);
  }
  tokens_ = backend_.upload(tokens, "new tokens");
  positions_ = backend_.upload(positions, "the new rows' positions");
}

void Generation::decode_layer(int64_t layer, int64_t n_rows) {
  const model::LayerWeights& weights = weights_.layer(layer);
  decoder_.attention_input(weights, residual(0), rotary_.angles(*positions_), n_rows, kv_->data(), q_->data());
  std::vector<kernels::KvCopy> copies;
  std::vector<kernels::DecodeCall> calls;
  for (const Sequence* sequence : active_) {
    const kernels::KvCache cache = sequence->cache->layer(layer);
    copies.push_back({kv_->data(), sequence->at, cache.data, cache.slot(sequence->row), 1});
    calls.push_back({queries(q_, sequence->at), queries(attention_, sequence->at), sequence->row, cache,
                     sequence->request->windows[static_cast<std::size_t>(layer)].window});
  }
  backend_.copy_kv(copies, config_.heads);
  backend_.decode_attention(calls, config_.heads);
  decoder_.finish(weights, attention_->data(), residual(0), n_rows);
}

void Generation::decode_step(const StopCheck& stop) {
  for (Sequence* sequence : active_) ++sequence->row;
  const int64_t n_rows = place_rows();
  upload_rows(n_rows);
  backend_.embed(weights_.embedding(), static_cast<const int32_t*>(tokens_->data()), residual(0), n_rows);
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
                             return layer.window.keys >= 1 && layer.window.sinks >= 0;
                           });
  const bool fits = windows_fit && !request.prompt.empty() && request.max_new_tokens >= 1;
  if (!fits) fail(ExitCode::kInternal, "generation: request does not fit the model");
}

}  // namespace

int64_t predict_generation_bytes(const model::ModelConfig& config, const kernels::Backend& backend,
                                 std::span<const GenerationRequest> requests) {
  return requests.empty() ? 0 : Generation::predicted_bytes(backend, config, requests);
}

GenerationReport generate(kernels::Backend& backend, const model::ModelConfig& config, model::ModelWeights& weights,
                          std::span<const GenerationRequest> requests, std::span<const int32_t> stop_tokens,
                          const StopCheck& stop) {
  if (requests.empty()) return {};
  for (const GenerationRequest& request : requests) check(config, request);
  return Generation(backend, config, weights, requests).run(stop_tokens, stop);
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
