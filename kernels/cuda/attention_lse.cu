// Log-sum-exp of query rows over sets of keys, with products by mma.sync: any GPU from Ampere on. A block takes 16
// queries that share a key head: rows, and the query heads of the group, one after another. Its warps take turns at
// steps of keys, at absolute places, and each thread keeps sums of its own; they are added up at the end, in their
// order. So a query's result follows from itself alone.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/softmax.cuh"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kQueries = 16;  // of a block: the rows of a product
constexpr int kStepKeys = 32;
constexpr int kStepTiles = kStepKeys / 8;  // products of a step are 8 keys wide
constexpr int kParts = 4 * kWarps;         // threads that share a query
constexpr int kSets = static_cast<int>(kernels::kMaxKeySets);
constexpr int kSpan = 32;            // elements of a head that four threads load at a time, 16 bytes each
constexpr int64_t kRowChunk = 1024;  // rows whose results are held at a time

struct LseArguments {
  const Bf16* q;                // (n_rows, n_heads, head_dim)
  const Bf16* kv;               // (keys, 2 * n_kv_heads * head_dim), a row's keys and then its values
  const kernels::KeySet* sets;  // (n_rows, n_sets)
  double* lse;                  // (n_rows, n_sets, n_heads)
  float scale;
  float softcap;  // 0: none
  int n_rows, n_sets, n_heads, n_kv_heads, head_dim;

  __device__ int group() const { return n_heads / n_kv_heads; }
  // A block's query i: its row, and its head among those of the group.
  __device__ int query(int i) const { return static_cast<int>(blockIdx.x) * kQueries + i; }
  __device__ bool is_query(int i) const { return query(i) < n_rows * group(); }
  __device__ int row(int i) const { return query(i) / group(); }
  __device__ int head(int i) const { return static_cast<int>(blockIdx.y) * group() + query(i) % group(); }
  // To the base of two: exponentials are cheaper there.
  __device__ float score(float product) const {
    const float x = product * scale;
    return kLog2E * (softcap > 0.0F ? softcap * tanhf(x / softcap) : x);
  }
};

__device__ bool holds(const kernels::KeySet& set, int key) {
  return key < set.sinks || (key >= set.begin && key < set.end);
}

// Softmax sums of one query over the sets, of the keys that one thread has seen; to the base of two.
struct Sums {
  kernels::KeySet sets[kSets];
  float max = -FLT_MAX;
  float of_set[kSets] = {};

  __device__ void find_sets(const LseArguments& args, int query) {
#pragma unroll
    for (int s = 0; s < kSets; ++s) {
      sets[s] = {0, 0, 0};
      if (args.is_query(query) && s < args.n_sets) {
        sets[s] = args.sets[static_cast<int64_t>(args.row(query)) * args.n_sets + s];
      }
    }
  }
  __device__ int end_key() const {
    int end = 0;
#pragma unroll
    for (int s = 0; s < kSets; ++s)
      end = max_of(end, max_of(sets[s].sinks, sets[s].begin < sets[s].end ? sets[s].end : 0));
    return end;
  }
  __device__ static int max_of(int a, int b) { return a > b ? a : b; }

  // products: of keys first + 8 t + {0, 1}.
  __device__ void add(const LseArguments& args, const float (&products)[2 * kStepTiles], int first) {
    float scores[2 * kStepTiles];
    unsigned held[2 * kStepTiles];  // a bit a set
    float largest = max;
#pragma unroll
    for (int i = 0; i < 2 * kStepTiles; ++i) {
      scores[i] = args.score(products[i]);
      held[i] = 0;
#pragma unroll
      for (int s = 0; s < kSets; ++s) held[i] |= holds(sets[s], first + i / 2 * 8 + i % 2) ? 1U << s : 0U;
      if (held[i] != 0 && scores[i] > largest) largest = scores[i];
    }
    const float rescale = exp2_fast(max - largest);
    max = largest;
#pragma unroll
    for (int s = 0; s < kSets; ++s) of_set[s] *= rescale;
#pragma unroll
    for (int i = 0; i < 2 * kStepTiles; ++i) {
      const float e = exp2_fast(scores[i] - max);
#pragma unroll
      for (int s = 0; s < kSets; ++s) of_set[s] += (held[i] >> s & 1U) != 0 ? e : 0.0F;
    }
  }
};

// Loads elements [32 span + 8 part, + 8) of a head; zeros beyond its end, or where there is no such row. Which element
// of a product is where does not matter, as long as queries and keys agree.
__device__ uint4 load_part(const Bf16* head, bool is_there, int span, int part, int head_dim) {
  const int d = kSpan * span + 8 * part;
  return is_there && d < head_dim ? *reinterpret_cast<const uint4*>(head + d) : uint4{0, 0, 0, 0};
}

