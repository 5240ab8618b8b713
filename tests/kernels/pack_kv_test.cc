// Packed keys and values: what they give back is what PyTorch and round_kv() leave of them, bit for bit, and every code
// and scale is where kernels/packed_kv.h says.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "kernels/profiled_ops.h"
#include "tests/kernels/kv_rows_test.h"

namespace winnow::kernels {
namespace {

constexpr KvType kNarrow[] = {KvType::kFp8, KvType::kInt8, KvType::kInt4};

class PackKvTest : public KvRowsTest {
 protected:
  // Packed rows in memory that is just as large.
  struct Packed {
    std::unique_ptr<Buffer> memory;
    PackedKv kv;
  };
  Packed packed(KvType type, int64_t n_rows, const HeadShape& heads) {
    const int64_t padded = round_up(n_rows, tile_);
    Packed made{ops_->device().allocate(packed_kv_bytes(type, padded, heads), "packed rows"), {}};
    made.kv = packed_kv(made.memory->bytes(), type, padded, heads);
    return made;
  }
  KeysAndValues rounded(const KeysAndValues& given, int64_t n_rows, const KvRounding& rounding,
                        const HeadShape& heads) {
    const auto rows = memory(n_rows, heads);
    write(given, span(*rows, heads), heads);
    const KvCopy copy{span(*rows, heads), 0, span(*rows, heads), 0, n_rows};
    ops_->round_kv({&copy, 1}, rounding, heads);
    return read(copy.to, n_rows, heads);
  }
};
WINNOW_FOR_EACH_VARIANT(PackKvTest);

KeysAndValues some_rows(int64_t n_rows, const HeadShape& heads) {
  KeysAndValues rows{random_floats(n_rows * heads.kv_dim(), 7), random_floats(n_rows * heads.kv_dim(), 8, 30.0F)};
  std::fill_n(rows.values.begin(), heads.head_dim, 2.5F);  // a head of one value
  return rows;
}

TEST_P(PackKvTest, GivesBackWhatPyTorchDoes) {
  const GoldenRoundings golden;
  const HeadShape& heads = golden.heads;
  ASSERT_EQ(golden.cases.size(), 4U);
  for (const GoldenRoundings::Case& each : golden.cases) {
    const auto from = memory(golden.n_rows(), heads);
    const auto to = memory(golden.n_rows(), heads);
    write(golden.given, span(*from, heads), heads);
    const Packed rows = packed(each.rounding.type, golden.n_rows(), heads);
    const KvPacking in{span(*from, heads), 0, rows.kv, 0, golden.n_rows()};
    const KvPacking out{span(*to, heads), 0, rows.kv, 0, golden.n_rows()};
    ops_->pack_kv({&in, 1}, each.rounding, heads);
    ops_->unpack_kv({&out, 1}, each.rounding, heads);
    EXPECT_EQ(bits_of(read(out.kv, golden.n_rows(), heads)), bits_of(each.rounded)) << each.name;
    EXPECT_EQ(bits_of(read(in.kv, golden.n_rows(), heads)), bits_of(golden.given)) << "what is read stays";
  }
}

// Rows that begin and end inside a tile, brought to other rows and back to others again; rows beside them stay zeros.
TEST_P(PackKvTest, GivesBackWhatRoundingLeavesAtEveryRow) {
  for (const int64_t head_dim : {10, 64, 80, 128, 256}) {
    const HeadShape heads{4, 2, head_dim, 1.0F};
    const int64_t n_rows = 2 * tile_ + 7;
    const KeysAndValues given = some_rows(n_rows, heads);
    for (const KvType type : kNarrow) {
      const KvRounding rounding{type, 0.5F, 2.0F};
      const KeysAndValues expected = rounded(given, n_rows, rounding, heads);
      const auto from = memory(n_rows, heads);
      write(given, span(*from, heads), heads);
      for (const auto& [first, n] : {std::pair<int64_t, int64_t>{3, 1}, {0, tile_}, {tile_ - 1, tile_ + 1}, {5, 33}}) {
        const Packed rows = packed(type, n_rows, heads);
        const auto to = memory(n_rows, heads);
        const KvPacking in{span(*from, heads), first, rows.kv, first + 2, n};
        const KvPacking out{span(*to, heads), 1, rows.kv, 2, n_rows - 2};
        ops_->pack_kv({&in, 1}, rounding, heads);
        ops_->unpack_kv({&out, 1}, rounding, heads);
        const KeysAndValues found = read(out.kv, n_rows, heads);
        KeysAndValues shifted{Floats(found.keys.size(), 0.0F), Floats(found.values.size(), 0.0F)};
        const int64_t count = n * heads.kv_dim();
        std::copy_n(expected.keys.begin() + first * heads.kv_dim(), count,
                    shifted.keys.begin() + (first + 1) * heads.kv_dim());
        std::copy_n(expected.values.begin() + first * heads.kv_dim(), count,
                    shifted.values.begin() + (first + 1) * heads.kv_dim());
        EXPECT_EQ(bits_of(found), bits_of(shifted)) << kv_type_name(type) << " " << head_dim << ", row " << first;
      }
    }
  }
}

// The codes and the scale of every head, looked for by the shapes alone.
TEST_P(PackKvTest, CodesAndScalesAreWhereTheLayoutSays) {
  for (const int64_t head_dim : {64, 80, 128, 256}) {
    const HeadShape heads{6, 3, head_dim, 1.0F};
    const int64_t n_rows = tile_ + 5;
    const KeysAndValues given = some_rows(n_rows, heads);
    const auto from = memory(n_rows, heads);
    write(given, span(*from, heads), heads);
    for (const KvType type : kNarrow) {
      const KvRounding rounding{type, 0.5F, 2.0F};
      const Packed rows = packed(type, n_rows, heads);
      const KvPacking in{span(*from, heads), 0, rows.kv, 0, n_rows};
      ops_->pack_kv({&in, 1}, rounding, heads);
      const int64_t n_heads = round_up(n_rows, tile_) * 6;
      const int64_t code_bytes = type == KvType::kInt4 ? head_dim / 2 : head_dim;
      EXPECT_EQ(rows.memory->size_bytes(), n_heads * (code_bytes + (type == KvType::kFp8 ? 0 : 4)));
      const auto bytes = rows.memory->as<uint8_t>();
      for (int64_t head = 0; head < n_rows * 6; ++head) {
        const bool is_key = head % 6 < 3;
        const float* x = (is_key ? given.keys : given.values).data() + (head / 6 * 3 + head % 3) * head_dim;
        ElementRange range;
        for (int64_t d = 0; d < head_dim; ++d) range.add(x[d]);
        const HeadRounding expected(type, is_key ? 0.5F : 2.0F, range);
        const uint8_t* codes = bytes.data() + head * code_bytes;
        for (int64_t d = 0; d < head_dim; ++d) {
          const int code = type == KvType::kInt4 ? codes[d / 2] >> (d % 2 * 4) & 0xF : codes[d];
          ASSERT_EQ(code, expected.encode(x[d])) << kv_type_name(type) << ", head " << head << ", element " << d;
        }
        const uint8_t* scale = bytes.data() + n_heads * code_bytes + head * 4;
        float number[2] = {};
        if (type == KvType::kInt8) std::memcpy(number, scale, 4);
        for (std::size_t i = 0; i < 2 && type == KvType::kInt4; ++i) {
          std::memcpy(reinterpret_cast<char*>(number + i) + 2, scale + 2 * i, 2);
        }
        if (type != KvType::kFp8) {
          ASSERT_EQ(number[0], expected.kept().scale) << kv_type_name(type) << ", head " << head;
          ASSERT_EQ(number[1], expected.kept().least) << kv_type_name(type) << ", head " << head;
        }
      }
    }
  }
}

// As a cache with sinks and a ring gets its rows: several ranges in one call, later ones in place of earlier ones.
TEST_P(PackKvTest, RowsGoThroughTheSlotsOfARing) {
  const HeadShape heads{4, 2, 80, 1.0F};
  const int64_t n_rows = 3 * tile_ + 1;
  const KeysAndValues given = some_rows(n_rows, heads);
  const auto from = memory(n_rows, heads);
  write(given, span(*from, heads), heads);
  const KvCache slots{{}, 3, 50};
  for (const KvType type : kNarrow) {
    const KvRounding rounding{type, 0.5F, 2.0F};
    const KeysAndValues expected = rounded(given, n_rows, rounding, heads);
    const Packed rows = packed(type, 53, heads);
    for (int64_t row = 0; row < n_rows; row += 7) {
      std::vector<KvPacking> in;
      for (int64_t r = row; r < std::min(row + 7, n_rows); ++r) {
        in.push_back({span(*from, heads), r, rows.kv, slots.slot(r), 1});
      }
      ops_->pack_kv(in, rounding, heads);
    }
    const auto to = memory(53, heads);
    const KvPacking out{span(*to, heads), 0, rows.kv, 0, 53};
    ops_->unpack_kv({&out, 1}, rounding, heads);
    const KeysAndValues found = read(out.kv, 53, heads);
    int64_t n_seen = 0;
    for (int64_t row = 0; row < n_rows; ++row) {
      if (row >= 3 && row + 50 < n_rows) continue;
      ++n_seen;
      for (int64_t i = 0; i < heads.kv_dim(); ++i) {
        const auto at = static_cast<std::size_t>(row * heads.kv_dim() + i);
        const auto slot = static_cast<std::size_t>(slots.slot(row) * heads.kv_dim() + i);
        ASSERT_EQ(found.keys[slot], expected.keys[at]) << kv_type_name(type) << ", row " << row;
        ASSERT_EQ(found.values[slot], expected.values[at]) << kv_type_name(type) << ", row " << row;
      }
    }
    EXPECT_EQ(n_seen, 53);
  }
}

TEST_P(PackKvTest, WhatIsNoNumberIsNotLost) {
  const HeadShape heads{2, 2, 4, 1.0F};
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const KeysAndValues given{{1.0F, -kNan, -2.0F, 0.5F, 1.0F, 2.0F, 3.0F, 4.0F},
                            {0.0F, kNan, kNan, kNan, kInfinity, 1.0F, -kInfinity, 2.0F}};
  for (const KvType type : kNarrow) {
    const auto rows = memory(1, heads);
    write(given, span(*rows, heads), heads);
    const Packed in_codes = packed(type, 1, heads);
    const KvPacking both{span(*rows, heads), 0, in_codes.kv, 0, 1};
    ops_->pack_kv({&both, 1}, {.type = type}, heads);
    ops_->unpack_kv({&both, 1}, {.type = type}, heads);
    const KeysAndValues found = read(both.kv, 1, heads);
    const bool is_of_head = type != KvType::kFp8;
    for (const std::size_t d : {0, 1, 2, 3}) {
      EXPECT_EQ(std::isnan(found.keys[d]), d == 1 || is_of_head) << kv_type_name(type) << " " << d;
      EXPECT_EQ(std::isnan(found.values[d]), d > 0 || is_of_head) << kv_type_name(type) << " " << d;
      EXPECT_TRUE(std::isfinite(found.keys[4 + d])) << "the head beside";
      EXPECT_EQ(std::isnan(found.values[4 + d]), is_of_head) << "fp8 saturates";
    }
  }
}

TEST_P(PackKvTest, AProfileCountsWhatIsMoved) {
  const HeadShape heads{2, 1, 64, 1.0F};
  const auto rows = memory(3, heads);
  write(some_rows(3, heads), span(*rows, heads), heads);
  const Packed in_codes = packed(KvType::kInt4, 3, heads);
  const KvPacking all{span(*rows, heads), 0, in_codes.kv, 0, 3};
  const KvRounding rounding{.type = KvType::kInt4};
  const KeysAndValues expected = rounded(some_rows(3, heads), 3, rounding, heads);
  ProfiledOps profiled(*ops_);
  profiled.pack_kv({&all, 1}, rounding, heads);
  profiled.unpack_kv({&all, 1}, rounding, heads);
  EXPECT_EQ(bits_of(read(all.kv, 3, heads)), bits_of(expected));
  const Profile profile = profiled.profile();
  ASSERT_EQ(profile.operations.size(), 2U);
  for (const OperationProfile& operation : profile.operations) {
    EXPECT_TRUE(operation.name == "pack_kv" || operation.name == "unpack_kv") << operation.name;
    EXPECT_EQ(operation.calls, 1);
    EXPECT_EQ(operation.bytes, 3 * 2 * (64 * 4 + 32 + 4));  // float32 on one side, codes and scales on the other
  }
}

TEST_P(PackKvTest, RefusesWhatDoesNotFit) {
  const HeadShape heads{2, 1, 4, 1.0F};
  const auto rows = memory(1, heads);
  const Packed in_codes = packed(KvType::kInt4, 1, heads);
  const KvPacking fits{span(*rows, heads), 0, in_codes.kv, 0, tile_};
  const auto refuses = [&](const KvPacking& some, const KvRounding& rounding, const HeadShape& shape) {
    EXPECT_THROW(ops_->pack_kv({&some, 1}, rounding, shape), Error);
    EXPECT_THROW(ops_->unpack_kv({&some, 1}, rounding, shape), Error);
  };
  EXPECT_NO_THROW(ops_->pack_kv({&fits, 1}, {.type = KvType::kInt4}, heads));
  EXPECT_NO_THROW(ops_->unpack_kv({&fits, 1}, {.type = KvType::kInt4}, heads));
  EXPECT_NO_THROW(ops_->pack_kv({}, {.type = KvType::kInt4}, heads));
  refuses(fits, {.type = KvType::kInt8}, heads);
  refuses(fits, {.type = KvType::kStored}, heads);
  refuses(fits, {.type = KvType::kInt4}, {2, 2, 4, 1.0F});
  refuses(fits, {.type = KvType::kInt4}, {2, 1, 6, 1.0F});
  KvPacking beyond = fits;
  beyond.packed_row = 1;
  refuses(beyond, {.type = KvType::kInt4}, heads);
  beyond = fits;
  beyond.kv_row = 1;
  refuses(beyond, {.type = KvType::kInt4}, heads);
  KvPacking odd = fits;
  odd.packed.head_dim = 3;
  refuses(odd, {.type = KvType::kInt4}, {2, 1, 3, 1.0F});
  KvPacking fp8 = fits;
  fp8.packed.type = KvType::kFp8;
  refuses(fp8, {.type = KvType::kFp8, .key_scale = 0.0F}, heads);
  EXPECT_THROW(packed_kv(in_codes.memory->bytes(), KvType::kInt4, 2 * tile_, heads), Error);
}

}  // namespace
}  // namespace winnow::kernels
