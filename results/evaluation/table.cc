#include "results/evaluation/table.h"

// An evaluation as text: for the terminal, and as JSON.
#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "base/json.h"
#include "base/json_values.h"
#include "base/terminal_table.h"
#include "results/stats/resampling.h"
#include "results/storage/variables.h"

namespace winnow::evaluation {
namespace {

constexpr std::size_t kNameColumns = 19;
// Costs are shown for all of kServedLengths, operations for those from here on.
constexpr std::size_t kFirstFlopLength = 1;

std::string interval(double low, double high) { return std::isnan(low) ? "n/a" : bracketed(number(low), number(high)); }

// Percentage points, without the sign of %.
std::string percent_interval(double low, double high) {
  const auto points = [](double share) { return number(std::round(1000.0 * share) / 10.0 + 0.0, "{:.1f}"); };
  return std::isnan(low) ? "n/a" : bracketed(points(low), points(high));
}

// Figures of patterns: names, and columns of these widths aligned to the right.
TerminalTable figures_of_patterns(const std::vector<std::size_t>& widths) {
  std::vector<TerminalTable::Column> columns = {{TerminalTable::Column::Align::kName, kNameColumns}};
  for (const std::size_t width : widths) columns.push_back({TerminalTable::Column::Align::kRight, width});
  return TerminalTable(std::move(columns));
}

std::string bytes_text(double bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024.0 && unit + 1 < kUnits.size(); ++unit) bytes /= 1024.0;
  return number(bytes, bytes < 10.0 ? "{:.2f} " : bytes < 100.0 ? "{:.1f} " : "{:.0f} ") + kUnits[unit];
}

std::string length_text(int64_t tokens) {
  return tokens < (int64_t{1} << 20) ? std::to_string(tokens >> 10) + "k" : std::to_string(tokens >> 20) + "M";
}

std::string pattern_block(const EvaluationResults& results) {
  const EvaluationTable& table = results.table;
  const EvaluationStatistics& s = results.statistics;
  const bool has_kl = !s.kl.mean.empty();
  TerminalTable lines = figures_of_patterns({5, 12, 15, 10, 9, 21, 9});
  const auto add = [&](std::vector<std::string> cells) {
    if (!has_kl) cells.pop_back();
    lines.add(std::move(cells));
  };
  add({"pattern", "full", "exact match", "95 %", "token acc", "NLL", "95 %", "KL"});
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    const std::size_t i = stats::at(p);
    add({table.pattern[i], table.full_number(p), percent(s.exact_match.mean[i]),
         percent_interval(s.exact_match.ci_low[i], s.exact_match.ci_high[i]), percent(s.token_accuracy.mean[i]),
         number(s.nll.mean[i]), interval(s.nll.ci_low[i], s.nll.ci_high[i]), has_kl ? number(s.kl.mean[i]) : ""});
  }
  const std::string of_heads = table.full_heads.values.empty() ? "" : ", key heads counted in parts of a layer";
  return lines.text() +
         wrapped("full: layers that keep full attention" + of_heads + std::string(". NLL in nats per token") +
                     (has_kl ? ", KL of full attention's distributions to the pattern's too" : "") +
                     ". 95 %: bootstrap intervals over examples.",
                 2);
}

std::string comparison_block(const EvaluationTable& table, const Comparison& c) {
  const std::size_t reference = stats::at(c.reference);
  TerminalTable lines = figures_of_patterns({17, 17, 11, 12, 23});
  lines.add({"pattern", "exact match", "95 %", "McNemar p", "NLL", "95 %"});
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    const std::size_t i = stats::at(p);
    if (p == c.reference) continue;
    lines.add({table.pattern[i], percent(c.exact_match.mean[i]),
               percent_interval(c.exact_match.ci_low[i], c.exact_match.ci_high[i]), number(c.mcnemar_p[i], "{:.2g}"),
               number(c.nll.mean[i]), interval(c.nll.ci_low[i], c.nll.ci_high[i])});
  }
  return "Less " + table.pattern[reference] + "\n" + lines.text();
}

