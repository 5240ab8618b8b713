#include "pipeline/measure.h"

#include <algorithm>
#include <chrono>

#include "kernels/error.h"
#include "pipeline/shards.h"

namespace winnow {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

class Measurer {
 public:
  Measurer(const MeasureContext& context, Dispatcher& dispatcher, const StopSignals& signals)
      : context_(context), dispatcher_(dispatcher), signals_(signals) {}

  MeasureReport run(std::span<const WorkUnit> units, std::vector<Cells>& cells) {
    while (true) {
      dispatcher_.poll_stop(signals_.kind());
      const auto index = dispatcher_.next();
      if (!index) return report_;
      // A stop that came while this rank waited for its answer: the unit stays undone.
      if (dispatcher_.poll_stop(signals_.kind()) != StopKind::kNone) continue;
      const WorkUnit& unit = units[static_cast<std::size_t>(*index)];
      const auto begin = Clock::now();
      try {
        const SweepResult result = sweep_unit(unit, begin);
        const double seconds = seconds_since(begin);
        keep(unit, result, seconds, cells[static_cast<std::size_t>(unit.data_set)]);
        dispatcher_.report_done(*index, seconds);
      } catch (const Interrupted&) {
      }
    }
  }

 private:
  SweepResult sweep_unit(const WorkUnit& unit, Clock::time_point begin) {
    const MissingCells where{.data_set = unit.data_set, .example = unit.example, .base = unit.keeps_base, .layers = {}};
    const SweepRequest request = context_.inputs.request(where, unit.layers, context_.per_token);
    const ModelConfig& config = context_.inputs.config;
    const int64_t bytes =
        ModelWeights::predicted_bytes(config, *context_.inputs.checkpoint, context_.backend) +
        predict_sweep_bytes(config, context_.backend, plan_sweep(config, request, context_.backend.row_tile()));
    report_.predicted_bytes = std::max(report_.predicted_bytes, bytes);
    try {
      return sweep(context_.backend, config, context_.weights, request,
                   [&] { return must_stop(seconds_since(begin), unit.cost_seconds * slowness_); });
    } catch (const Error& error) {
      const DataSet& data = context_.inputs.data_sets[static_cast<std::size_t>(unit.data_set)];
      fail(error.code(), data.corpus.path.string() + ": example " + std::to_string(unit.example) + " (id \"" +
                             data.corpus.example_id[static_cast<std::size_t>(unit.example)] + "\"): " + error.what());
    }
  }

  bool must_stop(double elapsed, double predicted) {
    const StopKind kind = dispatcher_.poll_stop(signals_.kind());
    if (kind == StopKind::kNone) return false;
    if (!stop_seen_) {
      stop_seen_ = true;
      stop_time_ = Clock::now();
    }
    return must_drop_unit(kind, context_.grace_seconds - seconds_since(stop_time_), elapsed, predicted);
  }

  void keep(const WorkUnit& unit, const SweepResult& result, double seconds, Cells& cells) {
    const DataSet& data = context_.inputs.data_sets[static_cast<std::size_t>(unit.data_set)];
    Shard shard{.data_set = data.name,
                .example = unit.example,
                .example_id = data.corpus.example_id[static_cast<std::size_t>(unit.example)],
                .variants = {},
                .scores = {},
                .n_tokens = data.n_answer(unit.example),
                .seconds = seconds,
                .made_by = context_.made_by};
    if (unit.keeps_base) {
      shard.variants.push_back(kBaseVariant);
      shard.scores.push_back(result.base);
    }
    for (std::size_t i = 0; i < unit.layers.size(); ++i) {
      shard.variants.push_back(unit.layers[i]);
      shard.scores.push_back(result.variants[i]);
    }
    write_shard(context_.shards, shard, {.measurement = context_.measurement, .data_sha256 = data.corpus.sha256});
    for (std::size_t i = 0; i < shard.variants.size(); ++i) cells.put(unit.example, shard.variants[i], shard.scores[i]);
    report_.units += 1;
    report_.busy_seconds += seconds;
    planned_seconds_ += unit.cost_seconds;
    if (planned_seconds_ > 0.0) slowness_ = report_.busy_seconds / planned_seconds_;
  }

  const MeasureContext& context_;
  Dispatcher& dispatcher_;
  const StopSignals& signals_;
  MeasureReport report_;
  double planned_seconds_ = 0.0;
  double slowness_ = 1.0;  // real seconds per planned second, on this rank so far
  bool stop_seen_ = false;
  Clock::time_point stop_time_;
};

}  // namespace

MeasureReport measure_units(const MeasureContext& context, std::span<const WorkUnit> units, Dispatcher& dispatcher,
                            const StopSignals& signals, std::vector<Cells>& cells) {
  return Measurer(context, dispatcher, signals).run(units, cells);
}

}  // namespace winnow
