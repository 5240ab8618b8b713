#include "model/layer_ring.h"

#include <algorithm>
#include <utility>

namespace winnow::model {

std::vector<int64_t> Residency::streamed() const {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    if (!keeps(layer)) layers.push_back(layer);
  }
  return layers;
}

LayerRing::LayerRing(std::vector<int64_t> layers, std::size_t n_buffers, std::size_t n_ahead,
                     kernels::WeightQueue& queue, Fill fill)
    : layers_(std::move(layers)), n_ahead_(n_ahead), queue_(queue), fill_(std::move(fill)), held_(n_buffers) {}

// The place of the layer, or of the next one of the ring where it is none.
std::size_t LayerRing::position_of(int64_t layer) const {
  const auto next = std::lower_bound(layers_.begin(), layers_.end(), layer);
  return static_cast<std::size_t>(next - layers_.begin()) % layers_.size();
}

std::optional<std::size_t> LayerRing::find(int64_t layer) const {
  const auto at = std::find_if(held_.begin(), held_.end(), [&](const Held& held) { return held.layer == layer; });
  if (at == held_.end()) return std::nullopt;
  return static_cast<std::size_t>(at - held_.begin());
}

// Of the buffers whose layer is none of the n from that place on, the one that was used longest ago: its operations are
// the likeliest to be done. There is one, as the n are no more than the buffers and one of them is missing.
std::size_t LayerRing::replaceable(std::size_t position, std::size_t n) const {
  const auto is_wanted = [&](const Held& held) {
    for (std::size_t i = 0; i < n; ++i) {
      if (layers_[(position + i) % layers_.size()] == held.layer) return true;
    }
    return false;
  };
  std::size_t best = held_.size();
  for (std::size_t buffer = 0; buffer < held_.size(); ++buffer) {
    if (is_wanted(held_[buffer])) continue;
    if (best == held_.size() || held_[buffer].last_use < held_[best].last_use) best = buffer;
  }
  return best;
}

void LayerRing::queue_from(std::size_t position, std::size_t n) {
  n = std::min({n, held_.size(), layers_.size()});
  for (std::size_t i = 0; i < n; ++i) {
    const int64_t layer = layers_[(position + i) % layers_.size()];
    if (find(layer)) continue;
    const std::size_t buffer = replaceable(position, n);
    held_[buffer] = {-1, ++n_uses_};  // no layer's until all of it is queued
    queue_.begin(buffer);
    fill_(layer, buffer);
    queue_.end(buffer);
    held_[buffer].layer = layer;
  }
}

std::size_t LayerRing::enter(int64_t layer) {
  leave();
  const std::size_t position = position_of(layer);
  queue_from(position, 1);
  const std::size_t buffer = *find(layer);
  // Before those that follow are queued: they would only make it wait for them, too.
  queue_.enter(buffer);
  entered_ = buffer;
  held_[buffer].last_use = ++n_uses_;
  queue_from(position, 1 + n_ahead_);
  return buffer;
}

void LayerRing::leave() {
  if (entered_) queue_.leave(*entered_);
  entered_.reset();
}

void LayerRing::expect_after(int64_t layer) { queue_from(position_of(layer), n_ahead_); }

}  // namespace winnow::model
