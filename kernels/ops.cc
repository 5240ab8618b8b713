#include "kernels/ops.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::kernels {

namespace {

void require(bool fits, const char* operation, const char* what) {
  if (fits) return;
  fail(ExitCode::kInternal, std::string(operation) + ": " + what + " do not fit each other");
}

bool is_shape(ConstRows rows, int64_t n_rows, int64_t cols) { return rows.n_rows == n_rows && rows.cols == cols; }

template <typename T>
int64_t count(std::span<T> values) {
  return static_cast<int64_t>(values.size());
}

bool have_angles(const RowAngles& angles, const HeadShape& heads, int64_t n_rows) {
  return angles.cos_sin.cols == heads.head_dim && count(angles.positions) >= n_rows;
}

bool has_head_norm(const HeadNorm& norm, const HeadShape& heads, int64_t n_heads) {
  const int64_t n = norm.norm.weight.rows;
  return !norm.norm || n == heads.head_dim || n == n_heads * heads.head_dim;
}

bool has_sink_logits(const Matrix& logits, const HeadShape& heads) {
  return !logits || (logits.rows == heads.n_heads && logits.cols == 1);
}

bool has_kv_heads(const std::optional<HeadRange>& range, const HeadShape& heads) {
  return !range || (range->begin >= 0 && range->begin < range->end && range->end <= heads.n_kv_heads);
}

bool holds(const KvSpan& kv, int64_t first_row, int64_t n_rows) {
  return first_row >= 0 && n_rows >= 0 && first_row + n_rows <= kv.n_rows;
}

bool hold(std::span<const KvCopy> copies) {
  return std::ranges::all_of(copies, [](const KvCopy& copy) {
    return holds(copy.from, copy.from_row, copy.n_rows) && holds(copy.to, copy.to_row, copy.n_rows);
  });
}

bool has_scales(const KvRounding& rounding) {
  return rounding.type != KvType::kFp8 || (rounding.key_scale > 0.0F && rounding.value_scale > 0.0F);
}

void require_packing(std::span<const KvPacking> all, const KvRounding& rounding, const HeadShape& heads,
                     const char* operation) {
  for (const KvPacking& rows : all) {
    const PackedKv& packed = rows.packed;
    require(holds(rows.kv, rows.kv_row, rows.n_rows) && rows.packed_row >= 0 &&
                rows.packed_row + rows.n_rows <= packed.n_rows,
            operation, "the rows and their memory");
    require(packed.row_heads == 2 * heads.n_kv_heads && packed.head_dim == heads.head_dim && heads.head_dim % 2 == 0,
            operation, "packed rows and heads");
    require(packed.type == rounding.type && packed.type != KvType::kStored, operation, "packed rows and type");
  }
  require(has_scales(rounding), operation, "the type and its scales");
}

}  // namespace

void Ops::copy_rows(ConstRows from, Rows to) {
  require(is_shape(from, to.n_rows, to.cols) && from.dtype == to.dtype, "copy_rows", "the rows");
  do_copy_rows(from, to);
}

void Ops::copy_async(std::span<const std::byte> from, std::span<std::byte> to) {
  require(from.size() == to.size(), "copy_async", "the sizes");
  do_copy_async(from, to);
}

void Ops::embed(const Matrix& table, std::span<const int32_t> tokens, float scale, Rows out) {
  require(is_shape(out, count(tokens), table.cols), "embed", "table, tokens and rows");
  do_embed(table, tokens, scale, out);
}

void Ops::norm(ConstRows x, const Norm& norm, Rows out) {
  require((!norm || x.cols == norm.weight.rows) && is_shape(out, x.n_rows, x.cols), "norm", "rows and weight");
  do_norm(x, norm, out);
}

void Ops::add(ConstRows delta, const Norm& norm, float scale, Rows residual) {
  require((!norm || delta.cols == norm.weight.rows) && is_shape(residual, delta.n_rows, delta.cols), "add",
          "rows and weight");
  do_add(delta, norm, scale, residual);
}

void Ops::linear(ConstRows x, const Matrix& weight, const Matrix& bias, Rows out, bool accumulate, float scale) {
  require(x.cols == weight.cols && is_shape(out, x.n_rows, weight.rows), "linear", "rows and weight");
  require(!bias || bias.rows == weight.rows, "linear", "weight and bias");
  do_linear(x, weight, bias, out, accumulate, scale);
}

void Ops::rope(Rows q, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles) {
  require(q.cols == heads.q_dim() && have_angles(angles, heads, q.n_rows), "rope", "rows, heads and angles");
  require(has_head_norm(norm, heads, heads.n_heads), "rope", "heads and norm");
  do_rope(q, heads, norm, angles);
}

void Ops::store_kv(Rows kv, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles, KvSpan to) {
  require(kv.cols == 2 * heads.kv_dim() && have_angles(angles, heads, kv.n_rows), "store_kv", "rows, heads and angles");
  require(has_head_norm(norm, heads, heads.n_kv_heads), "store_kv", "heads and norm");
  require(holds(to, 0, kv.n_rows), "store_kv", "the rows and their place");
  do_store_kv(kv, heads, norm, angles, to);
}

