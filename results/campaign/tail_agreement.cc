#include "results/campaign/tail_agreement.h"

#include <optional>
#include <set>
#include <tuple>

#include "results/campaign/selection_stability.h"

namespace winnow::campaign {
namespace {

constexpr int64_t kAllRows = -1;

std::optional<int64_t> tail_rows_of(const CollectedCell& cell) {
  if (!cell.summary) return std::nullopt;
  const storage::ProvenanceEntry* entry = cell.summary->provenance.find("tail_rows");
  const int64_t* rows = entry != nullptr ? std::get_if<int64_t>(&entry->value) : nullptr;
  return rows != nullptr ? std::optional(*rows) : std::nullopt;
}

// What must be equal in both.
auto question_of(const CollectedCell& cell) {
  const storage::Provenance& provenance = cell.summary->provenance;
  return std::tuple(cell.model, provenance.text("data_sha256"), cell.window_keys, cell.sinks, cell.decode, cell.seed,
                    provenance.text("base"), provenance.text("residual_dtype"), cell.summary->statistics.ranking.layer);
}

std::vector<OverlapAt> overlaps_of(const std::vector<int64_t>& rank, const std::vector<int64_t>& other) {
  std::vector<OverlapAt> overlaps;
  const auto n_layers = static_cast<int64_t>(rank.size());
  for (const int64_t divisor : kStudyDivisors) {
    if (n_layers < divisor) continue;
    const int64_t keep = n_layers / divisor;
    int64_t n_both = 0;
    for (std::size_t l = 0; l < rank.size(); ++l) n_both += rank[l] <= keep && other[l] <= keep ? 1 : 0;
    overlaps.push_back({divisor, keep, static_cast<double>(n_both) / static_cast<double>(keep)});
  }
  return overlaps;
}

TailAgreement agreement_of(const CollectedCell& exact, const CollectedCell& tail, const ReadResults& read) {
  TailAgreement agreement{.exact = exact.label,
                          .tail = tail.label,
                          .model = tail.model,
                          .dataset = tail.dataset,
                          .window = tail.window,
                          .tail_rows = *tail_rows_of(tail)};
  // As a control of the exact calibration, of which the correlation alone is wanted.
  calibration::StatisticsOptions options = exact.summary->statistics.options;
  options.n_permutations = options.n_splits = 1;
  const calibration::Statistics statistics =
      calibration::compute_statistics(read(exact).calibration, {{"tail", read(tail).calibration}}, options);
  agreement.spearman_rho = statistics.deconfounding.at("tail").spearman_rho;
  agreement.overlaps = overlaps_of(exact.summary->statistics.ranking.rank, tail.summary->statistics.ranking.rank);
  return agreement;
}

}  // namespace

std::vector<TailAgreement> tail_agreements(const std::vector<CollectedCell>& cells, const ReadResults& read) {
  std::vector<TailAgreement> agreements;
  std::set<std::string> names;
  for (const CollectedCell& tail : cells) {
    if (tail_rows_of(tail).value_or(kAllRows) == kAllRows || !names.insert(tail.name).second) continue;
    for (const CollectedCell& exact : cells) {
      if (tail_rows_of(exact) != kAllRows || question_of(exact) != question_of(tail)) continue;
      agreements.push_back(agreement_of(exact, tail, read));
    }
  }
  return agreements;
}

}  // namespace winnow::campaign
