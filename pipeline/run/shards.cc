#include "pipeline/run/shards.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <limits>
#include <span>

#include "base/error.h"
#include "base/sha256.h"
#include "results/storage/hdf5.h"

namespace winnow::run {
namespace {

constexpr const char* kShardFormat = "winnow-shard";
constexpr int64_t kShardVersion = 1;

// The first signals of layers share a table, all of them as soon as one was measured: these columns, and one a key
// head. Signals that came later have a table each, of the name of their variable.
struct SharedColumn {
  const char* variable;
  double not_measured;
};
constexpr std::array kSharedColumns = {SharedColumn{"nll_removed", 0.0},
                                       SharedColumn{"lazy_ratio", std::numeric_limits<double>::quiet_NaN()},
                                       SharedColumn{"lazy_ratio_compat", std::numeric_limits<double>::quiet_NaN()}};
constexpr const char* kSharedHeads = "attention_mass_outside_kv_head";
constexpr auto kSharedSingles = static_cast<int64_t>(kSharedColumns.size());

bool is_shared(const std::string& variable) {
  return variable == kSharedHeads ||
         std::ranges::any_of(kSharedColumns, [&](const SharedColumn& column) { return variable == column.variable; });
}

// The columns of a shard as they are stored.
struct Columns {
  std::vector<int64_t> variant;
  std::vector<std::string> name;  // empty, or one per variant
  std::vector<double> nll;
  std::vector<uint8_t> exact_match;
  std::vector<double> token_accuracy;
  std::vector<double> kl;             // empty, or one per variant
  std::vector<double> layer_signals;  // (variants, 3 + key heads), or empty
  std::vector<std::pair<engine::SignalLayout::Column, std::vector<double>>> signals;  // (variants, width) each
  std::vector<float> token_nll;                                                       // (variants, n_tokens), or empty
};

void append_shared(const engine::Score& score, int64_t n_kv_heads, std::vector<double>& table) {
  for (const SharedColumn& column : kSharedColumns) {
    const auto found = score.signals.find(column.variable);
    table.push_back(found == score.signals.end() ? column.not_measured : found->second.front());
  }
  const auto found = score.signals.find(kSharedHeads);
  std::vector<double> heads = found == score.signals.end() ? std::vector<double>{} : found->second;
  heads.resize(static_cast<std::size_t>(n_kv_heads), 0.0);
  table.insert(table.end(), heads.begin(), heads.end());
}

// The tables of the signals of layers. The base's row has no figures.
void add_signals(const Shard& shard, Columns& columns) {
  const auto is_of_shared = [](const engine::SignalLayout::Column& column) { return is_shared(column.variable); };
  if (std::ranges::any_of(shard.signals.columns, is_of_shared)) {
    for (const engine::Score& score : shard.scores) {
      append_shared(score, shard.signals.n_kv_heads, columns.layer_signals);
    }
  }
  for (const engine::SignalLayout::Column& column : shard.signals.columns) {
    if (is_of_shared(column)) continue;
    engine::SignalLayout alone;
    alone.columns = {column};
    std::vector<double>& table = columns.signals.emplace_back(column, std::vector<double>{}).second;
    const auto width = static_cast<std::size_t>(column.width);
    table.resize(shard.scores.size() * width);
    for (std::size_t i = 0; i < shard.scores.size(); ++i) {
      alone.put(shard.scores[i].signals, std::span(table).subspan(i * width, width));
    }
  }
}

Columns columns_of(const Shard& shard) {
  Columns columns;
  columns.variant = shard.variants;
  columns.name = shard.names;
  for (const engine::Score& score : shard.scores) {
    columns.nll.push_back(score.nll_nats);
    columns.exact_match.push_back(score.exact_match ? 1 : 0);
    columns.token_accuracy.push_back(score.token_accuracy);
    if (shard.has_kl) columns.kl.push_back(score.kl_nats);
    columns.token_nll.insert(columns.token_nll.end(), score.token_nll_nats.begin(), score.token_nll_nats.end());
  }
  add_signals(shard, columns);
  return columns;
}

template <typename T>
void append(std::string& bytes, const std::vector<T>& values) {
  const std::size_t begin = bytes.size();
  bytes.resize(begin + values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data() + begin, values.data(), values.size() * sizeof(T));
}

// Over everything that a resume takes from the file: HDF5 notices a truncated file, but no flipped bit.
std::string content_sha256(const Shard& shard, const ShardIdentity& identity, const Columns& columns) {
  std::string bytes = identity.measurement + '\n' + identity.data_sha256 + '\n' + shard.data_set + '\n' +
                      shard.example_id + '\n' + std::to_string(shard.example) + '\n' + std::to_string(shard.n_tokens) +
                      '\n';
  append(bytes, columns.variant);
  for (const std::string& name : columns.name) bytes += name + '\n';
  append(bytes, columns.nll);
  append(bytes, columns.exact_match);
  append(bytes, columns.token_accuracy);
  append(bytes, columns.kl);
  append(bytes, columns.layer_signals);
  for (const auto& [column, values] : columns.signals) {
    bytes += column.variable + '\n';
    append(bytes, values);
  }
  append(bytes, columns.token_nll);
  return sha256_of(bytes);
}

// "calibration.e000012.5f0c93ab12de.h5": the same cells of the same example always get the same name.
std::string file_name(const Shard& shard) {
  std::string key = shard.data_set + ' ' + std::to_string(shard.example);
  for (std::size_t i = 0; i < shard.variants.size(); ++i) {
    key += ' ' + (shard.names.empty() ? std::to_string(shard.variants[i]) : shard.names[i]);
  }
  key += shard.scores.front().token_nll_nats.empty() ? "" : " tokens";
  std::string set = shard.data_set;
  std::replace(set.begin(), set.end(), '/', '.');
  std::string number = std::to_string(shard.example);
  number.insert(0, number.size() < 6 ? 6 - number.size() : 0, '0');
  return set + ".e" + number + "." + sha256_of(key).substr(0, 12) + ".h5";
}

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what) {
  fail(ExitCode::kBadData, file.string() + ": " + what);
}

// Signals that have a table of their own: all that the list knows.
void read_own_signals(const storage::Group& root, Columns& columns) {
  for (const SignalSpec& spec : signal_specs()) {
    for (const SignalVariable& variable : spec.variables) {
      if (is_shared(variable.name) || variable.source != SignalSource::kMeasured || !root.contains(variable.name)) {
        continue;
      }
      auto table = root.read<double>(variable.name, 2);
      columns.signals.emplace_back(engine::SignalLayout::Column{variable.name, table.shape[1]},
                                   std::move(table.values));
    }
  }
}

Columns read_columns(const std::filesystem::path& file, const storage::Group& root, int64_t n_tokens) {
  Columns columns;
  columns.variant = root.read<int64_t>("variant", 1).values;
  if (root.contains("name")) columns.name = root.read<std::string>("name", 1).values;
  columns.nll = root.read<double>("nll", 1).values;
  columns.exact_match = root.read<uint8_t>("exact_match", 1).values;
  columns.token_accuracy = root.read<double>("token_accuracy", 1).values;
  if (root.contains("kl")) columns.kl = root.read<double>("kl", 1).values;
  if (root.contains("layer_signals")) columns.layer_signals = root.read<double>("layer_signals", 2).values;
  read_own_signals(root, columns);
  if (root.contains("token_nll")) columns.token_nll = root.read<float>("token_nll", 2).values;
  const std::size_t n = columns.variant.size();
  const bool tokens_fit =
      columns.token_nll.empty() || columns.token_nll.size() == n * static_cast<std::size_t>(n_tokens);
  const bool signals_fit = std::ranges::all_of(columns.signals, [&](const auto& signal) {
    return signal.second.size() == n * static_cast<std::size_t>(signal.first.width);
  });
  if (n == 0 || !signals_fit || columns.nll.size() != n || columns.exact_match.size() != n ||
      columns.token_accuracy.size() != n || n_tokens < 1 || !tokens_fit || columns.layer_signals.size() % n != 0 ||
      (!columns.kl.empty() && columns.kl.size() != n) || (!columns.name.empty() && columns.name.size() != n)) {
    refuse(file, "the lengths of its tables do not agree");
  }
  return columns;
}

// What the shared table has, of each of its signals whether it was measured or not.
void add_shared_layout(int64_t width, engine::SignalLayout& layout) {
  if (width < kSharedSingles) return;
  layout.n_kv_heads = width - kSharedSingles;
  for (const SharedColumn& column : kSharedColumns) layout.columns.push_back({column.variable, 1});
  layout.columns.push_back({kSharedHeads, layout.n_kv_heads});
}

void fill_scores(const Columns& columns, Shard& shard) {
  shard.variants = columns.variant;
  shard.names = columns.name;
  shard.has_kl = !columns.kl.empty();
  const std::size_t n_shared = columns.layer_signals.size() / columns.variant.size();
  add_shared_layout(static_cast<int64_t>(n_shared), shard.signals);
  const engine::SignalLayout shared = shard.signals;
  for (const auto& [column, values] : columns.signals) shard.signals.columns.push_back(column);
  for (std::size_t i = 0; i < columns.variant.size(); ++i) {
    engine::Score score;
    score.nll_nats = columns.nll[i];
    score.exact_match = columns.exact_match[i] != 0;
    score.token_accuracy = columns.token_accuracy[i];
    if (shard.has_kl) score.kl_nats = columns.kl[i];
    if (shared.size() > 0) score.signals = shared.get(std::span(columns.layer_signals).subspan(i * n_shared, n_shared));
    for (const auto& [column, values] : columns.signals) {
      const auto width = static_cast<std::size_t>(column.width);
      const auto own = std::span(values).subspan(i * width, width);
      score.signals[column.variable].assign(own.begin(), own.end());
    }
    if (!columns.token_nll.empty()) {
      const float* tokens = &columns.token_nll[i * static_cast<std::size_t>(shard.n_tokens)];
      score.token_nll_nats.assign(tokens, tokens + shard.n_tokens);
    }
    shard.scores.push_back(std::move(score));
  }
}

}  // namespace

