// Keys and values rounded to the types of caches: against PyTorch, bit for bit, and row by row.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/kernels/cpu_backend_test.h"

namespace winnow::kernels {
namespace {

// Keys, then values: (rows, n_kv_heads, head_dim) each.
struct KeysAndValues {
  Floats keys;
  Floats values;
};

Floats floats_of(const nlohmann::json& bits) {
  Floats values;
  for (const auto& each : bits) values.push_back(std::bit_cast<float>(each.get<int32_t>()));
  return values;
}

std::vector<uint32_t> bits_of(const Floats& values) {
  std::vector<uint32_t> bits;
  for (const float v : values) bits.push_back(std::bit_cast<uint32_t>(v));
  return bits;
}

class RoundKvTest : public CpuBackendTest {
 protected:
  // Memory for n rows of a cache.
  std::unique_ptr<Buffer> memory(int64_t n_rows, const HeadShape& heads) {
    return ops_->device().allocate(ops_->device().kv_bytes(round_up(n_rows, tile_), heads), "rows");
  }
  KvSpan span(Buffer& memory, const HeadShape& heads) { return ops_->device().kv_span(memory.bytes(), heads); }

  // Where the elements of a row's keys and values are, head by head.
  template <typename Use>
  static void for_each_element(const KvSpan& kv, int64_t n_rows, const HeadShape& heads, Use use) {
    for (int64_t row = 0; row < n_rows; ++row) {
      float* block = cpu::kv_blocks(kv) + row / cpu::kRowTile * cpu::kv_block_count(heads);
      float* values = block + cpu::key_block_count(heads);
      const int64_t r = row % cpu::kRowTile;
      for (int64_t h = 0; h < heads.n_kv_heads; ++h) {
        for (int64_t d = 0; d < heads.head_dim; ++d) {
          const auto at = static_cast<std::size_t>((row * heads.n_kv_heads + h) * heads.head_dim + d);
          use(at, block[(h * heads.head_dim + d) * cpu::kRowTile + r],
              values[(h * cpu::kRowTile + r) * cpu::padded_head_dim(heads.head_dim) + d]);
        }
      }
    }
  }
  static void write(const KeysAndValues& from, const KvSpan& to, const HeadShape& heads) {
    const auto n_rows = static_cast<int64_t>(from.keys.size()) / heads.kv_dim();
    for_each_element(to, n_rows, heads, [&](std::size_t at, float& key, float& value) {
      key = from.keys[at];
      value = from.values[at];
    });
  }
  static KeysAndValues read(const KvSpan& from, int64_t n_rows, const HeadShape& heads) {
    const auto count = static_cast<std::size_t>(n_rows * heads.kv_dim());
    KeysAndValues read{Floats(count), Floats(count)};
    for_each_element(from, n_rows, heads, [&](std::size_t at, float& key, float& value) {
      read.keys[at] = key;
      read.values[at] = value;
    });
    return read;
  }
};
WINNOW_FOR_EACH_VARIANT(RoundKvTest);

TEST_P(RoundKvTest, EqualsPyTorchBitForBit) {
  std::ifstream file(std::filesystem::path(WINNOW_TESTS_DIR) / "golden" / "kv_rounding.json");
  const nlohmann::json golden = nlohmann::json::parse(file);
  const HeadShape heads{2, golden.at("n_kv_heads"), golden.at("head_dim"), 1.0F};
  const KeysAndValues given{floats_of(golden.at("keys")), floats_of(golden.at("values"))};
  const auto n_rows = static_cast<int64_t>(given.keys.size()) / heads.kv_dim();
  ASSERT_GT(n_rows, 8);
  ASSERT_EQ(golden.at("cases").size(), 4U);
  for (const nlohmann::json& each : golden.at("cases")) {
    const KvRounding rounding{*find_kv_type(each.at("type").get<std::string>()), each.at("scales")[0],
                              each.at("scales")[1]};
    const auto from = memory(n_rows, heads);
    const auto to = memory(n_rows, heads);
    write(given, span(*from, heads), heads);
    const KvCopy copy{span(*from, heads), 0, span(*to, heads), 0, n_rows};
    ops_->round_kv({&copy, 1}, rounding, heads);
    const KeysAndValues found = read(copy.to, n_rows, heads);
    EXPECT_EQ(bits_of(found.keys), bits_of(floats_of(each.at("keys")))) << each.at("type");
    EXPECT_EQ(bits_of(found.values), bits_of(floats_of(each.at("values")))) << each.at("type");
    EXPECT_EQ(bits_of(read(copy.from, n_rows, heads).keys), bits_of(given.keys)) << "what is read stays";
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
    EXPECT_TRUE(std::isnan(found.keys[1])) << kv_type_name(type);
    EXPECT_NEAR(found.keys[0], 1.0F, 0.2F) << kv_type_name(type);
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
