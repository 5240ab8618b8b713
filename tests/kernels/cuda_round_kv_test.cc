// Keys and values rounded and packed on the GPU against the CPU's, bit for bit. Skipped where there is no GPU.
#include <limits>
#include <numeric>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda.h"
#include "tests/kernels/cuda_twins.h"

namespace winnow::kernels {
namespace {

constexpr KvType kNarrow[] = {KvType::kFp8, KvType::kInt8, KvType::kInt4};
constexpr int64_t kTile = 128;  // of the GPU: two of the CPU's

class CudaRoundKvTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  }
};

Floats identity_angles(int64_t n, int64_t head_dim) {
  Floats angles(static_cast<std::size_t>(n * head_dim), 0.0F);
  for (int64_t i = 0; i < n; ++i) std::fill_n(angles.begin() + i * head_dim, head_dim / 2, 1.0F);
  return angles;
}

// Numbers of several sizes, a head of one value, one of zeros of both signs.
Floats some_rows(int64_t n_rows, const HeadShape& heads) {
  Floats kv = random_values(n_rows * 2 * heads.kv_dim(), 42, 40.0F);
  for (std::size_t i = 0; i < kv.size(); i += 7) kv[i] = round_to_bf16(kv[i] * 1e-4F);
  std::fill_n(kv.begin(), heads.head_dim, 2.5F);
  for (int64_t d = 0; d < heads.head_dim; ++d) {
    kv[static_cast<std::size_t>(heads.kv_dim() + d)] = d % 3 == 0 ? -0.0F : 0.0F;
  }
  return kv;
}

// The same rows on both sides.
class RowsOfBoth {
 public:
  // kv (n_rows, 2 * kv_dim): a row's keys and then its values, numbers of bfloat16; n_rows of whole tiles.
  RowsOfBoth(Twins& t, const HeadShape& heads, const Floats& kv)
      : t_(t),
        heads_(heads),
        n_rows_(static_cast<int64_t>(kv.size()) / (2 * heads.kv_dim())),
        of_cpu_(t.cpu().device().allocate(t.cpu().device().kv_bytes(n_rows_, heads), "rows")),
        of_gpu_(t.gpu().device().allocate(t.gpu().device().kv_bytes(n_rows_, heads), "rows")) {
    Floats angles = identity_angles(n_rows_, heads.head_dim);
    std::vector<int32_t> positions(static_cast<std::size_t>(n_rows_));
    std::iota(positions.begin(), positions.end(), 0);
    const auto device_positions = t.gpu().device().upload(positions, "positions");
    Floats host_kv = kv;
    t.cpu().store_kv(Twins::host(host_kv, 2 * heads.kv_dim()), heads, {},
                     {Twins::host_matrix(angles, n_rows_, heads.head_dim), positions}, cpu());
    t.gpu().store_kv(t.upload(kv, 2 * heads.kv_dim()), heads, {},
                     {{t.upload_float32(angles, heads.head_dim).data, DType::kF32, n_rows_, heads.head_dim},
                      device_positions->as<int32_t>()},
                     gpu());
    t.gpu().device().synchronize();
  }
  KvSpan cpu() const { return t_.cpu().device().kv_span(of_cpu_->bytes(), heads_); }
  KvSpan gpu() const { return t_.gpu().device().kv_span(of_gpu_->bytes(), heads_); }

  // Return the first n rows, as kv: of the CPU as the GPU would have them, rounded to bfloat16.
  Floats read_gpu(int64_t n) const { return t_.download({gpu().data, DType::kBf16, n, 2 * heads_.kv_dim()}); }
  Floats read_cpu(int64_t n) const {
    Floats rows;
    for (int64_t row = 0; row < n; ++row) {
      const float* block = cpu::kv_blocks(cpu()) + row / cpu::kRowTile * cpu::kv_block_count(heads_);
      const int64_t r = row % cpu::kRowTile;
      for (int64_t i = 0; i < heads_.kv_dim(); ++i) rows.push_back(round_to_bf16(block[i * cpu::kRowTile + r]));
      const float* values = block + cpu::key_block_count(heads_);
      for (int64_t h = 0; h < heads_.n_kv_heads; ++h) {
        for (int64_t d = 0; d < heads_.head_dim; ++d) {
          rows.push_back(round_to_bf16(values[(h * cpu::kRowTile + r) * cpu::padded_head_dim(heads_.head_dim) + d]));
        }
      }
    }
    return rows;
  }

 private:
  Twins& t_;
  HeadShape heads_;
  int64_t n_rows_;
  std::unique_ptr<Buffer> of_cpu_, of_gpu_;
};

std::vector<uint32_t> bits_of(const Floats& values) {
  std::vector<uint32_t> bits;
  for (const float v : values) bits.push_back(std::bit_cast<uint32_t>(v));
  return bits;
}

// Heads whose threads are all busy, and others.
std::vector<HeadShape> shapes() {
  return {{2, 2, 8, 1.0F}, {4, 3, 24, 1.0F}, {4, 2, 64, 1.0F}, {7, 1, 80, 1.0F}, {32, 8, 128, 1.0F}, {8, 2, 256, 1.0F}};
}

