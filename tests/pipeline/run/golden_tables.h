// Goldens of statistics: JSON that golden/make_*.py computes with numpy and scipy.
#pragma once

#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "results/calibration/measurement.h"

namespace winnow {

// golden/NAME.json, checked: one of another format throws with the command that rebuilds it.
inline nlohmann::json read_golden_tables(const std::string& name) {
  std::ifstream file(std::string(WINNOW_TESTS_DIR) + "/golden/" + name + ".json");
  nlohmann::json golden = nlohmann::json::parse(file);
  if (golden.at("format") != "winnow-" + name + "-golden" || golden.at("version") != 1) {
    throw std::runtime_error("golden/" + name + ".json is stale: run " + golden.at("made_by").get<std::string>());
  }
  return golden;
}

// A list of equally long rows.
template <typename T>
stats::Table<T> table_of(const nlohmann::json& rows) {
  stats::Table<T> table(static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows.at(0).size()));
  for (int64_t r = 0; r < table.rows; ++r) {
    for (int64_t c = 0; c < table.cols; ++c) {
      table(r, c) = rows.at(static_cast<std::size_t>(r)).at(static_cast<std::size_t>(c)).get<T>();
    }
  }
  return table;
}

}  // namespace winnow