template <int kSpans>
__global__ void __launch_bounds__(kThreads) lse_kernel(LseArguments args) {
  __shared__ float part_max[kQueries][kParts];
  __shared__ float part_sum[kQueries][kSets][kParts];
  __shared__ int end_key;
  const int warp = threadIdx.x / 32;
  const int quad = threadIdx.x % 32 / 4;  // of two queries, and of the key that this thread loads
  const int part = threadIdx.x % 4;
  const int own[2] = {quad, quad + 8};
  uint4 q[2][kSpans];
  Sums sums[2];
  if (threadIdx.x == 0) end_key = 0;
  __syncthreads();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool is_query = args.is_query(own[r]);
    const Bf16* head = args.q;
    if (is_query) head += (static_cast<int64_t>(args.row(own[r])) * args.n_heads + args.head(own[r])) * args.head_dim;
#pragma unroll
    for (int span = 0; span < kSpans; ++span) q[r][span] = load_part(head, is_query, span, part, args.head_dim);
    sums[r].find_sets(args, own[r]);
    atomicMax(&end_key, sums[r].end_key());  // of integers: the order does not matter
  }
  __syncthreads();

  const int64_t key_stride = 2LL * args.n_kv_heads * args.head_dim;
  const Bf16* keys = args.kv + static_cast<int64_t>(blockIdx.y) * args.head_dim;
  for (int first = warp * kStepKeys; first < end_key; first += kWarps * kStepKeys) {
    float products[kStepTiles][4] = {};
#pragma unroll
    for (int tile = 0; tile < kStepTiles; ++tile) {
      const int key = first + 8 * tile + quad;
#pragma unroll
      for (int span = 0; span < kSpans; ++span) {
        const uint4 k = load_part(keys + key * key_stride, key < end_key, span, part, args.head_dim);
        const uint4& a = q[0][span];
        const uint4& b = q[1][span];
        multiply(products[tile], {a.x, b.x, a.y, b.y}, k.x, k.y);
        multiply(products[tile], {a.z, b.z, a.w, b.w}, k.z, k.w);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float of_query[2 * kStepTiles];
#pragma unroll
      for (int i = 0; i < 2 * kStepTiles; ++i) of_query[i] = products[i / 2][2 * r + i % 2];
      sums[r].add(args, of_query, first + 2 * part);
    }
  }

  // The threads' sums together, in their order.
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    part_max[own[r]][4 * warp + part] = sums[r].max;
#pragma unroll
    for (int s = 0; s < kSets; ++s) part_sum[own[r]][s][4 * warp + part] = sums[r].of_set[s];
  }
  __syncthreads();
  const int query = threadIdx.x / kSets;
  const int set = threadIdx.x % kSets;
  if (query >= kQueries || set >= args.n_sets || !args.is_query(query)) return;
  float largest = -FLT_MAX;
  for (int i = 0; i < kParts; ++i) largest = fmaxf(largest, part_max[query][i]);
  double sum = 0.0;
  for (int i = 0; i < kParts; ++i) {
    const float of_part = part_sum[query][set][i];
    if (of_part != 0.0F) sum += of_part * exp2(static_cast<double>(part_max[query][i]) - largest);
  }
  const int64_t at = (static_cast<int64_t>(args.row(query)) * args.n_sets + set) * args.n_heads + args.head(query);
  args.lse[at] = sum == 0.0 ? -HUGE_VAL : log(sum) + largest * std::numbers::ln2;
}

void run_lse(const LseArguments& args, cudaStream_t stream) {
  const int n_queries = args.n_rows * (args.n_heads / args.n_kv_heads);
  const dim3 grid(static_cast<unsigned>((n_queries + kQueries - 1) / kQueries), static_cast<unsigned>(args.n_kv_heads));
  if (args.head_dim <= 2 * kSpan) {
    lse_kernel<2><<<grid, kThreads, 0, stream>>>(args);
  } else if (args.head_dim <= 4 * kSpan) {
    lse_kernel<4><<<grid, kThreads, 0, stream>>>(args);
  } else {
    lse_kernel<8><<<grid, kThreads, 0, stream>>>(args);
  }
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace

int64_t attention_lse_bytes(const kernels::HeadShape& heads) {
  return kRowChunk * kSets *
         static_cast<int64_t>(sizeof(kernels::KeySet) + static_cast<std::size_t>(heads.n_heads) * sizeof(double));
}

void CudaBackend::do_attention_lse(const kernels::LseCall& call, const kernels::HeadShape& heads) {
  const int64_t n_sets = call.n_sets();
  if (call.keys.first_row != 0) fail(ExitCode::kInternal, "attention_lse: keys must begin at row 0");
  const auto sets = allocate(kRowChunk * n_sets * static_cast<int64_t>(sizeof(kernels::KeySet)), "sets of keys");
  const auto lse = allocate(kRowChunk * n_sets * heads.n_heads * static_cast<int64_t>(sizeof(double)), "log-sum-exps");
  for (int64_t row = 0; row < call.n_rows(); row += kRowChunk) {
    const int64_t n = std::min(kRowChunk, call.n_rows() - row);
    const auto of_rows =
        call.sets.subspan(static_cast<std::size_t>(row * n_sets), static_cast<std::size_t>(n * n_sets));
    WINNOW_CUDA_CHECK(
        cudaMemcpyAsync(sets->data(), of_rows.data(), of_rows.size_bytes(), cudaMemcpyHostToDevice, stream_));
    const LseArguments args{.q = call.q.as<Bf16>() + row * heads.q_dim(),
                            .kv = kv_elements<Bf16>(call.keys.kv),
                            .sets = static_cast<const kernels::KeySet*>(sets->data()),
                            .lse = static_cast<double*>(lse->data()),
                            .scale = heads.scale,
                            .softcap = heads.softcap,
                            .n_rows = static_cast<int>(n),
                            .n_sets = static_cast<int>(n_sets),
                            .n_heads = static_cast<int>(heads.n_heads),
                            .n_kv_heads = static_cast<int>(heads.n_kv_heads),
                            .head_dim = static_cast<int>(heads.head_dim)};
    run_lse(args, stream_);
    const auto n_values = static_cast<std::size_t>(n * n_sets * heads.n_heads);
    WINNOW_CUDA_CHECK(cudaMemcpyAsync(call.lse.data() + row * n_sets * heads.n_heads, lse->data(),
                                      n_values * sizeof(double), cudaMemcpyDeviceToHost, stream_));
  }
}

}  // namespace winnow::cuda
