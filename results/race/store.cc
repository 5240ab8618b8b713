#include "results/race/store.h"

#include <array>
#include <optional>

#include "base/error.h"
#include "results/race/text.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::race {
namespace {

constexpr const char* kOverBefore = "the race of that window was over before";
constexpr const char* kWindow = "window of the ranking that is raced";
constexpr const char* kWindowOfType = "window of the ranking that is raced; 0: full attention, in another type";

}  // namespace

void write_race(storage::Group group, const RaceRecord& record) {
  const int64_t n_looks = record.n_looks();
  const int64_t n_races = record.n_races();
  const auto n_budgets = static_cast<int64_t>(record.budget.size());
  const auto n_layers = static_cast<int64_t>(record.layer.size());
  group.set_attribute<std::string>(".", "confidence", confidence_text(record.confidence));
  group.set_attribute<std::string>(".", "tolerance", record.tolerance);
  storage::write_coordinate(group, "layer", record.layer, {storage::kOne, "index of the decoder layer"});
  storage::write_coordinate(group, "budget", record.budget,
                            {storage::kOne, "K: number of layers that keep full attention"});
  std::vector<int64_t> windows;
  std::vector<KvType> types;
  for (const RacedSetting& setting : record.setting) {
    windows.push_back(setting.window);
    types.push_back(setting.kv);
  }
  const bool is_typed = has_types(record.setting);
  storage::write_coordinate(group, "window", windows, {storage::kTokens, is_typed ? kWindowOfType : kWindow});
  if (is_typed) {
    storage::write_variable(
        group, {"window_kv", {"window"}, {n_races}}, names_of(types),
        {storage::kText, "type of keys and values of that ranking: bf16 (as computed), fp8, int8 or int4"});
  }
  group.make_dimension("look", n_looks);
  storage::write_variable(group, {"look_examples", {"look"}, {n_looks}}, record.look_examples,
                          {storage::kOne, "examples that the look saw"});
  storage::write_variable(group, {"tolerance_nats", {"look", "window"}, {n_looks, n_races}},
                          record.tolerance_nats.values,
                          {storage::kNats, "loss for which one layer may be kept in another's place, at the look"});
  storage::write_variable(
      group, {"exchange", {"look", "window", "budget"}, {n_looks, n_races, n_budgets}}, record.exchange.values,
      {storage::kNats, "upper bound of what keeping another layer in the place of a kept one could gain"});
  storage::write_variable(group, {"n_open", {"look", "window", "budget"}, {n_looks, n_races, n_budgets}},
                          record.n_open.values, {storage::kOne, "layers whose place at the budget is not certain"});
  storage::write_variable(group, {"settled_examples", {"window", "budget"}, {n_races, n_budgets}},
                          record.settled_examples.values,
                          {storage::kOne, "examples from which on exchange was at most the tolerance; 0: not settled"});
  storage::write_variable(
      group, {"place", {"window", "budget", "layer"}, {n_races, n_budgets, n_layers}}, record.place.values,
      {storage::kOne, "1: certainly among the K layers that cost most, -1: certainly not, 0: open"});
  for (const char* name : {"tolerance_nats", "exchange"}) {
    group.set_attribute<std::string>(name, "status", kOverBefore);
  }
}

RaceRecord read_race(const storage::Group& group) {
  const auto text = [&](const char* name) {
    const std::optional<std::string> value = group.string_attribute(".", name);
    if (!value) {
      fail(ExitCode::kBadData, group.where(".") + ": expected the attribute " + std::string(name) + ", found none");
    }
    return *value;
  };
  RaceRecord record;
  try {
    record.confidence = parse_confidence(text("confidence"), "confidence");
    record.tolerance = text("tolerance");
    parse_tolerance(record.tolerance, "tolerance");
  } catch (const Error& error) {
    fail(ExitCode::kBadData, group.where(".") + ": " + error.what());
  }
  record.layer = group.read<int64_t>("layer", 1).values;
  record.budget = group.read<int64_t>("budget", 1).values;
  for (const int64_t window : group.read<int64_t>("window", 1).values) record.setting.push_back({.window = window});
  record.look_examples = group.read<int64_t>("look_examples", 1).values;
  const int64_t n_looks = record.n_looks();
  const int64_t n_races = record.n_races();
  const auto n_budgets = static_cast<int64_t>(record.budget.size());
  const auto n_layers = static_cast<int64_t>(record.layer.size());
  if (group.contains("window_kv")) {
    const std::vector<KvType> types = storage::read_kv_types(group, "window_kv", {n_races});
    for (std::size_t r = 0; r < types.size(); ++r) record.setting[r].kv = types[r];
  }
  const auto read = [&](const char* name, auto& table, const std::vector<int64_t>& shape) {
    using Value = typename std::remove_reference_t<decltype(table.values)>::value_type;
    table.values = storage::read_variable<Value>(group, name, shape);
    table.cols = shape.back();
    table.rows = 1;
    for (std::size_t axis = 0; axis + 1 < shape.size(); ++axis) table.rows *= shape[axis];
  };
  read("tolerance_nats", record.tolerance_nats, {n_looks, n_races});
  read("exchange", record.exchange, {n_looks, n_races, n_budgets});
  read("n_open", record.n_open, {n_looks, n_races, n_budgets});
  read("settled_examples", record.settled_examples, {n_races, n_budgets});
  read("place", record.place, {n_races, n_budgets, n_layers});
  return record;
}

}  // namespace winnow::race
