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
  storage::write_coordinate(group, "window", record.window, {storage::kTokens, "window of the ranking that is raced"});
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
  record.window = group.read<int64_t>("window", 1).values;
  record.look_examples = group.read<int64_t>("look_examples", 1).values;
  const int64_t n_looks = record.n_looks();
  const int64_t n_races = record.n_races();
  const auto n_budgets = static_cast<int64_t>(record.budget.size());
  const auto n_layers = static_cast<int64_t>(record.layer.size());
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
