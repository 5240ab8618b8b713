// Keys and values rounded on the GPU against the CPU's, bit for bit. Skipped where there is no GPU.
#include <numeric>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda.h"
#include "tests/kernels/cuda_twins.h"

namespace winnow::kernels {
namespace {

class CudaRoundKvTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  }
};

// kv (n_rows, 2 * kv_dim): rows of the CPU's memory as the GPU has them, rounded to bfloat16.
Floats rows_of_cpu(const KvSpan& kv, int64_t n_rows, const HeadShape& heads) {
  Floats rows;
  for (int64_t row = 0; row < n_rows; ++row) {
    const float* block = cpu::kv_blocks(kv) + row / cpu::kRowTile * cpu::kv_block_count(heads);
    const int64_t r = row % cpu::kRowTile;
    for (int64_t i = 0; i < heads.kv_dim(); ++i) rows.push_back(round_to_bf16(block[i * cpu::kRowTile + r]));
    const float* values = block + cpu::key_block_count(heads);
    for (int64_t h = 0; h < heads.n_kv_heads; ++h) {
      for (int64_t d = 0; d < heads.head_dim; ++d) {
        rows.push_back(round_to_bf16(values[(h * cpu::kRowTile + r) * cpu::padded_head_dim(heads.head_dim) + d]));
      }
    }
  }
  return rows;
}

Floats identity_angles(int64_t n, int64_t head_dim) {
  Floats angles(static_cast<std::size_t>(n * head_dim), 0.0F);
  for (int64_t i = 0; i < n; ++i) std::fill_n(angles.begin() + i * head_dim, head_dim / 2, 1.0F);
  return angles;
}

// Many copies of one row and one of many; heads whose threads are all busy, and others.
TEST_F(CudaRoundKvTest, RowsAreTheirTwinsBitForBit) {
  for (const HeadShape& heads : {HeadShape{2, 2, 8, 1.0F}, HeadShape{4, 3, 24, 1.0F}, HeadShape{7, 1, 80, 1.0F},
                                 HeadShape{32, 8, 128, 1.0F}, HeadShape{8, 2, 256, 1.0F}}) {
    for (const int64_t n_rows : {1, 128, 129, 300}) {
      Twins t;
      const int64_t padded = round_up(n_rows, 128);
      Floats kv = random_values(padded * 2 * heads.kv_dim(), 42, 40.0F);
      for (std::size_t i = 0; i < kv.size(); i += 7) kv[i] = round_to_bf16(kv[i] * 1e-4F);
      std::fill_n(kv.begin(), heads.head_dim, 2.5F);  // a head of one value
      Floats angles = identity_angles(padded, heads.head_dim);
      std::vector<int32_t> positions(static_cast<std::size_t>(padded));
      std::iota(positions.begin(), positions.end(), 0);
      const auto device_positions = t.gpu().device().upload(positions, "positions");
      const auto cpu_memory = t.cpu().device().allocate(t.cpu().device().kv_bytes(padded, heads), "rows");
      const auto gpu_memory = t.gpu().device().allocate(t.gpu().device().kv_bytes(padded, heads), "rows");
      const auto gpu_rounded = t.gpu().device().allocate(t.gpu().device().kv_bytes(padded, heads), "rows");
      const KvSpan of_cpu = t.cpu().device().kv_span(cpu_memory->bytes(), heads);
      const KvSpan of_gpu = t.gpu().device().kv_span(gpu_memory->bytes(), heads);
      const KvSpan rounded = t.gpu().device().kv_span(gpu_rounded->bytes(), heads);
      for (const KvType type : {KvType::kFp8, KvType::kInt8, KvType::kInt4}) {
        const KvRounding rounding{type, 0.75F, 1.5F};
        const Rows device_kv = t.upload(kv, 2 * heads.kv_dim());
        Floats host_kv = kv;
        t.cpu().store_kv(Twins::host(host_kv, 2 * heads.kv_dim()), heads, {},
                         {Twins::host_matrix(angles, padded, heads.head_dim), positions}, of_cpu);
        t.gpu().store_kv(device_kv, heads, {},
                         {{t.upload_float32(angles, heads.head_dim).data, DType::kF32, padded, heads.head_dim},
                          device_positions->as<int32_t>()},
                         of_gpu);
        const KvCopy on_cpu{of_cpu, 0, of_cpu, 0, n_rows};
        t.cpu().round_kv({&on_cpu, 1}, rounding, heads);
        std::vector<KvCopy> one_by_one;
        for (int64_t row = 0; row < n_rows; ++row) one_by_one.push_back({of_gpu, row, rounded, row, 1});
        t.gpu().round_kv(one_by_one, rounding, heads);
        const KvCopy in_place{of_gpu, 0, of_gpu, 0, n_rows};
        t.gpu().round_kv({&in_place, 1}, rounding, heads);
        const Floats expected = rows_of_cpu(of_cpu, n_rows, heads);
        for (const KvSpan& found : {of_gpu, rounded}) {
          const ConstRows rows{found.data, DType::kBf16, n_rows, 2 * heads.kv_dim()};
          EXPECT_EQ(t.download(rows), expected) << kv_type_name(type) << " " << heads.head_dim << " " << n_rows;
        }
      }
    }
  }
}

}  // namespace
}  // namespace winnow::kernels
