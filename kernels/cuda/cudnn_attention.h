// cuDNN's fused attention through its backend API.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <string>

namespace winnow::cuda {

// One attention: n_queries rows against n_keys rows, causal at the bottom right (query i sees keys up to
// i + n_keys - n_queries) or unmasked; with a window on top.
struct AttentionShape {
  enum class Mask { kNone, kBottomRight };
  int64_t n_queries = 0;
  int64_t n_keys = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  Mask mask = Mask::kBottomRight;
  int64_t window = 0;  // keys that a row sees, itself included; 0: all
  auto operator<=>(const AttentionShape&) const = default;
};

// bfloat16: q, out (n_queries, n_heads, head_dim); keys and values (n_keys, 2, n_kv_heads, head_dim). lse: float32
// (n_heads, n_queries), the natural log of the sum of exponentials of the scaled scores.
struct AttentionPointers {
  const void* q = nullptr;
  const void* kv = nullptr;
  void* out = nullptr;
  void* lse = nullptr;
};

// Plans are static and built for one exact shape: cuDNN's dynamic-shape kernel cache gives wrong results (9.19). A plan
// takes about 50 ms to build, so a thread builds those that are asked for ahead of time.
class CudnnAttention {
 public:
  // Returns null where there is no cuDNN; `reason` then says why.
  static std::unique_ptr<CudnnAttention> open(int device, cudaStream_t stream, std::string& reason);
  CudnnAttention(const CudnnAttention&) = delete;
  CudnnAttention& operator=(const CudnnAttention&) = delete;
  ~CudnnAttention();

  std::string version() const;
  // Builds the plan if needed. Returns false where cuDNN has none for this shape, and `reason` says what it answered.
  bool supports(const AttentionShape& shape, std::string& reason);
  // Has the plan built beside other work, as it will be wanted. Returns at once.
  void prepare(const AttentionShape& shape);
  // Queues the attention. Throws Error(kInternal) when there is no plan.
  void run(const AttentionShape& shape, const AttentionPointers& pointers, float scale);

 private:
  struct State;
  explicit CudnnAttention(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace winnow::cuda
