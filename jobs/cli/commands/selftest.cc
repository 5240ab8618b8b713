// winnow selftest: a tiny random model, its sweep, and a naive float64 forward pass of the same.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "base/sha256.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/commands/temporary_directory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/random_checkpoint.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "pipeline/engine/reference.h"
#include "pipeline/engine/sweep.h"
#include "winnow_version.h"

namespace winnow::commands {
namespace {

// The model and the tokens come from this seed. Chosen so that no NLL lies near the edge of a rounding step of the
// signature and no two layers are near each other in rank; rounding_is_clear() checks both.
constexpr uint64_t kSeed = 1;
constexpr int64_t kTokens = 150;
constexpr int64_t kAnswerTokens = 20;
constexpr double kTolerance = 2e-5;      // of an NLL, times (1 + |NLL|), nats per token
constexpr double kSignatureStep = 1e-4;  // nats per token
constexpr double kClearOfEdge = 5e-6;    // nats per token; float32 is off by about 1e-6

struct Options {
  bool json = false;
};

struct Case {
  std::string name;
  kernels::Window window;
};

// Every kind of row rule: plain, with sinks, with a fully attended answer, with tail rows.
std::vector<Case> cases() {
  const int64_t answer_start = kTokens - kAnswerTokens;
  return {{"window 24", {.keys = 24}},
          {"window 24, sinks 3", {.keys = 24, .sinks = 3}},
          {"window 24, sinks 3, decode full", {.keys = 24, .sinks = 3, .end_row = answer_start}},
          {"window 24, tail rows 10", {.keys = 24, .first_row = answer_start - 10}}};
}

struct Check {
  std::string name;
  bool passed = false;
  std::string detail;
};

// What the checks gather on the way.
struct Outcome {
  std::vector<Check> checks;
  std::vector<double> nlls;      // nats per token: of every case its base, then every layer
  std::vector<int64_t> ranking;  // layers by mean delta over the cases, largest first
  double least_gap = INFINITY;   // nats per token between neighbours in rank

  bool passed() const {
    return std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.passed; });
  }
};

std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

class Tester {
 public:
  explicit Tester(const std::filesystem::path& directory)
      : config_(model::read_config(directory)),
        checkpoint_(directory),
        ops_(cpu::make_cpu_backend({.n_threads = 1})),
        weights_(config_, checkpoint_, *ops_) {
    RandomStream random(kSeed, 0, 0);
    for (int64_t t = 0; t < kTokens; ++t) tokens_.push_back(static_cast<int32_t>(random.below(config_.vocab)));
  }

  Outcome run() {
    Outcome outcome;
    std::vector<double> delta(static_cast<std::size_t>(config_.n_layers), 0.0);
    for (const Case& c : cases()) {
      const engine::SweepResult swept = sweep_all(c.window);
      outcome.checks.push_back(against_reference(c, swept));
      outcome.checks.push_back(against_separate_passes(c, swept));
      outcome.nlls.push_back(swept.base.nll_nats);
      for (std::size_t l = 0; l < delta.size(); ++l) {
        outcome.nlls.push_back(swept.variants[l].nll_nats);
        delta[l] += swept.variants[l].nll_nats - swept.base.nll_nats;
      }
    }
    rank(delta, outcome);
    return outcome;
  }

 private:
  engine::LayerWindows full() const {
    return {static_cast<std::size_t>(config_.n_layers), {kernels::full_attention()}};
  }
  engine::LayerWindows only(std::size_t layer, const kernels::Window& window) const {
    engine::LayerWindows windows = full();
    windows[layer].window = window;
    return windows;
  }

  engine::SweepRequest request() const {
    engine::SweepRequest request;
    request.tokens = tokens_;
    request.answer_start = kTokens - kAnswerTokens;
    request.base = full();
    return request;
  }

  engine::SweepResult sweep_all(const kernels::Window& window) {
    engine::SweepRequest all = request();
    for (std::size_t l = 0; l < all.base.size(); ++l) all.variants.push_back(only(l, window));
    return engine::sweep(*ops_, config_, weights_, all, {});
  }

  engine::Score one_pass(const engine::LayerWindows& windows) {
    engine::SweepRequest single = request();
    single.base = windows;
    return engine::sweep(*ops_, config_, weights_, single, {}).base;
  }

