// Layers that do not all stay in a backend's memory: which do, and the ring of buffers that the others go through.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "kernels/weight_queue.h"

namespace winnow::model {

// Which layers of a model stay in the backend's memory. They are spread evenly among the others, so that the time in
// which they are computed covers the ways of those.
struct Residency {
  int64_t n_layers = 0;
  int64_t n_kept = 0;
  int64_t n_buffers = 0;  // that the others go through; 1 or more where there are any

  bool keeps_all() const { return n_kept == n_layers; }
  // Returns how many of the layers before this one stay: their own number among those that do.
  int64_t kept_before(int64_t layer) const { return n_layers == 0 ? 0 : layer * n_kept / n_layers; }
  bool keeps(int64_t layer) const { return kept_before(layer + 1) > kept_before(layer); }
  // Returns the layers that do not stay, ascending.
  std::vector<int64_t> streamed() const;
  // Returns the layers' worth of backend memory that this takes.
  int64_t n_slots() const { return n_kept + (keeps_all() ? 0 : n_buffers); }
};

// Brings layers through a few buffers in turn. A pass asks for one layer after another, and then for the first again:
// while the operations of one run, those that come next are on their way.
class LayerRing {
 public:
  // Queues everything of a layer into a buffer. Called between begin() and end() of the buffer.
  using Fill = std::function<void(int64_t layer, std::size_t buffer)>;

  // layers: those that go through it, ascending, at least one. n_ahead: how many are queued before they are asked for,
  // less than n_buffers. The queue must outlive this.
  LayerRing(std::vector<int64_t> layers, std::size_t n_buffers, std::size_t n_ahead, kernels::WeightQueue& queue,
            Fill fill);

  // Says how many are queued ahead from now on.
  void set_ahead(std::size_t n_ahead) { n_ahead_ = n_ahead; }
  // Returns the buffer with the layer, one of the ring's, for operations that are asked for from now on until leave().
  // Queues those that follow it.
  std::size_t enter(int64_t layer);
  // Says that no more operations will use the layer that was entered; nothing where there is none.
  void leave();
  // Queues the first layers of the ring that follow `layer`, which is not of it.
  void expect_after(int64_t layer);

 private:
  std::size_t position_of(int64_t layer) const;
  void queue_from(std::size_t position, std::size_t n);
  std::optional<std::size_t> find(int64_t layer) const;
  std::size_t replaceable(std::size_t position, std::size_t n) const;

  const std::vector<int64_t> layers_;
  std::size_t n_ahead_;
  kernels::WeightQueue& queue_;
  const Fill fill_;
  struct Held {
    int64_t layer = -1;    // -1: none
    int64_t last_use = 0;  // counts what happens to buffers
  };
  std::vector<Held> held_;  // by buffer
  int64_t n_uses_ = 0;
  std::optional<std::size_t> entered_;  // buffer
};

}  // namespace winnow::model
