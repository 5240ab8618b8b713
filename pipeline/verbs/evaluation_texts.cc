#include "pipeline/verbs/evaluation_texts.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <span>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/own_files.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "pipeline/engine/generation.h"
#include "pipeline/engine/stop_tokens.h"
#include "pipeline/run/work_loop.h"
#include "results/selection/pattern.h"

namespace winnow::verbs {
namespace {

// Texts of one batch: enough to share out the weights' reading, and what a kill costs at most.
constexpr int64_t kMostTogether = 64;
constexpr double kSecondsBetweenLines = 10.0;

// One batch of work: examples that one pattern continues.
struct Batch {
  int64_t pattern = 0;  // index
  std::vector<int64_t> examples;
};

std::vector<int64_t> encode(std::span<const Batch> batches) {
  std::vector<int64_t> message;
  for (const Batch& batch : batches) {
    message.push_back(batch.pattern);
    message.push_back(static_cast<int64_t>(batch.examples.size()));
    message.insert(message.end(), batch.examples.begin(), batch.examples.end());
  }
  return message;
}

std::vector<Batch> decode(std::span<const int64_t> message) {
  std::vector<Batch> batches;
  for (auto at = message.begin(); at != message.end();) {
    const int64_t pattern = *at++;
    const int64_t n = *at++;
    batches.push_back({pattern, {at, at + n}});
    at += n;
  }
  return batches;
}

// The texts of one rank, and on rank 0 the plan for all.
class TextWriter {
 public:
  TextWriter(run::MeasuringRun& run, const run::RunOptions& options, const evaluation::GenerationSettings& settings,
             const std::vector<EvaluatedPattern>& patterns)
      : run_(run),
        options_(options),
        settings_(settings),
        patterns_(patterns),
        store_(run::UnitStore::texts(options.out)),
        key_(texts_key(settings, run.measurement())) {}

  bool run() {
    limit_ = run_.session().minimum(run_.memory_limit());
    batches_ = run::share_plan<Batch>(
        run_.session(), [this] { return plan(); }, encode, decode);
    if (batches_.empty()) return true;
    weights_ = &run_.weights();
    run_.prepare();
    spdlog::info("free generation: about {}", format_duration(predicted_seconds()));
    return write_all();
  }

  // Of what is missing, on all ranks.
  double predict() {
    limit_ = run_.session().minimum(run_.memory_limit());
    batches_ = run::share_plan<Batch>(
        run_.session(), [this] { return plan(); }, encode, decode);
    if (batches_.empty()) return 0.0;
    run_.prepare();
    return predicted_seconds();
  }

 private:
  const run::DataSet& data() const { return run_.inputs().data_sets.front(); }
  std::string name_of(int64_t pattern) const { return patterns_[static_cast<std::size_t>(pattern)].windows().name(); }

  engine::GenerationRequest request(int64_t pattern, int64_t example) const {
    const run::Corpus& corpus = data().corpus;
    const int64_t start = corpus.answer_start[static_cast<std::size_t>(example)];
    return {.prompt = corpus.example(example).first(static_cast<std::size_t>(start)),
            .windows = run_.inputs().settings.layer_windows(patterns_[static_cast<std::size_t>(pattern)].windows(),
                                                            run_.inputs().settings.window_of(start)),
            .max_new_tokens = settings_.max_new_tokens,
            .name = corpus.path.string() + ": " + corpus.name_of(example) + ", pattern " +
                    patterns_[static_cast<std::size_t>(pattern)].name};
  }

  int64_t bytes_of(const std::vector<engine::GenerationRequest>& requests) const {
    return run_.weight_bytes() + engine::predict_generation_bytes(run_.inputs().config, run_.ops(), requests);
  }

