// CPUs that load weights as a GPU does.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/weight_queue.h"

namespace winnow::testing {

// One that keeps all layers and has a packed form of weights.
class PackingCpu : public cpu::CpuBackend {
 public:
  PackingCpu() : CpuBackend({.n_threads = 2}) {}

  int64_t resident_layers(int64_t n_layers) const override { return n_layers; }
  int64_t packed_bytes(const kernels::HostTensor& source, kernels::WeightUse /*use*/) const override {
    const auto rows = source.values ? source.values->packed_rows() : std::nullopt;
    return rows ? source.rows() * rows->row_bytes() : 0;
  }
  void pack(const kernels::HostTensor& source, std::span<std::byte> packed) override {
    ++n_packed_;
    const int64_t row_bytes = source.values->packed_rows()->row_bytes();
    for (int64_t row = 0; row < source.rows(); ++row) {
      source.values->pack_row(row, packed.data() + row * row_bytes);
    }
  }
  kernels::Matrix unpack(const kernels::HostTensor& source, std::span<const std::byte> packed,
                         std::span<std::byte> storage) override {
    ++n_unpacked_;
    const kernels::PackedRows rows = *source.values->packed_rows();
    auto* const to = reinterpret_cast<float*>(storage.data());
    for (int64_t i = 0; i < source.count(); ++i) {
      to[i] = kernels::packed_value(rows, packed.data() + i / rows.cols * rows.row_bytes(), i % rows.cols);
    }
    return {to, kernels::DType::kF32, source.rows(), source.cols()};
  }
  int n_packed() const { return n_packed_; }
  int n_unpacked() const { return n_unpacked_; }

 private:
  int n_packed_ = 0;
  int n_unpacked_ = 0;
};

// One whose weights come as late as a queue allows, at enter(), into memory that is spoilt as early as it allows, when
// they are asked for: whoever reads a weight too early, or one that is being replaced, reads rubbish.
class LateCpu final : public PackingCpu {
 public:
  std::unique_ptr<kernels::WeightQueue> make_weight_queue() override { return std::make_unique<Queue>(*this); }

 private:
  class Queue final : public kernels::WeightQueue {
   public:
    explicit Queue(LateCpu& cpu) : cpu_(cpu), at_once_(kernels::make_immediate_queue(cpu)) {}
    void begin(std::size_t slot) override {
      current_ = slot;
      waiting_[slot].clear();
    }
    kernels::Matrix load(const kernels::HostTensor& source, kernels::WeightUse use, std::span<const std::byte> staged,
                         std::span<std::byte> packed, std::span<std::byte> storage) override {
      const auto size = static_cast<std::size_t>(cpu_.weight_bytes(source, use));
      std::vector<std::byte> values(size);
      const kernels::Matrix loaded = at_once_->load(source, use, staged, packed, values);
      std::memset(storage.data(), 0xFF, size);
      waiting_[current_].emplace_back(storage.first(size), std::move(values));
      return {storage.data(), loaded.dtype, loaded.rows, loaded.cols};
    }
    void end(std::size_t /*slot*/) override {}
    void enter(std::size_t slot) override {
      for (const auto& [to, values] : waiting_[slot]) std::ranges::copy(values, to.begin());
      waiting_[slot].clear();
    }
    void leave(std::size_t /*slot*/) override {}

   private:
    LateCpu& cpu_;
    std::unique_ptr<kernels::WeightQueue> at_once_;
    std::size_t current_ = 0;
    std::map<std::size_t, std::vector<std::pair<std::span<std::byte>, std::vector<std::byte>>>> waiting_;
  };
};

}  // namespace winnow::testing
