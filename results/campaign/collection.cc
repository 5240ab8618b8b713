#include "results/campaign/collection.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <tuple>

#include "results/stats/correlation.h"
#include "results/stats/resampling.h"
#include "results/storage/own_hdf5.h"

namespace winnow::campaign {
namespace {

std::string number_text(const storage::Provenance& provenance, std::string_view name) {
  const storage::ProvenanceEntry* entry = provenance.find(name);
  const int64_t* value = entry != nullptr ? std::get_if<int64_t>(&entry->value) : nullptr;
  return value != nullptr ? std::to_string(*value) : "";
}

// What must be equal in two cells of one model for them to differ in the data set or in the window only.
using Settings = std::tuple<int64_t, std::string, int64_t, std::string, std::string, std::string>;
Settings settings_of(const CollectedCell& cell) {
  const storage::Provenance& provenance = cell.summary->provenance;
  return {cell.sinks,
          cell.decode,
          cell.seed,
          number_text(provenance, "tail_rows"),
          provenance.text("base"),
          provenance.text("residual_dtype")};
}

// A cell's ranking, ready to be compared with many others.
struct Comparable {
  const CollectedCell* cell = nullptr;
  Settings settings;
  stats::CentredRanks ranks;
  std::vector<bool> in_top_k;  // by column
  int64_t top_k = 0;
  bool is_constant = false;  // the layer index alone decides the ranking
};

Comparable comparable(const CollectedCell& cell) {
  const calibration::Statistics& statistics = cell.summary->statistics;
  Comparable result;
  result.cell = &cell;
  result.settings = settings_of(cell);
  result.ranks = stats::centred_ranks(statistics.ranking.mean_delta_nll);
  result.top_k = statistics.options.top_k;
  for (const int64_t rank : statistics.ranking.rank) result.in_top_k.push_back(rank <= result.top_k);
  result.is_constant = result.ranks.sum_of_squares == 0;
  return result;
}

constexpr const char* kCellWithoutResults = "a cell has no results (see state and reason)";
constexpr const char* kConstant = "the mean delta of a cell is equal in all layers";

stats::Figure rho_between(const Comparable& a, const Comparable& b) {
  if (a.in_top_k.size() < 2) return stats::Figure::undefined("one layer");
  if (a.is_constant || b.is_constant) return stats::Figure::undefined(kConstant);
  return stats::Figure::of(stats::spearman(a.ranks, b.ranks).value());
}

// As the Jaccard of de-confounding.
stats::Figure jaccard_between(const Comparable& a, const Comparable& b) {
  if (a.top_k != b.top_k) return stats::Figure::undefined("the cells have different top_k");
  const bool all_in = a.top_k == static_cast<int64_t>(a.in_top_k.size());
  if (!all_in && (a.is_constant || b.is_constant)) return stats::Figure::undefined(kConstant);
  int64_t n_both = 0;
  for (std::size_t l = 0; l < a.in_top_k.size(); ++l) n_both += a.in_top_k[l] && b.in_top_k[l] ? 1 : 0;
  return stats::Figure::of(static_cast<double>(n_both) / static_cast<double>(2 * a.top_k - n_both));
}

// Cells that can be compared: rows of one model with results on the same layers.
using Groups = std::map<std::pair<std::string, std::vector<int64_t>>, std::vector<int64_t>>;

class AgreementBuilder {
 public:
  explicit AgreementBuilder(const std::vector<CollectedCell>& cells) : cells_(cells) {
    const auto n = static_cast<int64_t>(cells.size());
    const double nan = std::numeric_limits<double>::quiet_NaN();
    result_.spearman_rho = stats::Table<double>(n, n, nan);
    result_.jaccard = stats::Table<double>(n, n, nan);
    result_.between_datasets = stats::Table<uint8_t>(n, n);
    result_.between_windows = stats::Table<uint8_t>(n, n);
  }

  RankAgreement build() {
    Groups groups;
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      if (!cells_[i].summary) continue;
      groups[{cells_[i].model, cells_[i].summary->statistics.ranking.layer}].push_back(static_cast<int64_t>(i));
    }
    for (const auto& [key, rows] : groups) compare_group(rows);
    explain_gaps(groups);
    result_.spearman_status.assign(spearman_reasons_.begin(), spearman_reasons_.end());
    result_.jaccard_status.assign(jaccard_reasons_.begin(), jaccard_reasons_.end());
    return std::move(result_);
  }

 private:
  void compare_group(const std::vector<int64_t>& rows) {
    std::vector<Comparable> members;
    for (const int64_t row : rows) members.push_back(comparable(cells_[static_cast<std::size_t>(row)]));
    for (std::size_t a = 0; a < members.size(); ++a) {
      for (std::size_t b = a; b < members.size(); ++b) {
        put(result_.spearman_rho, rows[a], rows[b], rho_between(members[a], members[b]), spearman_reasons_);
        put(result_.jaccard, rows[a], rows[b], jaccard_between(members[a], members[b]), jaccard_reasons_);
        mark(members[a], members[b], rows[a], rows[b]);
      }
    }
  }

