// Pieces of a collection's file, shared by the parts of its writer and private to them.
#pragma once

#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "results/campaign/collection.h"
#include "results/storage/variables.h"

namespace winnow::campaign {

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
inline constexpr const char* kSeconds = "s";
inline constexpr const char* kBytes = "bytes";
inline constexpr const char* kNoResults = "the cell has no results (see state and reason)";
// Names of variables along cell, by which readers know what to show beside a figure (CF conventions).
inline constexpr const char* kCoordinates = "model dataset window window_keys sinks decode target seed";

// Returns a string for each cell.
std::vector<std::string> texts_of(const std::vector<CollectedCell>& cells,
                                  const std::function<std::string(const CollectedCell&)>& get);

// Writes the dimension prefix + "cell" of a group with its coordinate, and the variables that tell cells apart:
// kCoordinates, each with the prefix.
void write_cells(storage::Group& group, const std::vector<CollectedCell>& cells, const std::string& prefix);

// A variable of figures: float64, NaN until put. `shape` begins with the cells.
class FigureVariable {
 public:
  FigureVariable(storage::Variable variable, storage::Description description);
  void put(int64_t index, double value) { values_[static_cast<std::size_t>(index)] = value; }
  void put(int64_t index, const stats::Figure& figure);
  void explain(const std::string& reason) { reasons_.insert(reason); }  // of a NaN that is not padding
  // Writes the variable. `coordinates` may be null.
  void write(storage::Group& group, const char* coordinates) const;

 private:
  storage::Variable variable_;
  storage::Description description_;
  std::vector<double> values_;
  std::set<std::string> reasons_;
};

// A variable [cell], and the figure of a cell that it has.
struct CellFigure {
  const char* name;
  storage::Description description;
  std::function<stats::Figure(const CellSummary&)> get;
};
void write_cell_figures(storage::Group& group, const std::vector<CollectedCell>& cells,
                        const std::vector<CellFigure>& figures, const char* coordinates);

// Returns what gets a number of /provenance, of either type.
std::function<stats::Figure(const CellSummary&)> recorded(const char* name);

void write_agreement(storage::Group group, const std::vector<CollectedCell>& cells, const RankAgreement& agreement);
void write_collected_provenance(storage::Group group, const std::vector<CollectedCell>& cells);

}  // namespace winnow::campaign
