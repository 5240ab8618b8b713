// A backend that times every operation of another one. Times are the device's own, between marks in the order of its
// operations, so nothing waits for them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace winnow::kernels {

// All calls of one operation at one shape of weight. Work is what the mathematics needs: padding does not count.
struct OperationProfile {
  std::string name;
  int64_t calls = 0;
  double seconds = 0.0;
  double flop = 0.0;   // additions and multiplications; 0 where the operation moves memory
  double bytes = 0.0;  // read and written at least once; 0 where the operation computes
};

struct Profile {
  std::vector<OperationProfile> operations;  // the longest first
  double total_seconds = 0.0;                // from the first operation to the last, waits for the host included
  double idle_seconds = 0.0;                 // of that, between two operations
};

class ProfiledBackend final : public Backend {
 public:
  // The backend must outlive this.
  explicit ProfiledBackend(Backend& backend) : backend_(backend) {}

  // Of all operations since the last reset.
  Profile profile();
  void reset();

  std::string name() const override { return backend_.name(); }
  std::string description() const override { return backend_.description(); }
  std::string attention_path(const HeadShape& heads) override { return backend_.attention_path(heads); }
  void require_shape(int64_t hidden, int64_t ffn, const HeadShape& heads) const override {
    backend_.require_shape(hidden, ffn, heads);
  }
  int64_t row_tile() const override { return backend_.row_tile(); }
  int64_t chunk_rows() const override { return backend_.chunk_rows(); }
  int64_t stack_rows() const override { return backend_.stack_rows(); }
  DType activation_dtype() const override { return backend_.activation_dtype(); }
  DType residual_dtype() const override { return backend_.residual_dtype(); }
  int64_t kv_bytes(int64_t n_rows, const HeadShape& heads) const override { return backend_.kv_bytes(n_rows, heads); }
  int64_t workspace_bytes(int64_t n_rows, int64_t hidden, int64_t vocab, const HeadShape& heads) const override {
    return backend_.workspace_bytes(n_rows, hidden, vocab, heads);
  }
  std::unique_ptr<Buffer> allocate(int64_t size_bytes, const char* what) override {
    return backend_.allocate(size_bytes, what);
  }
  std::optional<int64_t> free_bytes() const override { return backend_.free_bytes(); }
  std::unique_ptr<Buffer> allocate_host(int64_t size_bytes, const char* what) override {
    return backend_.allocate_host(size_bytes, what);
  }
  int64_t allocated_bytes() const override { return backend_.allocated_bytes(); }
  int64_t peak_allocated_bytes() const override { return backend_.peak_allocated_bytes(); }
  void reset_peak() override { backend_.reset_peak(); }
  int64_t kept_layers(int64_t n_layers) const override { return backend_.kept_layers(n_layers); }
  int64_t weight_bytes(const HostTensor& source, WeightUse use) const override {
    return backend_.weight_bytes(source, use);
  }
  Matrix load(const HostTensor& source, WeightUse use, void* storage) override {
    return backend_.load(source, use, storage);
  }
  std::unique_ptr<Buffer> upload(std::span<const int32_t> values, const char* what) override {
    return backend_.upload(values, what);
  }
  void prepare_attention(std::span<const AttentionCall> calls, const HeadShape& heads) override {
    backend_.prepare_attention(calls, heads);
  }
  void synchronize() override { backend_.synchronize(); }
  void mark(int64_t n) override { backend_.mark(n); }
  double seconds_between(int64_t first, int64_t second) override { return backend_.seconds_between(first, second); }

  void copy(const void* from, void* to, int64_t n_rows, int64_t cols) override;
  void transfer(const void* from, void* to, int64_t size_bytes) override;
  void embed(const Matrix& table, const int32_t* tokens, void* out, int64_t n_rows) override;
  void rms_norm(const void* x, const Matrix& weight, float eps, void* out, int64_t n_rows) override;
  void linear(const void* x, const Matrix& weight, const Matrix& bias, void* out, int64_t n_rows,
              bool accumulate) override;
  void rope(void* q, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles, int64_t n_rows) override;
  void store_kv(void* kv, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles, int64_t n_rows,
                void* to) override;
  void attention(std::span<const AttentionCall> calls, const HeadShape& heads) override;
  void copy_kv(std::span<const KvCopy> copies, const HeadShape& heads) override;
  void decode_attention(std::span<const DecodeCall> calls, const HeadShape& heads) override;
  void attention_lse(const LseCall& call, const HeadShape& heads) override;
  void swiglu(const void* gate_up, void* out, int64_t n_rows, int64_t ffn) override;
  void token_nll(const void* x, const Matrix& head, std::span<const int32_t> targets, int64_t n_rows,
                 const TokenScores& out) override;

 private:
  struct Work {
    double flop = 0.0;
    double bytes = 0.0;
  };
  template <typename Operation>
  void time(const std::string& name, const Work& work, Operation operation);
  void read_marks();
  double residual_bytes(int64_t count) const;
  double activation_bytes(int64_t count) const;

  Backend& backend_;
  std::map<std::string, OperationProfile> operations_;
  std::vector<OperationProfile*> marked_;  // operation i lies between marks 2 i and 2 i + 1
  double busy_seconds_ = 0.0;
  double total_seconds_ = 0.0;
};

}  // namespace winnow::kernels
