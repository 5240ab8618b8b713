#include "kernels/cpu/cpu_backend.h"

#include <cblas.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "kernels/convert.h"
#include "kernels/cpu/blas_memory.h"
#include "kernels/cpu/cpu.h"

namespace winnow::cpu {

std::unique_ptr<kernels::Ops> make_cpu_backend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

std::string cpu_kernels() { return chosen_kernels().name; }

// Zeroed, 64-byte aligned memory, counted by its backend where there is one.
class CpuBuffer final : public kernels::Buffer {
 public:
  CpuBuffer(CpuBackend* ops, int64_t size_bytes, const char* what) : ops_(ops), size_bytes_(size_bytes) {
    constexpr std::size_t kAlignment = 64;
    const auto rounded = (static_cast<std::size_t>(size_bytes) + kAlignment - 1) / kAlignment * kAlignment;
    data_ = std::aligned_alloc(kAlignment, rounded == 0 ? kAlignment : rounded);
    if (data_ == nullptr) {
      fail(ExitCode::kOutOfMemory, "out of memory: " + std::to_string(size_bytes >> 20) + " MiB for " + what +
                                       "; lower --max-memory or run fewer ranks on this host");
    }
    std::memset(data_, 0, rounded);
    if (ops_ == nullptr) return;
    const int64_t now = ops_->allocated_bytes_ += size_bytes_;
    if (now > ops_->peak_allocated_bytes_) ops_->peak_allocated_bytes_ = now;
  }
  CpuBuffer(const CpuBuffer&) = delete;
  CpuBuffer& operator=(const CpuBuffer&) = delete;
  ~CpuBuffer() override {
    if (ops_ != nullptr) ops_->allocated_bytes_ -= size_bytes_;
    std::free(data_);
  }
  void* data() override { return data_; }
  int64_t size_bytes() const override { return size_bytes_; }

 private:
  CpuBackend* ops_;
  void* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

CpuBackend::CpuBackend(const CpuOptions& options) : pool_(options.n_threads > 0 ? options.n_threads : usable_cores()) {
  // Our threads run over tiles; a product inside a tile is one thread's, or its rounding would follow their number.
  openblas_set_num_threads(1);
  map_blas_buffers(pool_.size());
}

std::string CpuBackend::description() const {
  return "cpu, float32, " + std::to_string(pool_.size()) + " thread" + (pool_.size() == 1 ? "" : "s") + ", " +
         variant_.name + " kernels, OpenBLAS " + openblas_get_corename();
}

int64_t CpuBackend::kv_bytes(int64_t n_rows, const kernels::HeadShape& heads) const {
  return n_rows / kRowTile * kv_block_count(heads) * static_cast<int64_t>(sizeof(float));
}

int64_t CpuBackend::workspace_bytes(int64_t /*n_rows*/, int64_t hidden, int64_t vocab,
                                    const kernels::HeadShape& heads) const {
  return std::max(token_nll_bytes(hidden, vocab, pool_.size()), attention_bytes(heads, pool_.size()));
}

std::unique_ptr<kernels::Buffer> CpuBackend::allocate(int64_t size_bytes, const char* what) {
  return std::make_unique<CpuBuffer>(this, size_bytes, what);
}

std::unique_ptr<kernels::Buffer> CpuBackend::allocate_host(int64_t size_bytes, const char* what) {
  return std::make_unique<CpuBuffer>(nullptr, size_bytes, what);
}

int64_t CpuBackend::weight_bytes(const kernels::HostTensor& source, kernels::WeightUse use) const {
  const bool stays = use == kernels::WeightUse::kVocabulary && !source.values;
  return stays ? 0 : source.count() * static_cast<int64_t>(sizeof(float));
}

kernels::Matrix CpuBackend::load(const kernels::HostTensor& source, kernels::WeightUse use, void* storage) {
  if (use == kernels::WeightUse::kVocabulary && !source.values) {
    // Stays in the map, which is read-only; nothing writes through a vocabulary matrix.
    return kernels::Matrix{const_cast<std::byte*>(source.data), source.dtype, source.rows(), source.cols()};
  }
  auto* to = static_cast<float*>(storage);
  const int64_t count = source.count();
  constexpr int64_t kChunk = 1 << 16;
  pool_.run((count + kChunk - 1) / kChunk, [&](int64_t task, int) {
    const int64_t at = task * kChunk;
    const int64_t n = std::min(kChunk, count - at);
    kernels::read_float32(source, at, n, to + at);
  });
  return kernels::Matrix{to, kernels::DType::kF32, source.rows(), source.cols()};
}

std::unique_ptr<kernels::Buffer> CpuBackend::upload(std::span<const int32_t> values, const char* what) {
  auto buffer = allocate(static_cast<int64_t>(values.size_bytes()), what);
  std::memcpy(buffer->data(), values.data(), values.size_bytes());
  return buffer;
}

void CpuBackend::record_event(int64_t n) {
  const auto index = static_cast<std::size_t>(n);
  if (index >= marks_.size()) marks_.resize(index + 1);
  marks_[index] = std::chrono::steady_clock::now();
}

double CpuBackend::elapsed_seconds(int64_t first, int64_t second) {
  return std::chrono::duration<double>(marks_[static_cast<std::size_t>(second)] -
                                       marks_[static_cast<std::size_t>(first)])
      .count();
}

void CpuBackend::copy_async(const void* from, void* to, int64_t size_bytes) {
  std::memcpy(to, from, static_cast<std::size_t>(size_bytes));
}

void CpuBackend::copy_rows(const void* from, void* to, int64_t n_rows, int64_t cols) {
  std::memcpy(to, from, static_cast<std::size_t>(n_rows * cols) * sizeof(float));
}

}  // namespace winnow::cpu