// Many copies of one row and one of many.
TEST_F(CudaRoundKvTest, RowsAreTheirTwinsBitForBit) {
  for (const HeadShape& heads : shapes()) {
    for (const int64_t n_rows : {1, 128, 129, 300}) {
      Twins t;
      const Floats kv = some_rows(round_up(n_rows, kTile), heads);
      for (const KvType type : kNarrow) {
        const KvRounding rounding{type, 0.75F, 1.5F};
        const RowsOfBoth rows(t, heads, kv);
        const RowsOfBoth others(t, heads, Floats(kv.size(), 0.0F));
        const KvCopy on_cpu{rows.cpu(), 0, rows.cpu(), 0, n_rows};
        t.cpu().round_kv({&on_cpu, 1}, rounding, heads);
        std::vector<KvCopy> one_by_one;
        for (int64_t row = 0; row < n_rows; ++row) one_by_one.push_back({rows.gpu(), row, others.gpu(), row, 1});
        t.gpu().round_kv(one_by_one, rounding, heads);
        const KvCopy in_place{rows.gpu(), 0, rows.gpu(), 0, n_rows};
        t.gpu().round_kv({&in_place, 1}, rounding, heads);
        const std::vector<uint32_t> expected = bits_of(rows.read_cpu(n_rows));
        EXPECT_EQ(bits_of(rows.read_gpu(n_rows)), expected) << kv_type_name(type) << " " << heads.head_dim;
        EXPECT_EQ(bits_of(others.read_gpu(n_rows)), expected) << kv_type_name(type) << " " << heads.head_dim;
      }
    }
  }
}

// Codes and scales lie alike in the memory of both, and give the same back: what rounding leaves.
TEST_F(CudaRoundKvTest, PackedRowsAreTheirTwinsBitForBit) {
  for (const HeadShape& heads : shapes()) {
    for (const int64_t n_rows : {1, 128, 129, 300}) {
      Twins t;
      const int64_t padded = round_up(n_rows + 3, kTile);
      const Floats kv = some_rows(padded, heads);
      for (const KvType type : kNarrow) {
        const KvRounding rounding{type, 0.75F, 1.5F};
        const std::string what = std::string(kv_type_name(type)) + " " + std::to_string(heads.head_dim) + ", " +
                                 std::to_string(n_rows) + " rows";
        const RowsOfBoth rows(t, heads, kv);
        const RowsOfBoth given_back(t, heads, Floats(kv.size(), 0.0F));
        const RowsOfBoth rounded(t, heads, kv);
        const int64_t size = packed_kv_bytes(type, padded, heads);
        const auto cpu_memory = t.cpu().device().allocate(size, "codes");
        const auto gpu_memory = t.gpu().device().allocate(size, "codes");
        const PackedKv on_cpu = packed_kv(cpu_memory->bytes(), type, padded, heads);
        const PackedKv on_gpu = packed_kv(gpu_memory->bytes(), type, padded, heads);
        // From row 0 to row 3: all at once on the CPU, the GPU's one by one, more than a launch takes.
        const KvPacking at_once{rows.cpu(), 0, on_cpu, 3, n_rows};
        t.cpu().pack_kv({&at_once, 1}, rounding, heads);
        std::vector<KvPacking> one_by_one;
        for (int64_t row = 0; row < n_rows; ++row) one_by_one.push_back({rows.gpu(), row, on_gpu, 3 + row, 1});
        one_by_one.push_back({rows.gpu(), 0, on_gpu, 0, 0});  // of nothing
        t.gpu().pack_kv(one_by_one, rounding, heads);
        const auto found = t.gpu().device().allocate_host(size, "codes");
        t.gpu().copy_async(gpu_memory->bytes(), found->bytes());
        t.gpu().device().synchronize();
        EXPECT_TRUE(std::ranges::equal(found->bytes(), cpu_memory->bytes())) << what;

        const KvPacking back_on_cpu{given_back.cpu(), 0, on_cpu, 3, n_rows};
        t.cpu().unpack_kv({&back_on_cpu, 1}, rounding, heads);
        const KvPacking back_on_gpu{given_back.gpu(), 0, on_gpu, 3, n_rows};
        t.gpu().unpack_kv({&back_on_gpu, 1}, rounding, heads);
        const KvCopy copy{rounded.gpu(), 0, rounded.gpu(), 0, n_rows};
        t.gpu().round_kv({&copy, 1}, rounding, heads);
        const std::vector<uint32_t> bits = bits_of(given_back.read_gpu(n_rows));
        EXPECT_EQ(bits, bits_of(given_back.read_cpu(n_rows))) << what;
        EXPECT_EQ(bits, bits_of(rounded.read_gpu(n_rows))) << what;
        t.gpu().pack_kv({}, rounding, heads);
        t.gpu().unpack_kv({}, rounding, heads);
      }
    }
  }
}

TEST_F(CudaRoundKvTest, WhatIsNoNumberIsNotLost) {
  Twins t;
  const HeadShape heads{2, 2, 64, 1.0F};
  Floats kv(static_cast<std::size_t>(kTile * 2 * heads.kv_dim()), 1.0F);
  // In the second head of the first row's values: a key would hand it on to the element that it is turned with.
  constexpr std::size_t kAt = 198;
  kv[kAt] = std::numeric_limits<float>::quiet_NaN();
  for (const KvType type : kNarrow) {
    const RowsOfBoth rows(t, heads, kv);
    const auto memory = t.gpu().device().allocate(packed_kv_bytes(type, kTile, heads), "codes");
    const KvPacking both{rows.gpu(), 0, packed_kv(memory->bytes(), type, kTile, heads), 0, 1};
    t.gpu().pack_kv({&both, 1}, {.type = type}, heads);
    t.gpu().unpack_kv({&both, 1}, {.type = type}, heads);
    const Floats found = rows.read_gpu(1);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const bool is_lost = type == KvType::kFp8 ? i == kAt : i >= 192 && i < 256;
      EXPECT_EQ(std::isnan(found[i]), is_lost) << kv_type_name(type) << " " << i;
    }
  }
}

}  // namespace
}  // namespace winnow::kernels
