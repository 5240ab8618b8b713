#include "results/evaluation/losses.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>

#include "base/error.h"
#include "base/terminal_table.h"
#include "results/evaluation/evaluation.h"
#include "results/stats/resampling.h"

namespace winnow::evaluation {
namespace {

// Of what the pattern with the fewest full layers loses.
constexpr double kDefaultMargin = 0.05;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

template <typename T>
stats::Table<double> less_full(const stats::Table<T>& values, int64_t full, double sign) {
  stats::Table<double> loss(values.rows, values.cols);
  for (int64_t p = 0; p < values.rows; ++p) {
    for (int64_t e = 0; e < values.cols; ++e) {
      loss(p, e) = sign * (static_cast<double>(values(p, e)) - static_cast<double>(values(full, e)));
    }
  }
  return loss;
}

stats::Table<double> losses_by(const EvaluationTable& table, int64_t full, const std::string& figure) {
  if (figure == "nll") return less_full(table.nll, full, 1.0);
  if (figure == "kl") return less_full(table.kl, full, 1.0);
  if (figure == "token_accuracy") return less_full(table.token_accuracy, full, -1.0);
  if (figure == kGenerated) return less_full(table.generated.exact_match, full, -1.0);
  return less_full(table.exact_match, full, -1.0);
}

FigureLosses losses_with(const EvaluationTable& table, int64_t full, int64_t fewest, const std::string& figure,
                         const stats::MeanBounds& bounds) {
  FigureLosses losses;
  losses.figure = figure;
  losses.bounds = bounds;
  const stats::Table<double> loss = losses_by(table, full, figure);
  const std::vector<int64_t> all = stats::iota(loss.cols);
  for (int64_t p = 0; p < loss.rows; ++p) {
    const double* of_pattern = &loss.values[stats::at(p * loss.cols)];
    losses.mean.push_back(stats::mean_of(of_pattern, all));
    losses.standard_error.push_back(stats::standard_error(of_pattern, loss.cols));
  }
  losses.gap = losses.mean[stats::at(fewest)];
  losses.power = losses.gap == 0.0 ? 0.0 : std::abs(losses.gap) / losses.standard_error[stats::at(fewest)];
  return losses;
}

int64_t most_powerful(const std::vector<FigureLosses>& figures) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < figures.size(); ++i) {
    if (figures[i].power > figures[best].power) best = i;
  }
  return static_cast<int64_t>(best);
}

// The leading figure where it has the unit of the margin, else NLL or token accuracy.
int64_t figure_of(const std::vector<FigureLosses>& figures, int64_t leading, const Margin& margin) {
  if (is_share(figures[stats::at(leading)].figure) == margin.is_share) return leading;
  return margin.is_share ? 1 : 0;
}

// The mean stays where it is, and the bound comes down with the root of the number of examples.
double needed(double mean, double margin, double deviation, double critical) {
  if (!(mean < margin)) return kNan;
  const double reach = critical * deviation / (margin - mean);
  return std::max(2.0, std::ceil(reach * reach));
}

void judge(const EvaluationTable& table, Losses& losses) {
  const FigureLosses& figure = losses.decider();
  const double root = std::sqrt(static_cast<double>(table.n_examples()));
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    const std::size_t i = stats::at(p);
    const bool is_within = figure.bounds.upper[i] <= losses.margin;
    losses.verdict.emplace_back(is_within ? kWithin : figure.bounds.lower[i] > losses.margin ? kBeyond : kOpen);
    const double deviation = figure.standard_error[i] * root;
    // An undefined bound has no distance from the margin that examples could make up for.
    const bool is_bounded = std::isfinite(figure.bounds.upper[i]);
    losses.examples_needed.push_back(
        is_bounded ? needed(figure.mean[i], losses.margin, deviation, figure.bounds.upper_critical) : kNan);
    if (!is_within || (losses.cheapest && table.cost(*losses.cheapest) < table.cost(p))) continue;
    if (losses.cheapest && table.cost(*losses.cheapest) == table.cost(p) &&
        figure.bounds.upper[stats::at(*losses.cheapest)] <= figure.bounds.upper[i]) {
      continue;
    }
    losses.cheapest = p;
  }
}

