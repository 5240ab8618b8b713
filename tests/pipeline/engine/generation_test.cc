// Generation with the windowed cache on the CPU: equal to the sweep over the same tokens, to itself in other company,
// in memory of the size that it should have.

#include "pipeline/engine/generation.h"
#include "kernels/cpu/cpu.h"
#include "pipeline/engine/stop_tokens.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>

#include "base/error.h"
#include "model/checkpoint.h"
#include "model/random_checkpoint.h"
#include "model/safetensors.h"
#include "pipeline/engine/row_places.h"

namespace winnow::engine {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kVocab = 300;

// A random model on disk, loaded.
struct Model {
  fs::path directory;
  model::ModelConfig config;
  std::unique_ptr<model::Checkpoint> checkpoint;
  std::unique_ptr<kernels::Ops> ops;
  std::unique_ptr<model::ModelWeights> weights;

  explicit Model(const std::string& family = "qwen3", int n_threads = 2)
      : directory(fs::temp_directory_path() / ("winnow-generation-test-" + std::to_string(getpid()))) {
    model::write_random_checkpoint(directory, {.model_type = family,
                                               .n_layers = 3,
                                               .hidden = 64,
                                               .n_heads = 6,
                                               .n_kv_heads = 2,
                                               .head_dim = 24,
                                               .ffn = 96,
                                               .vocab = kVocab});
    config = model::read_config(directory);
    checkpoint = std::make_unique<model::Checkpoint>(directory);
    ops = cpu::make_cpu_backend({.n_threads = n_threads});
    weights = std::make_unique<model::ModelWeights>(config, *checkpoint, *ops);
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model() { fs::remove_all(directory); }

  GenerationReport run(std::span<const GenerationRequest> requests, std::span<const int32_t> stop_tokens = {},
                       const StopCheck& stop = {}) const {
    return generate(*ops, config, *weights, requests, stop_tokens, stop);
  }
  std::vector<int32_t> tokens_of(const GenerationRequest& request) const {
    return run(std::span(&request, 1)).texts.front().tokens;
  }
};

std::vector<int32_t> random_tokens(int64_t n, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<int32_t> tokens(static_cast<std::size_t>(n));
  for (int32_t& t : tokens) t = static_cast<int32_t>(generator() % kVocab);
  return tokens;
}

struct WindowCase {
  const char* name;
  int64_t keys;
  int64_t sinks;
  bool decodes_full;
  int64_t tail_rows;  // -1: all
};
constexpr WindowCase kCases[] = {
    {"window", 50, 0, false, -1},
    {"sinks", 70, 5, false, -1},
    {"many sinks", 33, 90, false, -1},
    {"one key", 1, 0, false, -1},
    {"whole tiles", 64, 64, false, -1},
    {"full decode", 50, 3, true, -1},
    {"tail", 50, 3, false, 40},
    {"no tail", 50, 3, false, 0},
    {"longer than all", 2000, 4, false, -1},
    {"reached while decoding", 420, 2, false, -1},
};

kernels::Window window_of(const WindowCase& c, int64_t n_prompt) {
  kernels::Window window{.keys = c.keys, .sinks = c.sinks};
  if (c.tail_rows >= 0) window.first_row = n_prompt - c.tail_rows;
  if (c.decodes_full) window.end_row = n_prompt;
  return window;
}

// What teacher forcing says of a text that was generated: is each token the argmax under the same pattern?
bool is_greedy(const Model& model, const GenerationRequest& request, const std::vector<int32_t>& generated) {
  std::vector<int32_t> all(request.prompt.begin(), request.prompt.end());
  all.insert(all.end(), generated.begin(), generated.end());
  const SweepRequest sweep_request{.tokens = all,
                                   .answer_start = static_cast<int64_t>(request.prompt.size()),
                                   .base = request.windows,
                                   .variants = {},
                                   .per_token = false};
  return sweep(*model.ops, model.config, *model.weights, sweep_request, {}).base.exact_match;
}

TEST(Generation, EveryTokenIsTheArgmaxOfTheSweep) {
  for (const char* family : {"qwen3", "llama"}) {
    const Model model(family);
    const std::vector<int32_t> prompt = random_tokens(401, 1);
    for (const int64_t n_prompt : {1, 64, 130, 401}) {
      for (const WindowCase& c : kCases) {
        for (const Pattern& pattern : {Pattern{true, true, true}, Pattern{true, false, true}}) {
          const GenerationRequest request{.prompt = std::span(prompt).first(static_cast<std::size_t>(n_prompt)),
                                          .windows = layer_windows_of(pattern, window_of(c, n_prompt)),
                                          .max_new_tokens = 75,
                                          .name = c.name};
          const std::vector<int32_t> generated = model.tokens_of(request);
          ASSERT_EQ(generated.size(), 75U);
          EXPECT_TRUE(is_greedy(model, request, generated)) << family << ", " << c.name << ", prompt " << n_prompt;
          // The check can fail: another last token is not the argmax.
          std::vector<int32_t> other = generated;
          other.back() = (other.back() + 1) % static_cast<int32_t>(kVocab);
          EXPECT_FALSE(is_greedy(model, request, other)) << family << ", " << c.name << ", prompt " << n_prompt;
        }
      }
    }
  }
}

TEST(Generation, WindowsChangeWhatIsWritten) {
  const Model model;
  const std::vector<int32_t> prompt = random_tokens(300, 2);
  GenerationRequest request{
      .prompt = prompt, .windows = layer_windows_of({false, false, false}, {}), .max_new_tokens = 40, .name = "full"};
  const std::vector<int32_t> full = model.tokens_of(request);
  request.windows = layer_windows_of({true, true, true}, {.keys = 340});
  EXPECT_EQ(model.tokens_of(request), full) << "a window that hides nothing";
  request.windows = layer_windows_of({true, true, true}, {.keys = 16});
  EXPECT_NE(model.tokens_of(request), full);
}

TEST(Generation, DoesNotDependOnCompanyOrThreads) {
  const Model model;
  std::vector<std::vector<int32_t>> prompts;
  std::vector<GenerationRequest> requests;
  // Of equal and of different lengths: rows that meet at one place of a tile, and rows that do not.
  for (int64_t i = 0; i < 14; ++i) prompts.push_back(random_tokens(40 + 31 * (i % 7), static_cast<uint32_t>(i)));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const WindowCase& c = kCases[i % std::size(kCases)];
    requests.push_back({.prompt = prompts[i],
                        .windows = layer_windows_of({i % 2 == 0, i % 3 == 0, true},
                                                    window_of(c, static_cast<int64_t>(prompts[i].size()))),
                        .max_new_tokens = 10 + static_cast<int64_t>(i) * 5,
                        .name = c.name});
  }
  const GenerationReport together = model.run(requests);
  const Model other_threads("qwen3", 3);
  const GenerationReport on_three = other_threads.run(requests);
  int64_t n_decoded = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together.texts[i].tokens, model.tokens_of(requests[i])) << i;
    EXPECT_EQ(together.texts[i].tokens, on_three.texts[i].tokens) << i;
    n_decoded += requests[i].max_new_tokens - 1;
  }
  EXPECT_EQ(together.decoded_tokens, n_decoded);
  EXPECT_GT(together.decoded_tokens_per_second(), 0.0);
}

