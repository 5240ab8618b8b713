// The way of weights into a backend and, from the rank that reads them, to others.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/device.h"

namespace winnow::model {

// Shares weights among ranks that hold the same ones: one rank reads the checkpoint and sends the others what it read.
// Every rank of the group calls share() with the same sizes in the same order.
class WeightSharing {
 public:
  virtual ~WeightSharing() = default;
  // Returns true if this rank is the one that reads.
  virtual bool reads() const = 0;
  // Shares memory of the backend that is loaded (queued, on the rank that reads), or wanted (on the others). May return
  // before it is sent. Throws what the transport throws.
  virtual void share(std::span<std::byte> memory) = 0;
  // Waits until everything shared so far is in place on this rank.
  virtual void finish() = 0;
};

// Loads tensors and sends them batch by batch. What has a packed form (kernels/device.h) is sent in it, and unpacked on
// every rank while the next batch is read.
class WeightTransport {
 public:
  // Alignment of a matrix in a backend's memory, bytes: enough for vector loads and for cuBLASLt.
  static constexpr int64_t kAlignment = 256;
  static int64_t align(int64_t size_bytes) { return (size_bytes + kAlignment - 1) / kAlignment * kAlignment; }

  // sharing: null on a rank that loads for itself. batch_bytes: the most that the packed forms of a batch take, each
  // aligned. Takes twice that of the backend's memory, until it goes. References must outlive this. Throws
  // Error(kOutOfMemory).
  WeightTransport(kernels::Device& device, WeightSharing* sharing, int64_t batch_bytes = 0);

  // Loads a tensor to the beginning of `at` or, where it comes from another rank or is packed, says what will be there.
  kernels::Matrix place(const kernels::HostTensor& source, kernels::WeightUse use, std::span<std::byte> at);
  // Ends a batch and sends it.
  void send();
  // Waits until all batches are in place.
  void finish();

 private:
  struct Packed {
    kernels::HostTensor source;
    std::span<std::byte> packed;
    std::span<std::byte> at;
  };

  std::span<std::byte> take(int64_t size_bytes);
  void add_plain(std::span<std::byte> memory);
  void unpack_sent();

  kernels::Device& device_;
  WeightSharing* sharing_;
  std::array<std::unique_ptr<kernels::Buffer>, 2> memory_;  // of this batch and of the one before, which is on its way
  std::size_t current_ = 0;
  int64_t n_taken_ = 0;  // bytes of the current memory
  std::vector<Packed> packed_;
  std::vector<std::span<std::byte>> plain_;
  std::vector<Packed> sent_;
};

}  // namespace winnow::model
