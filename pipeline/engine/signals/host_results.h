// Memory of the host for what signals get from the device: it lives as long as the pass that asks for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/device.h"

namespace winnow::engine {

class HostResults {
 public:
  // The device must outlive this.
  explicit HostResults(kernels::Device& device) : device_(device) {}

  // Returns memory of Device::allocate_host() for so many values, which nothing else has. Throws Error(kOutOfMemory).
  template <typename T>
  std::span<T> take(std::size_t n_values) {
    return {reinterpret_cast<T*>(take_bytes(n_values * sizeof(T))), n_values};
  }

 private:
  std::byte* take_bytes(std::size_t n_bytes);

  kernels::Device& device_;
  std::vector<std::unique_ptr<kernels::Buffer>> blocks_;
  std::size_t used_ = 0;  // of the last block
};

}  // namespace winnow::engine
