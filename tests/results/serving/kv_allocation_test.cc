#include "results/serving/kv_allocation.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace winnow::serving {
namespace {

constexpr KvShape kShape = {.n_kv_heads = 8, .head_dim = 128, .element_bytes = 2};
constexpr double kTokenBytes = 4096.0;  // 2 * 8 * 128 * 2, of a layer

std::vector<int64_t> windows_of(int64_t n_full, int64_t n_windowed, int64_t window) {
  std::vector<int64_t> windows(static_cast<std::size_t>(n_full), 0);
  windows.insert(windows.end(), static_cast<std::size_t>(n_windowed), window);
  return windows;
}

double tokens_taken(const char* engine, const std::vector<int64_t>& windows, const KvDemand& demand) {
  return kv_allocation(engine, windows, kShape, demand).allocated_bytes / kTokenBytes;
}

TEST(KvAllocation, IdealIsWhatTheWindowsSee) {
  const KvAllocation kv = kv_allocation("vllm", windows_of(9, 27, 2048), kShape, {.max_seq_len = 32768});
  EXPECT_EQ(kv.ideal_bytes, (9 * 32768 + 27 * 2048) * kTokenBytes);
  const KvAllocation twice =
      kv_allocation("vllm", windows_of(9, 27, 2048), kShape, {.max_seq_len = 32768, .concurrency = 2});
  EXPECT_EQ(twice.ideal_bytes, 2 * kv.ideal_bytes);
  EXPECT_EQ(twice.allocated_bytes, 2 * kv.allocated_bytes);
  // A window beyond the sequence is the sequence.
  EXPECT_EQ(kv_allocation("vllm", windows_of(1, 1, 2048), kShape, {.max_seq_len = 100}).ideal_bytes, 200 * kTokenBytes);
}

TEST(KvAllocation, VllmTakesBlocksForTheWindowAndTheChunk) {
  // 2047 + 2 * 8192 tokens are 1152 blocks of 16, and one more since a window may begin within a block.
  EXPECT_EQ(tokens_taken("vllm", windows_of(9, 27, 2048), {.max_seq_len = 32768}), 9 * 32768 + 27 * 1153 * 16);
  EXPECT_EQ(tokens_taken("vllm", windows_of(9, 27, 2048), {.max_seq_len = 32768, .chunk = 1}),
            9 * 32768 + 27 * 130 * 16);
  EXPECT_EQ(tokens_taken("vllm", windows_of(36, 0, 0), {.max_seq_len = 1000}), 36 * 63 * 16);
  EXPECT_EQ(kv_allocation("vllm", windows_of(9, 27, 8), kShape, {.max_seq_len = 1000}).full_bytes,
            36 * 63 * 16 * kTokenBytes);
}

// 8 heads of 128: a token takes 4096 bytes, 2048 in fp8, 2112 in int8 with its scales, 1088 in int4.
TEST(KvAllocation, ATypeTakesItsElementsAndScales) {
  const std::vector<int64_t> windows = windows_of(2, 2, 2048);
  const std::vector<KvType> kv = {KvType::kStored, KvType::kInt8, KvType::kInt4, KvType::kFp8};
  const KvAllocation found = kv_allocation("ideal", windows, kShape, {.max_seq_len = 32768}, kv);
  EXPECT_EQ(found.ideal_bytes, 32768 * (4096.0 + 2112.0) + 2048 * (1088.0 + 2048.0));
  EXPECT_EQ(found.full_bytes, 4 * 32768 * 4096.0);
  const std::vector<KvType> all_fp8(4, KvType::kFp8);
  for (const char* engine : {"vllm", "sglang", "trtllm"}) {
    EXPECT_EQ(kv_allocation(engine, windows, kShape, {.max_seq_len = 32768}, all_fp8).allocated_bytes,
              kv_allocation(engine, windows, kShape, {.max_seq_len = 32768}).allocated_bytes / 2)
        << engine;
  }
}

TEST(KvAllocation, VllmHasBlocksOfOneSize) {
  const std::vector<int64_t> full(4, 0);
  const auto blocks_of = [&](KvType type) {
    const std::vector<KvType> kv = {KvType::kStored, KvType::kStored, type, type};
    return kv_allocation("vllm", full, kShape, {.max_seq_len = 1000}, kv).allocated_bytes / (16 * kTokenBytes);
  };
  EXPECT_EQ(blocks_of(KvType::kFp8), 2 * 63 + 2 * 32) << "32 tokens a block";
  EXPECT_EQ(blocks_of(KvType::kInt8), 4 * 63) << "its scales make it no whole part: padded";
}

TEST(KvAllocation, VllmPadsGroupsOfLayers) {
  const KvDemand demand = {.max_seq_len = 16000, .chunk = 1};
  // Groups of 8: 28 windowed layers take the room of 32, each 15 + 2 tokens, which are 2 blocks, and a block more.
  EXPECT_EQ(tokens_taken("vllm", windows_of(8, 28, 16), demand), 8 * 16000 + 32 * 48);
  // 13 is less than 1.5 times 12, so groups of 13.
  EXPECT_EQ(tokens_taken("vllm", windows_of(12, 13, 16), demand), 13 * 16000 + 13 * 48);
  // Windows of another size are a kind of their own.
  std::vector<int64_t> three = windows_of(4, 4, 16);
  three.insert(three.end(), 4, 32);
  EXPECT_EQ(tokens_taken("vllm", three, demand), 4 * 16000 + 4 * 48 + 4 * 64);
}

TEST(KvAllocation, SomeEnginesKeepHalfPrecisionOfFloat32) {
  constexpr KvShape kFloat32 = {.n_kv_heads = 8, .head_dim = 128, .element_bytes = 4};
  const std::vector<int64_t> windows = windows_of(2, 3, 2048);
  for (const char* engine : {"vllm", "sglang", "llamacpp", "mlx", "transformers"}) {
    const bool is_half = std::string(engine) != "mlx" && std::string(engine) != "transformers";
    const double bytes = kv_allocation(engine, windows, kFloat32, {.max_seq_len = 32768}).allocated_bytes;
    EXPECT_EQ(bytes / kTokenBytes / (is_half ? 1 : 2), tokens_taken(engine, windows, {.max_seq_len = 32768})) << engine;
  }
}

TEST(KvAllocation, SglangSplitsItsPool) {
  // 2048 + 1 + 8192 of 100,000 tokens, rounded up to hundredths.
  EXPECT_EQ(sglang_pool_ratio(2048, 100000), 0.11);
  EXPECT_EQ(sglang_pool_ratio(2048, 100000, 1000), 0.04);
  EXPECT_EQ(sglang_pool_ratio(2048, 4096), 1.0);
  EXPECT_DOUBLE_EQ(tokens_taken("sglang", windows_of(9, 27, 2048), {.max_seq_len = 100000}), 900000 + 27 * 11000);
}

TEST(KvAllocation, OtherEnginesKeepEachLayerByItself) {
  const std::vector<int64_t> windows = windows_of(2, 3, 2048);
  // llama.cpp: the window and a micro-batch of 512, in multiples of 256.
  EXPECT_EQ(tokens_taken("llamacpp", windows, {.max_seq_len = 32700}), 2 * 32768 + 3 * 2560);
  EXPECT_EQ(tokens_taken("llamacpp", windows, {.max_seq_len = 1000}), 5 * 1024);
  // MLX-LM: steps of 256; while a prompt is processed 2047 tokens beside the chunk of 2048.
  EXPECT_EQ(tokens_taken("mlx", windows, {.max_seq_len = 32700}), 2 * 32768 + 3 * 4095);
  // TensorRT-LLM: blocks of 32, the window, the chunk and a block.
  EXPECT_EQ(tokens_taken("trtllm", windows, {.max_seq_len = 32700}), 2 * 32704 + 3 * (10240 + 32));
  EXPECT_EQ(tokens_taken("trtllm", windows, {.max_seq_len = 1000}), 5 * 1024);
  EXPECT_EQ(tokens_taken("transformers", windows, {.max_seq_len = 32700}), 2 * 32700 + 3 * 2048);
  // SWAA masks, and keeps all.
  EXPECT_EQ(tokens_taken("swaa", windows, {.max_seq_len = 32700}), 5 * 32700);
}

}  // namespace
}  // namespace winnow::serving
