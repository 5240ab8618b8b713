// Finds the places of a tile that give a row the same bits.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"

namespace winnow::engine {

// A row may lie at its own position's place of a tile (its position modulo row_tile()), as it does in a pass over the
// whole text, without any doubt. Elsewhere a product may round otherwise: some kernels of OpenBLAS compute the last
// rows of a tile with other instructions than the first. Which places are alike is found out once, with the model's own
// weights, so that rows of many sequences can share a tile and still have the bits of a pass over the whole text.
class RowPlaces {
 public:
  // Computes one tile in which all rows are the same, and compares the rows that come out.
  RowPlaces(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights);
  // Describes a tile in which each place has the given class, (row_tile): rows of one class may change places.
  explicit RowPlaces(const std::vector<int32_t>& class_of_place);
  // Returns the rule that keeps every row at the place of its position.
  static RowPlaces natural(int64_t tile);

  // Places in a stack of tiles for one row at each position, each of the class of that position's own place; as few
  // tiles as the classes allow.
  struct Stack {
    std::vector<int64_t> at;
    int64_t n_rows = 0;
  };
  Stack stack(const std::vector<int64_t>& positions) const;
  // Returns the most rows of a stack while all positions rise together.
  int64_t most_rows(std::vector<int64_t> positions) const;
  int64_t n_classes() const { return static_cast<int64_t>(places_.size()); }

 private:
  void group(const std::vector<int32_t>& class_of_place);

  std::vector<std::size_t> class_;            // (row_tile) index of places_
  std::vector<std::vector<int64_t>> places_;  // by class, rising
};

}  // namespace winnow::engine
