// Views of memory, and the shapes that operations refuse.

#include "kernels/tensor.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "tests/kernels/cpu_backend_test.h"

namespace winnow::kernels {
namespace {

// The message of the error that `action` ends with; "" where it does not.
std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kInternal);
    return error.what();
  }
  return "";
}

TEST(Rows, SlicesLieAtTheirRows) {
  Floats values = random_floats(6 * 5, 1);
  const Rows all = rows(values, 5);
  EXPECT_EQ(all.n_rows, 6);
  EXPECT_EQ(all.bytes().size(), values.size() * sizeof(float));
  const ConstRows part = all.slice(2, 3);
  EXPECT_EQ(part.as<float>(), values.data() + 10);
  EXPECT_EQ(part.n_rows, 3);
  EXPECT_EQ(part.cols, 5);
  EXPECT_EQ(part.from(1).as<float>(), values.data() + 15);
  EXPECT_EQ(part.from(1).n_rows, 2);
  EXPECT_EQ(all.slice(6, 0).n_rows, 0);
  EXPECT_EQ(part.slice(0, 0).size_bytes(), 0);
}

TEST(Rows, RefuseWhatTheyDoNotHave) {
  std::vector<uint16_t> halves(12);
  const Rows of_bf16{halves.data(), DType::kBf16, 3, 4};
  EXPECT_EQ(refusal([&] { of_bf16.as<float>(); }), "memory of bf16 taken for fp32");
  EXPECT_EQ(refusal([&] { of_bf16.slice(1, 3); }), "rows [1, 4) of 3 rows");
  EXPECT_EQ(refusal([&] { of_bf16.from(4); }), "rows [4, 3) of 3 rows");
  EXPECT_EQ(refusal([&] { of_bf16.slice(-1, 2); }), "rows [-1, 1) of 3 rows");
  EXPECT_EQ(of_bf16.slice(1, 2).data, halves.data() + 4);
  const Matrix weight{halves.data(), DType::kBf16, 3, 4};
  EXPECT_NE(refusal([&] { weight.as<float>(); }), "");
  EXPECT_NE(refusal([&] { weight.slice(2, 2); }), "");
  EXPECT_EQ(Matrix{}.as<float>(), nullptr);
}

TEST_P(CpuBackendTest, KeysLieInTilesOneAfterAnother) {
  const HeadShape heads{4, 2, 6, 1.0F};
  const int64_t bytes = ops_->device().kv_bytes(3 * tile_, heads);
  const auto memory = ops_->device().allocate(bytes + 5, "a test");
  const KvSpan kv = ops_->device().kv_span(memory->bytes(), heads);
  EXPECT_EQ(kv.n_rows, 3 * tile_);
  EXPECT_EQ(kv.size_bytes(), bytes);
  const auto* begin = static_cast<const std::byte*>(memory->data());
  EXPECT_EQ(kv.slice(tile_, tile_).bytes().data(), begin + ops_->device().kv_bytes(tile_, heads));
  EXPECT_EQ(kv.from(2 * tile_).n_rows, tile_);
  EXPECT_EQ(refusal([&] { kv.slice(tile_, 3 * tile_); }), "rows [" + std::to_string(tile_) + ", " +
                                                              std::to_string(4 * tile_) + ") of " +
                                                              std::to_string(3 * tile_) + " rows");
}

