#include "results/calibration/measurement.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/signal_specs.h"

namespace winnow::calibration {
namespace {

void check_size(const std::string& name, const char* what, std::size_t found, int64_t expected) {
  if (static_cast<int64_t>(found) == expected) return;
  fail(ExitCode::kBadData,
       name + ": " + what + " has " + std::to_string(found) + " entries, expected " + std::to_string(expected));
}

template <typename T>
void check_table(const std::string& name, const char* what, const stats::Table<T>& table, const Measurement& m) {
  if (table.rows != m.n_examples() || table.cols != m.n_layers()) {
    fail(ExitCode::kBadData, name + ": " + what + " has the shape [" + std::to_string(table.rows) + ", " +
                                 std::to_string(table.cols) + "], expected [" + std::to_string(m.n_examples()) +
                                 " examples, " + std::to_string(m.n_layers()) + " layers]");
  }
  check_size(name, what, table.values.size(), table.rows * table.cols);
}

// Optional tables: of the right shape where they are there, finite but where NaN says that there is no figure.
void check_signals(const std::string& name, const Measurement& m) {
  const auto check = [&](const char* what, const stats::Table<double>& table, bool may_lack) {
    check_table(name, what, table, m);
    for (int64_t e = 0; e < m.n_examples(); ++e) {
      for (int64_t c = 0; c < m.n_layers(); ++c) {
        const double value = table(e, c);
        if (std::isfinite(value) || ((may_lack || !m.is_measured(e, c)) && std::isnan(value))) continue;
        fail(ExitCode::kBadData, name + ": " + what + " of example " + m.example_id[static_cast<std::size_t>(e)] +
                                     ", layer " + std::to_string(m.layer[static_cast<std::size_t>(c)]) +
                                     " is not finite");
      }
    }
  };
  for (const SignalSpec& spec : signal_specs()) {
    for (const SignalVariable& variable : spec.variables) {
      const stats::Table<double>* table = m.find_signal(variable.name);
      if (table == nullptr) continue;
      if (variable.axes == SignalAxes::kCell) {
        check(variable.name, *table, *variable.lacking != '\0');
      } else {
        check_size(name, variable.name, table->values.size(), m.n_examples() * m.n_layers() * table->cols);
      }
    }
  }
}

void check_by_window(const std::string& name, const Measurement& m) {
  const FiguresByWindow& figures = m.by_window;
  const int64_t n_values = m.n_examples() * m.n_layers() * figures.n_windows();
  check_size(name, "nll_by_window", figures.nll.values.size(), n_values);
  check_size(name, "exact_match_by_window", figures.exact_match.values.size(), n_values);
  check_size(name, "token_accuracy_by_window", figures.token_accuracy.values.size(), n_values);
  for (int64_t w = 0; w < figures.n_windows(); ++w) {
    const auto index = static_cast<std::size_t>(w);
    if (figures.window[index] < 1 || (w > 0 && figures.window[index] <= figures.window[index - 1])) {
      fail(ExitCode::kBadData,
           name + ": window: expected rising numbers from 1, found " + std::to_string(figures.window[index]));
    }
    for (int64_t cell = 0; cell < m.n_examples() * m.n_layers(); ++cell) {
      if (!m.is_measured(cell / m.n_layers(), cell % m.n_layers())) continue;
      if (std::isfinite(figures.nll(cell, w)) && std::isfinite(figures.token_accuracy(cell, w))) continue;
      fail(ExitCode::kBadData, name + ": figures of window " + std::to_string(figures.window[index]) + ", example " +
                                   m.example_id[static_cast<std::size_t>(cell / m.n_layers())] + ", layer " +
                                   std::to_string(m.layer[static_cast<std::size_t>(cell % m.n_layers())]) +
                                   " are not finite");
    }
  }
}

void check_by_head(const std::string& name, const Measurement& m) {
  const FiguresByHead& figures = m.by_head;
  const int64_t n_values = m.n_examples() * m.n_layers() * figures.n_heads;
  check_size(name, "nll of heads", figures.nll.values.size(), n_values);
  check_size(name, "exact_match of heads", figures.exact_match.values.size(), n_values);
  check_size(name, "token_accuracy of heads", figures.token_accuracy.values.size(), n_values);
  for (int64_t cell = 0; figures.n_heads > 0 && cell < m.n_examples() * m.n_layers(); ++cell) {
    for (int64_t head = 0; head < figures.n_heads; ++head) {
      if (std::isfinite(figures.nll(cell, head)) && std::isfinite(figures.token_accuracy(cell, head))) continue;
      fail(ExitCode::kBadData, name + ": figures of example " +
                                   m.example_id[static_cast<std::size_t>(cell / m.n_layers())] + ", layer " +
                                   std::to_string(m.layer[static_cast<std::size_t>(cell % m.n_layers())]) + ", head " +
                                   std::to_string(head) + " are not finite");
    }
  }
}

void check_by_setting(const std::string& name, const Measurement& m) {
  const FiguresBySetting& figures = m.by_setting;
  const int64_t n_values = m.n_examples() * m.n_layers() * figures.n_settings();
  check_size(name, "setting_kv", figures.kv.size(), figures.n_settings());
  check_size(name, "nll_by_setting", figures.nll.values.size(), n_values);
  check_size(name, "exact_match_by_setting", figures.exact_match.values.size(), n_values);
  check_size(name, "token_accuracy_by_setting", figures.token_accuracy.values.size(), n_values);
  for (int64_t s = 0; s < figures.n_settings(); ++s) {
    if (figures.window[static_cast<std::size_t>(s)] < 0) {
      fail(ExitCode::kBadData, name + ": setting_window: expected numbers from 0, found " +
                                   std::to_string(figures.window[static_cast<std::size_t>(s)]));
    }
    for (int64_t cell = 0; cell < m.n_examples() * m.n_layers(); ++cell) {
      if (!m.is_measured(cell / m.n_layers(), cell % m.n_layers())) continue;
      if (std::isfinite(figures.nll(cell, s)) && std::isfinite(figures.token_accuracy(cell, s))) continue;
      fail(ExitCode::kBadData, name + ": figures of " + figures.name(s) + ", example " +
                                   m.example_id[static_cast<std::size_t>(cell / m.n_layers())] + ", layer " +
                                   std::to_string(m.layer[static_cast<std::size_t>(cell % m.n_layers())]) +
                                   " are not finite");
    }
  }
}

// A layer that has fewer examples than there are has the first ones, and no figures of the others.
void check_layer_examples(const std::string& name, const Measurement& m) {
  if (m.layer_examples.empty()) return;
  check_size(name, "layer_examples", m.layer_examples.size(), m.n_layers());
  for (int64_t c = 0; c < m.n_layers(); ++c) {
    const int64_t n = m.layer_examples[static_cast<std::size_t>(c)];
    const std::string layer = "layer " + std::to_string(m.layer[static_cast<std::size_t>(c)]);
    if (n < 1 || n > m.n_examples()) {
      fail(ExitCode::kBadData, name + ": layer_examples of " + layer + ": expected 1 to " +
                                   std::to_string(m.n_examples()) + ", found " + std::to_string(n));
    }
    for (int64_t e = n; e < m.n_examples(); ++e) {
      if (std::isnan(m.nll(e, c)) && std::isnan(m.token_accuracy(e, c)) && m.exact_match(e, c) == kNotMeasured)
        continue;
      fail(ExitCode::kBadData, name + ": example " + m.example_id[static_cast<std::size_t>(e)] + " has figures of " +
                                   layer + ", which layer_examples leaves out");
    }
  }
}

void check_finite(const std::string& name, const Measurement& m) {
  const auto bad = [&](const char* what, int64_t e, const std::string& where) {
    fail(ExitCode::kBadData,
         name + ": " + what + " of example " + m.example_id[static_cast<std::size_t>(e)] + where + " is not finite");
  };
  for (int64_t e = 0; e < m.n_examples(); ++e) {
    if (!std::isfinite(m.nll_base[static_cast<std::size_t>(e)])) bad("nll_base", e, "");
    if (!std::isfinite(m.token_accuracy_base[static_cast<std::size_t>(e)])) bad("token_accuracy_base", e, "");
    for (int64_t c = 0; c < m.n_layers(); ++c) {
      const std::string layer = ", layer " + std::to_string(m.layer[static_cast<std::size_t>(c)]);
      if (!m.is_measured(e, c)) continue;
      if (!std::isfinite(m.nll(e, c))) bad("nll", e, layer);
      if (!std::isfinite(m.token_accuracy(e, c))) bad("token_accuracy", e, layer);
    }
  }
}

}  // namespace

const stats::Table<double>* Measurement::find_signal(std::string_view variable) const {
  const auto found = signals.find(variable);
  return found == signals.end() || found->second.values.empty() ? nullptr : &found->second;
}

Columns columns_of(const Measurement& m) {
  Columns c{stats::Table<double>(m.n_examples(), m.n_layers()), stats::Table<double>(m.n_examples(), m.n_layers()),
            stats::Table<double>(m.n_examples(), m.n_layers())};
  for (int64_t e = 0; e < m.n_examples(); ++e) {
    const auto example = static_cast<std::size_t>(e);
    for (int64_t l = 0; l < m.n_layers(); ++l) {
      const double sign = m.layer_windowed_in_base[static_cast<std::size_t>(l)] ? -1.0 : 1.0;
      c.delta_nll(e, l) = m.delta_nll(e, l);
      c.exact_match_drop(e, l) = m.is_measured(e, l) ? sign * (m.exact_match_base[example] - m.exact_match(e, l)) + 0.0
                                                     : std::numeric_limits<double>::quiet_NaN();
      c.token_accuracy_drop(e, l) = sign * (m.token_accuracy_base[example] - m.token_accuracy(e, l)) + 0.0;
    }
  }
  return c;
}

Measurement first_examples(const Measurement& measurement, int64_t n_examples) {
  Measurement m = measurement;
  m.layer_examples.clear();
  const auto cut = [](auto& values, int64_t n) {
    if (!values.empty()) values.resize(static_cast<std::size_t>(n));
  };
  const auto cut_rows = [&](auto& table, int64_t rows) {
    if (table.values.empty()) return;
    table.rows = rows;
    cut(table.values, rows * table.cols);
  };
  cut(m.example_id, n_examples);
  cut(m.source, n_examples);
  cut(m.token_hash, n_examples);
  cut(m.answer_tokens, n_examples);
  cut(m.prompt_tokens, n_examples);
  cut(m.nll_base, n_examples);
  cut(m.exact_match_base, n_examples);
  cut(m.token_accuracy_base, n_examples);
  const int64_t n_cells = n_examples * m.n_layers();
  cut_rows(m.nll, n_examples);
  cut_rows(m.exact_match, n_examples);
  cut_rows(m.token_accuracy, n_examples);
  cut_rows(m.token_nll_base, n_examples);
  cut_rows(m.token_nll, n_cells);
  cut_rows(m.by_window.nll, n_cells);
  cut_rows(m.by_window.exact_match, n_cells);
  cut_rows(m.by_window.token_accuracy, n_cells);
  cut_rows(m.by_head.nll, n_cells);
  cut_rows(m.by_head.exact_match, n_cells);
  cut_rows(m.by_head.token_accuracy, n_cells);
  cut_rows(m.by_setting.nll, n_cells);
  cut_rows(m.by_setting.exact_match, n_cells);
  cut_rows(m.by_setting.token_accuracy, n_cells);
  for (auto& [name, table] : m.signals) cut_rows(table, table.rows == measurement.n_examples() ? n_examples : n_cells);
  return m;
}

namespace {

// Over the examples of a layer's column; delta(e, i): of an example and the i-th of n windows or settings.
template <typename Delta>
std::vector<double> means_over_examples(const Measurement& m, int64_t column, int64_t n, Delta delta) {
  std::vector<double> means;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0.0;
    const int64_t n_own =
        m.layer_examples.empty() ? m.n_examples() : m.layer_examples[static_cast<std::size_t>(column)];
    for (int64_t e = 0; e < n_own; ++e) sum += delta(e, i);
    means.push_back(sum / static_cast<double>(n_own));
  }
  return means;
}

}  // namespace

