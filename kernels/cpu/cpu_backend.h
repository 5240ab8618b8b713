// The CPU backend: float32 throughout, OpenBLAS for the products, own vectorised kernels for the rest, own threads
// over tiles of rows. Also the reference that the CUDA backend is compared with.
#pragma once

#include <atomic>
#include <chrono>
#include <cmath>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/kernel_variants.h"
#include "kernels/ops.h"

namespace winnow::cpu {

// Returns the head dimension as values are stored: padded so that a row is whole vectors on every processor.
inline constexpr int64_t padded_head_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// Return the floats of the keys, and of keys and values, of one block of kRowTile rows: keys transposed, (n_kv_heads,
// head_dim, kRowTile), then values, (n_kv_heads, kRowTile, padded_head_dim).
inline constexpr int64_t key_block_count(const kernels::HeadShape& h) { return h.n_kv_heads * h.head_dim * kRowTile; }
inline constexpr int64_t kv_block_count(const kernels::HeadShape& h) {
  return key_block_count(h) + h.n_kv_heads * kRowTile * padded_head_dim(h.head_dim);
}
// Returns the blocks, one after another.
inline float* kv_blocks(const kernels::KvSpan& kv) { return static_cast<float*>(kv.data); }

// Returns what a head's row of attention is multiplied by at its end: 1 over the softmax's denominator. sink_logits: of
// all heads, or null.
inline float inverse_denominator(const Running& running, const float* sink_logits, int64_t head) {
  if (sink_logits == nullptr) return 1.0F / running.sum;
  return 1.0F / (running.sum + std::exp2(sink_logits[head] * kLog2E - running.max));
}

// Operations are defined in a file each, of their name.
class CpuBackend : public kernels::Device, public kernels::Ops {
 public:
  // Throws as chosen_kernels() does.
  explicit CpuBackend(const CpuOptions& options);

  kernels::Device& device() override { return *this; }
  const kernels::Device& device() const override { return *this; }

  std::string name() const override { return "cpu"; }
  std::string description() const override;
  std::string attention_path(const kernels::HeadShape& /*heads*/) override { return "cpu-blocked"; }
  void require_shape(int64_t /*hidden*/, int64_t /*ffn*/, const kernels::HeadShape& /*heads*/) const override {}
  int64_t row_tile() const override { return kRowTile; }
  int64_t chunk_rows() const override { return 2 * kRowTile * pool_.size(); }
  int64_t stack_rows() const override { return chunk_rows(); }  // a tile or more for every thread
  kernels::DType activation_dtype() const override { return kernels::DType::kF32; }
  kernels::DType residual_dtype() const override { return kernels::DType::kF32; }
  int64_t kv_bytes(int64_t n_rows, const kernels::HeadShape& heads) const override;
  int64_t workspace_bytes(int64_t n_rows, int64_t hidden, int64_t vocab,
                          const kernels::HeadShape& heads) const override;
  int64_t experts_bytes(int64_t n_rows, int64_t hidden, int64_t ffn, const kernels::RouterShape& shape) const override;

  std::unique_ptr<kernels::Buffer> allocate(int64_t size_bytes, const char* what) override;
  std::unique_ptr<kernels::Buffer> allocate_host(int64_t size_bytes, const char* what) override;
  std::optional<int64_t> free_bytes() const override { return std::nullopt; }
  int64_t allocated_bytes() const override { return allocated_bytes_; }
  int64_t peak_allocated_bytes() const override { return peak_allocated_bytes_; }
  void reset_peak() override { peak_allocated_bytes_ = allocated_bytes_.load(); }

  int64_t resident_layers(int64_t /*n_layers*/) const override { return 1; }
  int64_t weight_bytes(const kernels::HostTensor& source, kernels::WeightUse use) const override;

  std::unique_ptr<kernels::Buffer> upload(std::span<const int32_t> values, const char* what) override;
  void prepare_attention(std::span<const kernels::AttentionCall> /*calls*/,
                         const kernels::HeadShape& /*heads*/) override {}
  void synchronize() override {}
  void record_event(int64_t n) override;
  double elapsed_seconds(int64_t first, int64_t second) override;

 private:
  friend class CpuBuffer;
  kernels::Matrix do_load(const kernels::HostTensor& source, kernels::WeightUse use, std::byte* storage) override;
  void do_copy_rows(kernels::ConstRows from, kernels::Rows to) override;
  void do_copy_async(std::span<const std::byte> from, std::span<std::byte> to) override;
  void do_embed(const kernels::Matrix& table, std::span<const int32_t> tokens, float scale, kernels::Rows out) override;
  void do_norm(kernels::ConstRows x, const kernels::Norm& norm, kernels::Rows out) override;
  void do_add(kernels::ConstRows delta, const kernels::Norm& norm, float scale, kernels::Rows residual) override;
  void do_linear(kernels::ConstRows x, const kernels::Matrix& weight, const kernels::Matrix& bias, kernels::Rows out,
                 bool accumulate, float scale) override;
  void do_rope(kernels::Rows q, const kernels::HeadShape& heads, const kernels::HeadNorm& norm,
               const kernels::RowAngles& angles) override;
  void do_store_kv(kernels::Rows kv, const kernels::HeadShape& heads, const kernels::HeadNorm& norm,
                   const kernels::RowAngles& angles, kernels::KvSpan to) override;
  void do_attention(std::span<const kernels::AttentionCall> calls, const kernels::HeadShape& heads) override;
  void do_copy_kv(std::span<const kernels::KvCopy> copies, const kernels::HeadShape& heads) override;
  void do_round_kv(std::span<const kernels::KvCopy> copies, const kernels::KvRounding& rounding,
                   const kernels::HeadShape& heads) override;
  void do_pack_kv(std::span<const kernels::KvPacking> rows, const kernels::KvRounding& rounding,
                  const kernels::HeadShape& heads) override;
  void do_unpack_kv(std::span<const kernels::KvPacking> rows, const kernels::KvRounding& rounding,
                    const kernels::HeadShape& heads) override;
  void do_decode_attention(std::span<const kernels::DecodeCall> calls, const kernels::HeadShape& heads) override;
  void do_attention_lse(const kernels::LseCall& call, const kernels::HeadShape& heads) override;
  void do_row_angles(kernels::ConstRows a, kernels::ConstRows b, std::span<double> angles) override;
  void do_gate(kernels::ConstRows gate_up, kernels::Activation activation, kernels::Rows out) override;
  void do_experts(kernels::ConstRows x, const kernels::Router& router, const kernels::Experts& experts,
                  kernels::Activation activation, kernels::Rows out) override;
  void do_token_nll(kernels::ConstRows x, const kernels::Matrix& head, const kernels::LogitShape& logits,
                    std::span<const int32_t> targets, const kernels::TokenScores& out) override;

  const KernelVariant variant_ = chosen_kernels();
  const VectorKernels& kernels_ = *variant_.kernels;
  ThreadPool pool_;
  std::vector<std::chrono::steady_clock::time_point> marks_;
  std::atomic<int64_t> allocated_bytes_ = 0;
  std::atomic<int64_t> peak_allocated_bytes_ = 0;
};

// Return the memory that the two operations with some of their own take, bytes.
int64_t token_nll_bytes(int64_t hidden, int64_t vocab, int n_threads);
int64_t attention_bytes(const kernels::HeadShape& heads, int n_threads);

}  // namespace winnow::cpu
