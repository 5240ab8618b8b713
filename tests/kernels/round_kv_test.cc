// Keys and values rounded to the types of caches: against PyTorch, bit for bit, and row by row.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "tests/kernels/kv_rows_test.h"

namespace winnow::kernels {
namespace {

using RoundKvTest = KvRowsTest;
WINNOW_FOR_EACH_VARIANT(RoundKvTest);

TEST_P(RoundKvTest, EqualsPyTorchBitForBit) {
  const GoldenRoundings golden;
  ASSERT_GT(golden.n_rows(), 8);
  ASSERT_EQ(golden.cases.size(), 4U);
  for (const GoldenRoundings::Case& each : golden.cases) {
    const auto from = memory(golden.n_rows(), golden.heads);
    const auto to = memory(golden.n_rows(), golden.heads);
    write(golden.given, span(*from, golden.heads), golden.heads);
    const KvCopy copy{span(*from, golden.heads), 0, span(*to, golden.heads), 0, golden.n_rows()};
    ops_->round_kv({&copy, 1}, each.rounding, golden.heads);
    EXPECT_EQ(bits_of(read(copy.to, golden.n_rows(), golden.heads)), bits_of(each.rounded)) << each.name;
    EXPECT_EQ(bits_of(read(copy.from, golden.n_rows(), golden.heads)), bits_of(golden.given)) << "what is read stays";
  }
}

// One row, a full tile, one more; in place; and from row to row. Rows beside those that are asked for stay.
TEST_P(RoundKvTest, RowsDoNotDependOnTheirCompany) {
  const HeadShape heads{4, 2, 10, 1.0F};
  const int64_t n_rows = 2 * tile_ + 5;
  const KeysAndValues given{random_floats(n_rows * heads.kv_dim(), 7), random_floats(n_rows * heads.kv_dim(), 8, 30.F)};
  for (const KvType type : {KvType::kFp8, KvType::kInt8, KvType::kInt4}) {
    const KvRounding rounding{type, 0.5F, 2.0F};
    const auto all = memory(n_rows, heads);
    write(given, span(*all, heads), heads);
    const KvCopy in_place{span(*all, heads), 0, span(*all, heads), 0, n_rows};
    ops_->round_kv({&in_place, 1}, rounding, heads);
    const KeysAndValues rounded = read(in_place.to, n_rows, heads);
    EXPECT_NE(bits_of(rounded.keys), bits_of(given.keys));
    EXPECT_NE(bits_of(rounded.values), bits_of(given.values));
    for (const auto& [first, n] : {std::pair<int64_t, int64_t>{3, 1}, {0, tile_}, {tile_ - 1, tile_ + 1}}) {
      const auto from = memory(n_rows, heads);
      const auto to = memory(n_rows, heads);
      write(given, span(*from, heads), heads);
      const KvCopy copy{span(*from, heads), first, span(*to, heads), first + 2, n};
      ops_->round_kv({&copy, 1}, rounding, heads);
      const KeysAndValues found = read(copy.to, n_rows, heads);
      for (int64_t row = 0; row < n_rows; ++row) {
        const bool is_there = row >= first + 2 && row < first + 2 + n;
        for (int64_t i = 0; i < heads.kv_dim(); ++i) {
          const auto at = static_cast<std::size_t>(row * heads.kv_dim() + i);
          const auto source = static_cast<std::size_t>((row - 2) * heads.kv_dim() + i);
          EXPECT_EQ(found.keys[at], is_there ? rounded.keys[source] : 0.0F);
          EXPECT_EQ(found.values[at], is_there ? rounded.values[source] : 0.0F);
        }
      }
    }
  }
}

TEST_P(RoundKvTest, WhatIsNoNumberStaysNone) {
  const HeadShape heads{1, 1, 4, 1.0F};
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const KeysAndValues given{{1.0F, kNan, -2.0F, 0.5F}, {kNan, kNan, kNan, kNan}};
  for (const KvType type : {KvType::kFp8, KvType::kInt8, KvType::kInt4}) {
    const auto rows = memory(1, heads);
    write(given, span(*rows, heads), heads);
    const KvCopy copy{span(*rows, heads), 0, span(*rows, heads), 0, 1};
    ops_->round_kv({&copy, 1}, {.type = type}, heads);
    const KeysAndValues found = read(copy.to, 1, heads);
    for (const std::size_t d : {0, 1, 2, 3}) {
      // A code of fp8 is NaN by itself; a head of the others has only its scale to say so.
      EXPECT_EQ(std::isnan(found.keys[d]), d == 1 || type != KvType::kFp8) << kv_type_name(type) << " " << d;
    }
    for (const float value : found.values) EXPECT_TRUE(std::isnan(value)) << kv_type_name(type);
  }
}

TEST_P(RoundKvTest, RefusesRowsThatAreNotThereAndScalesThatAreNone) {
  const HeadShape heads{1, 1, 4, 1.0F};
  const auto rows = memory(1, heads);
  const KvSpan kv = span(*rows, heads);
  const KvCopy fits{kv, 0, kv, 0, tile_};
  const KvCopy beyond{kv, 0, kv, 1, tile_};
  EXPECT_NO_THROW(ops_->round_kv({&fits, 1}, {.type = KvType::kFp8}, heads));
  EXPECT_THROW(ops_->round_kv({&beyond, 1}, {.type = KvType::kFp8}, heads), Error);
  EXPECT_THROW(ops_->round_kv({&fits, 1}, {.type = KvType::kFp8, .key_scale = 0.0F}, heads), Error);
  EXPECT_NO_THROW(ops_->round_kv({&fits, 1}, {.type = KvType::kInt8, .key_scale = 0.0F}, heads));
}

TEST(ElementRange, WhatIsNoNumberIsNotLost) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const int at : {0, 1, 2}) {
    ElementRange range;
    for (const int i : {0, 1, 2}) range.add(i == at ? kNan : 1.0F);
    EXPECT_TRUE(std::isnan(range.least) && std::isnan(range.largest)) << at;
    ElementRange other;
    other.add(-3.0F);
    other.add(range);
    range.add(ElementRange{-5.0F, 5.0F});
    EXPECT_TRUE(std::isnan(other.least) && std::isnan(range.largest)) << at;
  }
}

// As threads without an element of a head have.
TEST(ElementRange, OneOfNothingChangesNoOther) {
  ElementRange range;
  range.add(2.5F);
  range.add(-1.0F);
  range.add(ElementRange{});
  EXPECT_EQ(range.least, -1.0F);
  EXPECT_EQ(range.largest, 2.5F);
  ElementRange of_nothing;
  of_nothing.add(range);
  EXPECT_EQ(of_nothing.least, -1.0F);
  EXPECT_EQ(of_nothing.largest, 2.5F);
}

}  // namespace
}  // namespace winnow::kernels
