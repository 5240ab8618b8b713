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
  Vector(const void* row, kernels::DType dtype, int64_t size) : values_(static_cast<std::size_t>(size)) {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      values_[i] = dtype == kernels::DType::kBf16 ? kernels::bfloat16_to_float(static_cast<const uint16_t*>(row)[i])
                                                  : static_cast<const float*>(row)[i];
      length_ += values_[i] * values_[i];
    }
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
  const kernels::DType dtype = ops.device().residual_dtype();
  const int64_t hidden = state.config.hidden;
  const int64_t tile = ops.device().row_tile();
  const int64_t begin = state.answer_start - 1 - state.first_row;
  const int64_t end = state.n_tokens - 1 - state.first_row;
  double sum = 0.0;
  for (int64_t first = begin / tile * tile; first < end; first += state.hidden.n_rows) {
    const int64_t n_rows = std::min(state.hidden.n_rows, (end - first + tile - 1) / tile * tile);
    const void* x = kernels::row_pointer(state.x, dtype, first, hidden);
    const void* attention =
        kernels::row_pointer(state.attention, ops.device().activation_dtype(), first, state.config.heads.q_dim());
    ops.copy_rows(x, state.hidden.rows, n_rows, hidden);
    ops.linear(attention, state.weights.o, state.weights.o_bias, state.hidden.rows, n_rows, true);
    const int64_t bytes = n_rows * hidden * kernels::size_bytes(dtype);
    ops.copy_async(x, state.hidden.before, bytes);
    ops.copy_async(state.hidden.rows, state.hidden.after, bytes);
    ops.device().synchronize();
    for (int64_t row = std::max(begin, first); row < std::min(end, first + n_rows); ++row) {
      const Vector before(kernels::row_pointer(state.hidden.before, dtype, row - first, hidden), dtype, hidden);
      const Vector after(kernels::row_pointer(state.hidden.after, dtype, row - first, hidden), dtype, hidden);
      sum += before.angular_distance(after);
    }
  }
  values["angular_distance"] = {sum / static_cast<double>(end - begin)};
}

}  // namespace winnow::engine
