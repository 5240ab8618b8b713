#include "pipeline/engine/rotary_table.h"

#include <algorithm>

#include "base/error.h"
#include "model/rope.h"

namespace winnow::engine {
namespace {

// Tables of an embedding: queries have their own where they are scaled.
int64_t n_tables(const model::RopeConfig& rope) { return rope.query_beta == 0.0 ? 1 : 2; }

}  // namespace

std::vector<int64_t> RotaryTable::lengths_of(const model::ModelConfig& config, int64_t length) {
  std::vector<int64_t> lengths;
  for (const model::RopeConfig& rope : config.ropes) lengths.push_back(model::length_class(rope, length));
  return lengths;
}

std::vector<RotaryTable::Class> RotaryTable::classes_of(const model::ModelConfig& config,
                                                        std::span<const TurnedSequence> sequences) {
  std::vector<Class> classes;
  for (const TurnedSequence& sequence : sequences) {
    const std::vector<int64_t> lengths = lengths_of(config, sequence.length);
    auto found = std::ranges::find(classes, lengths, &Class::lengths);
    if (found == classes.end()) found = classes.insert(found, {.lengths = lengths});
    found->n_positions = std::max(found->n_positions, sequence.n_positions);
  }
  int64_t place = 0;
  for (Class& each : classes) {
    each.first_place = place;
    place += each.n_positions;
  }
  return classes;
}

int64_t RotaryTable::bytes(const model::ModelConfig& config, std::span<const TurnedSequence> sequences) {
  int64_t places = 0;
  for (const Class& each : classes_of(config, sequences)) places += each.n_positions;
  int64_t total = 0;
  for (const model::RopeConfig& rope : config.ropes) {
    total += n_tables(rope) * places * config.heads.head_dim * static_cast<int64_t>(sizeof(float));
  }
  return total;
}

RotaryTable::RotaryTable(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                         std::span<const TurnedSequence> sequences)
    : config_(config), classes_(classes_of(config, sequences)) {
  const int64_t head_dim = config.heads.head_dim;
  const auto load = [&](int32_t rope, bool of_queries) {
    std::vector<float> joined;
    std::span<const float> angles;
    for (const Class& each : classes_) {
      const model::RotaryKey key{rope, of_queries, each.lengths[static_cast<std::size_t>(rope)]};
      angles = weights.rotary_table(each.n_positions, key).first(static_cast<std::size_t>(each.n_positions * head_dim));
      if (classes_.size() > 1) joined.insert(joined.end(), angles.begin(), angles.end());
    }
    if (classes_.size() > 1) angles = joined;
    const kernels::HostTensor table{reinterpret_cast<const std::byte*>(angles.data()),
                                    kernels::DType::kF32,
                                    {static_cast<int64_t>(angles.size()) / head_dim, head_dim},
                                    "rotary table"};
    memory_.push_back(ops.device().allocate(static_cast<int64_t>(angles.size_bytes()), "the rotary table"));
    const kernels::Matrix loaded = ops.device().load(table, kernels::WeightUse::kTable, memory_.back()->bytes());
    ops.device().synchronize();  // the joined table goes away
    return loaded;
  };
  for (std::size_t i = 0; i < config.ropes.size(); ++i) {
    const auto rope = static_cast<int32_t>(i);
    const kernels::Matrix keys = load(rope, false);
    tables_.push_back({keys, n_tables(config.ropes[i]) == 1 ? keys : load(rope, true)});
  }
}

int32_t RotaryTable::place(int64_t length, int64_t position) const {
  const auto found = classes_.size() == 1 ? classes_.begin()
                                          : std::ranges::find(classes_, lengths_of(config_, length), &Class::lengths);
  if (found == classes_.end()) fail(ExitCode::kInternal, "no rotary table for " + std::to_string(length) + " tokens");
  return static_cast<int32_t>(found->first_place + std::min(position, found->n_positions - 1));
}

model::LayerAngles RotaryTable::angles(std::span<const int32_t> places, int32_t rope) const {
  const Tables& tables = tables_[static_cast<std::size_t>(rope)];
  return {{tables.keys, places}, {tables.queries, places}};
}

}  // namespace winnow::engine
