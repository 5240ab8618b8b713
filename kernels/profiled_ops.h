// A backend that times every operation of another one. Times are the device's own, between marks in the order of its
// operations, so nothing waits for them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"

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

class ProfiledOps final : public Ops {
 public:
  // The backend must outlive this.
  explicit ProfiledOps(Ops& ops) : ops_(ops) {}

  // Of all operations since the last reset.
  Profile profile();
  void reset();

  Device& device() override { return ops_.device(); }
  const Device& device() const override { return ops_.device(); }
  void prepare_attention(std::span<const AttentionCall> calls, const HeadShape& heads) override {
    ops_.prepare_attention(calls, heads);
  }
  void copy_rows(const void* from, void* to, int64_t n_rows, int64_t cols) override;
  void copy_async(const void* from, void* to, int64_t size_bytes) override;
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

  Ops& ops_;
  std::map<std::string, OperationProfile> operations_;
  std::vector<OperationProfile*> marked_;  // operation i lies between marks 2 i and 2 i + 1
  double busy_seconds_ = 0.0;
  double total_seconds_ = 0.0;
};

}  // namespace winnow::kernels
