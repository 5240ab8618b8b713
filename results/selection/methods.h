// The rules of `winnow select`, which choose the layers that keep full attention by measured signals. Pure functions of
// the tables; README.md in this folder defines each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "results/selection/select_input.h"
#include "results/selection/selection.h"
#include "results/stats/table.h"

namespace winnow::selection {

struct SelectOptions {
  std::string method = "nll";
  std::optional<int64_t> keep = {};  // K; none: what the method itself says, else the top K of the results
  std::string control = "";          // for ratio; "": the only one
  std::string lazy = "compat";       // for light-transfer: compat or clean
  double lazy_share = 0.5;           // for light-transfer: share of layers that an example votes lazy
};

// A layer with its score by the method; NaN where it has none.
struct ScoredLayer {
  int64_t layer = 0;
  double score = 0.0;
};

struct Choice {
  std::string method;                // canonical: "nll", "random:7", "periodic:4@1"
  std::vector<int64_t> layers;       // that keep full attention, rising
  std::vector<ScoredLayer> order;    // candidates, the first to keep full attention first; empty: no ranking
  std::string score_name;            // of the column of scores, with its unit
  std::vector<std::string> caveats;  // what a reader of the choice should know, a line each
};

// Returns the names of the methods that rank by a signal of base/signal_specs.h: "kl, sensitivity, mass".
std::string signal_methods();
// Returns the names of the methods, as messages list them.
std::string known_methods();
// Returns true for "periodic:K@O" and the like, which need no figures.
bool is_pattern_method(const std::string& method);
// Returns true for "greedy-forward" and the like, which `winnow search` finds.
bool is_search_method(const std::string& method);

// Chooses the layers. Throws Error(kUsage) for an unknown method and a K out of range, Error(kNoInput) for a signal
// that was not measured (naming the flag that measures it), Error(kBadData) where the method is not defined for these
// figures.
Choice choose_layers(const SelectInput& input, const SelectOptions& options);

// Makes the selection: the choice with the model and the window from the provenance of the results. `origin` names
// their file.
Selection make_selection(const Choice& choice, const SelectInput& input, const std::string& origin);

// LightTransfer's vote as SWAA's script takes it: of each example the int(share * layers) columns of the largest ratio
// get a vote; columns by falling votes, ties by first appearance. Columns without a vote, which the script does not
// know, follow by falling mean ratio. Examples whose ratios are NaN do not vote. The first is the laziest.
struct LazyVote {
  std::vector<int64_t> order;  // columns
  std::vector<int64_t> votes;  // by column
  int64_t n_examples = 0;      // that voted
};
LazyVote vote_lazy(const stats::Table<double>& ratio, double share);

// Returns the residuals of y after least squares on x and a constant; none where all x are equal or there are fewer
// than three.
std::optional<std::vector<double>> residuals(const std::vector<double>& y, const std::vector<double>& x);

// Returns how many layers get memory in vLLM and hold nothing: its hybrid KV cache manager cuts the layers of each kind
// into groups of one size and pads the last group of each. Source: vllm/v1/core/kv_cache_utils.py, group sizes of
// hybrid models.
int64_t hybrid_padding_layers(int64_t n_full, int64_t n_windowed);
// Returns one line on that for a budget, with the next budgets that waste nothing; "": nothing is wasted.
std::string hybrid_padding_note(int64_t keep, int64_t n_layers);

}  // namespace winnow::selection