std::string short_name(const std::string& figure) {
  if (figure == "nll") return "NLL";
  if (figure == "kl") return "KL";
  if (figure == kGenerated) return "generated text";
  return figure == "token_accuracy" ? "token acc" : "exact match";
}

std::string losses_block(const EvaluationTable& table, const Losses& losses, int64_t full) {
  const FigureLosses& decider = losses.decider();
  std::vector<std::size_t> widths = {5, 9, 10, 9, 8, 9};
  std::vector<std::string> head = {"pattern", "full", "loss", "at least", "at most", "margin", "examples"};
  for (const FigureLosses& figure : losses.figures) {
    // Generated text has a block of its own; this one is as wide as it may be.
    if (&figure == &decider || figure.figure == kGenerated) continue;
    widths.push_back(is_share(figure.figure) ? 12 : 9);
    head.push_back(short_name(figure.figure));
  }
  TerminalTable lines = figures_of_patterns(widths);
  lines.add(std::move(head));
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    if (p == full) continue;
    const std::size_t i = stats::at(p);
    std::vector<std::string> cells = {table.pattern[i],
                                      table.full_number(p),
                                      loss_number(decider.mean[i], decider.figure),
                                      loss_number(decider.bounds.lower[i], decider.figure),
                                      loss_number(decider.bounds.upper[i], decider.figure),
                                      std::isnan(losses.margin) ? "n/a" : losses.verdict[i],
                                      number(losses.examples_needed[i], "{:.0f}")};
    for (const FigureLosses& figure : losses.figures) {
      if (&figure == &decider || figure.figure == kGenerated) continue;
      cells.push_back(loss_number(figure.bounds.upper[i], figure.figure));
    }
    lines.add(std::move(cells));
  }
  return "Loss of " + short_name(decider.figure) + " against " + table.pattern[stats::at(full)] +
         (is_share(decider.figure) ? ", points" : ", nats per token") + "\n" + lines.text() +
         wrapped(
             "at least, at most: 95 % bounds, each for all patterns together, and in the last columns how much is "
             "lost at most by the other figures (points, nats). margin: whether the loss is within it, beyond it or "
             "open. examples: with how many the bound would come down to the margin, if the loss stays as measured.",
             2);
}

std::string cost_block(const EvaluationResults& results) {
  const auto flop_lengths = std::span(kServedLengths).subspan(kFirstFlopLength);
  std::vector<std::size_t> widths(std::size(kServedLengths), 11);
  widths.insert(widths.end(), flop_lengths.size(), 12);
  TerminalTable lines = figures_of_patterns(widths);
  std::vector<std::string> head = {"pattern"};
  for (const int64_t length : kServedLengths) head.push_back("KV " + length_text(length));
  for (const int64_t length : flop_lengths) head.push_back("FLOP " + length_text(length));
  lines.add(std::move(head));
  for (int64_t p = 0; p < results.table.n_patterns(); ++p) {
    const std::vector<ServedWindow> windows = results.windows_of(p);
    std::vector<std::string> cells = {results.table.pattern[stats::at(p)]};
    for (const int64_t length : kServedLengths) {
      cells.push_back(bytes_text(kv_cache_bytes(results.model, windows, length)));
    }
    for (const int64_t length : flop_lengths) {
      cells.push_back(number(prefill_flop(results.model, windows, length), "{:.2g}"));
    }
    lines.add(std::move(cells));
  }
  std::string text = "Cost of one sequence: keys and values in the cache, operations of the prompt\n" + lines.text();
  if (results.window.decode_full) {
    text += "Answers are decoded with full attention: no key can be dropped, so the cache is that of the full model.\n";
  }
  return text;
}

template <typename T>
double mean_of_pattern(const stats::Table<T>& table, int64_t p) {
  double sum = 0.0;
  for (int64_t e = 0; e < table.cols; ++e) sum += static_cast<double>(table(p, e));
  return sum / static_cast<double>(table.cols);
}

