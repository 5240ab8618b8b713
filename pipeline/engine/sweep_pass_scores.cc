// What the rows that leave the last layer say: scores of the answer tokens, for every lane.

#include <algorithm>
#include <utility>

#include "pipeline/engine/cached_prefix.h"
#include "pipeline/engine/sweep_pass.h"

namespace winnow::engine {

namespace {

// What was measured of the layers, to the variants that asked for it.
void add_signals(const std::vector<SignalValues>& of_variants, SweepResult& result) {
  for (std::size_t v = 0; v < of_variants.size(); ++v) {
    for (const auto& [variable, values] : of_variants[v]) result.variants[v].signals[variable] = values;
  }
}

}  // namespace

Score SweepPass::score_segment(const Segment& segment, const RowScores& scores) const {
  const SweepRequest& request = requests_[segment.request];
  const PlacedRows& base = layout_.base_of(segment).scored;
  Score score;
  double sum = 0.0;
  double sum_kl = 0.0;
  int64_t n_hits = 0;
  const auto end_row = static_cast<int64_t>(request.tokens.size()) - 1;  // the last token predicts nothing
  for (int64_t row = request.answer_start - 1; row < end_row; ++row) {
    if (row < base.first_row) {
      const RowScore cached = request.prefix->score(row);
      sum += cached.nll_nats;
      n_hits += cached.is_argmax ? 1 : 0;
      if (request.per_token) score.token_nll_nats.push_back(static_cast<float>(cached.nll_nats));
      continue;
    }
    // Rows before the lane's first are the base's.
    const PlacedRows& rows = row >= segment.scored.first_row ? segment.scored : base;
    const auto at = static_cast<std::size_t>(rows.at + row - rows.first_row);
    sum += scores.nll[at];
    n_hits += scores.hits[at];
    if (request.with_kl) sum_kl += scores.kl[at];
    if (request.per_token) score.token_nll_nats.push_back(static_cast<float>(scores.nll[at]));
  }
  const int64_t n_answer = end_row - request.answer_start + 1;
  score.nll_nats = sum / static_cast<double>(n_answer);
  score.kl_nats = sum_kl / static_cast<double>(n_answer);
  score.exact_match = n_hits == n_answer;
  score.token_accuracy = static_cast<double>(n_hits) / static_cast<double>(n_answer);
  return score;
}

// Token that each scored row predicts; -1 for rows that predict none of the answer.
std::vector<int32_t> SweepPass::targets() const {
  std::vector<int32_t> targets(static_cast<std::size_t>(layout_.scored_rows), -1);
  for (const Segment& segment : layout_.segments) {
    const SweepRequest& request = requests_[segment.request];
    const PlacedRows& rows = segment.scored;
    const auto end_row = static_cast<int64_t>(request.tokens.size()) - 1;
    for (int64_t row = std::max(rows.first_row, request.answer_start - 1); row < end_row; ++row) {
      targets[static_cast<std::size_t>(rows.at + row - rows.first_row)] =
          request.tokens[static_cast<std::size_t>(row + 1)];
    }
  }
  return targets;
}

// For each tile of scored rows the tile of the base that holds the same rows; -1 where no KL is wanted.
std::vector<int32_t> SweepPass::reference_tiles() const {
  const int64_t tile = ops_.device().row_tile();
  std::vector<int32_t> tiles(static_cast<std::size_t>(layout_.scored_rows / tile), -1);
  for (const Segment& segment : layout_.segments) {
    if (segment.is_base() || segment.is_removed() || !requests_[segment.request].with_kl) continue;
    const PlacedRows& rows = segment.scored;
    const PlacedRows& base = layout_.base_of(segment).scored;
    for (int64_t row = 0; row < rows.n_rows; row += tile) {
      tiles[static_cast<std::size_t>((rows.at + row) / tile)] =
          static_cast<int32_t>((base.at + rows.first_row - base.first_row + row) / tile);
    }
  }
  return tiles;
}

// The bases' final rows, which the lanes' distributions are compared with.
void SweepPass::keep_base_rows() {
  for (int64_t row = 0; row < layout_.base_scored_rows; row += ops_.device().chunk_rows()) {
    const int64_t n = std::min(ops_.device().chunk_rows(), layout_.base_scored_rows - row);
    ops_.norm(scored(row, n), weights_.final_norm(), at(buffers_.reference).slice(row, n));
  }
}

SweepPass::RowScores SweepPass::score_rows() {
  const auto n_rows = static_cast<std::size_t>(layout_.scored_rows);
  const std::vector<int32_t> targets = this->targets();
  RowScores scores{std::vector<double>(n_rows, 0.0), std::vector<uint8_t>(n_rows, 0), {}};
  std::vector<int32_t> tiles;
  if (layout_.with_kl) {
    keep_base_rows();
    scores.kl.assign(n_rows, 0.0);
    tiles = reference_tiles();
  }
  kernels::TokenScores out{scores.nll, scores.hits};
  if (layout_.with_kl) {
    out.kl_nats = scores.kl;
    out.reference = {at(buffers_.reference), tiles};
  }
  forward_.score(at(buffers_.scored), targets, at(buffers_.normed), out);
  ops_.device().synchronize();
  return scores;
}

std::vector<SweepResult> SweepPass::results_of(const RowScores& scores) const {
  std::vector<SweepResult> results(requests_.size());
  for (const Segment& segment : layout_.segments) {
    SweepResult& result = results[segment.request];
    const Score score = score_segment(segment, scores);
    const auto variant = static_cast<std::size_t>(segment.variant);
    if (segment.is_base()) {
      result.base = score;
      const SweepRequest& request = requests_[segment.request];
      result.variants.assign(request.variants.size(), score);
      for (Score& of_variant : result.variants) {
        if (request.signals.needs(&SignalNeeds::removed_lane)) of_variant.signals[kNllRemoved] = {score.nll_nats};
      }
    } else if (segment.is_removed()) {
      result.variants[variant].signals[kNllRemoved] = {score.nll_nats};
    } else {
      SignalValues signals = std::move(result.variants[variant].signals);
      result.variants[variant] = score;
      result.variants[variant].signals = std::move(signals);
    }
  }
  for (std::size_t r = 0; r < requests_.size(); ++r) add_signals(signals_[r], results[r]);
  return results;
}

}  // namespace winnow::engine
