// Reads variables of a declared shape. Every reader of a results file uses it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/kv_type.h"
#include "results/stats/figure.h"
#include "results/stats/table.h"
#include "results/storage/hdf5.h"
#include "results/storage/provenance.h"

namespace winnow::storage {

[[noreturn]] inline void refuse_shape(const Group& group, const std::string& name, const std::vector<int64_t>& expected,
                                      const std::vector<int64_t>& found) {
  const auto text = [](const std::vector<int64_t>& shape) {
    std::string line = "[";
    for (const int64_t extent : shape) line += (line.size() > 1 ? ", " : "") + std::to_string(extent);
    return line + "]";
  };
  fail(ExitCode::kBadData, group.where(name) + ": expected the shape " + text(expected) + ", found " + text(found));
}

// Returns the values of a variable of exactly that shape. Throws Error(kBadData) for another.
template <typename T>
std::vector<T> read_variable(const Group& group, const std::string& name, const std::vector<int64_t>& shape) {
  Array<T> array = group.read<T>(name, static_cast<int64_t>(shape.size()));
  if (array.shape != shape) refuse_shape(group, name, shape, array.shape);
  return std::move(array.values);
}

template <typename T>
stats::Table<T> read_table(const Group& group, const std::string& name, int64_t rows, int64_t cols) {
  stats::Table<T> table;
  table.rows = rows;
  table.cols = cols;
  table.values = read_variable<T>(group, name, {rows, cols});
  return table;
}

// Read a scalar figure, and one with its interval, as write_figure() and write_estimate() leave them. Throw
// Error(kBadData) for NaN without a status.
stats::Figure read_figure(const Group& group, const std::string& name);
stats::Estimate read_estimate(const Group& group, const std::string& name, const std::string& interval_prefix);
// Returns `token_hash` of so many examples; none for a file without it.
std::vector<std::string> read_token_hashes(const Group& group, int64_t n_examples);
// Returns types of keys and values by their names. Throws Error(kBadData) for a name that is none.
std::vector<KvType> read_kv_types(const Group& group, const std::string& name, const std::vector<int64_t>& shape);
// Reads /provenance. Throws Error(kBadData) for a value of another type than its own.
Provenance read_provenance(const Group& group);

}  // namespace winnow::storage
