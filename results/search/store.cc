#include "results/search/store.h"

// /selection/METHOD of results.h5. The schema is in README.md in this folder.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/checksum.h"
#include "base/error.h"
#include "results/storage/hdf5.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::search {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

using Get = double (*)(const PatternMeans&);

const MeasuredPattern& pattern_at(const SearchResults& r, int64_t index) {
  return r.patterns[static_cast<std::size_t>(index)];
}
bool has_kl(const SearchResults& r) { return !r.patterns.front().screened.kl.empty(); }

// Only the verification leaves anything out.
void explain_nan(storage::Group& group, const std::string& name, const std::vector<double>& values) {
  if (std::none_of(values.begin(), values.end(), [](double value) { return std::isnan(value); })) return;
  group.set_attribute<std::string>(name, "status", "not among the patterns and examples that were verified");
}

// The best pattern of each K.
void write_best(storage::Group& group, const SearchResults& r) {
  const auto n = static_cast<int64_t>(r.best.size());
  const auto by_keep = [&](const std::string& name) { return storage::Variable{name, {"keep"}, {n}}; };
  std::vector<int64_t> keep;
  std::vector<uint8_t> full;
  std::vector<double> objective;
  for (const int64_t index : r.best) {
    const MeasuredPattern& best = pattern_at(r, index);
    keep.push_back(count_full(best.windowed));
    for (const bool windowed : best.windowed) full.push_back(windowed ? 0 : 1);
    objective.push_back(objective_value(r.plan.objective, best.screened.means()));
  }
  storage::write_coordinate(group, "keep", keep, {storage::kOne, "K: number of layers that keep full attention"});
  storage::write_variable(group, {"full", {"keep", "layer"}, {n, r.plan.n_layers}}, full,
                          {storage::kOne, "1 where the layer keeps full attention in the best pattern found with K"});
  storage::write_variable(group, by_keep("objective_value"), objective,
                          {storage::kOne, "what the search minimised: NLL, KL, or -(exact match)"});
  const auto write_means = [&](const std::string& name, const char* units, const std::string& what, Get get,
                               bool is_verified) {
    std::vector<double> values;
    for (const int64_t index : r.best) {
      const ExampleFigures& figures = is_verified ? pattern_at(r, index).verified : pattern_at(r, index).screened;
      values.push_back(figures.empty() ? kNan : get(figures.means()));
    }
    storage::write_variable(group, by_keep(name), values, {units, what});
    explain_nan(group, name, values);
  };
  const Get nll = [](const PatternMeans& m) { return m.nll_nats; };
  const Get exact_match = [](const PatternMeans& m) { return m.exact_match; };
  write_means("mean_nll", storage::kNats, "mean over examples of the NLL", nll, false);
  write_means("mean_exact_match", storage::kOne, "share of examples that greedy decoding answers", exact_match, false);
  write_means(
      "mean_token_accuracy", storage::kOne, "mean share of answer tokens that are the argmax",
      [](const PatternMeans& m) { return m.token_accuracy; }, false);
  if (has_kl(r)) {
    write_means(
        "mean_kl", storage::kNats, "mean over examples of KL(full || pattern)",
        [](const PatternMeans& m) { return m.kl_nats; }, false);
  }
  if (r.agreement.n_verified == 0) return;
  write_means("mean_nll_verified", storage::kNats, "mean_nll with every row under the window", nll, true);
  write_means("mean_exact_match_verified", storage::kOne, "mean_exact_match with every row under the window",
              exact_match, true);
}

// A table (pattern, example) of one figure; NaN, with a status, where a pattern has none for the example.
template <typename Get>
void write_cells(storage::Group& group, const SearchResults& r, const std::string& name,
                 const storage::Description& description, const Get& get) {
  std::vector<double> values;
  for (const MeasuredPattern& pattern : r.patterns) {
    const auto& column = get(pattern);
    for (std::size_t e = 0; e < r.example_id.size(); ++e) {
      values.push_back(e < column.size() ? static_cast<double>(column[e]) : kNan);
    }
  }
  const auto n_patterns = static_cast<int64_t>(r.patterns.size());
  storage::write_variable(group,
                          {name, {"pattern", "example"}, {n_patterns, static_cast<int64_t>(r.example_id.size())}},
                          values, description);
  explain_nan(group, name, values);
}