void Ops::attention(std::span<const AttentionCall> calls, const HeadShape& heads) {
  for (const AttentionCall& call : calls) {
    require(call.q.cols == heads.q_dim() && is_shape(call.out, call.q.n_rows, call.q.cols), "attention",
            "queries, outputs and heads");
    require(call.end_row() <= call.own.end_row(), "attention", "queries and keys");
    require(has_sink_logits(call.sink_logits, heads), "attention", "heads and sink logits");
    require(has_kv_heads(call.kv_heads, heads), "attention", "heads and key heads");
  }
  do_attention(calls, heads);
}

void Ops::copy_kv(std::span<const KvCopy> copies, const HeadShape& heads) {
  require(hold(copies), "copy_kv", "the rows and their memory");
  do_copy_kv(copies, heads);
}

void Ops::round_kv(std::span<const KvCopy> copies, const KvRounding& rounding, const HeadShape& heads) {
  require(hold(copies), "round_kv", "the rows and their memory");
  require(has_scales(rounding), "round_kv", "the type and its scales");
  do_round_kv(copies, rounding, heads);
}

void Ops::pack_kv(std::span<const KvPacking> rows, const KvRounding& rounding, const HeadShape& heads) {
  require_packing(rows, rounding, heads, "pack_kv");
  do_pack_kv(rows, rounding, heads);
}

void Ops::unpack_kv(std::span<const KvPacking> rows, const KvRounding& rounding, const HeadShape& heads) {
  require_packing(rows, rounding, heads, "unpack_kv");
  do_unpack_kv(rows, rounding, heads);
}

void Ops::decode_attention(std::span<const DecodeCall> calls, const HeadShape& heads) {
  for (const DecodeCall& call : calls) {
    require(is_shape(call.q, 1, heads.q_dim()) && is_shape(call.out, 1, heads.q_dim()), "decode_attention",
            "query, output and heads");
    require(holds(call.cache.kv, 0, call.cache.n_sinks + call.cache.n_ring), "decode_attention",
            "the cache and its memory");
    require(has_sink_logits(call.sink_logits, heads), "decode_attention", "heads and sink logits");
  }
  do_decode_attention(calls, heads);
}

void Ops::attention_lse(const LseCall& call, const HeadShape& heads) {
  const int64_t n_sets = call.n_sets();
  require(call.q.cols == heads.q_dim() && n_sets <= static_cast<int64_t>(kMaxKeySets) &&
              count(call.sets) == call.n_rows() * n_sets && count(call.lse) == count(call.sets) * heads.n_heads,
          "attention_lse", "queries, sets and results");
  do_attention_lse(call, heads);
}

void Ops::row_angles(ConstRows a, ConstRows b, std::span<double> angles) {
  require(is_shape(b, a.n_rows, a.cols) && b.dtype == a.dtype && count(angles) == a.n_rows, "row_angles",
          "the rows and their angles");
  do_row_angles(a, b, angles);
}

void Ops::gate(ConstRows gate_up, Activation activation, Rows out) {
  require(is_shape(gate_up, out.n_rows, 2 * out.cols), "gate", "the rows");
  do_gate(gate_up, activation, out);
}

void Ops::experts(ConstRows x, const Router& router, const Experts& experts, Activation activation, Rows out) {
  const RouterShape& shape = router.shape;
  const int64_t n = shape.n_experts;
  const int64_t ffn = experts.down.cols;
  const auto fits = [](const Matrix& vector, int64_t rows) { return !vector || vector.rows == rows; };
  require(is_shape(out, x.n_rows, x.cols) && router.weight.cols == x.cols && router.weight.rows == n &&
              fits(router.bias, n) && fits(router.correction, n),
          "experts", "rows and router");
  require(shape.n_groups >= 1 && n % shape.n_groups == 0 && shape.top_groups >= 1 &&
              shape.top_groups <= shape.n_groups && shape.top_k >= 1 &&
              shape.top_k <= n / shape.n_groups * shape.top_groups,
          "experts", "experts, groups and choice");
  require(experts.gate_up.rows == 2 * n * ffn && experts.gate_up.cols == x.cols && experts.down.rows == n * x.cols &&
              fits(experts.gate_up_bias, 2 * n * ffn) && fits(experts.down_bias, n * x.cols),
          "experts", "rows and weights");
  do_experts(x, router, experts, activation, out);
}

void Ops::token_nll(ConstRows x, const Matrix& head, const LogitShape& logits, std::span<const int32_t> targets,
                    const TokenScores& out) {
  const std::size_t n = targets.size();
  require(is_shape(x, count(targets), head.cols), "token_nll", "rows, targets and head");
  require(out.nll_nats.size() == n && out.is_argmax.size() == n && (out.argmax.empty() || out.argmax.size() == n) &&
              (out.kl_nats.empty() || out.kl_nats.size() == n),
          "token_nll", "targets and scores");
  require(out.kl_nats.empty() ||
              (out.reference.x.cols == head.cols && count(out.reference.tiles) * device().row_tile() >= x.n_rows),
          "token_nll", "rows and reference rows");
  do_token_nll(x, head, logits, targets, out);
}

}  // namespace winnow::kernels
