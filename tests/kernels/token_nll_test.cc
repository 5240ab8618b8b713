// NLLs of tokens and KL of the CPU backend against a plain float64 reference.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/kernels/cpu_backend_test.h"
#include "tests/tolerances.h"

namespace winnow::kernels {
namespace {

TEST_P(CpuBackendTest, TokenNllAndArgmaxMatchTheReference) {
  for (const int64_t vocab : {3, 511, 512, 1300}) {
    constexpr int64_t kHidden = 24;
    Floats x = random_floats(2 * tile_ * kHidden, 21);
    Floats head = random_floats(vocab * kHidden, 22);
    std::copy_n(head.begin(), kHidden, head.begin() + 2 * kHidden);  // tokens 0 and 2 tie: the lower one counts
    std::vector<int32_t> targets(static_cast<std::size_t>(2 * tile_), -1);
    for (std::size_t i = 3; i < 2U * static_cast<std::size_t>(tile_); i += 7) {
      targets[i] = static_cast<int32_t>((i * 31) % static_cast<std::size_t>(vocab));
    }
    std::vector<double> nll(targets.size(), -1.0);
    std::vector<uint8_t> hit(targets.size(), 9);
    std::vector<int32_t> most_likely(targets.size(), -7);
    ops_->token_nll(rows(x, kHidden), matrix(head, vocab, kHidden), {}, targets,
                    {.nll_nats = nll, .is_argmax = hit, .argmax = most_likely});
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (targets[i] < 0) {
        EXPECT_EQ(nll[i], -1.0);
        EXPECT_EQ(most_likely[i], -7);
        continue;
      }
      double total = 0.0;
      double best = -INFINITY;
      int64_t argmax = -1;
      double target = 0.0;
      for (int64_t v = 0; v < vocab; ++v) {
        double logit = 0.0;
        for (std::size_t k = 0; k < kHidden; ++k) {
          logit += static_cast<double>(x[i * kHidden + k]) * head[static_cast<std::size_t>(v) * kHidden + k];
        }
        total += std::exp(logit);
        if (logit > best) {
          best = logit;
          argmax = v;
        }
        if (v == targets[i]) target = logit;
      }
      const double expected = std::log(total) - target;
      EXPECT_NEAR(nll[i], expected, kNllTolerance * (1.0 + expected));
      EXPECT_EQ(hit[i], argmax == targets[i] ? 1 : 0);
      EXPECT_EQ(most_likely[i], argmax);
    }
  }
}

// log p of every token, from a hidden state.
std::vector<double> log_probabilities(const float* x, const Floats& head, int64_t vocab, int64_t hidden) {
  std::vector<double> logits(static_cast<std::size_t>(vocab), 0.0);
  double total = 0.0;
  for (std::size_t v = 0; v < logits.size(); ++v) {
    for (int64_t k = 0; k < hidden; ++k) {
      logits[v] += static_cast<double>(x[k]) * head[v * static_cast<std::size_t>(hidden) + static_cast<std::size_t>(k)];
    }
    total += std::exp(logits[v]);
  }
  for (double& logit : logits) logit -= std::log(total);
  return logits;
}

TEST_P(CpuBackendTest, KlMatchesTheReferenceAndIsZeroForEqualRows) {
  for (const int64_t vocab : {3, 511, 512, 1300}) {
    constexpr int64_t kHidden = 24;
    constexpr int64_t kTiles = 5;
    Floats head = random_floats(vocab * kHidden, 22);
    Floats reference = random_floats(2 * tile_ * kHidden, 23);
    Floats x = random_floats(kTiles * tile_ * kHidden, 24);
    // Four rows are compared with tile 1 or 0, one tile with none; row 9 of tile 2 equals its reference, row 10 nearly.
    const std::vector<int32_t> tiles = {1, 0, 1, -1, 1};
    const int64_t equal = 2 * tile_ + 9;
    std::copy_n(reference.begin() + (tile_ + 9) * kHidden, 2 * kHidden, x.begin() + equal * kHidden);
    x[static_cast<std::size_t>((equal + 1) * kHidden)] += 0.01F;
    std::vector<int32_t> targets(static_cast<std::size_t>(kTiles * tile_), 1);
    targets[7] = -1;
    std::vector<double> nll(targets.size()), kl(targets.size(), -1.0);
    std::vector<uint8_t> hit(targets.size());
    TokenScores out{nll, hit, kl, {rows(reference, kHidden), tiles}};
    ops_->token_nll(rows(x, kHidden), matrix(head, vocab, kHidden), {}, targets, out);
    EXPECT_EQ(kl[static_cast<std::size_t>(equal)], 0.0) << vocab;
    for (int64_t i = 0; i < kTiles * tile_; ++i) {
      const int32_t tile = tiles[static_cast<std::size_t>(i / tile_)];
      const double found = kl[static_cast<std::size_t>(i)];
      if (i == 7 || tile < 0) {
        EXPECT_EQ(found, -1.0) << i;
        continue;
      }
      const auto p = log_probabilities(&reference[static_cast<std::size_t>((tile * tile_ + i % tile_) * kHidden)], head,
                                       vocab, kHidden);
      const auto q = log_probabilities(&x[static_cast<std::size_t>(i * kHidden)], head, vocab, kHidden);
      double expected = 0.0;
      for (std::size_t v = 0; v < p.size(); ++v) expected += std::exp(p[v]) * (p[v] - q[v]);
      EXPECT_NEAR(found, expected, kNllTolerance * (1.0 + expected)) << "vocab " << vocab << ", row " << i;
    }
    // Alone a tile gets the same bits, and its NLL does not notice the reference.
    const auto n = static_cast<std::size_t>(tile_);
    std::vector<double> alone_nll(n), alone_kl(n);
    TokenScores alone{
        alone_nll, std::span(hit).first(n), alone_kl, {rows(reference, kHidden), std::span(tiles).subspan(4)}};
    ops_->token_nll(rows(x, kHidden).from(4 * tile_), matrix(head, vocab, kHidden), {}, std::span(targets).last(n),
                    alone);
    EXPECT_TRUE(std::equal(alone_kl.begin(), alone_kl.end(), kl.end() - tile_));
    EXPECT_TRUE(std::equal(alone_nll.begin(), alone_nll.end(), nll.end() - tile_));
  }
}

}  // namespace
}  // namespace winnow::kernels
