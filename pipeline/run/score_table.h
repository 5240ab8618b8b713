// The table that a run fills: one cell per (example, variant), zero until measured, so that the tables of all ranks
// add up to the whole one exactly.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pipeline/engine/sweep.h"
#include "pipeline/run/corpus.h"
#include "pipeline/run/options/options.h"
#include "results/calibration/measurement.h"

namespace winnow::run {

// Names the base in a list of variants, where the others are numbered from 0: a calibration's by layer, those of other
// runs in the order in which run.json lists them.
inline constexpr int64_t kBaseVariant = -1;

// Cells of one data set: variant kBaseVariant, or the number of another.
class ScoreTable {
 public:
  // Makes an empty table. token_slots: entries a cell for the NLL of single tokens, 0: none are kept. signals: those of
  // layers that are kept.
  ScoreTable(int64_t n_examples, int64_t n_variants, int64_t token_slots, engine::SignalLayout signals = {});

  int64_t n_examples() const { return n_examples_; }
  int64_t n_variants() const { return n_variants_; }
  bool keeps_tokens() const { return token_slots_ > 0; }
  const engine::SignalLayout& signals() const { return signals_; }
  // Fills a cell; -0.0 becomes 0.0. A cell may be filled once. Token NLLs are needed where they are kept.
  void put(int64_t example, int64_t variant, const engine::Score& score);
  bool has(int64_t example, int64_t variant) const;
  engine::Score get(int64_t example, int64_t variant, int64_t n_tokens) const;

  // Makes room for more variants; what is filled stays.
  void grow(int64_t n_variants);
  // Empties every cell.
  void clear();

  // Return all values for the sum over ranks: (examples, 1 + variants, statistics and signals) and (examples, 1 +
  // variants, token_slots).
  std::span<double> statistics() { return statistics_; }
  std::span<float> tokens() { return tokens_; }
  // Returns true if, after the sum, every cell was filled by at most one rank.
  bool is_consistent() const;

 private:
  std::size_t index(int64_t example, int64_t variant) const;

  int64_t n_examples_;
  int64_t n_variants_;
  int64_t token_slots_;
  engine::SignalLayout signals_;
  std::size_t cell_size_;  // statistics and signals
  std::vector<double> statistics_;
  std::vector<float> tokens_;
};

// Returns the cells of the key heads of the layers and examples of `m`, where the settings ask for them; else nothing.
// All must be there.
calibration::FiguresByHead figures_by_head(const ScoreTable& cells, const Corpus& corpus,
                                           const calibration::Measurement& m, const Settings& settings);

// Returns the cells of the layers that the settings name, whose variants are numbered as Settings::single_layers() has
// them, for the first n_examples examples of the corpus. All must be there; of a layer the first layer_examples of them
// alone where these are given, and what else is there is left out.
calibration::Measurement to_measurement(const ScoreTable& cells, const Corpus& corpus, int64_t n_examples,
                                        const Settings& settings, const std::vector<int64_t>& layer_examples = {});

}  // namespace winnow::run
