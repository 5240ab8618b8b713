#include "pipeline/run/score_table.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"

namespace winnow::run {
namespace {

// Statistics of a cell. The first is 1 in a filled cell, so that a cell filled twice shows after the sum.
enum Statistic : std::size_t { kFilled, kNll, kExactMatch, kTokenAccuracy, kKl, kStatistics };

int64_t answer_tokens(const Corpus& corpus, int64_t e) {
  const auto index = static_cast<std::size_t>(e);
  return corpus.offsets[index + 1] - corpus.offsets[index] - corpus.answer_start[index];
}

}  // namespace

ScoreTable::ScoreTable(int64_t n_examples, int64_t n_variants, int64_t token_slots, engine::SignalLayout signals)
    : n_examples_(n_examples),
      n_variants_(n_variants),
      token_slots_(token_slots),
      signals_(std::move(signals)),
      cell_size_(kStatistics + static_cast<std::size_t>(signals_.size())),
      statistics_(static_cast<std::size_t>(n_examples * (1 + n_variants)) * cell_size_, 0.0),
      tokens_(static_cast<std::size_t>(n_examples * (1 + n_variants) * token_slots), 0.F) {}

std::size_t ScoreTable::index(int64_t example, int64_t variant) const {
  if (example < 0 || example >= n_examples_ || variant < kBaseVariant || variant >= n_variants_) {
    fail(ExitCode::kInternal,
         "no cell for example " + std::to_string(example) + ", variant " + std::to_string(variant));
  }
  return static_cast<std::size_t>(example * (1 + n_variants_) + 1 + variant);
}

void ScoreTable::put(int64_t example, int64_t variant, const engine::Score& score) {
  const std::size_t cell = index(example, variant);
  double* statistics = &statistics_[cell * cell_size_];
  if (statistics[kFilled] != 0.0) {
    fail(ExitCode::kInternal,
         "cell of example " + std::to_string(example) + ", variant " + std::to_string(variant) + " was filled twice");
  }
  statistics[kFilled] = 1.0;
  statistics[kNll] = score.nll_nats + 0.0;
  statistics[kExactMatch] = score.exact_match ? 1.0 : 0.0;
  statistics[kTokenAccuracy] = score.token_accuracy + 0.0;
  statistics[kKl] = score.kl_nats + 0.0;
  signals_.put(score.signals, {statistics + kStatistics, cell_size_ - kStatistics});
  if (token_slots_ == 0) return;
  const auto n = static_cast<int64_t>(score.token_nll_nats.size());
  if (n == 0 || n > token_slots_) {
    fail(ExitCode::kInternal, "cell of example " + std::to_string(example) + " has " + std::to_string(n) +
                                  " token NLLs, expected 1 to " + std::to_string(token_slots_));
  }
  float* tokens = &tokens_[cell * static_cast<std::size_t>(token_slots_)];
  for (std::size_t i = 0; i < score.token_nll_nats.size(); ++i) tokens[i] = score.token_nll_nats[i] + 0.F;
}

void ScoreTable::grow(int64_t n_variants) {
  if (n_variants <= n_variants_) return;
  ScoreTable grown(n_examples_, n_variants, token_slots_, signals_);
  const auto widen = [&](auto& from, auto& to, std::size_t cell_size) {
    const std::size_t row = static_cast<std::size_t>(1 + n_variants_) * cell_size;
    const std::size_t wide_row = static_cast<std::size_t>(1 + n_variants) * cell_size;
    for (std::size_t e = 0; e < static_cast<std::size_t>(n_examples_); ++e) {
      std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(e * row), row,
                  to.begin() + static_cast<std::ptrdiff_t>(e * wide_row));
    }
  };
  widen(statistics_, grown.statistics_, cell_size_);
  widen(tokens_, grown.tokens_, static_cast<std::size_t>(token_slots_));
  *this = std::move(grown);
}

void ScoreTable::clear() {
  std::fill(statistics_.begin(), statistics_.end(), 0.0);
  std::fill(tokens_.begin(), tokens_.end(), 0.F);
}

bool ScoreTable::has(int64_t example, int64_t variant) const {
  return statistics_[index(example, variant) * cell_size_ + kFilled] != 0.0;
}

engine::Score ScoreTable::get(int64_t example, int64_t variant, int64_t n_tokens) const {
  const std::size_t cell = index(example, variant);
  const double* statistics = &statistics_[cell * cell_size_];
  engine::Score score;
  score.nll_nats = statistics[kNll];
  score.exact_match = statistics[kExactMatch] != 0.0;
  score.token_accuracy = statistics[kTokenAccuracy];
  score.kl_nats = statistics[kKl];
  score.signals = signals_.get({statistics + kStatistics, cell_size_ - kStatistics});
  if (token_slots_ > 0) {
    const float* tokens = &tokens_[cell * static_cast<std::size_t>(token_slots_)];
    score.token_nll_nats.assign(tokens, tokens + n_tokens);
  }
  return score;
}