  std::vector<Batch> plan() {
    std::vector<std::string> notes;
    const EvaluationTexts known(run::read_batches(store_, key_, notes));
    for (const std::string& note : notes) spdlog::warn("{}", note);
    std::vector<Batch> missing;
    int64_t n_missing = 0;
    for (std::size_t p = 0; p < patterns_.size(); ++p) {
      const auto same = [&](const Batch& other) { return name_of(other.pattern) == name_of(static_cast<int64_t>(p)); };
      if (std::any_of(missing.begin(), missing.end(), same)) continue;
      Batch batch{static_cast<int64_t>(p), {}};
      for (int64_t e = 0; e < data().n_examples; ++e) {
        if (known.find(name_of(batch.pattern), e) == nullptr) batch.examples.push_back(e);
      }
      n_missing += static_cast<int64_t>(batch.examples.size());
      missing.push_back(std::move(batch));
    }
    const int64_t n_ranks = run_.session().size();
    const int64_t most = std::clamp<int64_t>(n_missing / (2 * n_ranks), 1, kMostTogether);
    std::vector<Batch> batches;
    for (const Batch& all : missing) cut(all, most, batches);
    if (!batches.empty()) {
      spdlog::info("free generation: up to {} tokens after {} prompts, in {} batch(es)", settings_.max_new_tokens,
                   n_missing, batches.size());
    }
    return batches;
  }

  // Texts that stop are taken to be as long as their answers.
  double predicted_seconds() const {
    std::vector<double> busy(static_cast<std::size_t>(run_.session().size()), 0.0);
    for (const Batch& batch : batches_) {
      std::vector<engine::GenerationRequest> requests;
      std::vector<int64_t> n_tokens;
      for (const int64_t example : batch.examples) {
        requests.push_back(request(batch.pattern, example));
        const int64_t n_answer = data().n_answer(example);
        n_tokens.push_back(settings_.stop_tokens.empty() ? settings_.max_new_tokens
                                                         : std::min(settings_.max_new_tokens, n_answer));
      }
      *std::ranges::min_element(busy) += run_.predict_texts(requests, n_tokens);
    }
    return *std::ranges::max_element(busy);
  }

  // Cuts a pattern's examples into batches of at most `most` that fit the memory.
  void cut(const Batch& all, int64_t most, std::vector<Batch>& batches) const {
    std::vector<engine::GenerationRequest> requests;
    for (const int64_t example : all.examples) {
      requests.push_back(request(all.pattern, example));
      if (requests.size() > 1 && (static_cast<int64_t>(requests.size()) > most || bytes_of(requests) > limit_)) {
        requests.erase(requests.begin(), requests.end() - 1);
      }
      if (requests.size() == 1) {
        if (const int64_t bytes = bytes_of(requests); bytes > limit_) {
          fail(ExitCode::kOutOfMemory, requests.front().name + ": writing its text needs " + format_bytes(bytes) +
                                           " of memory, --max-memory is " + format_bytes(limit_) +
                                           "; lower --generate or leave the example out");
        }
        batches.push_back({all.pattern, {}});
      }
      batches.back().examples.push_back(example);
    }
  }

  bool write_all() {
    int64_t n_shown = 0;
    auto last_line = Clock::now();
    run::WorkLoop loop(run_.session(), run_.signals(), options_.grace_seconds, static_cast<int64_t>(batches_.size()),
                       [&](auto unit, double) {
                         if (unit) ++n_shown;
                         if (seconds_since(last_line) < kSecondsBetweenLines) return;
                         last_line = Clock::now();
                         spdlog::info("free generation: {} of {} batches", n_shown, batches_.size());
                       });
    const auto take = [&]() -> std::vector<int64_t> {
      const auto index = loop.next();
      return index ? std::vector<int64_t>{*index} : std::vector<int64_t>{};
    };
    loop.run(take, [&](const std::vector<int64_t>& taken) {
      const auto begin = Clock::now();
      write(batches_[static_cast<std::size_t>(taken.front())], loop, begin);
      loop.report_done(taken.front(), seconds_since(begin));
    });
    const bool is_complete = loop.n_done() == static_cast<int64_t>(batches_.size());
    if (!is_complete && run_.session().is_root()) {
      run::say_stopped("", loop.n_done(), batches_.size(), "batches of texts", options_.out);
    }
    return is_complete;
  }