TEST_P(CpuBackendTest, ShapesThatDoNotFitAreRefused) {
  Floats x = random_floats(tile_ * 8, 1);
  Floats out = random_floats(tile_ * 8, 2);
  const Floats weight = random_floats(8 * 8, 3);
  const Rows of_x = rows(x, 8);
  const Rows to = rows(out, 8);
  const Matrix square = matrix(weight, 8, 8);
  const Matrix vector = matrix(weight, 8, 1);
  EXPECT_EQ(refusal([&] { ops_->linear(of_x, square, vector, to, true); }), "");
  EXPECT_NE(refusal([&] { ops_->linear(of_x, matrix(weight, 8, 7), {}, to, true); }), "");
  EXPECT_NE(refusal([&] { ops_->linear(of_x, matrix(weight, 7, 8), {}, to, true); }), "");
  EXPECT_NE(refusal([&] { ops_->linear(of_x, square, matrix(weight, 7, 1), to, true); }), "");
  EXPECT_NE(refusal([&] { ops_->linear(of_x.slice(0, 0), square, vector, to, true); }), "");
  EXPECT_NE(refusal([&] { ops_->norm(of_x, {matrix(weight, 7, 1), {.eps = 1e-6F}}, to); }), "");
  EXPECT_NE(refusal([&] { ops_->copy_rows(of_x, to.from(1)); }), "");
  EXPECT_NE(refusal([&] { ops_->copy_async(of_x.bytes(), to.from(1).bytes()); }), "");
  EXPECT_NE(refusal([&] { ops_->gate(of_x, Activation::kSilu, to); }), "");
  const std::vector<int32_t> tokens(static_cast<std::size_t>(tile_), 1);
  EXPECT_NE(refusal([&] { ops_->embed(square, std::span(tokens).first(3), 1.F, to); }), "");
  std::vector<double> nll(tokens.size());
  std::vector<uint8_t> hits(tokens.size());
  EXPECT_EQ(refusal([&] { ops_->token_nll(of_x, square, {}, tokens, {nll, hits}); }), "");
  EXPECT_NE(refusal([&] { ops_->token_nll(of_x, square, {}, tokens, {nll, std::span(hits).first(3)}); }), "");
  EXPECT_NE(refusal([&] { ops_->token_nll(of_x, square, {}, std::span(tokens).first(3), {nll, hits}); }), "");
  const HeadShape heads{2, 1, 4, 1.0F};
  const auto keys = ops_->device().allocate(ops_->device().kv_bytes(tile_, heads), "a test");
  const KvSpan kv = ops_->device().kv_span(keys->bytes(), heads);
  const RowAngles angles{matrix(weight, 16, 4), tokens};
  EXPECT_EQ(refusal([&] { ops_->store_kv(of_x, heads, {}, angles, kv); }), "");
  EXPECT_NE(refusal([&] { ops_->store_kv(of_x, heads, {}, angles.from(1), kv); }), "");
  EXPECT_NE(refusal([&] { ops_->store_kv(of_x, heads, {}, angles, kv.slice(0, 0)); }), "");
  const KvCopy beyond{kv, 1, kv, 0, tile_};
  EXPECT_NE(refusal([&] { ops_->copy_kv({&beyond, 1}, heads); }), "");
  AttentionCall call{
      .q = of_x, .out = to, .first_row = 0, .n_tokens = tile_, .prefix = {}, .own = {kv, 0}, .window = {}};
  EXPECT_EQ(refusal([&] { ops_->attention({&call, 1}, heads); }), "");
  DecodeCall decode{of_x.slice(0, 1), to.slice(0, 1), 0, {kv, 0, tile_}, {}};
  EXPECT_EQ(refusal([&] { ops_->decode_attention({&decode, 1}, heads); }), "");
  // Sink logits are one a head of queries.
  for (const auto& [n, fits] : {std::pair(1, false), std::pair(2, true), std::pair(3, false)}) {
    call.sink_logits = decode.sink_logits = matrix(weight, n, 1);
    EXPECT_EQ(refusal([&] { ops_->attention({&call, 1}, heads); }).empty(), fits) << n;
    EXPECT_EQ(refusal([&] { ops_->decode_attention({&decode, 1}, heads); }).empty(), fits) << n;
  }
  call.first_row = tile_;
  EXPECT_NE(refusal([&] { ops_->attention({&call, 1}, heads); }), "");
}

}  // namespace
}  // namespace winnow::kernels