// "" in a file that is older than these bounds.
std::string generated_bounds(const EvaluationTable& table, const EvaluationStatistics& s) {
  if (!s.losses || s.losses->figures.back().figure != kGenerated) return "";
  std::string line;
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    if (p == s.full.reference) continue;
    const double upper = s.losses->figures.back().bounds.upper[stats::at(p)];
    line += (line.empty() ? "" : "; ") + table.pattern[stats::at(p)] + " " + loss_number(upper, kGenerated);
  }
  return wrapped("Lost at most of exact match, points (95 %, all patterns together): " + line, 2);
}

std::string generated_block(const EvaluationResults& results) {
  const GeneratedTable& generated = results.table.generated;
  const PatternFigures& exact_match = results.statistics.generated_exact_match;
  TerminalTable lines = figures_of_patterns({12, 15, 7, 9, 10, 13, 10});
  lines.add({"pattern", "exact match", "95 %", "tokens", "stopped", "cache", "prompt tok/s", "new tok/s"});
  for (int64_t p = 0; p < results.table.n_patterns(); ++p) {
    const std::size_t i = stats::at(p);
    lines.add({results.table.pattern[i], percent(exact_match.mean[i]),
               percent_interval(exact_match.ci_low[i], exact_match.ci_high[i]),
               number(mean_of_pattern(generated.tokens, p), "{:.1f}"), percent(mean_of_pattern(generated.stopped, p)),
               bytes_text(mean_of_pattern(generated.cache_bytes, p)), number(generated.prefill_rate[i]),
               number(generated.decode_rate[i])});
  }
  const std::string text =
      "Free generation, up to " + std::to_string(generated.settings.max_new_tokens) + " tokens\n" + lines.text();
  return text + generated_bounds(results.table, results.statistics) +
         wrapped(
             "What each pattern writes by itself, greedily, with the key-value cache that it needs: a windowed "
             "layer holds its window and the sinks only. stopped: texts that a stop token ended. cache: keys "
             "and values of a text as allocated, in float32 on a CPU. Rates are of one rank.",
             2);
}

// What the losses say, first of all.
std::string answer_block(const EvaluationStatistics& s) {
  if (!s.losses) {
    return wrapped("The statistics are older than bounds of losses: winnow stats FILE --in-place computes them.", 2);
  }
  return wrapped(s.losses->answer, 2) + wrapped(s.losses->leading_sentence, 2);
}

// Most layers first.
std::string front_line(const EvaluationTable& table, const std::vector<uint8_t>& is_on, const std::string& what,
                       const std::vector<std::string>& shown) {
  std::vector<int64_t> members;
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    if (is_on[stats::at(p)] != 0) members.push_back(p);
  }
  std::stable_sort(members.begin(), members.end(), [&](int64_t a, int64_t b) { return table.cost(a) > table.cost(b); });
  std::string line = "Front of " + what + ":";
  for (const int64_t p : members) {
    line += (p == members.front() ? " " : "; ") + table.pattern[stats::at(p)] + " (" + table.full_number(p) +
            " full, " + shown[stats::at(p)] + ")";
  }
  return wrapped(line, 2);
}

std::string front_block(const EvaluationTable& table, const EvaluationStatistics& s) {
  struct Front {
    std::string figure;
    const std::vector<uint8_t>* is_on;
    const std::vector<double>* mean;
  };
  std::vector<Front> fronts = {{"exact_match", &s.on_front_exact_match, &s.exact_match.mean},
                               {"nll", &s.on_front_nll, &s.nll.mean},
                               {"token_accuracy", &s.on_front_token_accuracy, &s.token_accuracy.mean},
                               {"kl", &s.on_front_kl, &s.kl.mean}};
  if (s.losses) {
    std::stable_partition(fronts.begin(), fronts.end(),
                          [&](const Front& front) { return front.figure == s.losses->lead().figure; });
  }
  std::string text;
  for (const Front& front : fronts) {
    if (front.is_on->empty()) continue;
    std::vector<std::string> shown;
    for (const double value : *front.mean) shown.push_back(is_share(front.figure) ? percent(value) : number(value));
    const std::string name = front.figure == "token_accuracy" ? "token accuracy" : short_name(front.figure);
    text += front_line(table, *front.is_on, name + " and layers", shown);
  }
  return text;
}