void write_patterns(storage::Group& group, const SearchResults& r) {
  const auto n = static_cast<int64_t>(r.patterns.size());
  std::vector<std::string> names;
  std::vector<int64_t> keep;
  std::vector<uint8_t> full;
  for (const MeasuredPattern& pattern : r.patterns) {
    names.push_back(pattern.name);
    keep.push_back(count_full(pattern.windowed));
    for (const bool windowed : pattern.windowed) full.push_back(windowed ? 0 : 1);
  }
  group.make_dimension("example", static_cast<int64_t>(r.example_id.size()));
  storage::write_variable(group, {"example_id", {"example"}, {static_cast<int64_t>(r.example_id.size())}}, r.example_id,
                          {storage::kText, "identifier of the example"});
  storage::write_token_hashes(group, r.token_hash);
  storage::write_coordinate(group, "pattern", names, {storage::kText, "every pattern that was measured"});
  storage::write_variable(group, {"pattern_keep", {"pattern"}, {n}}, keep,
                          {storage::kOne, "its number of layers with full attention"});
  storage::write_variable(group, {"pattern_full", {"pattern", "layer"}, {n, r.plan.n_layers}}, full,
                          {storage::kOne, "1 where the layer keeps full attention in the pattern"});
  write_cells(
      group, r, "nll", {storage::kNats, "mean NLL of the answer"},
      [](const MeasuredPattern& p) -> const auto& { return p.screened.nll; });
  write_cells(
      group, r, "exact_match", {storage::kOne, "1 where greedy decoding gives the answer"},
      [](const MeasuredPattern& p) -> const auto& { return p.screened.exact_match; });
  write_cells(
      group, r, "token_accuracy", {storage::kOne, "share of answer tokens that are the argmax"},
      [](const MeasuredPattern& p) -> const auto& { return p.screened.token_accuracy; });
  if (has_kl(r)) {
    write_cells(
        group, r, "kl", {storage::kNats, "mean over answer tokens of KL(full || pattern)"},
        [](const MeasuredPattern& p) -> const auto& { return p.screened.kl; });
  }
  if (r.agreement.n_verified == 0) return;
  write_cells(
      group, r, "nll_verified", {storage::kNats, "nll with every row under the window; NaN: not measured"},
      [](const MeasuredPattern& p) -> const auto& { return p.verified.nll; });
  write_cells(
      group, r, "exact_match_verified",
      {storage::kOne, "exact_match with every row under the window; NaN: not measured"},
      [](const MeasuredPattern& p) -> const auto& { return p.verified.exact_match; });
}

void write_agreement(storage::Group& group, const SearchResults& r) {
  const ScreeningAgreement& agreement = r.agreement;
  if (agreement.n_verified == 0) return;
  group.write_scalar<int64_t>("n_verified_examples", r.n_verified_examples);
  storage::describe(group, "n_verified_examples",
                    {storage::kOne, "examples that they were measured on, the first ones"});
  group.write_scalar<int64_t>("n_verified", agreement.n_verified);
  storage::describe(group, "n_verified",
                    {storage::kOne, "patterns that were measured with every row under the window too"});
  storage::write_estimate(
      group, "rho_nll", "rho_nll", agreement.rho_nll,
      "Spearman's rho over verified patterns between mean NLL as searched and with every row under the "
      "window");
  storage::write_estimate(group, "rho_exact_match", "rho_exact_match", agreement.rho_exact_match,
                          "the same of exact match");
  storage::write_figure(
      group, "wins_kept", agreement.wins_kept,
      "share of verified patterns that the best of their K is no worse than with every row under the window");
}

