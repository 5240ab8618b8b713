#include "pipeline/engine/signals/host_results.h"

#include <algorithm>

namespace winnow::engine {
namespace {

// To lock a page of the host's memory takes longer than most signals: few blocks, and large ones.
constexpr std::size_t kBlockBytes = std::size_t{4} << 20U;
constexpr std::size_t kAlignment = 64;

}  // namespace

std::byte* HostResults::take_bytes(std::size_t n_bytes) {
  const std::size_t padded = (n_bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (blocks_.empty() || used_ + padded > static_cast<std::size_t>(blocks_.back()->size_bytes())) {
    const std::size_t size = std::max(padded, kBlockBytes);
    blocks_.push_back(device_.allocate_host(static_cast<int64_t>(size), "results of the signals"));
    used_ = 0;
  }
  std::byte* bytes = blocks_.back()->bytes().data() + used_;
  used_ += padded;
  return bytes;
}

}  // namespace winnow::engine