void put(Json& object, const std::string& name, const PatternFigures& figures, std::size_t i) {
  object[name] = figures.mean[i];
  object[name + "_ci_low"] = number_or_null(figures.ci_low[i]);
  object[name + "_ci_high"] = number_or_null(figures.ci_high[i]);
}

Json comparison_object(const Comparison& c, std::size_t i) {
  Json object;
  put(object, "nll", c.nll, i);
  put(object, "exact_match", c.exact_match, i);
  put(object, "token_accuracy", c.token_accuracy, i);
  object["mcnemar_p"] = c.mcnemar_p[i];
  return object;
}

Json losses_object(const Losses& losses, std::size_t i) {
  Json object = Json::object();
  for (const FigureLosses& figure : losses.figures) {
    object[figure.figure] = {{"mean", figure.mean[i]},
                             {"lower_bound", number_or_null(figure.bounds.lower[i])},
                             {"upper_bound", number_or_null(figure.bounds.upper[i])}};
  }
  return object;
}

void put_answer(Json& object, const EvaluationTable& table, const Losses& losses) {
  object["answer"] = losses.answer;
  object["leading_figure"] = losses.lead().figure;
  object["leading_sentence"] = losses.leading_sentence;
  object["power"] = Json::object();
  for (const FigureLosses& figure : losses.figures) object["power"][figure.figure] = number_or_null(figure.power);
  object["margin"] = {
      {"figure", losses.decider().figure}, {"value", number_or_null(losses.margin)}, {"given", losses.is_given}};
  object["cheapest_within_margin"] = losses.cheapest ? Json(table.pattern[stats::at(*losses.cheapest)]) : Json(nullptr);
}

Json pattern_object(const EvaluationResults& results, int64_t p) {
  const EvaluationTable& table = results.table;
  const EvaluationStatistics& s = results.statistics;
  const std::size_t i = stats::at(p);
  Json layers = Json::array();
  for (int64_t l = 0; l < table.n_layers(); ++l) {
    if (table.full_attention(p, l) != 0) layers.push_back(l);
  }
  Json object = {{"pattern", table.pattern[i]}, {"full_layers", table.n_full_layers(p)}, {"layers", layers}};
  if (!table.window_keys.values.empty()) {
    object["windows"] = Json::array();
    for (int64_t l = 0; l < table.n_layers(); ++l) {
      const int64_t keys = table.window_keys(p, l);
      object["windows"].push_back(keys > 0 ? Json(keys) : Json(nullptr));
    }
  }
  if (!table.full_heads.values.empty()) {
    object["full_kv_heads"] = Json::array();
    for (int64_t l = 0; l < table.n_layers(); ++l) {
      Json heads = Json::array();
      for (int64_t h = 0; h < table.full_heads.cols; ++h) {
        if (table.full_heads(p * table.n_layers() + l, h) != 0) heads.push_back(h);
      }
      object["full_kv_heads"].push_back(std::move(heads));
    }
  }
  if (!table.kv.values.empty()) {
    object["kv"] = Json::array();
    for (int64_t l = 0; l < table.n_layers(); ++l)
      object["kv"].push_back(std::string(kv_type_name(table.kv_type(p, l))));
  }
  put(object, "nll", s.nll, i);
  put(object, "exact_match", s.exact_match, i);
  put(object, "token_accuracy", s.token_accuracy, i);
  if (!s.kl.mean.empty()) put(object, "kl", s.kl, i);
  if (!table.generated.is_empty()) {
    put(object, "generated_exact_match", s.generated_exact_match, i);
    object["generated"] = {{"mean_tokens", mean_of_pattern(table.generated.tokens, p)},
                           {"share_stopped", mean_of_pattern(table.generated.stopped, p)},
                           {"mean_cache_bytes", mean_of_pattern(table.generated.cache_bytes, p)},
                           {"prefill_tokens_per_second", number_or_null(table.generated.prefill_rate[i])},
                           {"decode_tokens_per_second", number_or_null(table.generated.decode_rate[i])},
                           {"texts_together", table.generated.texts_together[i]}};
  }
  object["minus_full"] = comparison_object(s.full, i);
  if (s.losses) {
    object["losses"] = losses_object(*s.losses, i);
    object["verdict"] = s.losses->verdict[i];
    object["examples_needed"] = number_or_null(s.losses->examples_needed[i]);
  }
  if (s.baseline) object["minus_baseline"] = comparison_object(*s.baseline, i);
  const std::vector<ServedWindow> windows = results.windows_of(p);
  object["kv_cache_bytes"] = Json::object();
  object["prefill_flop"] = Json::object();
  for (const int64_t length : kServedLengths) {
    object["kv_cache_bytes"][std::to_string(length)] = kv_cache_bytes(results.model, windows, length);
    object["prefill_flop"][std::to_string(length)] = prefill_flop(results.model, windows, length);
  }
  object["on_front_exact_match"] = s.on_front_exact_match[i] != 0;
  object["on_front_nll"] = s.on_front_nll[i] != 0;
  if (!s.on_front_token_accuracy.empty()) object["on_front_token_accuracy"] = s.on_front_token_accuracy[i] != 0;
  if (!s.on_front_kl.empty()) object["on_front_kl"] = s.on_front_kl[i] != 0;
  return object;
}

}  // namespace

