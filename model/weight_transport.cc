#include "model/weight_transport.h"

#include <utility>

namespace winnow::model {

WeightTransport::WeightTransport(kernels::Device& device, WeightSharing* sharing, int64_t batch_bytes)
    : device_(device), sharing_(sharing) {
  if (sharing == nullptr || batch_bytes == 0) return;
  for (auto& memory : memory_) memory = device.allocate(batch_bytes, "packed weights");
}

std::span<std::byte> WeightTransport::take(int64_t size_bytes) {
  const auto first = static_cast<std::size_t>(n_taken_);
  n_taken_ += align(size_bytes);
  return memory_[current_]->bytes().subspan(first, static_cast<std::size_t>(size_bytes));
}

// Matrices lie one after another: they are sent together.
void WeightTransport::add_plain(std::span<std::byte> memory) {
  if (!plain_.empty()) {
    std::span<std::byte>& last = plain_.back();
    if (memory.data() - (last.data() + last.size()) < kAlignment) {
      last = {last.data(), memory.data() + memory.size()};
      return;
    }
  }
  plain_.push_back(memory);
}

kernels::Matrix WeightTransport::place(const kernels::HostTensor& source, kernels::WeightUse use,
                                       std::span<std::byte> at) {
  const auto size = static_cast<std::size_t>(device_.weight_bytes(source, use));
  // What takes no memory of the backend is read from the map by everyone.
  if (sharing_ == nullptr || size == 0) return device_.load(source, use, at);
  if (const int64_t packed_bytes = device_.packed_bytes(source, use); packed_bytes > 0) {
    const std::span<std::byte> packed = take(packed_bytes);
    if (sharing_->reads()) device_.pack(source, packed);
    packed_.push_back({source, packed, at.first(size)});
  } else {
    if (sharing_->reads()) device_.load(source, use, at);
    add_plain(at.first(size));
  }
  return device_.weight_at(at.data(), source, use);
}

void WeightTransport::unpack_sent() {
  if (sent_.empty()) return;
  // With its deadline: in the backend's own order of work there is none.
  sharing_->finish();
  for (const Packed& each : sent_) device_.unpack(each.source, each.packed, each.at);
  sent_.clear();
}

void WeightTransport::send() {
  if (sharing_ == nullptr) return;
  unpack_sent();
  if (n_taken_ > 0) sharing_->share(memory_[current_]->bytes().first(static_cast<std::size_t>(n_taken_)));
  for (const std::span<std::byte> memory : plain_) sharing_->share(memory);
  plain_.clear();
  sent_ = std::exchange(packed_, {});
  n_taken_ = 0;
  current_ = 1 - current_;
}

void WeightTransport::finish() {
  if (sharing_ == nullptr) return;
  unpack_sent();
  sharing_->finish();
}

}  // namespace winnow::model