TEST(RowPlaces, RowsShareATileWhereTheirPlacesAreAlike) {
  // Places 0 to 4 are alike, 5 and 6 are, 7 is alone.
  const RowPlaces places(std::vector<int32_t>{3, 3, 3, 3, 3, 1, 1, 8});
  EXPECT_EQ(places.n_classes(), 3);
  const std::vector<int64_t> positions = {8, 16, 24, 4, 12, 20, 7, 15, 5, 13};
  const RowPlaces::Stack stack = places.stack(positions);
  EXPECT_EQ(stack.n_rows, 16);
  EXPECT_EQ(stack.at, (std::vector<int64_t>{0, 1, 2, 3, 4, 8, 7, 15, 5, 6}));
  EXPECT_EQ(places.most_rows({7, 15, 23}), 24);  // at place 7 all three are alone
  EXPECT_EQ(RowPlaces::natural(8).stack(positions).n_rows, 24);
  EXPECT_EQ(RowPlaces::natural(8).stack({3}).at, std::vector<int64_t>{3});
}

TEST(RowPlaces, AreFoundOutWithTheModelsWeights) {
  const Model model;
  const RowPlaces places(*model.ops, model.config, *model.weights);
  EXPECT_GE(places.n_classes(), 1);
  EXPECT_LE(places.n_classes(), model.ops->device().row_tile());
  // Whatever they are here, rows of one class have the same bits: DoesNotDependOnCompanyOrThreads.
  std::vector<int64_t> positions(100, 17);
  const RowPlaces::Stack stack = places.stack(positions);
  EXPECT_LE(stack.n_rows, 100 * model.ops->device().row_tile());
  EXPECT_EQ(std::set<int64_t>(stack.at.begin(), stack.at.end()).size(), positions.size());
}

