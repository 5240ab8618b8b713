#include "kernels/profiled_ops.h"

#include <algorithm>

namespace winnow::kernels {

namespace {

// Operations between two readings of the marks, which wait for the device.
constexpr std::size_t kMostMarked = 4096;

std::string shape_name(const Matrix& weight) { return std::to_string(weight.rows) + "x" + std::to_string(weight.cols); }

double bytes_of(ConstRows rows) { return static_cast<double>(rows.size_bytes()); }

}  // namespace

template <typename Operation>
void ProfiledOps::time(const std::string& name, const Work& work, Operation operation) {
  OperationProfile& profile = operations_[name];
  profile.name = name;
  profile.calls += 1;
  profile.flop += work.flop;
  profile.bytes += work.bytes;
  const auto n = static_cast<int64_t>(marked_.size());
  ops_.device().record_event(2 * n);
  operation();
  ops_.device().record_event(2 * n + 1);
  marked_.push_back(&profile);
  if (marked_.size() == kMostMarked) read_marks();
}

void ProfiledOps::read_marks() {
  if (marked_.empty()) return;
  for (std::size_t i = 0; i < marked_.size(); ++i) {
    const auto n = static_cast<int64_t>(i);
    const double seconds = ops_.device().elapsed_seconds(2 * n, 2 * n + 1);
    marked_[i]->seconds += seconds;
    busy_seconds_ += seconds;
  }
  total_seconds_ += ops_.device().elapsed_seconds(0, 2 * static_cast<int64_t>(marked_.size()) - 1);
  marked_.clear();
}

Profile ProfiledOps::profile() {
  read_marks();
  Profile profile;
  for (const auto& [name, operation] : operations_) profile.operations.push_back(operation);
  std::sort(profile.operations.begin(), profile.operations.end(),
            [](const OperationProfile& a, const OperationProfile& b) { return a.seconds > b.seconds; });
  profile.total_seconds = total_seconds_;
  profile.idle_seconds = std::max(0.0, total_seconds_ - busy_seconds_);
  return profile;
}

void ProfiledOps::reset() {
  marked_.clear();
  operations_.clear();
  busy_seconds_ = total_seconds_ = 0.0;
}

double ProfiledOps::activation_bytes(int64_t count) const {
  return static_cast<double>(count * size_bytes(device().activation_dtype()));
}

void ProfiledOps::do_copy_async(std::span<const std::byte> from, std::span<std::byte> to) {
  time("transfer", {.bytes = static_cast<double>(from.size())}, [&] { ops_.copy_async(from, to); });
}

void ProfiledOps::do_copy_rows(ConstRows from, Rows to) {
  time("copy", {.bytes = 2.0 * bytes_of(from)}, [&] { ops_.copy_rows(from, to); });
}

void ProfiledOps::do_embed(const Matrix& table, std::span<const int32_t> tokens, float scale, Rows out) {
  const auto read = static_cast<double>(out.count() * size_bytes(table.dtype));
  time("embed", {.bytes = read + bytes_of(out)}, [&] { ops_.embed(table, tokens, scale, out); });
}

void ProfiledOps::do_norm(ConstRows x, const Norm& norm, Rows out) {
  const char* name = norm.shape.kind == NormKind::kRms ? "rms_norm" : "layer_norm";
  time(name, {.bytes = bytes_of(x) + bytes_of(out)}, [&] { ops_.norm(x, norm, out); });
}

void ProfiledOps::do_add(ConstRows delta, const Norm& norm, float scale, Rows residual) {
  time("add", {.bytes = bytes_of(delta) + 2.0 * bytes_of(residual)}, [&] { ops_.add(delta, norm, scale, residual); });
}

void ProfiledOps::do_linear(ConstRows x, const Matrix& weight, const Matrix& bias, Rows out, bool accumulate,
                            float scale) {
  time("linear " + shape_name(weight), {.flop = 2.0 * static_cast<double>(x.n_rows * weight.rows * weight.cols)},
       [&] { ops_.linear(x, weight, bias, out, accumulate, scale); });
}

void ProfiledOps::do_rope(Rows q, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles) {
  time("rope", {.bytes = 2.0 * bytes_of(q)}, [&] { ops_.rope(q, heads, norm, angles); });
}

void ProfiledOps::do_store_kv(Rows kv, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles,
                              KvSpan to) {
  time("store_kv", {.bytes = 2.0 * bytes_of(kv)}, [&] { ops_.store_kv(kv, heads, norm, angles, to); });
}

void ProfiledOps::do_attention(std::span<const AttentionCall> calls, const HeadShape& heads) {
  // One name a window, so that the rates of the two say something.
  for (const bool is_windowed : {false, true}) {
    std::vector<AttentionCall> of_kind;
    double pairs = 0.0;
    for (const AttentionCall& call : calls) {
      if ((call.window.keys < kNoLimit) != is_windowed) continue;
      of_kind.push_back(call);
      const auto share = static_cast<double>(call.query_heads(heads).count()) / static_cast<double>(heads.n_heads);
      pairs += share * static_cast<double>(
                           attention_pairs(call.window, call.first_row, std::min(call.end_row(), call.n_tokens)));
    }
    if (of_kind.empty()) continue;
    time(is_windowed ? "attention window" : "attention full",
         {.flop = 4.0 * pairs * static_cast<double>(heads.q_dim())}, [&] { ops_.attention(of_kind, heads); });
  }
}

double ProfiledOps::moved_bytes(std::span<const KvCopy> copies, const HeadShape& heads) const {
  int64_t n_rows = 0;
  for (const KvCopy& copy : copies) n_rows += copy.n_rows;
  return 4.0 * activation_bytes(n_rows * heads.kv_dim());
}

double ProfiledOps::moved_bytes(std::span<const KvPacking> rows, const HeadShape& heads) const {
  double bytes = 0.0;
  for (const KvPacking& some : rows) {
    bytes += 2.0 * activation_bytes(some.n_rows * heads.kv_dim()) +
             static_cast<double>(some.n_rows * some.packed.row_heads * some.packed.head_bytes);
  }
  return bytes;
}

void ProfiledOps::do_copy_kv(std::span<const KvCopy> copies, const HeadShape& heads) {
  time("copy_kv", {.bytes = moved_bytes(copies, heads)}, [&] { ops_.copy_kv(copies, heads); });
}

void ProfiledOps::do_round_kv(std::span<const KvCopy> copies, const KvRounding& rounding, const HeadShape& heads) {
  time("round_kv", {.bytes = moved_bytes(copies, heads)}, [&] { ops_.round_kv(copies, rounding, heads); });
}

void ProfiledOps::do_pack_kv(std::span<const KvPacking> rows, const KvRounding& rounding, const HeadShape& heads) {
  time("pack_kv", {.bytes = moved_bytes(rows, heads)}, [&] { ops_.pack_kv(rows, rounding, heads); });
}

void ProfiledOps::do_unpack_kv(std::span<const KvPacking> rows, const KvRounding& rounding, const HeadShape& heads) {
  time("unpack_kv", {.bytes = moved_bytes(rows, heads)}, [&] { ops_.unpack_kv(rows, rounding, heads); });
}

void ProfiledOps::do_decode_attention(std::span<const DecodeCall> calls, const HeadShape& heads) {
  int64_t n_keys = 0;
  for (const DecodeCall& call : calls) n_keys += attention_pairs(call.window, call.row, call.row + 1);
  time("attention decode", {.bytes = 2.0 * activation_bytes(n_keys * heads.kv_dim())},
       [&] { ops_.decode_attention(calls, heads); });
}

void ProfiledOps::do_attention_lse(const LseCall& call, const HeadShape& heads) {
  // Of the longest set: the sets of a row lie within one another in all uses.
  double pairs = 0.0;
  for (int64_t row = 0; row < call.n_rows(); ++row) {
    int64_t most = 0;
    for (int64_t s = 0; s < call.n_sets(); ++s) {
      const KeySet& set = call.sets[static_cast<std::size_t>(row * call.n_sets() + s)];
      most = std::max<int64_t>(most, int64_t{set.sinks} + set.end - set.begin);
    }
    pairs += static_cast<double>(most);
  }
  time("attention_lse", {.flop = 2.0 * pairs * static_cast<double>(heads.q_dim())},
       [&] { ops_.attention_lse(call, heads); });
}

void ProfiledOps::do_row_angles(ConstRows a, ConstRows b, std::span<double> angles) {
  time("row_angles", {.bytes = bytes_of(a) + bytes_of(b)}, [&] { ops_.row_angles(a, b, angles); });
}

void ProfiledOps::do_gate(ConstRows gate_up, Activation activation, Rows out) {
  const char* name = activation == Activation::kGeluTanh ? "geglu" : "swiglu";
  time(name, {.bytes = bytes_of(gate_up) + bytes_of(out)}, [&] { ops_.gate(gate_up, activation, out); });
}

void ProfiledOps::do_experts(ConstRows x, const Router& router, const Experts& experts, Activation activation,
                             Rows out) {
  const RouterShape& shape = router.shape;
  const auto weights = static_cast<double>(router.weight.rows * router.weight.cols) +
                       static_cast<double>(shape.top_k * 3 * experts.down.cols * x.cols);
  time("experts " + std::to_string(shape.top_k) + "/" + std::to_string(shape.n_experts) + " " +
           std::to_string(experts.down.cols) + "x" + std::to_string(x.cols),
       {.flop = 2.0 * static_cast<double>(x.n_rows) * weights},
       [&] { ops_.experts(x, router, experts, activation, out); });
}

void ProfiledOps::do_token_nll(ConstRows x, const Matrix& head, const LogitShape& logits,
                               std::span<const int32_t> targets, const TokenScores& out) {
  const auto scored =
      static_cast<double>(std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t >= 0; }));
  // With references their logits are computed besides, once for all rows that share them: not counted.
  time("token_nll", {.flop = 2.0 * scored * static_cast<double>(head.rows * head.cols)},
       [&] { ops_.token_nll(x, head, logits, targets, out); });
}

}  // namespace winnow::kernels
