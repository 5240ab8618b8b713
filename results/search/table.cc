#include "results/search/table.h"

// A search as text, for the terminal and for machines.
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/terminal_table.h"

namespace winnow::search {
namespace {

std::string layer_list(const std::vector<bool>& windowed) {
  std::string list;
  for (std::size_t layer = 0; layer < windowed.size(); ++layer) {
    if (!windowed[layer]) list += (list.empty() ? "" : ", ") + std::to_string(layer);
  }
  return list.empty() ? "none" : list;
}

bool is_tail(const storage::Provenance& provenance) {
  const storage::ProvenanceEntry* entry = provenance.find("tail_rows");
  const auto* rows = entry == nullptr ? nullptr : std::get_if<int64_t>(&entry->value);
  return rows != nullptr && *rows >= 0;
}

std::string figure_text(const stats::Figure& figure) {
  return figure.defined() ? number(figure.value, "{:.3f}") : "n/a (" + figure.status + ")";
}

std::string estimate_text(const stats::Estimate& e) {
  if (!e.value.defined()) return figure_text(e.value);
  if (!e.ci_low.defined()) return figure_text(e.value) + " (interval n/a: " + e.ci_low.status + ")";
  return figure_text(e.value) + " " + bracketed(figure_text(e.ci_low), figure_text(e.ci_high));
}

std::string greedy_table(const SearchResults& r, bool tail) {
  const bool is_verified = r.agreement.n_verified > 0;
  constexpr auto kRight = TerminalTable::Column::Align::kRight;
  std::vector<TerminalTable::Column> columns = {{kRight, 3}, {kRight, 13}, {kRight, 13}};
  std::vector<std::string> head = {"K", tail ? "tail NLL" : "NLL", "exact match"};
  if (is_verified) {
    columns.insert(columns.end(), {{kRight, 12}, {kRight, 13}});
    head.insert(head.end(), {"exact NLL", "exact match"});
  }
  head.emplace_back("  full attention in layers");
  TerminalTable table(std::move(columns));
  table.add(std::move(head));
  for (const int64_t index : r.best) {
    const MeasuredPattern& best = r.patterns[static_cast<std::size_t>(index)];
    const PatternMeans means = best.screened.means();
    std::vector<std::string> cells = {std::to_string(count_full(best.windowed)), number(means.nll_nats),
                                      percent(means.exact_match)};
    if (is_verified) {
      const bool known = !best.verified.empty();
      const PatternMeans verified = known ? best.verified.means() : PatternMeans{};
      cells.push_back(known ? number(verified.nll_nats) : "n/a");
      cells.push_back(known ? percent(verified.exact_match) : "n/a");
    }
    cells.push_back("  " + layer_list(best.windowed));
    table.add(std::move(cells));
  }
  std::string text = table.text();
  if (is_verified) {
    text +=
        "\nTail figures against exact ones over " + std::to_string(r.agreement.n_verified) + " patterns and " +
        std::to_string(r.n_verified_examples) + " examples: rho of NLL " + estimate_text(r.agreement.rho_nll) +
        ",\n  of exact match " + estimate_text(r.agreement.rho_exact_match) + "; choices that exact figures confirm: " +
        (r.agreement.wins_kept.defined() ? percent(r.agreement.wins_kept.value) : figure_text(r.agreement.wins_kept)) +
        "\n";
  } else if (tail) {
    text +=
        "\nThese are tail figures, a close estimate: --verify N measures the best of each K, and N others, exactly.\n";
  }
  return text;
}

std::string pairs_table(const SearchResults& r) {
  const Interactions& found = r.interactions;
  constexpr auto kRight = TerminalTable::Column::Align::kRight;
  TerminalTable table({{.width = 10}, {kRight, 28}, {kRight, 12}, {kRight, 15}, {kRight, 24}});
  table.add({"layers", "delta NLL, sum of both alone", "together", "interaction", "95 % interval"});
  const auto n = static_cast<int64_t>(found.candidates.size());
  const auto layer = [&](int64_t c) { return found.candidates[static_cast<std::size_t>(c)]; };
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i + 1; j < n; ++j) {
      const double sum =
          found.delta_nll[static_cast<std::size_t>(layer(i))] + found.delta_nll[static_cast<std::size_t>(layer(j))];
      table.add({std::to_string(layer(i)) + ", " + std::to_string(layer(j)), number(sum),
                 number(found.delta_nll_pair(i, j)), number(found.interaction_nll(i, j)),
                 bracketed(right(number(found.interaction_nll_ci_low(i, j)), 9),
                           right(number(found.interaction_nll_ci_high(i, j)), 9))});
    }
  }
  std::string text = table.text();
  if (!found.spread_status.empty()) text += "Intervals: n/a (" + found.spread_status + ")\n";
  return text + "interaction: delta NLL of both windowed less the sum of each alone; above 0 they hurt more together\n";
}