std::vector<double> mean_delta_nll_by_window(const Measurement& m, int64_t column) {
  return means_over_examples(m, column, m.by_window.n_windows(),
                             [&](int64_t e, int64_t w) { return m.delta_nll_by_window(e, column, w); });
}

std::vector<double> mean_delta_nll_by_setting(const Measurement& m, int64_t column) {
  return means_over_examples(m, column, m.by_setting.n_settings(),
                             [&](int64_t e, int64_t s) { return m.delta_nll_by_setting(e, column, s); });
}

std::string FiguresBySetting::name(int64_t setting) const {
  const auto s = static_cast<std::size_t>(setting);
  return setting_name(window[s], kv[s]);
}

void check_measurement(const Measurement& m, const std::string& name) {
  if (m.n_examples() == 0) fail(ExitCode::kBadData, name + ": holds no example");
  if (m.n_layers() == 0) fail(ExitCode::kBadData, name + ": holds no layer");
  if (!m.source.empty()) check_size(name, "source", m.source.size(), m.n_examples());
  check_size(name, "answer_tokens", m.answer_tokens.size(), m.n_examples());
  check_size(name, "prompt_tokens", m.prompt_tokens.size(), m.n_examples());
  check_size(name, "layer_windowed_in_base", m.layer_windowed_in_base.size(), m.n_layers());
  check_size(name, "nll_base", m.nll_base.size(), m.n_examples());
  check_size(name, "exact_match_base", m.exact_match_base.size(), m.n_examples());
  check_size(name, "token_accuracy_base", m.token_accuracy_base.size(), m.n_examples());
  check_table(name, "nll", m.nll, m);
  check_table(name, "exact_match", m.exact_match, m);
  check_table(name, "token_accuracy", m.token_accuracy, m);
  check_layer_examples(name, m);
  check_finite(name, m);
  check_by_window(name, m);
  check_by_head(name, m);
  check_by_setting(name, m);
  check_signals(name, m);
}

}  // namespace winnow::calibration
