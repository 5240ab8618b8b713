// How a run gets its weights: which layers stay in the backend's memory, and where the others come from (--stream).
#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/clock.h"
#include "base/strings.h"
#include "pipeline/engine/sweep_price.h"
#include "pipeline/run/run.h"

namespace winnow::run {
namespace {

// Of the memory of a host that is free, which streamed layers may fill.
constexpr double kStagedShare = 0.8;
// Base rows whose products take about as long as their layer needs over PCI Express, in stacks of the backend: two
// operations a weight and row at 500 TFLOP/s, two bytes a weight at 25 to 50 GB/s.
constexpr int64_t kWaveStacks = 2;
// How much more time a wave computes than its layers take to come: beside the operations, or between them.
constexpr double kCoverBeside = 1.25;
constexpr double kCoverBetween = 10.0;

}  // namespace

ResidencyNeeds MeasuringRun::residency_needs(int64_t limit_bytes) const {
  const model::ModelConfig& config = inputs_.config;
  const auto bytes_of = [&](int64_t n_kept, int64_t n_buffers) {
    return model::ModelWeights::predicted_bytes(
        config, *inputs_.checkpoint, *ops_,
        model::Residency{.n_layers = config.n_layers, .n_kept = n_kept, .n_buffers = n_buffers});
  };
  ResidencyNeeds needs{.n_layers = config.n_layers, .limit_bytes = limit_bytes};
  needs.layer_bytes = bytes_of(0, 2) - bytes_of(0, 1);
  needs.shared_bytes = bytes_of(config.n_layers, 0) - config.n_layers * needs.layer_bytes;
  needs.packed_bytes = bytes_of(0, 1) - needs.layer_bytes - needs.shared_bytes;
  const engine::Pattern windowed(static_cast<std::size_t>(config.n_layers), true);
  for (std::size_t d = 0; d < inputs_.data_sets.size(); ++d) {
    for (int64_t e = 0; e < inputs_.data_sets[d].n_examples; ++e) {
      const MissingCells cells{.data_set = static_cast<int64_t>(d), .example = e, .base = true, .variants = {}};
      engine::SweepRequest request = inputs_.request(cells, inputs_.wanted, options_.per_token);
      // A search finds its patterns on the way: those of a step are as many as layers, about.
      if (request.variants.empty()) {
        request.variants.assign(
            static_cast<std::size_t>(config.n_layers),
            inputs_.settings.layer_windows(windowed, inputs_.window_of(static_cast<int64_t>(d), e)));
      }
      // More lanes than layers, as of windows and heads, may go in groups.
      request.variants.resize(std::min(request.variants.size(), static_cast<std::size_t>(config.n_layers)));
      const int64_t bytes = engine::predict_sweep_bytes(config, *ops_, std::span(&request, 1));
      const auto n_rows = static_cast<int64_t>(request.tokens.size());
      const int64_t n_together = (kWaveStacks * ops_->device().stack_rows() + n_rows - 1) / n_rows;
      needs.wave_bytes = std::max(needs.wave_bytes, n_together * bytes);
      request.variants.resize(1);
      needs.least_sweep_bytes =
          std::max(needs.least_sweep_bytes, engine::predict_sweep_bytes(config, *ops_, std::span(&request, 1)));
    }
  }
  // Caches of texts that are written take what there is.
  if (options_.generate > 0) needs.wave_bytes = limit_bytes;
  return needs;
}

void MeasuringRun::make_weights() {
  const int64_t limit = session_.minimum(memory_limit());
  const auto of_host = static_cast<int64_t>(kStagedShare * static_cast<double>(session_.resources().available_bytes));
  const int64_t free_on_host = session_.minimum(of_host) * session_.local_size();
  session_.agree([&] {
    model::Residency residency = model::ModelWeights::default_residency(inputs_.config, *ops_);
    // The CPU reads its layers from the map anyhow, unless it is told.
    const bool is_asked = ops_->device().free_bytes() || options_.stream == "on";
    const ResidencyNeeds needs = is_asked ? residency_needs(limit) : ResidencyNeeds{};
    if (is_asked) residency = plan_residency(needs, options_.stream);
    is_streamed_ = is_asked && !residency.keeps_all();
    weights_ = std::make_unique<model::ModelWeights>(inputs_.config, *inputs_.checkpoint, *ops_, model::Loading::kLater,
                                                     residency);
    if (!is_streamed_) return;
    is_staged_ = weights_->staged_bytes() <= free_on_host;
    if (!is_staged_ || ops_->device().free_bytes()) return;
    // The host's memory is the backend's: the copy is taken from what sweeps may have. No wave needs more than half.
    is_staged_ = weight_bytes() + std::max(needs.least_sweep_bytes, std::min(needs.wave_bytes, limit / 2)) <= limit;
  });
}

int64_t MeasuringRun::weight_bytes() const {
  const int64_t bytes =
      model::ModelWeights::predicted_bytes(inputs_.config, *inputs_.checkpoint, *ops_, weights_->residency());
  const bool is_copy_counted = is_staged_ && !ops_->device().free_bytes();
  return bytes + (is_copy_counted ? weights_->staged_bytes() / session_.local_size() : 0);
}

void MeasuringRun::load_weights() {
  if (exchange_) return;
  const auto part = in(Part::kExchange);
  exchange_ = std::make_unique<runtime::Exchange>(session_, *ops_, gpu_);
  if (session_.size() > 1) spdlog::info("ranks exchange weights and sums over {}", exchange_->reduction());
  session_.timeline().enter(Part::kWeights);  // until the scope above ends
  loaded_ = exchange_->load(*weights_);
  const auto begin = Clock::now();
  if (is_staged_) share_layers();
  log_weights(seconds_since(begin));
}

// Each rank of the host writes some of the layers, and all take them from there.
void MeasuringRun::share_layers() {
  staged_ = runtime::HostMemory::share(session_, weights_->staged_bytes());
  is_staged_ = staged_ != nullptr;
  session_.agree([&] {
    const auto n_streamed = static_cast<int64_t>(weights_->residency().streamed().size());
    for (int64_t i = session_.local_rank(); staged_ && i < n_streamed; i += session_.local_size()) {
      weights_->stage(i, staged_->bytes());
    }
  });
  session_.agree([&] {
    if (!staged_) return;
    staged_pin_ = ops_->device().pin(staged_->bytes());
    weights_->stage_from(staged_->bytes());
  });
}

void MeasuringRun::log_weights(double staging_seconds) const {
  const model::Residency& residency = weights_->residency();
  if (residency.n_kept > 0) {
    spdlog::info(
        "weights: {} in {:.2f} s, {:.1f} GB/s{}", format_bytes(loaded_.size_bytes), loaded_.seconds,
        static_cast<double>(loaded_.size_bytes) * 1e-9 / loaded_.seconds,
        exchange_->reduction().starts_with("nccl") ? "; read once a host, sent to its other ranks over NCCL" : "");
  }
  if (!is_streamed_) return;
  const std::string from = staged_ ? fmt::format("{} of the host's memory, filled in {:.2f} s",
                                                 format_bytes(weights_->staged_bytes()), staging_seconds)
                                   : "the checkpoint's files";
  spdlog::info("weights: {} of {} layers come from {}, while others are computed",
               residency.n_layers - residency.n_kept, residency.n_layers, from);
}

int64_t MeasuringRun::stack_rows() const {
  const int64_t rows = ops_->device().stack_rows();
  const auto chunk = static_cast<double>(rates_.chunk_rows);
  const double of_chunk = rates_.input_rows.seconds_of(chunk) + rates_.finish_rows.seconds_of(chunk);
  if (!is_streamed_ || of_chunk <= 0.0) return rows;
  const double cover = rates_.loads_beside ? kCoverBeside : kCoverBetween;
  return std::max(rows, static_cast<int64_t>(cover * rates_.per_layer_load / of_chunk * chunk));
}

// Of the plan, as if one of the two, loading and computing, took no time.
StreamForecast MeasuringRun::stream_forecast() const {
  const model::Residency& residency = weights_->residency();
  StreamForecast forecast{.n_streamed = residency.n_layers - residency.n_kept,
                          .n_layers = residency.n_layers,
                          .host_bytes = staged_ ? weights_->staged_bytes() : 0,
                          .loads_beside = rates_.loads_beside};
  engine::Rates computing = rates_;
  computing.per_layer_load = 0.0;
  for (const WorkUnit& unit : units_) {
    const MissingCells cells{
        .data_set = unit.data_set, .example = unit.example, .base = unit.keeps_base, .variants = {}};
    const std::vector<engine::SweepRequest> all = together(inputs_.request(cells, unit.variants, options_.per_token));
    const auto n_together = static_cast<int64_t>(all.size());
    forecast.most_together = std::max(forecast.most_together, n_together);
    const double n_shares = static_cast<double>(n_together * session_.size());
    forecast.load_seconds += rates_.per_layer_load * static_cast<double>(residency.n_layers) / n_shares;
    forecast.compute_seconds += engine::predict_seconds(computing, inputs_.config, *ops_, all) / n_shares;
  }
  return forecast;
}

}  // namespace winnow::run
