// The way of weights into a backend's memory while its operations run.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "kernels/device.h"

namespace winnow::kernels {

// A queue beside that of the operations. It fills slots, pieces of the backend's memory that one layer after another
// goes through; two calls for each of both sides keep them apart:
//   - begin() makes what follows wait for the operations that had been asked for at leave();
//   - enter() makes the operations that follow wait for what was queued up to end().
// Nobody waits on the host, except where values of a source are read. All other memory that it is given must outlive
// it, but for sources. Slots are small numbers. To be used by one thread.
class WeightQueue {
 public:
  virtual ~WeightQueue() = default;

  virtual void begin(std::size_t slot) = 0;
  // Brings a tensor to the beginning of `storage`, memory of the backend, as Device::load() does. `staged`: what
  // Device::stage() made of it; empty: its values are read now, and have been when this returns. `packed`: memory of
  // the backend of Device::packed_bytes() or more, aligned to 256 bytes; calls share it.
  virtual Matrix load(const HostTensor& source, WeightUse use, std::span<const std::byte> staged,
                      std::span<std::byte> packed, std::span<std::byte> storage) = 0;
  virtual void end(std::size_t slot) = 0;
  virtual void enter(std::size_t slot) = 0;
  virtual void leave(std::size_t slot) = 0;
};

// Returns the queue of a device whose memory is the host's: it does everything at once.
std::unique_ptr<WeightQueue> make_immediate_queue(Device& device);

}  // namespace winnow::kernels