  Check against_reference(const Case& c, const engine::SweepResult& swept) const {
    const engine::SweepRequest r = request();
    double worst = 0.0;
    bool hits_equal = true;
    const auto compare = [&](const engine::Score& score, const engine::LayerWindows& windows) {
      const engine::Score exact = engine::reference_score(config_, checkpoint_, r.tokens, r.answer_start, windows);
      worst = std::max(worst, std::abs(score.nll_nats - exact.nll_nats) / (1.0 + std::abs(exact.nll_nats)));
      hits_equal = hits_equal && score.token_accuracy == exact.token_accuracy && score.exact_match == exact.exact_match;
    };
    compare(swept.base, r.base);
    for (std::size_t l = 0; l < swept.variants.size(); ++l) compare(swept.variants[l], only(l, c.window));
    return {c.name + ": NLL equals the float64 reference's", worst <= kTolerance && hits_equal,
            "largest relative error " + number("%.1e", worst) + ", allowed " + number("%.0e", kTolerance) +
                (hits_equal ? "" : "; token accuracy differs")};
  }

  Check against_separate_passes(const Case& c, const engine::SweepResult& swept) {
    int64_t n_different = 0;
    for (std::size_t l = 0; l < swept.variants.size(); ++l) {
      if (one_pass(only(l, c.window)).nll_nats != swept.variants[l].nll_nats) ++n_different;
    }
    return {c.name + ": the sweep equals separate passes bit for bit", n_different == 0,
            std::to_string(n_different) + " of " + std::to_string(swept.variants.size()) + " layers differ"};
  }

  static void rank(const std::vector<double>& delta, Outcome& outcome) {
    outcome.ranking.resize(delta.size());
    std::iota(outcome.ranking.begin(), outcome.ranking.end(), int64_t{0});
    const auto value = [&](int64_t layer) { return delta[static_cast<std::size_t>(layer)]; };
    std::stable_sort(outcome.ranking.begin(), outcome.ranking.end(),
                     [&](int64_t a, int64_t b) { return value(a) > value(b); });
    for (std::size_t i = 1; i < delta.size(); ++i) {
      outcome.least_gap = std::min(outcome.least_gap, value(outcome.ranking[i - 1]) - value(outcome.ranking[i]));
    }
  }

  model::ModelConfig config_;
  model::Checkpoint checkpoint_;
  std::unique_ptr<kernels::Ops> ops_;
  model::ModelWeights weights_;
  std::vector<int32_t> tokens_;
};

// Steps of the signature: their number does not depend on the processor's last bits as long as no NLL is near an edge.
Check rounding_is_clear(const Outcome& outcome) {
  double nearest = INFINITY;
  for (const double nll : outcome.nlls) {
    const double steps = nll / kSignatureStep;
    nearest = std::min(nearest, (0.5 - std::abs(steps - std::round(steps))) * kSignatureStep);
  }
  return {"the signature is clear of rounding edges", nearest >= kClearOfEdge && outcome.least_gap >= kClearOfEdge,
          "nearest edge " + number("%.1e", nearest) + ", smallest gap in rank " + number("%.1e", outcome.least_gap) +
              " nats per token"};
}

std::string signature(const Outcome& outcome) {
  std::string text;
  for (const int64_t layer : outcome.ranking) text += std::to_string(layer) + " ";
  for (const double nll : outcome.nlls) text += std::to_string(std::llround(nll / kSignatureStep)) + " ";
  return sha256_of(text).substr(0, 16);
}

int run_selftest(const Options& options) {
  const TemporaryDirectory directory;
  model::RandomCheckpoint shape;
  shape.n_layers = 5;
  shape.seed = kSeed;
  model::write_random_checkpoint(directory.path(), shape);
  Outcome outcome = Tester(directory.path()).run();
  outcome.checks.push_back(rounding_is_clear(outcome));

  if (options.json) {
    nlohmann::ordered_json json;
    for (const Check& check : outcome.checks) {
      json["checks"].push_back({{"name", check.name}, {"passed", check.passed}, {"detail", check.detail}});
    }
    json["passed"] = outcome.passed();
    json["signature"] = signature(outcome);
    json["version"] = kVersion;
    std::printf("%s\n", json_text(json, 2).c_str());
  } else {
    for (const Check& check : outcome.checks) {
      std::printf("%s  %s (%s)\n", check.passed ? "PASS" : "FAIL", check.name.c_str(), check.detail.c_str());
    }
    std::printf("Signature: %s\n", signature(outcome).c_str());
  }
  if (!outcome.passed()) fail(ExitCode::kInternal, "selftest: this build computes wrong numbers; see the FAIL lines");
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace

Command add_selftest(const cli::Verb& program) {
  const auto options = std::make_shared<Options>();
  const cli::Verb verb = program.add_subcommand(
      "selftest", "Checks this build: the sweep of a tiny random model against a plain float64 forward pass");
  verb.add_flag("--json", options->json, "Print JSON instead of lines (default: lines)");
  verb.footer(
      "\nOne thread, one second, no input; the model has 5 layers and 150 tokens. The signature hashes the layer\n"
      "ranking and the NLLs in steps of 1e-4 nats per token: it is the same on every machine.\n"
      "\nExample:\n  winnow selftest\n");
  return {verb, [options] { return run_selftest(*options); }};
}

}  // namespace winnow::commands