bool ScoreTable::is_consistent() const {
  for (std::size_t i = 0; i < statistics_.size(); i += cell_size_) {
    if (statistics_[i + kFilled] != 0.0 && statistics_[i + kFilled] != 1.0) return false;
  }
  return true;
}

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void copy_tokens(const engine::Score& score, stats::Table<float>& table, int64_t row) {
  if (table.values.empty()) return;
  std::copy(score.token_nll_nats.begin(), score.token_nll_nats.end(), &table(row, 0));
}

// Calls `use` with every variable of the signals that are wanted.
template <typename Use>
void for_each_variable(const engine::SignalOptions& signals, const Use& use) {
  for (const SignalSpec& spec : signal_specs()) {
    if (!signals.wants(spec.name)) continue;
    for (const SignalVariable& variable : spec.variables) use(variable);
  }
}

void make_signal_tables(const engine::SignalOptions& signals, int64_t n_kv_heads, calibration::Measurement& m) {
  for_each_variable(signals, [&](const SignalVariable& variable) {
    m.signals[variable.name] = variable.axes == SignalAxes::kCellByKvHead
                                   ? stats::Table<double>(m.nll.rows * m.nll.cols, n_kv_heads, kNan)
                                   : stats::Table<double>(m.nll.rows, m.nll.cols, kNan);
  });
}

double value_of_cell(const SignalVariable& variable, const engine::Score& score, double nll_base) {
  switch (variable.source) {
    case SignalSource::kScored:
      return score.kl_nats;
    case SignalSource::kMeasured:
      return engine::value_of(score.signals, variable.name);
    case SignalSource::kLessBase:
      return engine::value_of(score.signals, variable.from) - nll_base + 0.0;
    case SignalSource::kMeanOfHeads: {
      const std::vector<double>& heads = score.signals.find(variable.from)->second;
      double mean = 0.0;
      for (const double of_head : heads) mean += of_head / static_cast<double>(heads.size());
      return mean;
    }
  }
  fail(ExitCode::kInternal, std::string("no source of the signal variable ") + variable.name);
}

void put_signals(const engine::SignalOptions& signals, const engine::Score& score, int64_t e, int64_t column,
                 calibration::Measurement& m) {
  for_each_variable(signals, [&](const SignalVariable& variable) {
    stats::Table<double>& table = m.signals.find(variable.name)->second;
    if (variable.axes == SignalAxes::kCellByKvHead) {
      const std::vector<double>& heads = score.signals.find(variable.name)->second;
      std::ranges::copy(heads, &table(e * m.n_layers() + column, 0));
    } else {
      table(e, column) = value_of_cell(variable, score, m.nll_base[static_cast<std::size_t>(e)]);
    }
  });
}

// Figures of the measured layers in other ways than the run's own, a column each; (examples * layers, n_columns).
// variant_of(layer, column): its number. A cell that was not measured is NaN, or kNotMeasured.
template <typename Figures, typename VariantOf>
void read_columns(const ScoreTable& cells, const Corpus& corpus, const calibration::Measurement& m, int64_t n_columns,
                  VariantOf variant_of, Figures& figures) {
  const int64_t n_examples = m.n_examples();
  const int64_t n_layers = m.n_layers();
  figures.nll = stats::Table<double>(n_examples * n_layers, n_columns, kNan);
  figures.exact_match = stats::Table<uint8_t>(n_examples * n_layers, n_columns, calibration::kNotMeasured);
  figures.token_accuracy = stats::Table<double>(n_examples * n_layers, n_columns, kNan);
  for (int64_t cell = 0; cell < n_examples * n_layers; ++cell) {
    if (!m.is_measured(cell / n_layers, cell % n_layers)) continue;
    const int64_t layer = m.layer[static_cast<std::size_t>(cell % n_layers)];
    for (int64_t column = 0; column < n_columns; ++column) {
      const engine::Score score =
          cells.get(cell / n_layers, variant_of(layer, column), answer_tokens(corpus, cell / n_layers));
      figures.nll(cell, column) = score.nll_nats;
      figures.exact_match(cell, column) = score.exact_match ? 1 : 0;
      figures.token_accuracy(cell, column) = score.token_accuracy;
    }
  }
}

