// What tests of keys and values in a cache share: rows written to the memory of the CPU's backend and read from it, and
// what PyTorch makes of them.
#pragma once

#include <bit>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "kernels/cpu/cpu_backend.h"
#include "tests/kernels/cpu_backend_test.h"

namespace winnow::kernels {

// Keys, then values: (rows, n_kv_heads, head_dim) each.
struct KeysAndValues {
  Floats keys;
  Floats values;
};

inline std::vector<uint32_t> bits_of(const Floats& values) {
  std::vector<uint32_t> bits;
  for (const float v : values) bits.push_back(std::bit_cast<uint32_t>(v));
  return bits;
}

inline std::vector<std::vector<uint32_t>> bits_of(const KeysAndValues& rows) {
  return {bits_of(rows.keys), bits_of(rows.values)};
}

// tests/golden/kv_rounding.json.
struct GoldenRoundings {
  struct Case {
    std::string name;
    KvRounding rounding;
    KeysAndValues rounded;
  };
  HeadShape heads;
  KeysAndValues given;
  std::vector<Case> cases;

  GoldenRoundings() {
    std::ifstream file(std::filesystem::path(WINNOW_TESTS_DIR) / "golden" / "kv_rounding.json");
    const nlohmann::json golden = nlohmann::json::parse(file);
    heads = {2, golden.at("n_kv_heads"), golden.at("head_dim"), 1.0F};
    given = {floats_of(golden.at("keys")), floats_of(golden.at("values"))};
    for (const nlohmann::json& each : golden.at("cases")) {
      cases.push_back({each.at("type"),
                       {*find_kv_type(each.at("type").get<std::string>()), each.at("scales")[0], each.at("scales")[1]},
                       {floats_of(each.at("keys")), floats_of(each.at("values"))}});
    }
  }
  int64_t n_rows() const { return static_cast<int64_t>(given.keys.size()) / heads.kv_dim(); }

 private:
  static Floats floats_of(const nlohmann::json& bits) {
    Floats values;
    for (const auto& each : bits) values.push_back(std::bit_cast<float>(each.get<int32_t>()));
    return values;
  }
};

class KvRowsTest : public CpuBackendTest {
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

}  // namespace winnow::kernels