// ---- sentences ------------------------------------------------------------------------------------------------------

std::string name_of(const std::string& figure) {
  if (figure == "nll") return "NLL";
  if (figure == "kl") return "KL";
  if (figure == kGenerated) return "exact match of generated text";
  return figure == "token_accuracy" ? "token accuracy" : "exact match";
}

std::string capital(std::string text) {
  if (text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

std::string amount(double loss, const std::string& figure) {
  return loss_number(loss, figure) + (is_share(figure) ? " points" : " nats per token");
}

// Infinite where every example loses the same.
std::string errors_text(double power) { return power > 1000.0 ? "over 1000" : number(power, "{:.1f}"); }

std::string leading_sentence(const EvaluationTable& table, const Losses& losses) {
  const FigureLosses& lead = losses.lead();
  if (table.n_examples() == 1) return "One example tells no figures apart; " + name_of(lead.figure) + " leads.";
  if (lead.power == 0.0) {
    return "No figure shows a difference between " + table.pattern[stats::at(losses.fewest)] + " and full attention; " +
           name_of(lead.figure) + " leads.";
  }
  std::string text = capital(name_of(lead.figure)) +
                     " leads, as it shows windowing best: " + table.pattern[stats::at(losses.fewest)] + " is " +
                     errors_text(lead.power) + " standard errors from full attention";
  std::vector<const FigureLosses*> others;
  for (const FigureLosses& figure : losses.figures) {
    if (&figure != &lead) others.push_back(&figure);
  }
  std::stable_sort(others.begin(), others.end(), [](const auto* a, const auto* b) { return a->power > b->power; });
  for (const FigureLosses* other : others) text += ", " + errors_text(other->power) + " by " + name_of(other->figure);
  return text + ".";
}

std::string pattern_text(const EvaluationTable& table, int64_t p) {
  return table.pattern[stats::at(p)] + " (" + table.full_text(p) + ")";
}

std::string loss_text(const EvaluationTable& table, const FigureLosses& figure, int64_t p) {
  if (figure.standard_error[stats::at(p)] == 0.0 && figure.mean[stats::at(p)] == 0.0) {
    return "nothing in any of the " + std::to_string(table.n_examples()) + " examples";
  }
  return "at most " + amount(figure.bounds.upper[stats::at(p)], figure.figure) + ", " +
         amount(figure.mean[stats::at(p)], figure.figure) + " as measured";
}

std::string margin_words(const EvaluationTable& table, const Losses& losses) {
  std::string text = amount(losses.margin, losses.decider().figure) + " of " + name_of(losses.decider().figure);
  if (!losses.is_given) text += ", 5 % of what " + table.pattern[stats::at(losses.fewest)] + " loses";
  return text;
}

// The open pattern that costs less than `below` that the fewest examples would settle.
std::optional<int64_t> nearest(const EvaluationTable& table, const Losses& losses, int64_t below) {
  std::optional<int64_t> found;
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    const double n = losses.examples_needed[stats::at(p)];
    if (losses.verdict[stats::at(p)] != kOpen || std::isnan(n) || table.cost(p) >= below) continue;
    if (!found || n < losses.examples_needed[stats::at(*found)]) found = p;
  }
  return found;
}

std::string needed_words(const EvaluationTable& table, const Losses& losses, int64_t p) {
  return "about " + number(losses.examples_needed[stats::at(p)], "{:.0f}") + " examples instead of " +
         std::to_string(table.n_examples()) + " would be needed to show it of " + pattern_text(table, p) +
         ", if its loss stays as measured.";
}

std::string answer(const EvaluationTable& table, int64_t full, const Losses& losses) {
  if (table.n_examples() == 1) return "One example bounds no loss.";
  if (losses.fewest == full) return "Only full attention was measured.";
  const std::string all = "95 %, all patterns together";
  if (std::isnan(losses.margin)) {
    return "No margin follows from these examples, as " + table.pattern[stats::at(losses.fewest)] +
           " loses nothing by " + name_of(losses.decider().figure) + "; --margin sets one.";
  }
  const int64_t of_full = table.cost(full);
  std::string text;
  int64_t below = of_full;
  if (losses.cheapest && table.cost(*losses.cheapest) < of_full) {
    below = table.cost(*losses.cheapest);
    text = pattern_text(table, *losses.cheapest) + " is the cheapest pattern whose loss is at most " +
           margin_words(table, losses) + ": it loses " + loss_text(table, losses.decider(), *losses.cheapest) + " (" +
           all + ").";
  } else {
    text = "No pattern cheaper than full attention is shown to lose at most " + margin_words(table, losses) + " (" +
           all + ").";
  }
  const std::optional<int64_t> open = nearest(table, losses, below);
  if (open) return text + " " + capital(needed_words(table, losses, *open));
  return below == of_full && of_full > 0 ? text + " All lose more as measured, or differ in too few examples." : text;
}

}  // namespace

