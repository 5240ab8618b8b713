#include "kernels/weight_queue.h"

#include <algorithm>

namespace winnow::kernels {

namespace {

class ImmediateQueue final : public WeightQueue {
 public:
  explicit ImmediateQueue(Device& device) : device_(device) {}

  void begin(std::size_t /*slot*/) override {}
  Matrix load(const HostTensor& source, WeightUse use, std::span<const std::byte> staged, std::span<std::byte> packed,
              std::span<std::byte> storage) override {
    const int64_t packed_bytes = device_.packed_bytes(source, use);
    if (packed_bytes > 0) {
      if (staged.empty()) {
        device_.pack(source, packed);
        staged = packed;
      }
      return device_.unpack(source, staged, storage);
    }
    if (staged.empty()) return device_.load(source, use, storage);
    std::ranges::copy(staged, storage.begin());
    return device_.weight_at(storage.data(), source, use);
  }
  void end(std::size_t /*slot*/) override {}
  void enter(std::size_t /*slot*/) override {}
  void leave(std::size_t /*slot*/) override {}

 private:
  Device& device_;
};

}  // namespace

std::unique_ptr<WeightQueue> make_immediate_queue(Device& device) { return std::make_unique<ImmediateQueue>(device); }

}  // namespace winnow::kernels
