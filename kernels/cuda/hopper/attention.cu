// The launches of Hopper's attention: what a call is to the kernel, and in which order calls are taken.

#include "kernels/cuda/hopper/attention.h"

#include <cudaTypedefs.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/hopper/attention_block.cuh"

namespace winnow::cuda::hopper {

namespace {

template <int kDim, bool kCaps>
__global__ void __launch_bounds__((Shape<kDim>::kConsumers + 1) * kGroup, 1)
    attention_kernel(const __grid_constant__ LaunchArguments launch) {
  using S = Shape<kDim>;
  extern __shared__ char memory[];
  constexpr uint32_t kAlignment = alignof(SharedTiles<kDim>);
  const uint32_t past = shared_address(memory) % kAlignment;
  auto& shared = *reinterpret_cast<SharedTiles<kDim>*>(memory + (past == 0 ? 0 : kAlignment - past));
  if (threadIdx.x == 0) {
    constexpr int kReaders = S::kConsumers * kGroup;
    shared.unit_full.init(1);
    shared.unit_empty.init(kReaders);
    shared.queries_full.init(1);
    shared.queries_empty.init(kReaders);
    for (int i = 0; i < S::kStages; ++i) {
      shared.keys_full[i].init(1);
      shared.keys_empty[i].init(kReaders);
      shared.values_full[i].init(1);
      shared.values_empty[i].init(kReaders);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x >= S::kConsumers * kGroup) {
    lower_registers<S::kConsumers == 3 ? 32 : 24>();
    if (threadIdx.x == S::kConsumers * kGroup) Producer<kDim>(launch, shared).run();
  } else {
    raise_registers<S::kConsumers == 3 ? 160 : 240>();
    Consumer<kDim, kCaps>(launch, shared, static_cast<int>(threadIdx.x) / kGroup).run();
  }
}

// Adds up the parts of the calls whose keys are split: a warp for each row and head, blockIdx.y for each call.
__global__ void add_parts_kernel(const __grid_constant__ LaunchArguments launch) {
  const CallArguments& call = launch.call[blockIdx.y];
  const auto item = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = item / call.n_heads;
  const int head = call.first_head + item % call.n_heads;
  if (call.n_parts == 1 || row >= call.n_rows) return;
  const bool real = call.first_row + row < call.n_tokens;
  const int dim = launch.head_dim;
  float highest = -INFINITY;
  for (int p = 0; p < call.n_parts; ++p) highest = fmaxf(highest, call.partial_of(p, row, head, launch)[dim]);
  float total = 0.0F;
  for (int p = 0; p < call.n_parts; ++p) {
    const float* part = call.partial_of(p, row, head, launch);
    total += part[dim + 1] * exp2f(part[dim] - highest);
  }
  float denominator = total;
  if (call.sink_logits != nullptr) denominator += exp2f(call.sink_logits[head] * kLog2E - highest);
  Bf16* to = call.out + (static_cast<int64_t>(row) * launch.n_heads + head) * dim;
  for (int column = 2 * lane; column < dim; column += 64) {
    float2 sum{};
    for (int p = 0; p < call.n_parts; ++p) {
      const float* part = call.partial_of(p, row, head, launch);
      const float2 values = *reinterpret_cast<const float2*>(part + column);
      const float weight = exp2f(part[dim] - highest);
      sum.x += values.x * weight;
      sum.y += values.y * weight;
    }
    const float inverse = 1.0F / denominator;
    *reinterpret_cast<uint32_t*>(to + column) = real ? cuda::pack(sum.x * inverse, sum.y * inverse) : 0U;
  }
  if (call.lse != nullptr && lane == 0) {
    call.lse[head * call.lse_stride + row] = real ? (highest + log2f(total)) * kLn2 : 0.0F;
  }
}

void add_parts(const LaunchArguments& launch, cudaStream_t stream) {
  int n_rows = 0;  // of the longest call that has parts
  for (int c = 0; c < launch.n_calls; ++c) {
    if (launch.call[c].n_parts > 1) n_rows = std::max(n_rows, launch.call[c].n_rows);
  }
  if (n_rows == 0) return;
  constexpr int kWarps = 8;
  const dim3 grid((n_rows * launch.n_heads + kWarps - 1) / kWarps, launch.n_calls);
  add_parts_kernel<<<grid, kWarps * 32, 0, stream>>>(launch);
  WINNOW_CUDA_CHECK_LAUNCH();
}

template <int kDim, bool kCaps>
void launch_kernel(const LaunchArguments& launch, int n_blocks, cudaStream_t stream) {
  constexpr std::size_t kSharedBytes = sizeof(SharedTiles<kDim>) + alignof(SharedTiles<kDim>) - 16;
  static_assert(kSharedBytes <= 227 * 1024);
  WINNOW_CUDA_CHECK(cudaFuncSetAttribute(attention_kernel<kDim, kCaps>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(kSharedBytes)));
  attention_kernel<kDim, kCaps><<<n_blocks, (Shape<kDim>::kConsumers + 1) * kGroup, kSharedBytes, stream>>>(launch);
  WINNOW_CUDA_CHECK_LAUNCH();
}

// The driver's function: the program does not link the driver's library, so that it starts where there is none.
PFN_cuTensorMapEncodeTiled_v12000 find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  WINNOW_CUDA_CHECK(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result));
  if (result != cudaDriverEntryPointSuccess) {
    fail(ExitCode::kUnavailable, "the driver has no cuTensorMapEncodeTiled; use --attention cudnn");
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

// (n_rows, n_heads, head_dim) bfloat16, read in boxes of box_rows rows and 64 elements of one head. What a box has
// beyond a head's end or the last row is 0.
CUtensorMap map_of(const void* data, int64_t n_rows, int64_t n_heads, int64_t head_dim, int box_rows) {
  static const auto encode = find_encode();
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(head_dim), static_cast<cuuint64_t>(n_heads),
                              static_cast<cuuint64_t>(n_rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(head_dim) * 2, static_cast<cuuint64_t>(n_heads * head_dim) * 2};
  const cuuint32_t box[] = {kColumn, 1, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1, 1};
  CUtensorMap map;
  const CUresult status = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data), sizes, strides,
                                 box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    fail(ExitCode::kInternal, "cuTensorMapEncodeTiled failed with code " + std::to_string(status));
  }
  return map;
}

template <int kDim>
int64_t row_tiles(const kernels::AttentionCall& call) {
  return (call.n_rows() + kTileRows<kDim> - 1) / kTileRows<kDim>;
}

// Into how many parts the keys of a call are split: into those that fill a GPU with a single call on all heads, where
// every row sees all keys of its past. A part has enough keys to be worth the adding up.
template <int kDim>
int parts_of(const kernels::AttentionCall& call, const kernels::HeadShape& heads) {
  constexpr int64_t kUnits = 128;
  constexpr int64_t kPartKeys = 2048;
  constexpr int64_t kMaxParts = 8;
  const kernels::Window& w = call.window;
  const bool sees_all = w.keys >= call.n_tokens || call.first_row >= w.end_row || call.n_tokens <= w.first_row;
  if (!sees_all) return 1;
  const int64_t wanted = std::min(kUnits / (row_tiles<kDim>(call) * heads.n_heads), call.n_tokens / kPartKeys);
  return static_cast<int>(std::clamp<int64_t>(wanted, 1, kMaxParts));
}

template <int kDim>
int64_t partial_bytes(const kernels::AttentionCall& call, const kernels::HeadShape& heads) {
  const int64_t n_parts = parts_of<kDim>(call, heads);
  return n_parts == 1 ? 0 : n_parts * call.n_rows() * heads.n_heads * (heads.head_dim + 2) * int64_t{sizeof(float)};
}

template <int kDim>
CallArguments call_arguments(const kernels::AttentionCall& call, const LseRows& lse, const kernels::HeadShape& heads) {
  const auto keys = [&](const kernels::KvSpan& kv) {
    return map_of(kv.data, kv.n_rows, 2 * heads.n_kv_heads, heads.head_dim, Shape<kDim>::kKeys);
  };
  const CUtensorMap own = keys(call.own.kv);
  const kernels::HeadRange range = call.query_heads(heads);
  const int n_parts = parts_of<kDim>(call, heads);
  constexpr int kKeys = Shape<kDim>::kKeys;
  const auto n_tiles = static_cast<int>((call.n_tokens + kKeys - 1) / kKeys);
  return {.q = map_of(call.q.data, call.n_rows(), heads.n_heads, heads.head_dim, kTileRows<kDim>),
          .prefix = call.prefix.n_rows() > 0 ? keys(call.prefix.kv) : own,
          .own = own,
          .out = call.out.as<Bf16>(),
          .lse = lse.data,
          .lse_stride = lse.head_stride,
          .sink_logits = call.sink_logits.as<float>(),
          .window = call.window,
          .own_first_row = static_cast<int>(call.own.first_row),
          .first_row = static_cast<int>(call.first_row),
          .n_rows = static_cast<int>(call.n_rows()),
          .n_tokens = static_cast<int>(call.n_tokens),
          .first_head = static_cast<int>(range.begin),
          .n_heads = static_cast<int>(range.count()),
          .first_unit = 0,
          .n_parts = n_parts,
          .part_tiles = (n_tiles + n_parts - 1) / n_parts,
          .partial = nullptr};
}

int multiprocessors() {
  int device = 0;
  int count = 0;
  WINNOW_CUDA_CHECK(cudaGetDevice(&device));
  WINNOW_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

// The order in which calls that have rows are taken: those whose last row sees most keys first, so that no long tile of
// rows begins when the others end.
std::vector<std::size_t> longest_first(std::span<const kernels::AttentionCall> calls) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (calls[i].n_rows() > 0) order.push_back(i);
  }
  const auto keys = [&](std::size_t i) {
    const int64_t last = calls[i].n_tokens - 1;
    return last - kernels::window_start(calls[i].window, last);
  };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return keys(a) > keys(b); });
  return order;
}