nlohmann::json number_json(double value) { return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(); }

nlohmann::json means_json(const ExampleFigures& figures) {
  if (figures.empty()) return nullptr;
  const PatternMeans means = figures.means();
  nlohmann::json json = {{"mean_nll", means.nll_nats},
                         {"mean_exact_match", means.exact_match},
                         {"mean_token_accuracy", means.token_accuracy}};
  if (!figures.kl.empty()) json["mean_kl"] = means.kl_nats;
  return json;
}

nlohmann::json estimate_json(const stats::Estimate& e) {
  nlohmann::json json = {{"value", number_json(e.value.value)},
                         {"ci_low", number_json(e.ci_low.value)},
                         {"ci_high", number_json(e.ci_high.value)}};
  if (!e.value.defined() || !e.ci_low.defined()) json["status"] = (e.value.defined() ? e.ci_low : e.value).status;
  return json;
}

nlohmann::json layers_json(const std::vector<bool>& windowed) {
  nlohmann::json layers = nlohmann::json::array();
  for (std::size_t layer = 0; layer < windowed.size(); ++layer) {
    if (!windowed[layer]) layers.push_back(layer);
  }
  return layers;
}

nlohmann::json pairs_json(const Interactions& found) {
  nlohmann::json pairs = nlohmann::json::array();
  const auto n = static_cast<int64_t>(found.candidates.size());
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i + 1; j < n; ++j) {
      pairs.push_back(
          {{"layers", {found.candidates[static_cast<std::size_t>(i)], found.candidates[static_cast<std::size_t>(j)]}},
           {"delta_nll_pair", found.delta_nll_pair(i, j)},
           {"interaction_nll", found.interaction_nll(i, j)},
           {"ci_low", number_json(found.interaction_nll_ci_low(i, j))},
           {"ci_high", number_json(found.interaction_nll_ci_high(i, j))},
           {"interaction_exact_match", found.interaction_exact_match(i, j)}});
    }
  }
  return pairs;
}

}  // namespace

std::string to_table(const SearchResults& r, const storage::Provenance& provenance) {
  const bool tail = is_tail(provenance);
  std::string text = std::string(search_method_name(r.plan.method)) + ", objective " +
                     objective_name(r.plan.objective) + ", " + std::to_string(r.patterns.size()) + " patterns, " +
                     std::to_string(r.example_id.size()) + " examples\n";
  if (r.cost.predicted > 0.0 && tail) {
    text += "Predicted cost on cached keys and values: " + number(r.cost.predicted) +
            " s; of the exact search: " + number(r.cost.predicted_exact) + " s, " +
            number(r.cost.predicted_exact / r.cost.predicted) + " times as much\n";
  }
  text += '\n';
  text += r.plan.method == SearchMethod::kPairs ? pairs_table(r) : greedy_table(r, tail);
  if (const std::string warnings = provenance.text("warnings"); !warnings.empty()) {
    text += "\n" + wrapped("Warning: " + warnings, 2);
  }
  return text;
}

std::string to_json(const SearchResults& r, const storage::Provenance& provenance) {
  nlohmann::json json = {{"method", search_method_name(r.plan.method)},
                         {"objective", objective_name(r.plan.objective)},
                         {"beam", r.plan.beam},
                         {"tail", is_tail(provenance)},
                         {"n_patterns", r.patterns.size()},
                         {"n_examples", r.example_id.size()},
                         {"predicted_seconds", r.cost.predicted},
                         {"predicted_seconds_exact", r.cost.predicted_exact},
                         {"search_seconds", r.cost.measured},
                         {"warnings", provenance.text("warnings")}};
  if (r.plan.method == SearchMethod::kPairs) {
    json["pairs"] = pairs_json(r.interactions);
    if (!r.interactions.spread_status.empty()) json["interval_status"] = r.interactions.spread_status;
    return json_text(json, 2) + "\n";
  }
  for (const int64_t index : r.best) {
    const MeasuredPattern& best = r.patterns[static_cast<std::size_t>(index)];
    json["best"].push_back({{"keep", count_full(best.windowed)},
                            {"layers", layers_json(best.windowed)},
                            {"searched", means_json(best.screened)},
                            {"verified", means_json(best.verified)}});
  }
  if (r.agreement.n_verified > 0) {
    json["predicted_seconds_verification"] = r.cost.predicted_verification;
    json["agreement"] = {{"n_verified", r.agreement.n_verified},
                         {"n_verified_examples", r.n_verified_examples},
                         {"rho_nll", estimate_json(r.agreement.rho_nll)},
                         {"rho_exact_match", estimate_json(r.agreement.rho_exact_match)},
                         {"wins_kept", number_json(r.agreement.wins_kept.value)}};
    if (!r.agreement.wins_kept.defined()) json["agreement"]["wins_kept_status"] = r.agreement.wins_kept.status;
  }
  return json_text(json, 2) + "\n";
}

}  // namespace winnow::search
