#include "results/calibration/agreement.h"

#include <variant>

#include "base/error.h"
#include "base/json.h"
#include "base/json_values.h"
#include "base/terminal_table.h"

namespace winnow::calibration {

namespace {

std::string shown_value(const storage::ProvenanceEntry* entry) {
  if (entry == nullptr) return "nothing";
  return std::visit([](const auto& value) { return shown(nlohmann::json(value)); }, entry->value);
}

// What makes the delta of a layer the same question in both.
void require_same_question(const Results& a, const std::string& name_a, const Results& b, const std::string& name_b) {
  const auto refuse = [&](const std::string& what, const std::string& of_a, const std::string& of_b) {
    fail(ExitCode::kConfigMismatch, name_b + ": expected a calibration of the same question as " + name_a + ", found " +
                                        what + " " + of_b + " there and " + of_a + " here");
  };
  if (a.calibration.layer != b.calibration.layer) {
    const auto shown_layers = [](const Results& r) { return shown(nlohmann::json(r.calibration.layer)); };
    refuse("layers", shown_layers(a), shown_layers(b));
  }
  for (const char* key : {"model_layers", "window_keys", "sinks", "decode", "tail_rows", "base"}) {
    const std::string of_a = shown_value(a.provenance.find(key));
    const std::string of_b = shown_value(b.provenance.find(key));
    if (of_a != of_b) refuse(key, of_a, of_b);
  }
}

std::string format_of(const Results& results) {
  const std::string format = results.provenance.text("weight_format");
  return format.empty() ? "plain" : format;
}

std::string words_of(const stats::Figure& figure, const char* format = "{:.3f}") {
  return figure.defined() ? number(figure.value, format) : "n/a (" + figure.status + ")";
}

void put_figure(Json& object, const std::string& name, const stats::Figure& figure) {
  object[name] = number_or_null(figure.value);
  if (!figure.defined()) object[name + "_status"] = figure.status;
}

}  // namespace

Agreement compare_results(const Results& a, const std::string& name_a, const Results& b, const std::string& name_b,
                          const StatisticsOptions& options) {
  require_same_question(a, name_a, b, name_b);
  Agreement agreement;
  agreement.format_a = format_of(a);
  agreement.format_b = format_of(b);
  agreement.n_layers = a.calibration.n_layers();
  agreement.n_examples_a = a.calibration.n_examples();
  agreement.n_examples_b = b.calibration.n_examples();
  agreement.figures = compute_statistics(a.calibration, {{"other", b.calibration}}, options).deconfounding.at("other");
  return agreement;
}

std::string to_line(const Agreement& agreement) {
  const Deconfounding& f = agreement.figures;
  const stats::Estimate& rho = f.spearman_rho;
  std::string text = agreement.format_a + " against " + agreement.format_b + ": Spearman rho " + words_of(rho.value);
  if (rho.ci_low.defined() && rho.ci_high.defined()) {
    text += " [" + number(rho.ci_low.value, "{:.3f}") + ", " + number(rho.ci_high.value, "{:.3f}") + "]";
  }
  text += " over " + std::to_string(agreement.n_layers) + " layers, the top " + std::to_string(f.top_k) + " share " +
          words_of(f.overlap, "{:.0f}") + " (Jaccard " + words_of(f.jaccard) + "), mean |delta| " +
          words_of(f.magnitude_ratio, "{:.3g}") + "x, " + std::to_string(f.n_paired) + " examples of " +
          std::to_string(agreement.n_examples_a) + " and " + std::to_string(agreement.n_examples_b) + " paired";
  return text + "\n";
}

std::string to_json(const Agreement& agreement) {
  const Deconfounding& f = agreement.figures;
  Json object = {{"weight_format", {agreement.format_a, agreement.format_b}},
                 {"layers", agreement.n_layers},
                 {"examples", {agreement.n_examples_a, agreement.n_examples_b}},
                 {"paired_examples", f.n_paired},
                 {"top_k", f.top_k}};
  put_figure(object, "spearman_rho", f.spearman_rho.value);
  put_figure(object, "spearman_ci_low", f.spearman_rho.ci_low);
  put_figure(object, "spearman_ci_high", f.spearman_rho.ci_high);
  put_figure(object, "spearman_p", f.spearman_p);
  put_figure(object, "overlap", f.overlap);
  put_figure(object, "jaccard", f.jaccard);
  put_figure(object, "magnitude_ratio", f.magnitude_ratio);
  return json_text(object, 2) + "\n";
}

}  // namespace winnow::calibration