template <int kDim>
void attend(std::span<const kernels::AttentionCall> calls, std::span<const LseRows> lse,
            const kernels::HeadShape& heads, const Memory& memory, cudaStream_t stream) {
  LaunchArguments launch{};
  launch.schedule = memory.schedule;
  launch.n_heads = static_cast<int>(heads.n_heads);
  launch.n_kv_heads = static_cast<int>(heads.n_kv_heads);
  launch.head_dim = static_cast<int>(heads.head_dim);
  launch.scale_log2 = heads.scale * kLog2E;
  launch.cap_log2 = heads.softcap * kLog2E;
  const std::vector<std::size_t> order = longest_first(calls);
  for (auto next = order.begin(); next != order.end();) {
    launch.n_calls = 0;
    launch.n_units = 0;
    for (int64_t used = 0; next != order.end() && launch.n_calls < kCallsPerLaunch; ++next) {
      const kernels::AttentionCall& call = calls[*next];
      const int64_t bytes = partial_bytes<kDim>(call, heads);
      if (used + bytes > kPartialBytes) break;
      CallArguments& arguments = launch.call[launch.n_calls++];
      arguments = call_arguments<kDim>(call, lse.empty() ? LseRows{} : lse[*next], heads);
      arguments.first_unit = launch.n_units;
      arguments.partial = memory.partial + used / int64_t{sizeof(float)};
      launch.n_units += static_cast<int>(row_tiles<kDim>(call)) * arguments.n_heads * arguments.n_parts;
      used += bytes;
    }
    const int n_blocks = std::min(launch.n_units, multiprocessors());
    if (heads.softcap != 0.F) {
      launch_kernel<kDim, true>(launch, n_blocks, stream);
    } else {
      launch_kernel<kDim, false>(launch, n_blocks, stream);
    }
    add_parts(launch, stream);
  }
}

}  // namespace

void attention(std::span<const kernels::AttentionCall> calls, std::span<const LseRows> lse,
               const kernels::HeadShape& heads, const Memory& memory, cudaStream_t stream) {
  if (heads.head_dim <= 64) {
    attend<64>(calls, lse, heads, memory, stream);
  } else if (heads.head_dim <= 96) {
    attend<96>(calls, lse, heads, memory, stream);
  } else if (heads.head_dim <= 128) {
    attend<128>(calls, lse, heads, memory, stream);
  } else {
    attend<256>(calls, lse, heads, memory, stream);
  }
}

}  // namespace winnow::cuda::hopper