TEST(Generation, EndsWithAStopToken) {
  const Model model;
  const std::vector<int32_t> prompt = random_tokens(90, 5);
  const GenerationRequest request{.prompt = prompt,
                                  .windows = layer_windows_of({true, false, true}, {.keys = 20, .sinks = 2}),
                                  .max_new_tokens = 30,
                                  .name = "stop"};
  const GenerationReport free = model.run(std::span(&request, 1));
  EXPECT_FALSE(free.texts[0].stopped);
  for (const std::size_t at : {std::size_t{0}, std::size_t{7}}) {
    const std::vector<int32_t> stop_tokens = {free.texts[0].tokens[at]};
    const auto first = std::find(free.texts[0].tokens.begin(), free.texts[0].tokens.end(), stop_tokens[0]);
    const GenerationReport stopped = model.run(std::span(&request, 1), stop_tokens);
    EXPECT_TRUE(stopped.texts[0].stopped);
    EXPECT_EQ(stopped.texts[0].tokens, std::vector<int32_t>(free.texts[0].tokens.begin(), first + 1));
  }
}

// Memory of the backend while the last tokens are decoded.
int64_t bytes_while_decoding(const Model& model, const GenerationRequest& request, GenerationReport& report) {
  int64_t bytes = 0;
  report = model.run(std::span(&request, 1), {}, [&] {
    bytes = model.ops->device().allocated_bytes();
    return false;
  });
  return bytes;
}

TEST(Generation, AWindowedLayerHoldsItsWindowAndSinksOnly) {
  const Model model;
  const int64_t tile = model.ops->device().row_tile();
  const std::vector<int32_t> prompt = random_tokens(900, 3);
  GenerationRequest request{
      .prompt = prompt, .windows = layer_windows_of({false, false, false}, {}), .max_new_tokens = 20, .name = "bytes"};
  GenerationReport full_report;
  const int64_t full = bytes_while_decoding(model, request, full_report);
  const int64_t full_rows = (900 + 19 + tile - 1) / tile * tile;
  EXPECT_EQ(full_report.texts[0].cache_bytes, 3 * model.ops->device().kv_bytes(full_rows, model.config.heads));
  for (const auto& [keys, sinks] : {std::pair<int64_t, int64_t>{96, 4}, {65, 0}, {128, 64}, {1, 0}}) {
    for (const int64_t tail : {-1, 0, 100}) {
      request.windows = layer_windows_of({true, false, true}, window_of({"", keys, sinks, false, tail}, 900));
      GenerationReport report;
      const int64_t windowed = bytes_while_decoding(model, request, report);
      const int64_t saved = full_report.texts[0].cache_bytes - report.texts[0].cache_bytes;
      EXPECT_EQ(full - windowed, saved) << "the report says what the backend measures";
      const int64_t layer =
          (report.texts[0].cache_bytes - model.ops->device().kv_bytes(full_rows, model.config.heads)) / 2;
      const int64_t one_row = model.ops->device().kv_bytes(tile, model.config.heads) / tile;
      EXPECT_LE(layer, (keys + sinks + tile) * one_row) << keys << "+" << sinks;
      EXPECT_GE(layer, (keys + sinks) * one_row);
    }
  }
  request.windows = layer_windows_of({true, false, true}, window_of({"", 96, 4, true, -1}, 900));
  GenerationReport decode_full;
  bytes_while_decoding(model, request, decode_full);
  EXPECT_EQ(decode_full.texts[0].cache_bytes, full_report.texts[0].cache_bytes) << "rows of the answer see everything";
}