  void write(const Batch& batch, run::WorkLoop& loop, Clock::time_point begin) {
    std::vector<engine::GenerationRequest> requests;
    for (const int64_t example : batch.examples) requests.push_back(request(batch.pattern, example));
    const double predicted = seconds_per_text_ * static_cast<double>(requests.size());
    const engine::GenerationReport report =
        engine::generate(run_.ops(), run_.inputs().config, *weights_, requests, settings_.stop_tokens,
                         [&] { return loop.must_stop(seconds_since(begin), predicted); });
    run::TextBatch result{.pattern = name_of(batch.pattern),
                          .prompt_tokens = report.prompt_tokens,
                          .prefill_seconds = report.prefill_seconds,
                          .decoded_tokens = report.decoded_tokens,
                          .decode_seconds = report.decode_seconds,
                          .texts = {}};
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const engine::Generated& text = report.texts[i];
      const auto example = static_cast<std::size_t>(batch.examples[i]);
      result.texts.push_back({.example = batch.examples[i],
                              .example_id = data().corpus.example_id[example],
                              .prompt_tokens = static_cast<int64_t>(requests[i].prompt.size()),
                              .tokens = text.tokens,
                              .stopped = text.stopped,
                              .cache_bytes = text.cache_bytes});
    }
    run_.watch().require_unchanged();
    run::write_batch(store_, key_, result);
    seconds_per_text_ = seconds_since(begin) / static_cast<double>(requests.size());
  }

  run::MeasuringRun& run_;
  const run::RunOptions& options_;
  const evaluation::GenerationSettings& settings_;
  const std::vector<EvaluatedPattern>& patterns_;
  run::UnitStore store_;
  std::string key_;
  int64_t limit_ = 0;
  std::vector<Batch> batches_;
  model::ModelWeights* weights_ = nullptr;
  double seconds_per_text_ = 0.0;  // of this rank's last batch
};

}  // namespace

evaluation::GenerationSettings generation_settings(const run::RunOptions& options, run::Inputs& inputs) {
  evaluation::GenerationSettings settings{.max_new_tokens = options.generate, .stop_tokens = {}};
  if (options.generate == 0) return settings;
  if (!options.responses.empty()) inputs.other_outputs.push_back(responses_output("--responses", options.responses));
  settings.stop_tokens =
      engine::parse_stop_tokens(options.stop_tokens, "--stop-tokens", options.model, inputs.config.vocab);
  const run::DataSet& data = inputs.data_sets.front();
  int64_t n_longer = 0;
  int64_t longest = 0;
  for (int64_t e = 0; e < data.n_examples; ++e) {
    if (data.n_answer(e) > options.generate) ++n_longer;
    longest = std::max(longest, data.corpus.answer_start[static_cast<std::size_t>(e)] + options.generate);
  }
  if (n_longer > 0) {
    inputs.warnings.push_back(std::to_string(n_longer) + " of " + std::to_string(data.n_examples) +
                              " answers are longer than the " + std::to_string(options.generate) +
                              " tokens of --generate: no text can match them");
  }
  if (longest > inputs.config.max_positions) {
    inputs.warnings.push_back("texts may reach " + std::to_string(longest) + " tokens, max_position_embeddings is " +
                              std::to_string(inputs.config.max_positions));
  }
  return settings;
}

EvaluationTexts::EvaluationTexts(std::vector<run::TextBatch> batches) : batches_(std::move(batches)) {
  for (const run::TextBatch& batch : batches_) {
    for (const run::Text& text : batch.texts) texts_.try_emplace({batch.pattern, text.example}, &text);
  }
}

const run::Text* EvaluationTexts::find(const std::string& pattern, int64_t example) const {
  const auto found = texts_.find({pattern, example});
  return found == texts_.end() ? nullptr : found->second;
}

