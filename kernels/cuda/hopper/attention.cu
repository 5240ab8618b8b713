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
CallArguments arguments(const kernels::AttentionCall& call, const LseRows& lse, const kernels::HeadShape& heads,
                        int first_unit) {
  const auto keys = [&](const kernels::KvSpan& kv) {
    return map_of(kv.data, kv.n_rows, 2 * heads.n_kv_heads, heads.head_dim, Shape<kDim>::kKeys);
  };
  const CUtensorMap own = keys(call.own.kv);
  const kernels::HeadRange range = call.query_heads(heads);
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
          .first_unit = first_unit};
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
            const kernels::HeadShape& heads, Schedule* schedule, cudaStream_t stream) {
  LaunchArguments launch{};
  launch.schedule = schedule;
  launch.n_heads = static_cast<int>(heads.n_heads);
  launch.n_kv_heads = static_cast<int>(heads.n_kv_heads);
  launch.head_dim = static_cast<int>(heads.head_dim);
  launch.scale_log2 = heads.scale * kLog2E;
  launch.cap_log2 = heads.softcap * kLog2E;
  const std::vector<std::size_t> order = longest_first(calls);
  for (std::size_t begin = 0; begin < order.size(); begin += kCallsPerLaunch) {
    const std::size_t n = std::min<std::size_t>(kCallsPerLaunch, order.size() - begin);
    launch.n_calls = static_cast<int>(n);
    launch.n_units = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t place = order[begin + i];
      launch.call[i] = arguments<kDim>(calls[place], lse.empty() ? LseRows{} : lse[place], heads, launch.n_units);
      const int n_tiles = (launch.call[i].n_rows + kTileRows<kDim> - 1) / kTileRows<kDim>;
      launch.n_units += n_tiles * launch.call[i].n_heads;
    }
    const int n_blocks = std::min(launch.n_units, multiprocessors());
    if (heads.softcap != 0.F) {
      launch_kernel<kDim, true>(launch, n_blocks, stream);
    } else {
      launch_kernel<kDim, false>(launch, n_blocks, stream);
    }
  }
}

}  // namespace

void attention(std::span<const kernels::AttentionCall> calls, std::span<const LseRows> lse,
               const kernels::HeadShape& heads, Schedule* schedule, cudaStream_t stream) {
  if (heads.head_dim <= 64) {
    attend<64>(calls, lse, heads, schedule, stream);
  } else if (heads.head_dim <= 96) {
    attend<96>(calls, lse, heads, schedule, stream);
  } else if (heads.head_dim <= 128) {
    attend<128>(calls, lse, heads, schedule, stream);
  } else {
    attend<256>(calls, lse, heads, schedule, stream);
  }
}

}  // namespace winnow::cuda::hopper
