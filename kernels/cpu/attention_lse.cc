// Log-sum-exp of query rows over sets of keys on the CPU. A task is one row of one head; scores are formed block by
// block of keys, and the maximum runs over the row's own sets only, so that a row's result is its own.

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

namespace {

// Part [begin, end) of a block of keys.
struct Part {
  int64_t begin;
  int64_t end;
  bool empty() const { return begin >= end; }
};

Part part_of(int64_t begin, int64_t end, int64_t first_key) {
  return {std::clamp<int64_t>(begin - first_key, 0, kRowTile), std::clamp<int64_t>(end - first_key, 0, kRowTile)};
}

class RowLse {
 public:
  RowLse(const VectorKernels& kernels, const kernels::LseCall& call, const kernels::HeadShape& heads, int64_t row,
         int64_t head)
      : kernels_(kernels),
        call_(call),
        heads_(heads),
        sets_(
            call.sets.subspan(static_cast<std::size_t>(row * call.n_sets()), static_cast<std::size_t>(call.n_sets()))) {
    const auto* q = call.q.as<float>() + row * heads.q_dim() + head * heads.head_dim;
    query_.resize(static_cast<std::size_t>(heads.head_dim));
    for (std::size_t d = 0; d < query_.size(); ++d) query_[d] = q[d] * heads.scale * kLog2E;
    kv_head_ = head / (heads.n_heads / heads.n_kv_heads);
  }

  void run() {
    int64_t end = 0;
    for (int64_t s = 0; s < n_sets(); ++s) end = std::max<int64_t>({end, set(s).sinks, set(s).end});
    for (int64_t block = 0; block * kRowTile < end; ++block) add_block(block);
  }
  // Natural log.
  double lse(int64_t s) const {
    const double sum = sums_[static_cast<std::size_t>(s)];
    if (sum == 0.0) return -std::numeric_limits<double>::infinity();
    return std::log(sum) + static_cast<double>(max_) * std::numbers::ln2;
  }

 private:
  int64_t n_sets() const { return static_cast<int64_t>(sets_.size()); }
  const kernels::KeySet& set(int64_t s) const { return sets_[static_cast<std::size_t>(s)]; }

  void add_block(int64_t block) {
    const int64_t first_key = block * kRowTile;
    std::array<std::array<Part, 2>, kernels::kMaxKeySets> parts;
    bool is_needed = false;
    for (int64_t s = 0; s < n_sets(); ++s) {
      auto& of_set = parts[static_cast<std::size_t>(s)];
      of_set = {part_of(0, set(s).sinks, first_key), part_of(set(s).begin, set(s).end, first_key)};
      is_needed = is_needed || !of_set[0].empty() || !of_set[1].empty();
    }
    if (!is_needed) return;
    alignas(64) float scores[kRowTile];
    kernels_.score_block(query_.data(), keys(block), heads_.head_dim, scores);
    if (heads_.softcap > 0.F) kernels_.cap_row(scores, kRowTile, heads_.softcap * kLog2E);
    float max = max_;
    for (int64_t s = 0; s < n_sets(); ++s) {
      for (const Part& part : parts[static_cast<std::size_t>(s)]) {
        for (int64_t j = part.begin; j < part.end; ++j) max = std::max(max, scores[j]);
      }
    }
    for (double& sum : sums_) sum *= sum == 0.0 ? 1.0 : std::exp2(static_cast<double>(max_) - max);
    max_ = max;
    kernels_.exp2_row(scores, kRowTile, max);
    for (int64_t s = 0; s < n_sets(); ++s) {
      for (const Part& part : parts[static_cast<std::size_t>(s)]) {
        sums_[static_cast<std::size_t>(s)] += static_cast<double>(sum_of(scores, part));
      }
    }
  }

  const float* keys(int64_t block) const {
    return kv_blocks(call_.keys.kv) + (block - call_.keys.first_row / kRowTile) * kv_block_count(heads_) +
           kv_head_ * heads_.head_dim * kRowTile;
  }

  float sum_of(const float* values, const Part& part) const {
    if (part.begin == 0 && part.end == kRowTile) return kernels_.sum_row(values, kRowTile);
    float sum = 0.0F;
    for (int64_t j = part.begin; j < part.end; ++j) sum += values[j];
    return sum;
  }

  const VectorKernels& kernels_;
  const kernels::LseCall& call_;
  const kernels::HeadShape& heads_;
  std::span<const kernels::KeySet> sets_;  // of this row
  int64_t kv_head_ = 0;
  std::vector<float> query_;  // times scale * log2(e)
  float max_ = -std::numeric_limits<float>::infinity();
  std::array<double, kernels::kMaxKeySets> sums_{};  // of exp2(score - max)
};

}  // namespace

void CpuBackend::do_attention_lse(const kernels::LseCall& call, const kernels::HeadShape& heads) {
  pool_.run(call.n_rows() * heads.n_heads, [&](int64_t task, int) {
    const int64_t row = task / heads.n_heads;
    const int64_t head = task % heads.n_heads;
    RowLse lse(kernels_, call, heads, row, head);
    lse.run();
    for (int64_t s = 0; s < call.n_sets(); ++s) {
      call.lse[static_cast<std::size_t>((row * call.n_sets() + s) * heads.n_heads + head)] = lse.lse(s);
    }
  });
}

}  // namespace winnow::cpu
