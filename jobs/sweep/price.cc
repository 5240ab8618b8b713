#include "jobs/sweep/price.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/window.h"
#include "pipeline/engine/layer_windows.h"
#include "pipeline/run/corpus.h"
#include "pipeline/run/layer_rules.h"
#include "pipeline/run/options/option.h"
#include "results/storage/hdf5.h"

namespace winnow::sweep {
namespace {

// What a rank reaches over a whole sweep. Of a GPU: measured on an H100, attention and products together. Of a rank on
// a CPU: a few cores of a server; machines differ by more than the model's error.
constexpr double kGpuFlopPerSecond = 450e12;
constexpr double kCpuFlopPerSecond = 150e9;

}  // namespace

double sweep_flops(const model::ModelConfig& config, const run::Settings& settings, int64_t n_tokens,
                   int64_t answer_start) {
  const auto layers = static_cast<double>(config.n_layers);
  const auto rows = static_cast<double>(n_tokens - 1);
  const kernels::Window window = settings.window_of(answer_start);
  const engine::LayerWindows base = settings.layer_windows(settings.base, window);
  // A lane of layer l has its own rows through the layers after l, and attention in l itself.
  double lane_rows = 0.0;
  double lane_pairs = 0.0;
  for (const int64_t layer : settings.layers) {
    const engine::LayerWindows variant = settings.layer_windows(settings.variant(layer), window);
    const auto first =
        static_cast<double>(std::clamp<int64_t>(engine::first_different_row(base, variant), 0, n_tokens - 1));
    const double own_layers = layers - 1.0 - static_cast<double>(layer);
    lane_rows += own_layers * (rows - first);
    lane_pairs += own_layers * (rows * rows - first * first) / 2.0;
  }
  // A lane of a head, of another window or of another type of keys and values takes what that of its layer takes,
  // nearly. Full attention with keys and values as they are computed is the base.
  const double n_windows = 1.0 + static_cast<double>(settings.other_window_keys.size());
  const double n_types = 1.0 + static_cast<double>(settings.kv_types.size());
  const double lanes_a_layer =
      settings.per_kv_head ? 1.0 + static_cast<double>(config.heads.n_kv_heads) : (n_windows + 1.0) * n_types - 1.0;
  lane_rows *= lanes_a_layer;
  lane_pairs *= lanes_a_layer;
  const auto lanes = static_cast<double>(settings.layers.size()) * lanes_a_layer;
  const auto q_dim = static_cast<double>(config.heads.q_dim());
  const auto kv_dim = 2.0 * static_cast<double>(config.heads.kv_dim());
  const auto hidden = static_cast<double>(config.hidden);
  const double per_row = 2.0 * hidden * (2.0 * q_dim + kv_dim + 3.0 * static_cast<double>(config.mean_active_ffn()));
  const double per_pair = 4.0 * q_dim;
  const double row_layers = layers * rows + lane_rows;
  const double pairs = layers * rows * rows / 2.0 + lane_pairs;
  const auto answer = static_cast<double>(n_tokens - answer_start);
  return per_row * row_layers + per_pair * pairs +
         2.0 * hidden * static_cast<double>(config.vocab) * answer * (1.0 + lanes);
}

const Prices::Model& Prices::model(const std::filesystem::path& path) {
  const auto [entry, is_new] = models_.try_emplace(path.string());
  if (is_new) {
    try {
      entry->second.config = model::read_config(path);
    } catch (const Error& error) {
      entry->second.error = error.what();
    }
  }
  return entry->second;
}

const Prices::Lengths& Prices::lengths(const std::filesystem::path& path) {
  const auto [entry, is_new] = lengths_.try_emplace(path.string());
  if (!is_new) return entry->second;
  Lengths& lengths = entry->second;
  try {
    const storage::File file = storage::File::open(path);
    run::require_calibration_format(file);
    const std::vector<int64_t> offsets = file.root().read<int64_t>("offsets", 1).values;
    const std::vector<int64_t> starts = file.root().read<int64_t>("answer_start", 1).values;
    if (offsets.size() != starts.size() + 1)
      fail(ExitCode::kBadData, path.string() + ": /offsets do not fit /answer_start");
    for (std::size_t e = 0; e < starts.size(); ++e) {
      lengths.examples.emplace_back(std::max<int64_t>(offsets[e + 1] - offsets[e], 1), starts[e]);
    }
  } catch (const Error& error) {
    lengths.error = error.what();
  }
  return lengths;
}

Price Prices::of(const SweepCell& cell) {
  const run::RunOptions& options = cell.options;
  if (options.verb != run::Verb::kCalibrate) {
    const std::string verb = run::verb_name(options.verb);
    return {.unknown = "cells of " + verb + " have no price here; winnow " + verb + " --dry-run tells it"};
  }
  const Model& checkpoint = model(options.model);
  if (!checkpoint.config) return {.unknown = checkpoint.error};
  Price price;
  try {
    run::Settings settings = run::resolve_settings(options, checkpoint.config->n_layers);
    run::take_layer_rules(options, *checkpoint.config, settings);
    double flops = 0.0;
    const auto add = [&](const std::filesystem::path& file) {
      const Lengths& data = lengths(file);
      if (!data.error.empty()) fail(ExitCode::kBadData, data.error);
      const auto all = static_cast<int64_t>(data.examples.size());
      for (int64_t e = 0; e < std::min(all, options.limit.value_or(all)); ++e) {
        const auto& [n_tokens, answer_start] = data.examples[static_cast<std::size_t>(e)];
        flops += sweep_flops(*checkpoint.config, settings, n_tokens, answer_start);
      }
    };
    add(options.data);
    for (const auto& [name, file] : options.controls) add(file);
    const bool is_gpu = cell.cell.resources.gpus_per_node > 0;
    price.rank_hours = flops / (is_gpu ? kGpuFlopPerSecond : kCpuFlopPerSecond) / 3600.0;
  } catch (const Error& error) {
    price.unknown = error.what();
  }
  return price;
}

}  // namespace winnow::sweep