void write_shard(const std::filesystem::path& directory, const Shard& shard, const ShardIdentity& identity) {
  const Columns columns = columns_of(shard);
  storage::File file = storage::File::create(directory / file_name(shard));
  {
    storage::Group root = file.root();
    const auto n = static_cast<int64_t>(columns.variant.size());
    root.write<int64_t>("variant", columns.variant, {n});
    if (!columns.name.empty()) root.write<std::string>("name", columns.name, {n});
    root.write<double>("nll", columns.nll, {n});
    root.write<uint8_t>("exact_match", columns.exact_match, {n});
    root.write<double>("token_accuracy", columns.token_accuracy, {n});
    if (!columns.kl.empty()) root.write<double>("kl", columns.kl, {n});
    if (!columns.layer_signals.empty()) {
      root.write<double>("layer_signals", columns.layer_signals, {n, kSharedSingles + shard.signals.n_kv_heads});
    }
    for (const auto& [column, values] : columns.signals) root.write<double>(column.variable, values, {n, column.width});
    if (!columns.token_nll.empty()) root.write<float>("token_nll", columns.token_nll, {n, shard.n_tokens});
    root.set_attribute<std::string>(".", "format", kShardFormat);
    root.set_attribute<int64_t>(".", "format_version", kShardVersion);
    root.set_attribute<std::string>(".", "measurement", identity.measurement);
    root.set_attribute<std::string>(".", "data_sha256", identity.data_sha256);
    root.set_attribute<std::string>(".", "data_set", shard.data_set);
    root.set_attribute<int64_t>(".", "example", shard.example);
    root.set_attribute<std::string>(".", "example_id", shard.example_id);
    root.set_attribute<int64_t>(".", "answer_tokens", shard.n_tokens);
    root.set_attribute<double>(".", "seconds", shard.seconds);
    root.set_attribute<std::string>(".", "made_by", shard.made_by);
    root.set_attribute<std::string>(".", "content_sha256", content_sha256(shard, identity, columns));
  }
  file.commit();
}

ShardFile read_shard(const std::filesystem::path& file) {
  const storage::File opened = storage::File::open(file);
  storage::require_format(opened, kShardFormat, kShardVersion);
  const storage::Group root = opened.root();
  const auto text = [&](const char* name) {
    const auto value = root.string_attribute(".", name);
    if (!value) refuse(file, std::string("attribute ") + name + " is missing");
    return *value;
  };
  const auto number = [&](const char* name) {
    const auto value = root.integer_attribute(".", name);
    if (!value) refuse(file, std::string("attribute ") + name + " is missing");
    return *value;
  };
  ShardFile read;
  read.identity = {text("measurement"), text("data_sha256")};
  read.shard.data_set = text("data_set");
  read.shard.example = number("example");
  read.shard.example_id = text("example_id");
  read.shard.n_tokens = number("answer_tokens");
  const Columns columns = read_columns(file, root, read.shard.n_tokens);
  fill_scores(columns, read.shard);
  if (content_sha256(read.shard, read.identity, columns) != text("content_sha256")) {
    refuse(file, "its content does not match its checksum");
  }
  return read;
}

}  // namespace winnow::run
