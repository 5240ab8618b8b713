// The table of families in README.md against the code's own.

#include "model/families.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

namespace winnow::model {
namespace {

// What README says of a switch that is on.
struct Phrase {
  bool is_on;
  const char* text;
};

// What differs from a Llama, in the words of the table.
std::string differences(const Family& family) {
  const FamilyDefaults& defaults = family.defaults;
  const LayerNames& names = family.names;
  const bool has_output_norms = !names.attention_output_norm.empty();
  const Phrase phrases[] = {
      {family.qk_norm == QkNorm::kPerHead && !family.qk_norm_after_rope && !family.qk_norm_by_config,
       "norms of query and key heads"},
      {family.qk_norm_by_config, "norms of query and key heads, where set"},
      {family.qk_norm == QkNorm::kPerHead && family.qk_norm_after_rope, "norms of query and key heads after RoPE"},
      {family.qk_norm == QkNorm::kAllHeads, "norms over all query and key heads"},
      {has_output_norms && !names.attention_norm.empty(), "norms before and after attention and MLP"},
      {has_output_norms && names.attention_norm.empty(), "norms after attention and MLP alone"},
      {family.norm_plus_one, "norms times 1 + weight"},
      {family.norm == kernels::NormKind::kLayer, "LayerNorm"},
      {family.parallel, "attention and MLP in parallel"},
      {family.activation == kernels::Activation::kGeluTanh, "GELU"},
      {family.activation == kernels::Activation::kClampedSwiGlu, "clamped SwiGLU"},
      {!names.qkv.empty(), "one tensor for q, k, v"},
      {!names.gate_up.empty(), "one tensor for gate and up"},
      {family.qkv_bias_always || defaults.attention_bias, "biases of q, k, v"},
      {family.interleaved_rope, "interleaved RoPE"},
      {family.does_read("partial_rotary_factor"), "part of a head turns"},
      {family.does_read("llama_4_scaling_beta"), "queries scaled by position"},
      {family.positions == Positions::kNoneOnSome, "layers without positions"},
      {family.positions == Positions::kThetaByLayer, "positions by layer"},
      {family.positions_follow_type(), "positions by type of layer"},
      {!names.sink_logits.empty(), "attention sinks learned per head"},
      {family.scaled_embedding || family.does_read("embedding_multiplier"), "scaled embeddings"},
      {family.does_read("residual_multiplier"), "scaled residual stream"},
      {family.does_read("logits_scaling") || family.does_read("logit_scale"), "scaled logits"},
      {defaults.attention_softcap > 0.0 || defaults.logit_softcap > 0.0, "caps on scores and logits"},
      {!family.experts.n_experts_keys.empty(), "experts"},
      {family.experts.scores == kernels::RouterScores::kSigmoid, "each expert scored by itself"},
      {family.experts.scores == kernels::RouterScores::kSoftmaxOfChosen, "a softmax over the chosen ones alone"},
      {family.experts.has_biases, "biases of router and experts"},
      {!family.experts.correction.empty(), "a correction of their choice"},
      {family.does_read("n_group"), "groups of experts"},
      {!family.experts.n_shared_key.empty(), "experts that every token has"},
      {family.experts.layers != ExpertLayers::kAll, "layers without experts"},
  };
  std::string text;
  for (const Phrase& phrase : phrases) {
    if (phrase.is_on) text += (text.empty() ? "" : ", ") + std::string(phrase.text);
  }
  return text.empty() ? "nothing" : text;
}

std::string own_window(const Family& family) {
  switch (family.native_window) {
    case NativeWindow::kNever:
      return "";
    case NativeWindow::kAllLayers:
      return "all layers, where set";
    case NativeWindow::kByLayer:
      return "some layers, where set";
    case NativeWindow::kPattern:
      return "all but each " + std::to_string(family.full_period) + (family.full_period == 2 ? "nd" : "th") +
             (family.full_first ? " from the first on" : "");
  }
  return "";
}

std::string measured(const Family& family) { return family.positions_follow_type() ? "with `--target hf`" : "yes"; }

TEST(Families, TheTableOfTheReadmeIsThatOfTheCode) {
  std::vector<std::string> expected;
  for (const Family& family : families()) {
    expected.push_back("| `" + std::string(family.model_type) + "` | " + differences(family) + " | " +
                       own_window(family) + " | " + measured(family) + " |");
  }
  std::ifstream readme(std::string(WINNOW_TESTS_DIR) + "/../README.md");
  std::vector<std::string> found;
  for (std::string line; std::getline(readme, line);) {
    for (const char* last : {"yes", "with `--target hf`"}) {
      if (line.starts_with("| `") && line.ends_with(std::string("| ") + last + " |")) found.push_back(line);
    }
  }
  std::string table;
  for (const std::string& line : expected) table += line + "\n";
  EXPECT_EQ(found, expected) << "the rows of README.md should be\n" << table;
}

TEST(Families, WordsAreFoundWhole) {
  EXPECT_TRUE(has_word("attention_bias mlp_bias", "mlp_bias"));
  EXPECT_TRUE(has_word("attention_bias mlp_bias", "attention_bias"));
  EXPECT_FALSE(has_word("attention_bias mlp_bias", "bias"));
  EXPECT_FALSE(has_word("attention_bias", "attention"));
  EXPECT_FALSE(has_word("", "bias"));
  EXPECT_FALSE(has_word("a b", ""));
}

}  // namespace
}  // namespace winnow::model