evaluation::GeneratedTable EvaluationTexts::table(const std::vector<EvaluatedPattern>& patterns,
                                                  const evaluation::GenerationSettings& settings,
                                                  const run::Inputs& inputs) const {
  const run::DataSet& data = inputs.data_sets.front();
  evaluation::GeneratedTable table(static_cast<int64_t>(patterns.size()), data.n_examples, settings);
  for (int64_t p = 0; p < static_cast<int64_t>(patterns.size()); ++p) {
    const std::string name = patterns[static_cast<std::size_t>(p)].windows().name();
    for (int64_t e = 0; e < data.n_examples; ++e) {
      const run::Text* text = find(name, e);
      if (text == nullptr) {
        fail(ExitCode::kInternal, "a text of pattern " + name + " is missing; the others are kept: repeat the command");
      }
      const auto answer = data.corpus.example(e).subspan(
          static_cast<std::size_t>(data.corpus.answer_start[static_cast<std::size_t>(e)]));
      table.exact_match(p, e) = engine::matches_answer(text->tokens, answer, settings.stop_tokens) ? 1 : 0;
      table.tokens(p, e) = static_cast<int64_t>(text->tokens.size());
      table.stopped(p, e) = text->stopped ? 1 : 0;
      table.cache_bytes(p, e) = text->cache_bytes;
    }
    double prefill_seconds = 0.0, decode_seconds = 0.0, prompt_tokens = 0.0, decoded_tokens = 0.0;
    for (const run::TextBatch& batch : batches_) {
      if (batch.pattern != name) continue;
      prefill_seconds += batch.prefill_seconds;
      prompt_tokens += static_cast<double>(batch.prompt_tokens);
      decode_seconds += batch.decode_seconds;
      decoded_tokens += static_cast<double>(batch.decoded_tokens);
      auto& most = table.texts_together[static_cast<std::size_t>(p)];
      most = std::max(most, static_cast<int64_t>(batch.texts.size()));
    }
    table.prefill_rate[static_cast<std::size_t>(p)] = prompt_tokens / prefill_seconds;
    table.decode_rate[static_cast<std::size_t>(p)] =
        decoded_tokens > 0.0 ? decoded_tokens / decode_seconds : std::numeric_limits<double>::quiet_NaN();
  }
  return table;
}

void EvaluationTexts::write(const std::filesystem::path& path, const std::vector<EvaluatedPattern>& patterns) const {
  std::vector<run::NamedTexts> named;
  for (const EvaluatedPattern& pattern : patterns) {
    const std::string name = pattern.windows().name();
    named.push_back({pattern.name, {}});
    for (const auto& [place, text] : texts_) {
      if (place.first == name) named.back().texts.push_back(text);  // by example
    }
  }
  run::write_responses(path, named);
}

std::string texts_key(const evaluation::GenerationSettings& settings, const std::string& measurement) {
  return sha256_of(json_text(nlohmann::json{{"measurement", measurement},
                                            {"max_new_tokens", settings.max_new_tokens},
                                            {"stop_tokens", settings.stop_tokens}},
                             -1));
}

double predict_missing_texts(run::MeasuringRun& run, const run::RunOptions& options,
                             const evaluation::GenerationSettings& settings,
                             const std::vector<EvaluatedPattern>& patterns) {
  return TextWriter(run, options, settings, patterns).predict();
}

bool write_missing_texts(run::MeasuringRun& run, const run::RunOptions& options,
                         const evaluation::GenerationSettings& settings,
                         const std::vector<EvaluatedPattern>& patterns) {
  return TextWriter(run, options, settings, patterns).run();
}

EvaluationTexts read_texts(const run::MeasuringRun& run, const run::RunOptions& options,
                           const evaluation::GenerationSettings& settings) {
  std::vector<std::string> notes;
  return EvaluationTexts(
      run::read_batches(run::UnitStore::texts(options.out), texts_key(settings, run.measurement()), notes));
}

}  // namespace winnow::verbs
