// The CUDA backend: bfloat16 storage, float32 accumulation, cuBLASLt for the products, cuDNN or own kernels for
// attention, own kernels for the rest. Everything is queued on one stream.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/gemm.h"
#include "kernels/ops.h"

namespace winnow::cuda {

// Rows of a tile: cuDNN's attention needs multiples of 128 on both sides to use one kernel for all shapes.
inline constexpr int64_t kRowTile = 128;

// Longest row that a norm holds in a warp's registers.
inline constexpr int64_t kMaxHidden = 8192;

class CudnnAttention;
struct AttentionMemory;
struct Piece;
class Staging;

// Return the memory of token_nll and of attention_lse, bytes.
int64_t token_nll_bytes(int64_t vocab);
int64_t attention_lse_bytes(const kernels::HeadShape& heads);

// Operations are defined in a file each, of their name; what packs keys and values beside what rounds them.
class CudaBackend final : public kernels::Device, public kernels::Ops {
 public:
  explicit CudaBackend(const CudaOptions& options);
  ~CudaBackend() override;

  kernels::Device& device() override { return *this; }
  const kernels::Device& device() const override { return *this; }

  std::string name() const override { return "cuda"; }
  std::string description() const override;
  std::string attention_path(const kernels::HeadShape& heads) override;
  void require_shape(int64_t hidden, int64_t ffn, const kernels::HeadShape& heads) const override;
  int64_t row_tile() const override { return kRowTile; }
  int64_t chunk_rows() const override { return 8192; }
  int64_t stack_rows() const override { return 16384; }
  kernels::DType activation_dtype() const override { return kernels::DType::kBf16; }
  kernels::DType residual_dtype() const override { return options_.residual; }
  int64_t kv_bytes(int64_t n_rows, const kernels::HeadShape& heads) const override;
  int64_t workspace_bytes(int64_t n_rows, int64_t hidden, int64_t vocab,
                          const kernels::HeadShape& heads) const override;
  int64_t experts_bytes(int64_t n_rows, int64_t hidden, int64_t ffn, const kernels::RouterShape& shape) const override;

  std::unique_ptr<kernels::Buffer> allocate(int64_t size_bytes, const char* what) override;
  std::unique_ptr<kernels::Buffer> allocate_host(int64_t size_bytes, const char* what) override;
  std::optional<int64_t> free_bytes() const override;
  int64_t allocated_bytes() const override { return allocated_bytes_; }
  int64_t peak_allocated_bytes() const override { return peak_allocated_bytes_; }
  void reset_peak() override { peak_allocated_bytes_ = allocated_bytes_; }

  int64_t resident_layers(int64_t n_layers) const override { return n_layers; }
  int64_t weight_bytes(const kernels::HostTensor& source, kernels::WeightUse use) const override;
  int64_t packed_bytes(const kernels::HostTensor& source, kernels::WeightUse use) const override;
  void pack(const kernels::HostTensor& source, std::span<std::byte> packed) override;
  kernels::Matrix unpack(const kernels::HostTensor& source, std::span<const std::byte> packed,
                         std::span<std::byte> storage) override;
  void stage(const kernels::HostTensor& source, kernels::WeightUse use, std::span<std::byte> host) override;
  std::unique_ptr<kernels::WeightQueue> make_weight_queue() override;
  std::shared_ptr<void> pin(std::span<std::byte> memory) override;

  std::unique_ptr<kernels::Buffer> upload(std::span<const int32_t> values, const char* what) override;
  void prepare_attention(std::span<const kernels::AttentionCall> calls, const kernels::HeadShape& heads) override;
  void synchronize() override;
  void record_event(int64_t n) override;
  double elapsed_seconds(int64_t first, int64_t second) override;
  // Returns the stream on which everything is queued: what works on the backend's memory from elsewhere waits for it.
  cudaStream_t stream() const { return stream_; }

 private:
  friend class DeviceBuffer;
  friend class HostBuffer;
  friend class CudaWeightQueue;
  class ReferenceFold;
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
  void do_token_nll(kernels::ConstRows x, const kernels::Matrix& head, const kernels::LogitShape& shape,
                    std::span<const int32_t> targets, const kernels::TokenScores& out) override;

  // How a call is computed.
  enum class Path {
    kOwn,      // the own kernel
    kPieces,   // cuDNN, row range by row range
    kStacked,  // cuDNN over the prefix together with its neighbours, the own kernel over its own keys
  };
  void choose_attention(const kernels::HeadShape& heads);
  bool choose_hopper();
  void run_hopper(std::span<const kernels::AttentionCall> calls, const kernels::HeadShape& heads);
  Path path_of(const kernels::AttentionCall& call, const kernels::HeadShape& heads) const;
  kernels::KvSpan join_keys(const kernels::AttentionCall& call, const kernels::HeadShape& heads);
  struct PieceRows {
    kernels::ConstRows q;
    kernels::KvSpan kv;
    kernels::Rows out;
  };
  void run_piece(const Piece& piece, const PieceRows& rows, const kernels::AttentionCall& call,
                 const kernels::HeadShape& heads);
  void run_pieces(const kernels::AttentionCall& call, const kernels::HeadShape& heads);
  void run_stacked(std::span<const kernels::AttentionCall> lanes, const kernels::HeadShape& heads);
  void run_short_lanes(std::span<const kernels::AttentionCall> lanes, const kernels::HeadShape& heads);

  void release_unused();
  Staging& staging();  // made when first weights are loaded
  // Sets out = x W^T + bias, or out += scale x W^T + bias; bias may be empty, out is of either type.
  void multiply(kernels::ConstRows x, const kernels::Matrix& weight, const kernels::Matrix& bias, kernels::Rows out,
                bool accumulate, float scale = 1.F);

  CudaOptions options_;
  bool is_attention_chosen_ = false;
  bool is_hopper_ = false;  // whether Hopper's kernel does everything
  cudaStream_t stream_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
  cublasLtHandle_t cublas_ = nullptr;
  std::unique_ptr<kernels::Buffer> cublas_workspace_;
  std::shared_ptr<Staging> staging_;  // shared, since kernels/cuda/weights alone knows how to destroy it
  std::map<std::vector<int64_t>, std::unique_ptr<Gemm>> products_;
  std::unique_ptr<CudnnAttention> cudnn_;  // null: the own kernel does everything
  std::string why_not_cudnn_;
  std::vector<cudaEvent_t> marks_;
  std::unique_ptr<AttentionMemory> attention_memory_;
  std::unique_ptr<kernels::Buffer> experts_memory_;  // kept from call to call
  int64_t allocated_bytes_ = 0;
  int64_t peak_allocated_bytes_ = 0;
  cudaDeviceProp device_{};
};

}  // namespace winnow::cuda