void write_interactions(storage::Group& group, const Interactions& found) {
  const auto n = static_cast<int64_t>(found.candidates.size());
  storage::write_coordinate(group, "candidate", found.candidates, {storage::kOne, "layer that is windowed"});
  storage::write_coordinate(group, "other_candidate", found.candidates,
                            {storage::kOne, "layer that is windowed with it"});
  const auto n_layers = static_cast<int64_t>(found.delta_nll.size());
  storage::write_variable(group, {"delta_nll", {"layer"}, {n_layers}}, found.delta_nll,
                          {storage::kNats, "mean NLL with that layer alone windowed less that with full attention"});
  storage::write_variable(group, {"exact_match_drop", {"layer"}, {n_layers}}, found.exact_match_drop,
                          {storage::kOne, "exact match with full attention less that with the layer alone windowed"});
  const auto write_pairs = [&](const char* name, const stats::Table<double>& table,
                               const storage::Description& description) {
    storage::write_variable(group, {name, {"candidate", "other_candidate"}, {n, n}}, table.values, description);
  };
  write_pairs("delta_nll_pair", found.delta_nll_pair,
              {storage::kNats, "mean NLL with both layers windowed less that with full attention"});
  write_pairs("interaction_nll", found.interaction_nll,
              {storage::kNats, "delta_nll_pair less the two layers' delta_nll; above 0: worse together than apart"});
  write_pairs("interaction_nll_ci_low", found.interaction_nll_ci_low,
              {storage::kNats, "lower end of the 95 % interval of interaction_nll"});
  write_pairs("interaction_nll_ci_high", found.interaction_nll_ci_high, {storage::kNats, "upper end"});
  write_pairs("interaction_exact_match", found.interaction_exact_match,
              {storage::kOne, "drop of exact match with both layers windowed less the two layers' drops"});
  if (found.spread_status.empty()) return;
  for (const char* name : {"interaction_nll_ci_low", "interaction_nll_ci_high"}) {
    group.set_attribute<std::string>(name, "status", found.spread_status);
  }
}

void write_search(storage::Group group, const SearchResults& r) {
  group.write_scalar<std::string>("objective", objective_name(r.plan.objective));
  storage::describe(group, "objective",
                    {storage::kText, "what the search minimised: nll, exact-match (maximised) or kl"});
  const auto write_seconds = [&](const char* name, double seconds, const char* what) {
    group.write_scalar<double>(name, seconds > 0.0 ? seconds : kNan);
    storage::describe(group, name, {"s", what});
    if (!(seconds > 0.0)) group.set_attribute<std::string>(name, "status", "not known");
  };
  write_seconds("predicted_seconds", r.cost.predicted, "predicted time of the search on its ranks");
  write_seconds("predicted_seconds_exact", r.cost.predicted_exact,
                "predicted time of the same search with every row under the window");
  if (r.agreement.n_verified > 0) {
    write_seconds("predicted_seconds_verification", r.cost.predicted_verification,
                  "predicted time of the verification, besides");
  }
  write_seconds("search_seconds", r.cost.measured, "time that the search took");
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < r.plan.n_layers; ++layer) layers.push_back(layer);
  storage::write_coordinate(group, "layer", layers, {storage::kOne, "index of the decoder layer"});
  if (r.plan.method == SearchMethod::kPairs) {
    write_interactions(group, r.interactions);
  } else {
    group.write_scalar<int64_t>("beam", r.plan.beam);
    storage::describe(group, "beam", {storage::kOne, "patterns that each step went on from"});
    write_best(group, r);
    write_agreement(group, r);
  }
  write_patterns(group, r);
}

