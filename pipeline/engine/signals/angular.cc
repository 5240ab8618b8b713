// Angular distance of the hidden state before and after the layer's attention, arccos(cosine) / pi as Gromov et al.
// (The Unreasonable Ineffectiveness of the Deeper Layers, arXiv 2403.17887) take it to find layers that can be dropped:
// they compare the inputs of two layers in the last row, this is of attention alone, mean over the rows that predict
// the answer. 0: attention turns nothing.

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "kernels/convert.h"
#include "model/layer.h"
#include "pipeline/engine/signals/functions.h"

namespace winnow::engine {

namespace {

class Vector {
 public:
  // A residual row in the host's memory.
  explicit Vector(kernels::ConstRows row) : values_(static_cast<std::size_t>(row.cols)) {
    std::vector<float> values(values_.size());
    kernels::to_float32(row.bytes().data(), row.dtype, row.cols, values.data());
    std::ranges::copy(values, values_.begin());
    for (const double value : values_) length_ += value * value;
    length_ = std::sqrt(length_);
  }
  // Angle to the other, divided by pi. From the lengths of difference and sum of the unit vectors: the arccos of a
  // cosine near 1 would lose half of the digits. A vector of length 0 is taken as orthogonal to all others.
  double angular_distance(const Vector& other) const {
    if (length_ == 0.0 || other.length_ == 0.0) return length_ == other.length_ ? 0.0 : 0.5;
    double difference = 0.0;
    double sum = 0.0;
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const double a = values_[i] / length_;
      const double b = other.values_[i] / other.length_;
      difference += (a - b) * (a - b);
      sum += (a + b) * (a + b);
    }
    return 2.0 * std::atan2(std::sqrt(difference), std::sqrt(sum)) / std::numbers::pi;
  }

 private:
  std::vector<double> values_;
  double length_ = 0.0;
};

}  // namespace

void measure_angular(const LayerState& state, const SignalOptions& /*options*/, SignalValues& values) {
  kernels::Ops& ops = state.ops;
  const int64_t tile = ops.device().row_tile();
  const int64_t begin = state.answer_start - 1 - state.first_row;
  const int64_t end = state.n_tokens - 1 - state.first_row;
  double sum = 0.0;
  for (int64_t first = begin / tile * tile; first < end; first += state.hidden.rows.n_rows) {
    const int64_t n_rows = std::min(state.hidden.rows.n_rows, (end - first + tile - 1) / tile * tile);
    const kernels::ConstRows x = state.x.slice(first, n_rows);
    const kernels::Rows added = state.hidden.rows.slice(0, n_rows);
    const kernels::Rows before = state.hidden.before.slice(0, n_rows);
    const kernels::Rows after = state.hidden.after.slice(0, n_rows);
    ops.copy_rows(x, added);
    ops.linear(state.attention.slice(first, n_rows), state.weights.o, state.weights.o_bias, added, true);
    ops.copy_async(x.bytes(), before.bytes());
    ops.copy_async(added.bytes(), after.bytes());
    ops.device().synchronize();
    for (int64_t row = std::max(begin, first); row < std::min(end, first + n_rows); ++row) {
      sum += Vector(before.slice(row - first, 1)).angular_distance(Vector(after.slice(row - first, 1)));
    }
  }
  values["angular_distance"] = {sum / static_cast<double>(end - begin)};
}

}  // namespace winnow::engine
