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

  // Returns the times of all operations since the last reset; waits for them.
  Profile profile();
  void reset();

  Device& device() override { return ops_.device(); }
  const Device& device() const override { return ops_.device(); }
  void prepare_attention(std::span<const AttentionCall> calls, const HeadShape& heads) override {
    ops_.prepare_attention(calls, heads);
  }

 private:
  void do_copy_rows(ConstRows from, Rows to) override;
  void do_copy_async(std::span<const std::byte> from, std::span<std::byte> to) override;
  void do_embed(const Matrix& table, std::span<const int32_t> tokens, float scale, Rows out) override;
  void do_norm(ConstRows x, const Norm& norm, Rows out) override;
  void do_add(ConstRows delta, const Norm& norm, float scale, Rows residual) override;
  void do_linear(ConstRows x, const Matrix& weight, const Matrix& bias, Rows out, bool accumulate,
                 float scale) override;
  void do_rope(Rows q, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles) override;
  void do_store_kv(Rows kv, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles, KvSpan to) override;
  void do_attention(std::span<const AttentionCall> calls, const HeadShape& heads) override;
  void do_copy_kv(std::span<const KvCopy> copies, const HeadShape& heads) override;
  void do_round_kv(std::span<const KvCopy> copies, const KvRounding& rounding, const HeadShape& heads) override;
  void do_pack_kv(std::span<const KvPacking> rows, const KvRounding& rounding, const HeadShape& heads) override;
  void do_unpack_kv(std::span<const KvPacking> rows, const KvRounding& rounding, const HeadShape& heads) override;
  void do_decode_attention(std::span<const DecodeCall> calls, const HeadShape& heads) override;
  void do_attention_lse(const LseCall& call, const HeadShape& heads) override;
  void do_row_angles(ConstRows a, ConstRows b, std::span<double> angles) override;
  void do_gate(ConstRows gate_up, Activation activation, Rows out) override;
  void do_experts(ConstRows x, const Router& router, const Experts& experts, Activation activation, Rows out) override;
  void do_token_nll(ConstRows x, const Matrix& head, const LogitShape& logits, std::span<const int32_t> targets,
                    const TokenScores& out) override;

  struct Work {
    double flop = 0.0;
    double bytes = 0.0;
  };
  template <typename Operation>
  void time(const std::string& name, const Work& work, Operation operation);
  void read_marks();
  double activation_bytes(int64_t count) const;
  double moved_bytes(std::span<const KvCopy> copies, const HeadShape& heads) const;
  double moved_bytes(std::span<const KvPacking> rows, const HeadShape& heads) const;

  Ops& ops_;
  std::map<std::string, OperationProfile> operations_;
  std::vector<OperationProfile*> marked_;  // operation i lies between marks 2 i and 2 i + 1
  double busy_seconds_ = 0.0;
  double total_seconds_ = 0.0;
};

}  // namespace winnow::kernels
