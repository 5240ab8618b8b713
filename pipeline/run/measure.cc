#include "pipeline/run/measure.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "pipeline/engine/sweep_layout.h"
#include "pipeline/run/shards.h"

namespace winnow::run {
namespace {

class Measurer {
 public:
  Measurer(const MeasureContext& context, std::span<const WorkUnit> units, WorkLoop& loop,
           std::vector<ScoreTable>& cells)
      : context_(context), units_(units), loop_(loop), cells_(cells) {
    find_own();
  }

  MeasureReport run() {
    loop_.run([this] { return take_batch(); }, [this](const std::vector<int64_t>& batch) { measure(batch); });
    return report_;
  }

 private:
  void measure(const std::vector<int64_t>& batch) {
    prepare_next(batch.back() + context_.n_ranks);
    const auto begin = Clock::now();
    const std::vector<engine::SweepResult> results = sweep_batch(batch, begin);
    const double seconds = seconds_since(begin);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const WorkUnit& done = unit(batch[i]);
      const double share = seconds * done.cost_seconds / planned_seconds(batch);
      keep(done, results[i], share, cells_[static_cast<std::size_t>(done.data_set)]);
      loop_.report_done(batch[i], share);
    }
  }

  const WorkUnit& unit(int64_t index) const { return units_[static_cast<std::size_t>(index)]; }

  double planned_seconds(std::span<const int64_t> batch) const {
    double seconds = 1e-9;  // never 0: units are priced by measured times
    for (const int64_t index : batch) seconds += unit(index).cost_seconds;
    return seconds;
  }

  engine::SweepRequest request_of(const WorkUnit& work) const {
    const MissingCells where{
        .data_set = work.data_set, .example = work.example, .base = work.keeps_base, .variants = {}};
    return context_.inputs.request(where, work.variants, context_.per_token);
  }

  // Kept prefixes are of use on their own rank only.
  void find_own() {
    const std::vector<int64_t>& owner = context_.inputs.prefixes.owner;
    if (owner.empty() || units_.empty() || units_.front().data_set != 0) return;
    has_own_ = true;
    for (std::size_t index = 0; index < units_.size(); ++index) {
      if (owner[static_cast<std::size_t>(units_[index].example)] != context_.rank) continue;
      own_.push_back(static_cast<int64_t>(index));
    }
  }

  std::optional<int64_t> next() {
    if (held_) return std::exchange(held_, std::nullopt);
    if (!has_own_) return loop_.next();
    if (own_.empty()) return std::nullopt;
    const int64_t index = own_.front();
    own_.pop_front();
    return index;
  }

  // One unit, or as many as fill the backend and fit its memory. No rank takes more than its share of half of them at
  // a time, so that all end together.
  std::vector<int64_t> take_batch() {
    std::vector<int64_t> batch;
    std::vector<engine::SweepRequest> requests;
    const auto n_units = static_cast<int64_t>(units_.size());
    const int64_t most = has_own_ ? n_units : std::max<int64_t>(1, n_units / (2 * context_.n_ranks));
    int64_t n_rows = 0;
    while (static_cast<int64_t>(batch.size()) < most) {
      const auto index = next();
      if (!index) break;
      requests.push_back(request_of(unit(*index)));
      n_rows += static_cast<int64_t>(requests.back().tokens.size()) - requests.back().prefix_rows;
      const int64_t bytes = predicted_bytes(requests);
      if (!batch.empty() && (n_rows > context_.stack_rows || bytes > context_.max_bytes)) {
        held_ = index;
        break;
      }
      batch.push_back(*index);
      report_.predicted_bytes = std::max(report_.predicted_bytes, bytes);
      if (n_rows >= context_.stack_rows) break;
    }
    return batch;
  }

  int64_t predicted_bytes(std::span<const engine::SweepRequest> requests) const {
    return context_.weight_bytes + engine::predict_sweep_bytes(context_.inputs.config, context_.ops, requests);
  }

  // Units are handed out in order, so this rank's next one is likely to be about this one.
  void prepare_next(int64_t index) {
    if (index >= static_cast<int64_t>(units_.size())) return;
    const model::ModelConfig& config = context_.inputs.config;
    context_.ops.prepare_attention(
        engine::attention_shapes(config, request_of(unit(index)), context_.ops.device().row_tile()), config.heads);
  }

