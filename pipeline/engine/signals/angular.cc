// Angular distance of the hidden state before and after the layer's attention, arccos(cosine) / pi as Gromov et al.
// (The Unreasonable Ineffectiveness of the Deeper Layers, arXiv 2403.17887) take it to find layers that can be dropped:
// they compare the inputs of two layers in the last row, this is of attention alone, mean over the rows that predict
// the answer. 0: attention turns nothing.

#include <algorithm>
#include <span>

#include "model/layer.h"
#include "pipeline/engine/signals/functions.h"

namespace winnow::engine {

SignalFinish measure_angular(const LayerState& state, const SignalOptions& /*options*/) {
  kernels::Ops& ops = state.ops;
  const int64_t tile = ops.device().row_tile();
  const int64_t begin = state.answer_start - 1 - state.first_row;
  const int64_t end = state.n_tokens - 1 - state.first_row;
  const std::span<double> angles = state.results.take<double>(static_cast<std::size_t>(end - begin));
  for (int64_t first = begin / tile * tile; first < end; first += state.hidden.n_rows) {
    const int64_t n_rows = std::min(state.hidden.n_rows, (end - first + tile - 1) / tile * tile);
    const kernels::ConstRows x = state.x.slice(first, n_rows);
    const kernels::Rows added = state.hidden.slice(0, n_rows);
    ops.copy_rows(x, added);
    ops.linear(state.attention.slice(first, n_rows), state.weights.o, state.weights.o_bias, added, true);
    const int64_t from = std::max(begin, first) - first;
    const int64_t n = std::min(end - first, n_rows) - from;
    ops.row_angles(x.slice(from, n), kernels::ConstRows(added).slice(from, n),
                   angles.subspan(static_cast<std::size_t>(first + from - begin), static_cast<std::size_t>(n)));
  }
  return [angles](SignalValues& values) {
    double sum = 0.0;
    for (const double angle : angles) sum += angle;
    values["angular_distance"] = {sum / static_cast<double>(angles.size())};
  };
}

}  // namespace winnow::engine
