// A small random model, and requests for sweeps of it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "model/checkpoint.h"
#include "model/random_checkpoint.h"
#include "model/safetensors.h"
#include "pipeline/engine/sweep.h"

namespace winnow {

// A random model on disk, loaded.
struct Model {
  std::filesystem::path directory;
  model::ModelConfig config;
  std::unique_ptr<model::Checkpoint> checkpoint;

  explicit Model(const model::RandomCheckpoint& shape)
      : directory(std::filesystem::temp_directory_path() / ("winnow-small-model-" + std::to_string(getpid()))) {
    model::write_random_checkpoint(directory, shape);
    config = model::read_config(directory);
    checkpoint = std::make_unique<model::Checkpoint>(directory);
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model() { std::filesystem::remove_all(directory); }

  engine::SweepResult run(const engine::SweepRequest& request, int n_threads = 2) const {
    const auto ops = cpu::make_cpu_backend({.n_threads = n_threads});
    model::ModelWeights weights(config, *checkpoint, *ops);
    return engine::sweep(*ops, config, weights, request, {});
  }
};

inline std::vector<int32_t> random_tokens(int64_t n, int32_t vocab, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<int32_t> tokens(static_cast<std::size_t>(n));
  for (int32_t& t : tokens) t = static_cast<int32_t>(generator() % static_cast<uint32_t>(vocab));
  return tokens;
}

// All that does not depend on the base, bit for bit.
inline void expect_same(const engine::Score& a, const engine::Score& b, const std::string& what) {
  EXPECT_EQ(a.nll_nats, b.nll_nats) << what;
  EXPECT_EQ(a.token_nll_nats, b.token_nll_nats) << what;
  EXPECT_EQ(a.exact_match, b.exact_match) << what;
  EXPECT_EQ(a.token_accuracy, b.token_accuracy) << what;
}

// Each layer windowed alone, in a base with full attention.
inline engine::SweepRequest drop_one(const std::vector<int32_t>& tokens, int64_t answer_start,
                                     const kernels::Window& window, int64_t n_layers) {
  engine::SweepRequest request{
      .tokens = tokens, .answer_start = answer_start, .base = {}, .variants = {}, .per_token = true};
  request.base.assign(static_cast<std::size_t>(n_layers), {kernels::full_attention()});
  for (std::size_t layer = 0; layer < request.base.size(); ++layer) {
    request.variants.push_back(request.base);
    request.variants.back()[layer].window = window;
  }
  return request;
}

// Other patterns of the same window.
inline void set_patterns(engine::SweepRequest& request, const kernels::Window& window, const Pattern& base,
                         const std::vector<Pattern>& variants) {
  request.base = engine::layer_windows_of(base, window);
  request.variants.clear();
  for (const Pattern& variant : variants) request.variants.push_back(engine::layer_windows_of(variant, window));
}

// The sweep against one plain pass per variant, bit for bit: a request without variants computes every row of its base.
inline void expect_equals_separate_passes(const Model& model, const engine::SweepRequest& request,
                                          const std::string& what) {
  const engine::SweepResult together = model.run(request);
  engine::SweepRequest single = request;
  single.variants.clear();
  expect_same(model.run(single).base, together.base, what + ", base");
  for (std::size_t v = 0; v < request.variants.size(); ++v) {
    single.base = request.variants[v];
    expect_same(model.run(single).base, together.variants[v], what + ", variant " + std::to_string(v));
  }
}

}  // namespace winnow