bool is_share(std::string_view figure) {
  return figure == "token_accuracy" || figure == "exact_match" || figure == kGenerated;
}

std::string loss_number(double loss, std::string_view figure) {
  return is_share(figure) ? number(std::round(1000.0 * loss) / 10.0 + 0.0, "{:.1f}") : number(loss);
}

std::optional<Margin> parse_margin(const std::string& text) {
  if (text.empty() || text == "default") return std::nullopt;
  const bool is_percent = text.ends_with('%');
  const char* end = text.data() + text.size() - (is_percent ? 1 : 0);
  double value = 0.0;
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value) || value <= 0.0 || (is_percent && value > 100.0)) {
    fail(ExitCode::kUsage, "--margin is \"" + text +
                               "\", expected a share of token accuracy above 0, such as 1%, or nats per token, such "
                               "as 0.01");
  }
  return Margin{is_percent ? value / 100.0 : value, is_percent};
}

std::string margin_text(const Margin& margin) {
  return margin.is_share ? number(100.0 * margin.value, "{}") + "%" : number(margin.value, "{}");
}

std::vector<std::string> figures_of(const EvaluationTable& table) {
  std::vector<std::string> figures = {"nll", "token_accuracy", "exact_match"};
  if (table.kl.rows > 0) figures.emplace_back("kl");
  if (!table.generated.is_empty()) figures.emplace_back(kGenerated);
  return figures;
}

std::vector<stats::MeanBounds> bound_losses(const EvaluationTable& table, int64_t full, uint64_t seed,
                                            int64_t n_resamples) {
  std::vector<stats::MeanBounds> bounds;
  for (const std::string& figure : figures_of(table)) {
    bounds.push_back(stats::mean_bounds(losses_by(table, full, figure), seed, n_resamples));
  }
  return bounds;
}

Losses judge_losses(const EvaluationTable& table, int64_t full, const std::optional<Margin>& margin,
                    const std::vector<stats::MeanBounds>& bounds) {
  Losses losses;
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    if (table.cost(p) < table.cost(losses.fewest)) losses.fewest = p;
  }
  const std::vector<std::string> figures = figures_of(table);
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    losses.figures.push_back(losses_with(table, full, losses.fewest, figures[i], bounds[i]));
  }
  losses.leading = most_powerful(losses.figures);
  losses.deciding = margin ? figure_of(losses.figures, losses.leading, *margin) : losses.leading;
  losses.is_given = margin.has_value();
  const double gap = losses.decider().gap;
  losses.margin = margin ? margin->value : gap > 0.0 ? kDefaultMargin * gap : kNan;
  judge(table, losses);
  losses.leading_sentence = leading_sentence(table, losses);
  losses.answer = answer(table, full, losses);
  return losses;
}

}  // namespace winnow::evaluation
