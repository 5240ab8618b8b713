// What patterns lose against full attention: which figure shows it best, how much at most, and whether that is within a
// margin. README.md one folder up defines each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "results/stats/bounds.h"

namespace winnow::evaluation {

struct EvaluationTable;

// The largest loss that is accepted: nats per token, or a share (0.01 is one point).
struct Margin {
  double value = 0.0;
  bool is_share = false;
  bool operator==(const Margin&) const = default;
};

// Parses "1%" (of token accuracy) or "0.01" (nats per token), above 0; none for "" and "default". Throws Error(kUsage).
std::optional<Margin> parse_margin(const std::string& text);
// Returns the text that parse_margin() reads.
std::string margin_text(const Margin& margin);

// Losses by one figure; large is bad. NaN for one example.
struct FigureLosses {
  std::string figure;  // a variable of the result, see figures_of()
  double gap = 0.0;    // of the pattern with the fewest full layers
  double power = 0.0;  // |gap| in standard errors; 0 where there is no gap
  // (patterns): mean loss and its standard error; bounds, which hold together for all patterns.
  std::vector<double> mean, standard_error;
  stats::MeanBounds bounds;
};

// The figure of free generation, the last one where texts were generated.
inline constexpr std::string_view kGenerated = "generated_exact_match";

// What is said of a pattern.
inline constexpr const char* kWithin = "within";  // loses the margin at most
inline constexpr const char* kBeyond = "beyond";  // loses more
inline constexpr const char* kOpen = "open";      // neither is shown

struct Losses {
  std::vector<FigureLosses> figures;
  int64_t fewest = 0;    // pattern with the fewest full layers
  int64_t leading = 0;   // figure of the greatest power
  int64_t deciding = 0;  // figure that the margin is of
  double margin = 0.0;   // NaN: none was given, and the leading figure shows no loss to derive it from
  bool is_given = false;
  std::vector<std::string> verdict;      // (patterns), as above
  std::vector<double> examples_needed;   // (patterns), in all, for the bound to be within the margin; NaN: no number is
  std::optional<int64_t> cheapest;       // of the fewest full layers among those within
  std::string leading_sentence, answer;  // the same in every place that says it

  const FigureLosses& lead() const { return figures[static_cast<std::size_t>(leading)]; }
  const FigureLosses& decider() const { return figures[static_cast<std::size_t>(deciding)]; }
};

// Returns true for a figure whose values are shares, false for one in nats per token.
bool is_share(std::string_view figure);
// Returns a loss without its unit: shares in points, or nats per token.
std::string loss_number(double loss, std::string_view figure);

// Returns the figures of a table, "nll", "token_accuracy", "exact_match" and, where they were measured, "kl" and
// "generated_exact_match".
std::vector<std::string> figures_of(const EvaluationTable& table);
// Returns the bounds of each figure's losses. `full` is the pattern with full attention; draws are those that all
// figures of the seed have.
std::vector<stats::MeanBounds> bound_losses(const EvaluationTable& table, int64_t full, uint64_t seed,
                                            int64_t n_resamples);
// Says what the bounds mean for each pattern, and which figure leads. `bounds` are of the first figures: an older file
// has none of generated text.
Losses judge_losses(const EvaluationTable& table, int64_t full, const std::optional<Margin>& margin,
                    const std::vector<stats::MeanBounds>& bounds);

}  // namespace winnow::evaluation
