// Predicts what a cell takes by the model's config.json and the lengths of its examples: roughly, but at once.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "jobs/sweep/cells.h"
#include "model/config.h"

namespace winnow::sweep {

struct Price {
  double rank_hours = 0.0;  // hours of one GPU, or of one rank on a CPU
  std::string unknown;      // why there is no price: one line; "" where there is one
};

// Reads each model and each data file once.
class Prices {
 public:
  Price of(const SweepCell& cell);

 private:
  struct Model {
    std::optional<model::ModelConfig> config;
    std::string error;
  };
  struct Lengths {
    std::vector<std::pair<int64_t, int64_t>> examples;  // tokens, answer start
    std::string error;
  };
  const Model& model(const std::filesystem::path& path);
  const Lengths& lengths(const std::filesystem::path& path);

  std::map<std::string, Model> models_;
  std::map<std::string, Lengths> lengths_;
};

// Returns the floating-point operations of the sweep over one example, in closed form: plan_sweep without padding to
// row tiles.
double sweep_flops(const model::ModelConfig& config, const run::Settings& settings, int64_t n_tokens,
                   int64_t answer_start);

}  // namespace winnow::sweep
