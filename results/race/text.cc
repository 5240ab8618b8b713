#include "results/race/text.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/strings.h"
#include "base/terminal_table.h"
#include "results/stats/resampling.h"

namespace winnow::race {
namespace {

using stats::at;

std::string examples(int64_t n) { return std::to_string(n) + (n == 1 ? " example" : " examples"); }

std::string nats(double value) { return std::isfinite(value) ? number(value) + " nats" : "an unknown loss"; }

std::string open_text(double exchange, int64_t n_open) {
  return "open among " + std::to_string(n_open) + " layers (another could gain " + nats(exchange) + ")";
}

}  // namespace

std::string confidence_text(double confidence) { return number(100.0 * confidence, "{:.6g}") + "%"; }

std::string look_line(const Race& race, const std::string& name) {
  const Look& look = race.looks().back();
  std::string text = examples(look.n_examples) + (name.empty() ? "" : " of " + name) + ": ";
  for (std::size_t b = 0; b < look.exchange.size(); ++b) {
    text += (b == 0 ? "top " : ", top ") + std::to_string(race.options().budget[b]) + " ";
    text += look.is_settled(b) ? "settled" : open_text(look.exchange[b], look.n_open[b]);
  }
  const auto n_next = std::ranges::count(race.needs(), true);
  return text + "; tolerance " + nats(look.tolerance_nats) + "; " +
         (n_next == 0 ? "no layer needs more"
                      : std::to_string(n_next) + " of " + std::to_string(race.needs().size()) + " layers need more");
}

std::string to_block(const RaceRecord& record) {
  std::string text =
      wrapped("Examples that the choice needed, at " + confidence_text(record.confidence) +
                  " confidence: settled where no other layer in the place of a kept one could gain more than the "
                  "tolerance (" +
                  record.tolerance + ")",
              2);
  const int64_t last = record.n_looks() - 1;
  const std::vector<std::string> names = names_of(record.setting);
  for (int64_t r = 0; r < record.n_races(); ++r) {
    const std::string name = record.n_races() > 1 ? names[at(r)] + ", " : "";
    for (std::size_t b = 0; b < record.budget.size(); ++b) {
      const auto column = static_cast<int64_t>(b);
      const int64_t settled = record.settled_examples(r, column);
      text += wrapped("  " + name + "top " + std::to_string(record.budget[b]) + ": " +
                          (settled > 0 ? "settled after " + examples(settled)
                                       : open_text(record.exchange(last * record.n_races() + r, column),
                                                   record.n_open(last * record.n_races() + r, column)) +
                                             " after all " + examples(record.look_examples.back())),
                      6);
    }
  }
  std::map<int64_t, std::vector<int64_t>> by_examples;
  for (std::size_t l = 0; l < record.layer.size(); ++l) {
    by_examples[record.layer_examples[l]].push_back(record.layer[l]);
  }
  for (const auto& [n, layers] : by_examples) {
    text += wrapped("  " + examples(n) + ": layers " + joined(layers), 6);
  }
  return text;
}

Json to_object(const RaceRecord& record) {
  Json object = {{"confidence", record.confidence}, {"tolerance", record.tolerance}, {"looks", record.look_examples}};
  object["windows"] = Json::array();
  for (int64_t r = 0; r < record.n_races(); ++r) {
    const RacedSetting& setting = record.setting[at(r)];
    Json race = {{"window", setting.window}};
    if (has_types(record.setting)) race["kv"] = kv_type_name(setting.kv);
    race["budgets"] = Json::array();
    for (std::size_t b = 0; b < record.budget.size(); ++b) {
      const auto column = static_cast<int64_t>(b);
      int64_t k = record.n_looks() - 1;  // its last
      while (k > 0 && std::isnan(record.exchange(k * record.n_races() + r, column))) --k;
      const int64_t settled = record.settled_examples(r, column);
      race["budgets"].push_back({{"budget", record.budget[b]},
                                 {"settled_examples", settled > 0 ? Json(settled) : Json(nullptr)},
                                 {"exchange", number_or_null(record.exchange(k * record.n_races() + r, column))},
                                 {"tolerance_nats", number_or_null(record.tolerance_nats(k, r))},
                                 {"n_open", record.n_open(k * record.n_races() + r, column)}});
    }
    object["windows"].push_back(std::move(race));
  }
  object["layers"] = Json::array();
  for (std::size_t l = 0; l < record.layer.size(); ++l) {
    object["layers"].push_back({{"layer", record.layer[l]}, {"examples", record.layer_examples[l]}});
  }
  return object;
}

}  // namespace winnow::race
