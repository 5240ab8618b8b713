// Writes variables as netCDF readers want them: along named dimensions, with units and long_name. Every writer of a
// file with dimensions uses it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "results/stats/figure.h"
#include "results/storage/hdf5.h"
#include "results/storage/provenance.h"

namespace winnow::storage {

// Format of the results of one model: of calibrate, search and evaluate.
inline constexpr const char* kResultsFormat = "winnow-results";
inline constexpr int64_t kResultsVersion = 1;

inline constexpr const char* kNats = "nats per token";
inline constexpr const char* kOne = "1";
inline constexpr const char* kTokens = "tokens";
inline constexpr const char* kText = "text";

struct Description {
  const char* units;
  std::string long_name;
};

inline void describe(Group& group, const std::string& name, const Description& description) {
  group.set_attribute<std::string>(name, "units", description.units);
  group.set_attribute<std::string>(name, "long_name", description.long_name);
}

// A variable along the named dimensions of its group, whose lengths `shape` must agree with.
struct Variable {
  std::string name;
  std::vector<std::string> dimensions;
  std::vector<int64_t> shape;
};

template <typename T>
void write_variable(Group& group, const Variable& variable, const std::vector<T>& values,
                    const Description& description) {
  group.write<T>(variable.name, values, variable.shape);
  for (std::size_t axis = 0; axis < variable.dimensions.size(); ++axis) {
    if (variable.dimensions[axis] != variable.name) {
      group.attach_scale(variable.name, static_cast<int64_t>(axis), variable.dimensions[axis]);
    }
  }
  describe(group, variable.name, description);
}

// Writes a dimension with its coordinate variable.
template <typename T>
void write_coordinate(Group& group, const std::string& name, const std::vector<T>& values,
                      const Description& description) {
  group.write<T>(name, values, {static_cast<int64_t>(values.size())});
  group.make_scale(name);
  describe(group, name, description);
}

// Write a scalar figure, NaN with the attribute `status` where it is not defined, and one with its interval, whose ends
// are PREFIX_ci_low and PREFIX_ci_high.
void write_figure(Group& group, const std::string& name, const stats::Figure& figure, const std::string& long_name);
void write_estimate(Group& group, const std::string& name, const std::string& interval_prefix,
                    const stats::Estimate& estimate, const std::string& long_name);
// Writes `token_hash` along the dimension `example`, unless there is none.
void write_token_hashes(Group& group, const std::vector<std::string>& hashes);
// Writes the root attributes of a results file; `title` is its one line.
void write_root(Group& root, const std::string& title, const Provenance& provenance);
// Writes /provenance.
void write_provenance(Group group, const Provenance& provenance);

}  // namespace winnow::storage