std::string to_table(const EvaluationResults& results) {
  const EvaluationTable& table = results.table;
  const EvaluationStatistics& s = results.statistics;
  std::string text =
      wrapped(std::to_string(table.n_examples()) + " example(s); a windowed layer sees " +
                  std::to_string(results.window.keys) + " keys and " + std::to_string(results.window.sinks) + " sinks" +
                  (results.window.decode_full ? ", answers decode with full attention" : "") +
                  (results.window.tail_rows < 0
                       ? ""
                       : ", last " + std::to_string(results.window.tail_rows) + " prompt rows only"),
              2) +
      answer_block(s) + "\n" + pattern_block(results);
  if (!s.spread_status.empty()) text += "Intervals: n/a (" + s.spread_status + ")\n";
  if (s.losses && table.n_patterns() > 1) text += "\n" + losses_block(table, *s.losses, s.full.reference);
  if (table.n_patterns() > 1) text += "\n" + comparison_block(table, s.full);
  if (s.baseline && s.baseline->reference != s.full.reference) text += "\n" + comparison_block(table, *s.baseline);
  if (!table.generated.is_empty()) text += "\n" + generated_block(results);
  text += "\n" + cost_block(results) + "\n" + front_block(table, s);
  const std::string warnings = results.provenance.text("warnings");
  return warnings.empty() ? text : text + "\n" + wrapped("Warning: " + warnings, 2);
}

std::string to_json(const EvaluationResults& results) {
  const EvaluationStatistics& s = results.statistics;
  Json object = {
      {"format", storage::kResultsFormat}, {"format_version", storage::kResultsVersion}, {"kind", "evaluation"}};
  object["examples"] = results.table.n_examples();
  object["baseline"] = s.options.baseline.empty() ? Json(nullptr) : Json(s.options.baseline);
  if (s.losses) put_answer(object, results.table, *s.losses);
  object["patterns"] = Json::array();
  for (int64_t p = 0; p < results.table.n_patterns(); ++p) {
    object["patterns"].push_back(pattern_object(results, p));
  }
  if (!s.spread_status.empty()) object["spread_status"] = s.spread_status;
  object["statistics"] = {{"seed", s.options.seed}, {"n_resamples", s.options.n_resamples}};
  object["provenance"] = Json::object();
  for (const storage::ProvenanceEntry& entry : results.provenance.entries()) {
    std::visit([&](const auto& value) { object["provenance"][entry.name] = value; }, entry.value);
  }
  return json_text(object, 2) + "\n";
}

}  // namespace winnow::evaluation