  std::vector<engine::SweepResult> sweep_batch(std::span<const int64_t> batch, Clock::time_point begin) {
    std::vector<engine::SweepRequest> requests;
    for (const int64_t index : batch) requests.push_back(request_of(unit(index)));
    const model::ModelConfig& config = context_.inputs.config;
    const double planned = planned_seconds(batch);
    const engine::StopCheck stop = [&] { return loop_.must_stop(seconds_since(begin), planned * slowness_); };
    std::vector<engine::SweepResult> results;
    try {
      for (std::size_t i = 0; i < batch.size(); ++i) provide_prefix(unit(batch[i]), requests[i], stop);
      results = engine::sweep(context_.ops, config, context_.weights, requests, stop);
    } catch (const Error& error) {
      fail(error.code(), name_of(batch.front()) + error.what());
    }
    context_.watch.require_unchanged();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      try {
        engine::check_finite(requests[i], results[i]);
      } catch (const Error& error) {
        fail(error.code(), name_of(batch[i]) + error.what() + "; " + context_.weights.why_not_finite());
      }
    }
    return results;
  }

  // "c.h5: example 3 (id "a7"): "
  std::string name_of(int64_t index) const {
    const WorkUnit& work = unit(index);
    const Corpus& corpus = context_.inputs.data_sets[static_cast<std::size_t>(work.data_set)].corpus;
    return corpus.path.string() + ": " + corpus.name_of(work.example) + ": ";
  }

  void provide_prefix(const WorkUnit& work, engine::SweepRequest& request, const engine::StopCheck& stop) {
    if (request.prefix_rows == 0) return;
    const auto place = context_.inputs.prefixes.place[static_cast<std::size_t>(work.example)];
    context_.prefixes->provide(work.example, *place, request, stop);
  }

  void keep(const WorkUnit& unit, const engine::SweepResult& result, double seconds, ScoreTable& cells) {
    const DataSet& data = context_.inputs.data_sets[static_cast<std::size_t>(unit.data_set)];
    Shard shard{.data_set = data.name,
                .example = unit.example,
                .example_id = data.corpus.example_id[static_cast<std::size_t>(unit.example)],
                .variants = {},
                .names = {},
                .scores = {},
                .has_kl = context_.inputs.with_kl,
                .signals = context_.inputs.signal_layout(),
                .n_tokens = data.n_answer(unit.example),
                .seconds = seconds,
                .made_by = context_.made_by};
    if (unit.keeps_base) {
      shard.variants.push_back(kBaseVariant);
      shard.scores.push_back(result.base);
    }
    for (std::size_t i = 0; i < unit.variants.size(); ++i) {
      shard.variants.push_back(unit.variants[i]);
      shard.scores.push_back(result.variants[i]);
    }
    const std::vector<std::string>& names = context_.inputs.variant_names;
    for (const int64_t variant : shard.variants) {
      if (!context_.inputs.names_variants()) break;
      shard.names.push_back(variant == kBaseVariant ? "" : names[static_cast<std::size_t>(variant)]);
    }
    check_unchanged(data.corpus);
    write_shard(context_.shards, shard, {.measurement = context_.measurement, .data_sha256 = data.corpus.sha256});
    for (std::size_t i = 0; i < shard.variants.size(); ++i) cells.put(unit.example, shard.variants[i], shard.scores[i]);
    report_.units += 1;
    report_.busy_seconds += seconds;
    planned_seconds_ += unit.cost_seconds;
    if (planned_seconds_ > 0.0) slowness_ = report_.busy_seconds / planned_seconds_;
  }

  const MeasureContext& context_;
  std::span<const WorkUnit> units_;
  WorkLoop& loop_;
  std::vector<ScoreTable>& cells_;
  std::optional<int64_t> held_;  // taken, but too large for the batch before
  bool has_own_ = false;         // whether units are taken by owner
  std::deque<int64_t> own_;      // of this rank, not taken yet
  MeasureReport report_;
  double planned_seconds_ = 0.0;
  double slowness_ = 1.0;  // real seconds per planned second, on this rank so far
};

}  // namespace

MeasureReport measure_units(const MeasureContext& context, std::span<const WorkUnit> units, WorkLoop& loop,
                            std::vector<ScoreTable>& cells) {
  return Measurer(context, units, loop, cells).run();
}

}  // namespace winnow::run
