#include "results/serving/heads.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <span>

#include "base/json.h"

namespace winnow::serving {
namespace {

constexpr const char* kDuoAttention = "duoattention";
constexpr const char* kLuKv = "lu-kv";
constexpr int64_t kCurvePoints = 99;

// Heads by what windowing them costs, the dearest first: those that keep full attention, then the others, of which
// those that were not measured come last.
std::vector<std::size_t> dearest_first(const selection::Selection& s) {
  std::vector<std::size_t> order(s.windowed_heads.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    if (s.windowed_heads[a] != s.windowed_heads[b]) return !s.windowed_heads[a];
    const double cost_a = s.head_delta_nll[a];
    const double cost_b = s.head_delta_nll[b];
    return std::isnan(cost_b) ? !std::isnan(cost_a) : cost_a > cost_b;
  });
  return order;
}

// Share of a prompt that a windowed head drops.
double dropped_share(const selection::Selection& s, int64_t n_tokens) {
  const auto kept = static_cast<double>(s.window_keys) + static_cast<double>(s.sinks);
  return std::max(0.0, 1.0 - kept / static_cast<double>(n_tokens));
}

// The shortest number that says a share.
std::string share_text(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", share);
  return text;
}

// A table of heads: a line for each layer, a tab between heads.
// Source: load_attn_pattern and sparsify_attention_heads of duo_attn/utils.py, mit-han-lab/duo-attention.
std::string tsv_of(const std::vector<double>& scores, int64_t n_kv_heads) {
  std::string text;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    char number[32];
    std::snprintf(number, sizeof number, "%.9f", scores[i]);
    const bool is_last = (i + 1) % static_cast<std::size_t>(n_kv_heads) == 0;
    text += std::string(number) + (is_last ? "\n" : "\t");
  }
  return text;
}

// A NumPy array of float32, little-endian, row-major: a header and the numbers, for which no library is worth its
// place. Source: numpy.lib.format, version 1.0.
std::string npy_of(std::span<const float> values, const std::vector<int64_t>& shape) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (const int64_t extent : shape) header += std::to_string(extent) + ", ";
  header += "), }";
  constexpr std::size_t kAlignment = 64;
  constexpr std::size_t kPreamble = 10;
  while ((kPreamble + header.size() + 1) % kAlignment != 0) header += ' ';
  header += '\n';
  std::string text("\x93NUMPY\x01\x00", 8);
  text += static_cast<char>(header.size() % 256);
  text += static_cast<char>(header.size() / 256);
  text += header;
  for (const float value : values) {
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) text += static_cast<char>(bits >> shift & 255U);
  }
  return text;
}

// The cache of a streaming head holds sink_size and recent_size keys before each new row, which sees itself besides.
void plan_duo_attention(const Request& request, ExportPlan& plan) {
  const selection::Selection& s = request.selection;
  const Json config = {{"sink_size", s.sinks}, {"recent_size", s.window_keys - 1}};
  plan.files.push_back({"full_attention_heads.tsv", tsv_of(head_scores(s), s.n_kv_heads)});
  plan.files.push_back({"config.json", json_text(config, 2) + "\n"});
  const double sparsity = 1.0 - static_cast<double>(s.n_full_heads()) / static_cast<double>(s.windowed_heads.size());
  plan.command =
      "duo_attn.utils.load_attn_pattern(\".\"), then sparsify_attention_heads(heads, sparsity=" + share_text(sparsity) +
      ") for these heads";
  if (s.tail_rows < 0) return;
  plan.warnings.push_back(
      "measured with windows on the last " + std::to_string(s.tail_rows) +
      " prompt rows only (--tail-rows), DuoAttention windows all rows; verify with winnow evaluate");
}

void plan_lu_kv(const Request& request, ExportPlan& plan) {
  const selection::Selection& s = request.selection;
  const int64_t n_tokens = request.max_seq_len();
  const double dropped = dropped_share(s, n_tokens);
  if (dropped == 0.0) {
    request.refuse("a window of " + std::to_string(s.window_keys) + " keys and " + std::to_string(s.sinks) +
                   " sinks drops nothing of " + std::to_string(n_tokens) + " tokens; give a larger --max-seq-len");
  }
  const std::vector<float> curve = head_budget_curve(s, n_tokens);
  plan.files.push_back({"budget_curve.npy", npy_of(curve, {kCurvePoints, s.n_layers, s.n_kv_heads})});
  const double n_windowed = static_cast<double>(s.windowed_heads.size()) - static_cast<double>(s.n_full_heads());
  const double ratio = dropped * n_windowed / static_cast<double>(s.windowed_heads.size());
  plan.command = "kvpress: LUKVPress(compression_ratio=" + share_text(ratio) + ", sink=" + std::to_string(s.sinks) +
                 ", window=" + std::to_string(s.window_keys - 1) +
                 ") with numpy.load(\"budget_curve.npy\") for its curve";
  plan.warnings.push_back("the shares are those of prompts of " + std::to_string(n_tokens) +
                          " tokens, in steps of 1 %; of longer ones a head keeps more than its window");
  if (s.tail_rows != 0) {
    plan.warnings.emplace_back(
        "kvpress drops keys once, behind the prompt, whose own rows see all of them: measure that with calibrate "
        "--tail-rows 0");
  }
}

}  // namespace

const std::vector<std::string>& head_targets() {
  static const std::vector<std::string> kTargets = {kDuoAttention, kLuKv};
  return kTargets;
}

bool is_head_target(const std::string& target) {
  return std::ranges::find(head_targets(), target) != head_targets().end();
}

std::vector<double> head_scores(const selection::Selection& s) {
  const auto n_full = static_cast<std::size_t>(s.n_full_heads());
  const std::vector<std::size_t> order = dearest_first(s);
  std::vector<double> scores(order.size());
  for (std::size_t place = 0; place < order.size(); ++place) {
    const bool is_full = place < n_full;
    const auto n = static_cast<double>(is_full ? n_full : order.size() - n_full);
    const double behind = static_cast<double>(is_full ? place : place - n_full) + 0.5;
    scores[order[place]] = (is_full ? 1.0 : 0.5) - 0.5 * behind / n;
  }
  return scores;
}

std::vector<float> head_budget_curve(const selection::Selection& s, int64_t n_tokens) {
  const std::vector<std::size_t> order = dearest_first(s);
  const double dropped = dropped_share(s, n_tokens);
  std::vector<float> curve;
  for (int64_t point = 1; point <= kCurvePoints; ++point) {
    const double wanted = static_cast<double>(point) / 100.0;
    std::vector<float> shares(order.size(), static_cast<float>(wanted));
    if (wanted < dropped) {
      double left = wanted * static_cast<double>(order.size());
      for (std::size_t place = order.size(); place-- > 0;) {
        const double share = std::min(dropped, left);
        shares[order[place]] = static_cast<float>(share);
        left = std::max(0.0, left - share);
      }
    }
    curve.insert(curve.end(), shares.begin(), shares.end());
  }
  return curve;
}

void plan_head_target(const Request& request, ExportPlan& plan) {
  if (request.selection.decode == "full") {
    request.refuse("it was measured with full attention for answer rows, for which no key can be dropped");
  }
  if (plan.target == kDuoAttention) {
    plan_duo_attention(request, plan);
  } else {
    plan_lu_kv(request, plan);
  }
}

}  // namespace winnow::serving