// What every setting costs in every layer, where there are types of keys and values.
calibration::FiguresBySetting figures_by_setting(const ScoreTable& cells, const Corpus& corpus,
                                                 const calibration::Measurement& m, const Settings& settings) {
  calibration::FiguresBySetting figures;
  if (settings.kv_types.empty()) return figures;
  const std::vector<LayerSetting> all = settings.layer_settings();
  for (const LayerSetting& setting : all) {
    figures.window.push_back(setting.window);
    figures.kv.push_back(setting.kv);
  }
  const auto variant_of = [&](int64_t layer, int64_t s) {
    return s * static_cast<int64_t>(settings.base.size()) + layer;
  };
  read_columns(cells, corpus, m, figures.n_settings(), variant_of, figures);
  return figures;
}

// What every window costs in every layer, where there are several.
calibration::FiguresByWindow figures_by_window(const ScoreTable& cells, const Corpus& corpus,
                                               const calibration::Measurement& m, const Settings& settings) {
  calibration::FiguresByWindow figures;
  if (settings.other_window_keys.empty()) return figures;
  figures.window = settings.windows();
  const auto own = std::ranges::find(figures.window, settings.given_window) - figures.window.begin();
  const auto variant_of = [&](int64_t layer, int64_t w) {
    const int64_t place = w == own ? 0 : w < own ? w + 1 : w;  // in the order of Settings::single_layers()
    return place * static_cast<int64_t>(settings.base.size()) + layer;
  };
  read_columns(cells, corpus, m, figures.n_windows(), variant_of, figures);
  return figures;
}

}  // namespace

calibration::FiguresByHead figures_by_head(const ScoreTable& cells, const Corpus& corpus,
                                           const calibration::Measurement& m, const Settings& settings) {
  calibration::FiguresByHead figures;
  if (!settings.per_kv_head) return figures;
  figures.n_heads = settings.n_kv_heads;
  const auto variant_of = [&](int64_t layer, int64_t head) { return settings.number_of_head(layer, head); };
  read_columns(cells, corpus, m, figures.n_heads, variant_of, figures);
  return figures;
}

calibration::Measurement to_measurement(const ScoreTable& cells, const Corpus& corpus, int64_t n_examples,
                                        const Settings& settings, const std::vector<int64_t>& layer_examples) {
  const std::vector<int64_t>& layers = settings.layers;
  const engine::SignalOptions& signals = settings.signals;
  const auto n_layers = static_cast<int64_t>(layers.size());
  calibration::Measurement m;
  m.layer.assign(layers.begin(), layers.end());
  for (const int64_t layer : layers) m.layer_windowed_in_base.push_back(settings.base[static_cast<std::size_t>(layer)]);
  m.layer_examples = layer_examples;
  m.nll = stats::Table<double>(n_examples, n_layers, kNan);
  m.exact_match = stats::Table<uint8_t>(n_examples, n_layers, calibration::kNotMeasured);
  m.token_accuracy = stats::Table<double>(n_examples, n_layers, kNan);
  make_signal_tables(signals, cells.signals().n_kv_heads, m);
  int64_t longest = 0;
  for (int64_t e = 0; e < n_examples; ++e) longest = std::max(longest, answer_tokens(corpus, e));
  if (cells.keeps_tokens()) {
    constexpr float kPadding = std::numeric_limits<float>::quiet_NaN();
    m.token_nll_base = stats::Table<float>(n_examples, longest, kPadding);
    m.token_nll = stats::Table<float>(n_examples * n_layers, longest, kPadding);
  }
  for (int64_t e = 0; e < n_examples; ++e) {
    const auto index = static_cast<std::size_t>(e);
    const int64_t n_tokens = answer_tokens(corpus, e);
    m.example_id.push_back(corpus.example_id[index]);
    m.token_hash.push_back(corpus.token_hash(e));
    if (!corpus.source.empty()) m.source.push_back(corpus.source[index]);
    m.answer_tokens.push_back(n_tokens);
    m.prompt_tokens.push_back(corpus.answer_start[index]);
    const engine::Score base_score = cells.get(e, kBaseVariant, n_tokens);
    m.nll_base.push_back(base_score.nll_nats);
    m.exact_match_base.push_back(base_score.exact_match ? 1 : 0);
    m.token_accuracy_base.push_back(base_score.token_accuracy);
    copy_tokens(base_score, m.token_nll_base, e);
    for (int64_t column = 0; column < n_layers; ++column) {
      if (!m.is_measured(e, column)) continue;
      const engine::Score score = cells.get(e, layers[static_cast<std::size_t>(column)], n_tokens);
      m.nll(e, column) = score.nll_nats;
      m.exact_match(e, column) = score.exact_match ? 1 : 0;
      m.token_accuracy(e, column) = score.token_accuracy;
      copy_tokens(score, m.token_nll, e * n_layers + column);
      put_signals(signals, score, e, column, m);
    }
  }
  m.by_window = figures_by_window(cells, corpus, m, settings);
  m.by_setting = figures_by_setting(cells, corpus, m, settings);
  return m;
}

}  // namespace winnow::run
