// A pattern says which layers of a model are windowed, as users, selections and searches write it down. What each layer
// sees is other data (pipeline/engine/layer_windows.h), which by_layer() makes of a pattern.
#pragma once

#include <vector>

namespace winnow {

// (n_layers), true where the layer is windowed.
using Pattern = std::vector<bool>;

// Returns one of the two values for each layer, as the pattern says; (n_layers).
template <typename T>
std::vector<T> by_layer(const Pattern& pattern, const T& of_windowed, const T& of_full) {
  std::vector<T> values;
  values.reserve(pattern.size());
  for (const bool is_windowed : pattern) values.push_back(is_windowed ? of_windowed : of_full);
  return values;
}

}  // namespace winnow