TEST(Generation, PredictsItsMemory) {
  const Model model;
  const std::vector<int32_t> prompt = random_tokens(700, 4);
  for (const WindowCase& c : kCases) {
    std::vector<GenerationRequest> requests;
    for (const int64_t n : {700, 33, 512}) {
      requests.push_back({.prompt = std::span(prompt).first(static_cast<std::size_t>(n)),
                          .windows = layer_windows_of({true, true, false}, window_of(c, n)),
                          .max_new_tokens = 9,
                          .name = c.name});
    }
    const int64_t before = model.ops->device().allocated_bytes();
    model.ops->device().reset_peak();
    model.run(requests);
    const int64_t used = model.ops->device().peak_allocated_bytes() - before;
    const int64_t predicted = predict_generation_bytes(model.config, *model.ops, requests);
    EXPECT_LE(used, predicted) << c.name;
    EXPECT_GE(used, predicted / 2) << c.name;
  }
}

TEST(Generation, StopsWhenAsked) {
  const Model model;
  const std::vector<int32_t> prompt = random_tokens(100, 6);
  const GenerationRequest request{
      .prompt = prompt, .windows = layer_windows_of({false, false, false}, {}), .max_new_tokens = 50, .name = "stop"};
  for (const int n_calls : {1, 20}) {
    int n = 0;
    EXPECT_THROW(model.run(std::span(&request, 1), {}, [&] { return ++n == n_calls; }), Interrupted);
  }
}

TEST(Generation, AnswersMatchUpToTheirStopToken) {
  using Tokens = std::vector<int32_t>;
  EXPECT_TRUE(matches_answer(Tokens{1, 2, 3}, Tokens{1, 2}, Tokens{}));
  EXPECT_FALSE(matches_answer(Tokens{1, 2}, Tokens{1, 2, 3}, Tokens{}));
  EXPECT_FALSE(matches_answer(Tokens{1, 3, 3}, Tokens{1, 2}, Tokens{}));
  EXPECT_TRUE(matches_answer(Tokens{1, 2}, Tokens{1, 2, 9}, Tokens{2})) << "nothing is written behind the stop token";
  EXPECT_FALSE(matches_answer(Tokens{1, 4}, Tokens{1, 2, 9}, Tokens{2, 4}));
}

class StopTokens : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("winnow-stop-tokens-" + std::to_string(getpid()));
    fs::create_directories(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }
  void write(const char* name, const std::string& text) const { std::ofstream(directory_ / name) << text; }
  std::string error() const {
    try {
      read_stop_tokens(directory_, 100);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadData);
      return error.what();
    }
    return "";
  }
  fs::path directory_;
};

TEST_F(StopTokens, ComeFromTheGenerationConfigFirst) {
  EXPECT_TRUE(read_stop_tokens(directory_, 100).empty());
  write("config.json", R"({"eos_token_id": 7})");
  EXPECT_EQ(read_stop_tokens(directory_, 100), std::vector<int32_t>{7});
  write("generation_config.json", R"({"eos_token_id": null})");
  EXPECT_EQ(read_stop_tokens(directory_, 100), std::vector<int32_t>{7});
  write("generation_config.json", R"({"eos_token_id": [3, 99]})");
  EXPECT_EQ(read_stop_tokens(directory_, 100), (std::vector<int32_t>{3, 99}));
}

TEST_F(StopTokens, RefusesWhatIsNoToken) {
  for (const char* bad : {"-1", "100", "1.5", "\"7\"", "[3, null]", "1e30", "{}", "true", "18446744073709551616"}) {
    write("config.json", std::string(R"({"eos_token_id": )") + bad + "}");
    EXPECT_NE(error().find("config.json: eos_token_id: expected a token below 100"), std::string::npos) << bad;
  }
  write("config.json", "[1]");
  EXPECT_NE(error().find("expected a JSON object"), std::string::npos);
  write("config.json", "{");
  EXPECT_NE(error().find("not JSON"), std::string::npos);
}

}  // namespace
}  // namespace winnow::engine