  static void put(stats::Table<double>& table, int64_t a, int64_t b, const stats::Figure& figure,
                  std::set<std::string>& reasons) {
    table(a, b) = table(b, a) = figure.value;
    if (!figure.defined()) reasons.insert(figure.status);
  }

  void mark(const Comparable& a, const Comparable& b, int64_t row_a, int64_t row_b) {
    if (a.settings != b.settings) return;
    const bool same_dataset = a.cell->dataset == b.cell->dataset;
    const bool same_window = a.cell->window_keys == b.cell->window_keys;
    const auto set = [&](stats::Table<uint8_t>& table) { table(row_a, row_b) = table(row_b, row_a) = 1; };
    if (!same_dataset && same_window) set(result_.between_datasets);
    if (same_dataset && !same_window) set(result_.between_windows);
  }

  void add_reason(const char* reason) {
    spearman_reasons_.insert(reason);
    jaccard_reasons_.insert(reason);
  }

  void explain_gaps(const Groups& groups) {
    const auto has_none = [](const CollectedCell& cell) { return !cell.summary; };
    if (std::any_of(cells_.begin(), cells_.end(), has_none)) add_reason(kCellWithoutResults);
    std::map<std::string, int> n_groups;
    for (const auto& [key, rows] : groups) ++n_groups[key.first];
    if (n_groups.size() > 1) add_reason("the cells are of different models");
    for (const auto& [model, count] : n_groups) {
      if (count > 1) add_reason("the cells were measured on different layers");
    }
  }

  const std::vector<CollectedCell>& cells_;
  RankAgreement result_;
  std::set<std::string> spearman_reasons_;
  std::set<std::string> jaccard_reasons_;
};

}  // namespace

CellSummary summarize(const calibration::Results& results) {
  CellSummary summary;
  summary.statistics = results.statistics;
  summary.provenance = results.provenance;
  summary.n_examples = results.calibration.n_examples();
  summary.nll_base = stats::mean_of(results.calibration.nll_base);
  summary.exact_match_base = stats::mean_of(results.calibration.exact_match_base);
  summary.token_accuracy_base = stats::mean_of(results.calibration.token_accuracy_base);
  summary.stability = selection_stability(results.calibration, results.statistics.options.seed);
  return summary;
}

CollectionAxes axes_of(const std::vector<CollectedCell>& cells) {
  std::set<int64_t> layers, budgets;
  std::set<std::string> controls;
  for (const CollectedCell& cell : cells) {
    if (!cell.summary) continue;
    const calibration::Statistics& statistics = cell.summary->statistics;
    layers.insert(statistics.ranking.layer.begin(), statistics.ranking.layer.end());
    budgets.insert(statistics.ranking.budget.begin(), statistics.ranking.budget.end());
    for (const auto& [name, figures] : statistics.deconfounding) controls.insert(name);
  }
  return {{layers.begin(), layers.end()}, {budgets.begin(), budgets.end()}, {controls.begin(), controls.end()}};
}

std::vector<std::pair<std::string, std::string>> undefined_figures(const CollectedCell& cell) {
  std::vector<std::pair<std::string, std::string>> list;
  if (!cell.summary) return list;
  const calibration::Statistics& statistics = cell.summary->statistics;
  const auto look_at = [&](const std::string& name, const stats::Figure& figure) {
    if (!figure.defined()) list.emplace_back(name, figure.status);
  };
  const auto look_at_estimate = [&](const std::string& name, const std::string& interval,
                                    const stats::Estimate& estimate) {
    look_at(name, estimate.value);
    look_at(interval + "_ci", estimate.ci_low.defined() ? estimate.ci_high : estimate.ci_low);
  };
  if (!statistics.ranking.spread_status.empty()) {
    list.emplace_back("standard_error, ci, rank_low, rank_high, p_top_k", statistics.ranking.spread_status);
  }
  for (const auto& [name, figures] : statistics.deconfounding) {
    look_at_estimate(name + "/spearman_rho", name + "/spearman", figures.spearman_rho);
    look_at(name + "/spearman_p", figures.spearman_p);
    look_at(name + "/overlap", figures.overlap);
    look_at(name + "/jaccard", figures.jaccard);
    look_at(name + "/magnitude_ratio", figures.magnitude_ratio);
  }
  look_at_estimate("split_half", "split_half", statistics.reliability.split_half);
  look_at_estimate("rho_exact_match", "rho_exact_match", statistics.reliability.rho_exact_match);
  look_at_estimate("rho_token_accuracy", "rho_token_accuracy", statistics.reliability.rho_token_accuracy);
  return list;
}

RankAgreement rank_agreement(const std::vector<CollectedCell>& cells) { return AgreementBuilder(cells).build(); }

Output collection_output(const std::string& flag, const std::filesystem::path& path) {
  return {.flag = flag, .path = path, .what = "a collection", .is_own = [](const std::filesystem::path& old) {
            return storage::is_own_hdf5(old, kCollectionFormat);
          }};
}

}  // namespace winnow::campaign