BestPatterns read_best(const storage::Group& group) {
  BestPatterns found;
  if (!group.contains("keep")) return found;
  found.keep = group.read<int64_t>("keep", 1).values;
  const std::vector<int64_t> layer = group.read<int64_t>("layer", 1).values;
  const auto full = storage::read_table<uint8_t>(group, "full", static_cast<int64_t>(found.keep.size()),
                                                 static_cast<int64_t>(layer.size()));
  for (int64_t step = 0; step < full.rows; ++step) {
    std::vector<int64_t>& kept = found.full_layers.emplace_back();
    for (int64_t c = 0; c < full.cols; ++c) {
      if (full(step, c) != 0) kept.push_back(layer[static_cast<std::size_t>(c)]);
    }
    const int64_t keep = found.keep[static_cast<std::size_t>(step)];
    const bool is_rising = std::is_sorted(kept.begin(), kept.end(), std::less_equal<int64_t>());
    if (static_cast<int64_t>(kept.size()) != keep || !is_rising) {
      fail(ExitCode::kBadData, group.where("full") + ": expected " + std::to_string(keep) + " rising layers in row " +
                                   std::to_string(step) + ", found " + std::to_string(kept.size()));
    }
  }
  if (group.contains("example_id")) {
    const std::vector<int64_t> shape = group.shape("example_id");
    found.n_examples = shape.empty() ? 0 : shape.front();
  }
  found.token_hash = storage::read_token_hashes(group, found.n_examples);
  found.is_verified = group.contains("mean_nll_verified");
  return found;
}

// The figures of the best pattern of each K, as the search measured them.
std::vector<PatternMeans> read_means(const storage::Group& group, int64_t n_steps) {
  const auto nll = storage::read_variable<double>(group, "mean_nll", {n_steps});
  const auto exact_match = storage::read_variable<double>(group, "mean_exact_match", {n_steps});
  const auto token_accuracy = storage::read_variable<double>(group, "mean_token_accuracy", {n_steps});
  std::vector<PatternMeans> means;
  for (std::size_t step = 0; step < nll.size(); ++step) {
    means.push_back({.nll_nats = nll[step], .exact_match = exact_match[step], .token_accuracy = token_accuracy[step]});
  }
  return means;
}

// Calls `read` with every search of a file.
template <typename Read>
void read_searches(const std::filesystem::path& path, storage::Provenance& provenance, const Read& read) {
  const storage::File file = storage::File::open(path);
  storage::require_format(file, storage::kResultsFormat, storage::kResultsVersion);
  const storage::Group root = file.root();
  provenance = storage::read_provenance(root.group("provenance"));
  if (root.contains_group("selection")) {
    const storage::Group selection = root.group("selection");
    for (const std::string& method : selection.names()) read(method, selection);
  }
  if (!file.has_checksum()) note_no_checksum(path);
}

}  // namespace

void write_searches(const std::filesystem::path& path, const std::vector<SearchResults>& searches,
                    const storage::Provenance& provenance) {
  storage::File file = storage::File::create(path);
  storage::Group root = file.root();
  storage::write_root(root, "Joint selection of the layers that keep full attention", provenance);
  storage::Group selection = root.create_group("selection");
  for (const SearchResults& search : searches) {
    write_search(selection.create_group(search_method_name(search.plan.method)), search);
  }
  storage::write_provenance(root.create_group("provenance"), provenance);
  file.commit();
}

std::optional<BestPatterns> read_best_patterns(const std::filesystem::path& path, const std::string& method,
                                               storage::Provenance& provenance) {
  std::optional<BestPatterns> best;
  read_searches(path, provenance, [&](const std::string& name, const storage::Group& selection) {
    if (name == method) best = read_best(selection.group(name));
  });
  return best;
}

std::vector<FoundPatterns> read_found(const std::filesystem::path& path, storage::Provenance& provenance) {
  std::vector<FoundPatterns> searches;
  read_searches(path, provenance, [&](const std::string& method, const storage::Group& selection) {
    const storage::Group group = selection.group(method);
    FoundPatterns& found = searches.emplace_back();
    found.method = method;
    found.objective = group.read_scalar<std::string>("objective");
    found.n_patterns = static_cast<int64_t>(group.read<std::string>("pattern", 1).values.size());
    found.full_layers = read_best(group).full_layers;
    if (!found.full_layers.empty()) {
      found.best = read_means(group, static_cast<int64_t>(found.full_layers.size()));
    }
  });
  return searches;
}

bool is_search(const std::filesystem::path& path) {
  const storage::File file = storage::File::open(path);
  storage::require_format(file, storage::kResultsFormat, storage::kResultsVersion);
  return file.root().contains_group("selection") && !file.root().contains_group("calibration");
}

}  // namespace winnow::search
