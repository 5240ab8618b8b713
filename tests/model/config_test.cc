// config.json in both dialects: what each family's fields become, and what is refused with which message.

#include <gtest/gtest.h>

#include "model/config.h"
#include "model/families.h"
#include "tests/model/model_files.h"

namespace winnow::model {
namespace {

using Json = nlohmann::json;
using testing::expect_error;
using testing::TempDir;

// A small model of that family, as the hub's config.json has it.
Json small(const std::string& model_type) {
  return {{"model_type", model_type},  {"num_hidden_layers", 4},
          {"hidden_size", 64},         {"num_attention_heads", 8},
          {"num_key_value_heads", 2},  {"intermediate_size", 96},
          {"vocab_size", 128},         {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},      {"max_position_embeddings", 4096},
          {"torch_dtype", "bfloat16"}, {"sliding_window", nullptr}};
}

Json with(Json base, const Json& fields) {
  base.update(fields);
  return base;
}

Json without(Json base, const std::string& key) {
  base.erase(key);
  return base;
}

ModelConfig parse(const Json& json) { return parse_config(json.dump(), "config.json"); }

void expect_refused(const Json& json, const std::vector<std::string>& parts) {
  expect_error(ExitCode::kBadData, parts, [&] { parse(json); });
}

// ---- sizes and switches ---------------------------------------------------------------------------------------------

TEST(Config, ReadsSizes) {
  const ModelConfig config = parse(small("llama"));
  EXPECT_EQ(config.family, find_family("llama"));
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.n_layers, 4);
  EXPECT_EQ(config.hidden, 64);
  EXPECT_EQ(config.ffn, 96);
  EXPECT_EQ(config.vocab, 128);
  EXPECT_EQ(config.max_positions, 4096);
  EXPECT_EQ(config.heads.n_heads, 8);
  EXPECT_EQ(config.heads.n_kv_heads, 2);
  EXPECT_EQ(config.heads.head_dim, 8);
  EXPECT_FLOAT_EQ(config.heads.scale, 0.35355339F);
  EXPECT_FLOAT_EQ(config.norm.eps, 1e-5F);
  EXPECT_FALSE(config.tied_embeddings);
}

TEST(Config, HeadDimIsIndependentOfHidden) {
  const ModelConfig config = parse(with(small("qwen3"), {{"head_dim", 128}}));
  EXPECT_EQ(config.heads.q_dim(), 1024);
  EXPECT_EQ(config.heads.kv_dim(), 256);
  EXPECT_EQ(config.hidden, 64);
}

// Figures of the classes' own defaults in Transformers 5: models/FAMILY/configuration_FAMILY.py.
TEST(Config, OmittedFieldsHaveTheFamilysDefaults) {
  const ModelConfig qwen3 = parse({{"model_type", "qwen3"}});
  EXPECT_EQ(qwen3.vocab, 151936);
  EXPECT_EQ(qwen3.hidden, 4096);
  EXPECT_EQ(qwen3.ffn, 22016);
  EXPECT_EQ(qwen3.n_layers, 32);
  EXPECT_EQ(qwen3.heads.n_heads, 32);
  EXPECT_EQ(qwen3.heads.n_kv_heads, 32);
  EXPECT_EQ(qwen3.heads.head_dim, 128);
  EXPECT_EQ(qwen3.max_positions, 32768);
  EXPECT_FLOAT_EQ(qwen3.norm.eps, 1e-6F);
  EXPECT_EQ(qwen3.ropes.front().theta, 10000.0);
  EXPECT_EQ(qwen3.checkpoint_dtype, kernels::DType::kOther);  // the weights say it
  EXPECT_FALSE(qwen3.native_window);
  EXPECT_EQ(parse({{"model_type", "qwen2"}}).ffn, 22016);

  const ModelConfig llama = parse({{"model_type", "llama"}});
  EXPECT_EQ(llama.vocab, 32000);
  EXPECT_EQ(llama.ffn, 11008);
  EXPECT_EQ(llama.heads.n_kv_heads, 32);
  EXPECT_EQ(llama.max_positions, 2048);
  const ModelConfig mistral = parse({{"model_type", "mistral"}});
  EXPECT_EQ(mistral.ffn, 14336);
  EXPECT_EQ(mistral.heads.n_kv_heads, 8);
  EXPECT_EQ(mistral.max_positions, 131072);
}

TEST(Config, OmittedAndNullKeyValueHeads) {
  EXPECT_EQ(parse(without(small("llama"), "num_key_value_heads")).heads.n_kv_heads, 8);
  for (const Family& family : families()) {
    const Json json = with(small(std::string(family.model_type)), {{"num_key_value_heads", nullptr}});
    EXPECT_EQ(parse(json).heads.n_kv_heads, 8) << family.model_type;
  }
}

TEST(Config, BiasesAndNormsByFamily) {
  const Json biased = {{"attention_bias", true}, {"mlp_bias", true}};
  const ModelConfig llama = parse(with(small("llama"), biased));
  EXPECT_TRUE(llama.qkv_bias && llama.o_bias && llama.mlp_bias && llama.family->qk_norm == QkNorm::kNone);
  const ModelConfig qwen3 = parse(with(small("qwen3"), biased));
  EXPECT_TRUE(qwen3.qkv_bias && qwen3.o_bias && !qwen3.mlp_bias && qwen3.family->qk_norm == QkNorm::kPerHead);
  const ModelConfig qwen2 = parse(with(small("qwen2"), {{"attention_bias", false}}));
  EXPECT_TRUE(qwen2.qkv_bias && !qwen2.o_bias && !qwen2.mlp_bias && qwen2.family->qk_norm == QkNorm::kNone);
  const ModelConfig mistral = parse(with(small("mistral"), biased));
  EXPECT_TRUE(!mistral.qkv_bias && !mistral.o_bias && !mistral.mlp_bias && mistral.family->qk_norm == QkNorm::kNone);
  const ModelConfig plain = parse(small("llama"));
  EXPECT_TRUE(!plain.qkv_bias && !plain.o_bias && !plain.mlp_bias);
}

TEST(Config, DtypeInBothDialects) {
  const Json base = without(small("llama"), "torch_dtype");
  EXPECT_EQ(parse(with(base, {{"torch_dtype", "float16"}})).checkpoint_dtype, kernels::DType::kF16);
  EXPECT_EQ(parse(with(base, {{"dtype", "torch.bfloat16"}})).checkpoint_dtype, kernels::DType::kBf16);
  EXPECT_EQ(parse(with(base, {{"dtype", "float32"}, {"torch_dtype", "float16"}})).checkpoint_dtype,
            kernels::DType::kF32);
  EXPECT_EQ(parse(with(base, {{"dtype", nullptr}, {"torch_dtype", "float16"}})).checkpoint_dtype, kernels::DType::kF16);
  EXPECT_EQ(parse(with(base, {{"torch_dtype", "half"}})).checkpoint_dtype, kernels::DType::kF16);
  EXPECT_EQ(parse(with(base, {{"torch_dtype", "float"}})).checkpoint_dtype, kernels::DType::kF32);
  // The weights say it.
  EXPECT_EQ(parse(base).checkpoint_dtype, kernels::DType::kOther);
  EXPECT_EQ(parse(with(base, {{"torch_dtype", "auto"}})).checkpoint_dtype, kernels::DType::kOther);
  expect_refused(with(base, {{"torch_dtype", "float8_e4m3fn"}}), {"torch_dtype", "bfloat16, float16, float32 or auto"});
  expect_refused(with(base, {{"dtype", 3}}), {"config.json: dtype: expected a string, found 3"});
}

TEST(Config, NumbersMayBeWrittenAsFloats) {
  EXPECT_EQ(parse(with(small("llama"), {{"hidden_size", 64.0}})).hidden, 64);
  EXPECT_EQ(parse_config(R"({"model_type":"llama","vocab_size":1.5e3})", "c").vocab, 1500);
  EXPECT_EQ(parse(with(small("llama"), {{"rope_theta", 1000000}})).ropes.front().theta, 1e6);
  expect_refused(with(small("llama"), {{"hidden_size", 64.5}}), {"hidden_size: expected an integer", "found 64.5"});
}

// ---- malformed ------------------------------------------------------------------------------------------------------

// Words of Python's json: of no weight in a field that is not read, refused by name in one that is.
TEST(Config, ReadsNumbersThatAreNotFinite) {
  const std::string text = small("llama").dump();
  const auto add = [&](const std::string& field) { return text.substr(0, text.size() - 1) + "," + field + "}"; };
  const std::string odd = R"("time_step_limit":[0.0,Infinity],"a":NaN,"b":{"c":-Infinity})";
  const ModelConfig config = parse_config(add(odd), "config.json");
  EXPECT_EQ(config.n_layers, 4);
  EXPECT_EQ(config.ropes.front().theta, parse(small("llama")).ropes.front().theta);
  const auto refused = [&](const std::string& field, const std::vector<std::string>& parts) {
    expect_error(ExitCode::kBadData, parts, [&] { parse_config(add(field), "config.json"); });
  };
  refused(R"("rope_theta":Infinity)", {"rope_theta: expected a number > 0", "found Infinity"});
  refused(R"("rope_theta":NaN)", {"rope_theta", "found NaN"});
  refused(R"("max_window_layers":-Infinity,"num_experts":-Infinity)", {"num_experts", "found -Infinity"});
  refused(R"("x":infinity)", {"not JSON"});
  refused(R"("x":+Infinity)", {"not JSON"});
}

TEST(Config, NamesAFileOfAnotherKind) {
  const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
    expect_error(ExitCode::kBadData, parts, [&] { parse_config(text, "config.json"); });
  };
  refused("version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 12\n", {"config.json", "Git LFS pointer"});
  refused("\n<!DOCTYPE html><html></html>", {"web page"});
  refused(std::string(700, '\0'), {"zeros"});
}

TEST(Config, RefusesWhatIsNoJsonObject) {
  const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
    expect_error(ExitCode::kBadData, parts, [&] { parse_config(text, "m/config.json"); });
  };
  // Place and what is wrong, in own words and without the bytes themselves, which need not be text.
  refused("", {"m/config.json: not JSON: ends too early, at line 1, column 1"});
  refused("{\n\"model_type\":", {"m/config.json: not JSON: ends too early, at line 2, column 14"});
  refused("{\n\"a\": \xff\x84}", {"m/config.json: not JSON: wrong at line 2, column 6"});
  refused("{\"rope_theta\": 1e999}", {"m/config.json: not JSON: a number is out of range"});
  refused("[1]", {"m/config.json: expected a JSON object, found [1]"});
  refused(R"({"model_type":"llama","model_type":"qwen3"})", {"key \"model_type\" is there twice"});
  refused(std::string(100'000, '['), {"nested deeper than 64"});
}

TEST(Config, RefusesWrongTypesAndSizesOfEverySize) {
  for (const char* key : {"num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    const std::string where = std::string("config.json: ") + key + ": expected";
    for (const Json& bad : {Json(0), Json(-8), Json("8"), Json(true), Json(Json::array({8})), Json(1e300),
                            Json(int64_t{1} << 31), Json(std::numeric_limits<uint64_t>::max())}) {
      expect_refused(with(small("llama"), {{key, bad}}), {where, "found " + bad.dump()});
    }
  }
  expect_refused(with(small("llama"), {{"hidden_size", nullptr}}), {"hidden_size", "found null"});
  expect_refused(with(small("llama"), {{"num_hidden_layers", 10001}}), {"num_hidden_layers: expected at most 10000"});
}

TEST(Config, RefusesHeadsThatDoNotDivide) {
  expect_refused(with(small("llama"), {{"num_key_value_heads", 3}}),
                 {"num_key_value_heads: expected a divisor of num_attention_heads = 8, found 3"});
  expect_refused(with(small("llama"), {{"num_key_value_heads", 16}}), {"num_key_value_heads", "found 16"});
  expect_refused(with(small("llama"), {{"hidden_size", 65}}),
                 {"num_attention_heads: expected a divisor of hidden_size = 65, found 8"});
  expect_refused(with(small("llama"), {{"head_dim", 7}}), {"head_dim: expected an even number", "found 7"});
  expect_refused(with(small("llama"), {{"hidden_size", 56}}), {"head_dim: expected an even number", "not 7"});
  expect_refused(with(small("llama"), {{"head_dim", 1 << 30}}), {"head_dim", "at most 2147483647"});
}

TEST(Config, RefusesWrongTypesOfSwitches) {
  for (const char* key : {"tie_word_embeddings", "attention_bias", "mlp_bias"}) {
    expect_refused(with(small("llama"), {{key, "yes"}}), {key, "expected true or false, found \"yes\""});
  }
  expect_refused(with(small("qwen2"), {{"use_sliding_window", 1}}), {"use_sliding_window", "true or false"});
  for (const Json& bad : {Json(0), Json(-1e-6), Json("1e-6"), Json(1e-300), Json(1e300), Json(nullptr)}) {
    expect_refused(with(small("llama"), {{"rms_norm_eps", bad}}), {"rms_norm_eps: expected a number > 0"});
  }
}

TEST(Config, RefusesUnknownFamilies) {
  expect_refused(with(small("llama"), {{"model_type", "deepseek_v3"}}),
                 {"model_type: expected one of qwen3, qwen2, llama, mistral, ", "qwen3_vl", "found \"deepseek_v3\""});
  expect_refused(without(small("llama"), "model_type"), {"model_type", "found none"});
  expect_refused(with(small("llama"), {{"model_type", 3}}), {"model_type: expected a string"});
}

TEST(Config, RefusesOtherHeadsAndOwnCode) {
  EXPECT_EQ(parse(with(small("qwen2"), {{"architectures", {"Qwen2ForCausalLM"}}})).n_layers, 4);
  expect_refused(with(small("qwen2"), {{"architectures", {"Qwen2ForRewardModel"}}}),
                 {"architectures: expected a list with \"Qwen2ForCausalLM\"", "Qwen2ForRewardModel"});
  expect_refused(with(small("qwen2"), {{"auto_map", {{"AutoModelForCausalLM", "modeling_x.X"}}}}), {"auto_map"});
  // Code from before Transformers had the family.
  const Json own = {{"AutoModelForCausalLM", "org/name--modeling_qwen2.Qwen2ForCausalLM"}};
  EXPECT_EQ(parse(with(small("qwen2"), {{"auto_map", own}})).n_layers, 4);
  EXPECT_EQ(parse(with(small("qwen2"), {{"auto_map", {{"AutoTokenizer", "t.T"}}}})).n_layers, 4);
}

TEST(Config, RefusesActivations) {
  expect_refused(with(small("llama"), {{"hidden_act", "gelu"}}), {"hidden_act: expected \"silu\", found \"gelu\""});
  EXPECT_EQ(parse(with(small("llama"), {{"hidden_act", "swish"}})).n_layers, 4);
}

TEST(Config, ReadsHowWeightsAreQuantised) {
  EXPECT_TRUE(parse(small("llama")).quantization.empty());
  EXPECT_TRUE(parse(with(small("llama"), {{"quantization_config", nullptr}})).quantization.empty());
  const auto config = parse(with(small("llama"), {{"quantization_config", {{"quant_method", "fp8"}}}}));
  ASSERT_EQ(config.quantization.groups.size(), 1U);
  EXPECT_EQ(config.quantization.groups[0].weights.description(), "fp8 in blocks of 128 x 128");
  EXPECT_EQ(config.n_layers, 4);
}

TEST(Config, RefusesWaysOfQuantisingByName) {
  for (const char* method : {"hqq", "quark", "torchao", "aqlm", "gguf", "sparseml"}) {
    expect_refused(with(small("llama"), {{"quantization_config", {{"quant_method", method}}}}),
                   {"quantization_config.quant_method", "expected one of fp8, ", std::string("found \"") + method});
  }
  expect_refused(with(small("llama"), {{"quantization_config", 4}}), {"quantization_config: expected an object"});
  expect_refused(with(small("llama"), {{"quantization", {{"bits", 4}}}}), {"quantization: expected none"});
}

TEST(Config, RefusesWhatChangesTheMathematicsByName) {
  const Json active = {{"partial_rotary_factor", 0.5},
                       {"attention_multiplier", 0.1},
                       {"logits_scaling", 8},
                       {"attn_logit_softcapping", 50},
                       {"final_logit_softcapping", 30},
                       {"query_pre_attn_scalar", 224},
                       {"attention_sinks", true},
                       {"use_mrope", true},
                       {"num_experts", 8},
                       {"use_qk_norm", true},
                       {"clip_qkv", 8.0},
                       {"attention_chunk_size", 8192},
                       {"is_causal", false},
                       {"per_layer_config", {{"0", 1}}},
                       {"no_rope_layers", {1, 0}}};
  for (const auto& [key, value] : active.items()) {
    expect_refused(with(small("llama"), {{key, value}}), {key + ": expected none", "found " + value.dump()});
  }
  const Json neutral = {{"partial_rotary_factor", 1.0},
                        {"use_mrope", false},
                        {"attn_logit_softcapping", nullptr},
                        {"num_experts", 0},
                        {"moe_num_experts", 1},
                        {"is_causal", true},
                        {"no_rope_layers", Json::array()},
                        {"attention_dropout", 0.1},
                        {"pretraining_tp", 2},
                        {"logits_scaling", 1}};
  EXPECT_EQ(parse(with(small("llama"), neutral)).n_layers, 4);
  // Qwen3 has these norms in any case.
  EXPECT_EQ(parse(with(small("qwen3"), {{"use_qk_norm", true}})).n_layers, 4);
}

// ---- rotary embedding -----------------------------------------------------------------------------------------------

const Json kLlama3 = {{"rope_type", "llama3"},
                      {"factor", 32.0},
                      {"low_freq_factor", 1.0},
                      {"high_freq_factor", 4.0},
                      {"original_max_position_embeddings", 1024}};

TEST(Config, RopeInBothDialects) {
  const Json hub = with(small("llama"), {{"rope_theta", 5e5}, {"rope_scaling", kLlama3}});
  const Json transformers5 = with(small("llama"), {{"rope_parameters", with(kLlama3, {{"rope_theta", 5e5}})}});
  for (const Json& json : {hub, transformers5}) {
    const RopeConfig rope = parse(json).ropes.front();
    EXPECT_EQ(rope.type, RopeConfig::Type::kLlama3);
    EXPECT_EQ(rope.theta, 5e5);
    EXPECT_EQ(rope.factor, 32.0);
    EXPECT_EQ(rope.low_freq_factor, 1.0);
    EXPECT_EQ(rope.high_freq_factor, 4.0);
    EXPECT_EQ(rope.original_max_position, 1024);
  }
}

TEST(Config, RopePrecedenceIsTransformers) {
  const auto theta = [](const Json& fields) { return parse(with(small("llama"), fields)).ropes.front().theta; };
  EXPECT_EQ(theta({{"rope_theta", 5e5}}), 5e5);
  EXPECT_EQ(theta({{"rope_theta", 5e5}, {"rope_parameters", {{"rope_type", "default"}}}}), 5e5);
  EXPECT_EQ(theta({{"rope_theta", 5e5}, {"rope_parameters", {{"rope_theta", 7e5}}}}), 7e5);
  EXPECT_EQ(theta({{"rope_scaling", {{"type", "default"}}}, {"rope_parameters", {{"rope_theta", 7e5}}}}), 1e4);
  EXPECT_EQ(theta({{"rope_scaling", Json::object()}, {"rope_parameters", {{"rope_theta", 7e5}}}}), 7e5);
  const auto context = [](const Json& fields) {
    return parse(with(small("llama"), fields)).ropes.front().original_max_position;
  };
  EXPECT_EQ(context({{"rope_scaling", kLlama3}, {"original_max_position_embeddings", 512}}), 512);
  EXPECT_EQ(context({{"rope_scaling", without(kLlama3, "original_max_position_embeddings")}}), 4096);
}

TEST(Config, LinearRopeWithTheOldSpelling) {
  const RopeConfig rope =
      parse(with(small("llama"), {{"rope_scaling", {{"type", "linear"}, {"factor", 4}}}})).ropes.front();
  EXPECT_EQ(rope.type, RopeConfig::Type::kLinear);
  EXPECT_EQ(rope.factor, 4.0);
}

TEST(Config, RefusesRopeTypesByName) {
  const std::string known = "expected one of default, linear, dynamic, yarn, longrope, llama3, proportional";
  for (const char* type : {"su", "mrope", ""}) {
    expect_refused(with(small("llama"), {{"rope_scaling", {{"rope_type", type}, {"factor", 2}}}}),
                   {"rope_scaling.rope_type: " + known, std::string("\"") + type + '"'});
  }
  expect_refused(with(small("llama"), {{"rope_scaling", {{"type", "mrope"}}}}), {"rope_scaling.type", "\"mrope\""});
  expect_refused(with(small("llama"), {{"rope_parameters", {{"rope_type", "su"}}}}), {"rope_parameters.rope_type"});
}

TEST(Config, FamiliesHaveTheirOwnRotaryEmbeddingWhereTheConfigHasNone) {
  const Json gpt_oss = without(without(small("gpt_oss"), "sliding_window"), "rope_theta");
  const RopeConfig rope = parse(gpt_oss).ropes.front();
  EXPECT_EQ(rope.type, RopeConfig::Type::kYarn);
  EXPECT_EQ(rope.theta, 150000.0);
  EXPECT_EQ(rope.factor, 32.0);
  EXPECT_EQ(rope.original_max_position, 4096);
  EXPECT_FALSE(rope.truncate);
  const Json plain = {{"rope_type", "default"}, {"rope_theta", 1e4}};
  EXPECT_EQ(parse(with(gpt_oss, {{"rope_parameters", plain}})).ropes.front().type, RopeConfig::Type::kDefault);
  EXPECT_EQ(parse(small("llama")).ropes.front().type, RopeConfig::Type::kDefault);
  EXPECT_EQ(parse(gpt_oss).native_window_layers, (std::vector<bool>{true, false, true, false}));
  expect_refused(with(gpt_oss, {{"swiglu_limit", 6.0}}), {"swiglu_limit: expected 7"});
  expect_refused(with(gpt_oss, {{"swiglu_alpha", 1.0}}), {"swiglu_alpha: expected 1.702"});
}

TEST(Config, RotaryEmbeddingsWithABaseForEachLayer) {
  const Json granite = with(small("granite_swa"), {{"rope_theta", 5e5}});
  const ModelConfig shared = parse(granite);
  EXPECT_EQ(shared.ropes.size(), 1U);
  EXPECT_EQ(shared.rope_of(3).theta, 5e5);
  const ModelConfig config = parse(with(granite, {{"layer_rope_theta", {1e4, 0, 1e4, 2e6}}}));
  EXPECT_EQ(config.layer_ropes, (std::vector<int32_t>{0, 1, 0, 2}));
  EXPECT_EQ(config.rope_of(2).theta, 1e4);
  EXPECT_EQ(config.rope_of(1).type, RopeConfig::Type::kNone);
  EXPECT_EQ(config.rope_of(3).theta, 2e6);
  for (const Json& list : {Json(1e4), Json({1e4, 0, 1e4}), Json({1e4, 0, 1e4, -1}), Json({1e4, 0, 1e4, "0"})}) {
    expect_refused(with(granite, {{"layer_rope_theta", list}}), {"layer_rope_theta: expected a list of 4 numbers"});
  }
  expect_refused(with(small("granite"), {{"layer_rope_theta", {1e4, 0, 1e4, 0}}}), {"layer_rope_theta: expected none"});
}

TEST(Config, RefusesMalformedRope) {
  const auto refused = [](const Json& fields, const std::vector<std::string>& parts) {
    expect_refused(with(small("llama"), fields), parts);
  };
  refused({{"rope_scaling", "linear"}}, {"rope_scaling: expected an object or null"});
  refused({{"rope_scaling", {{"type", "linear"}}}}, {"rope_scaling.factor", "linear needs it", "found none"});
  refused({{"rope_scaling", {{"type", "linear"}, {"factor", 0}}}}, {"rope_scaling.factor: expected a number > 0"});
  refused({{"rope_scaling", without(kLlama3, "low_freq_factor")}}, {"rope_scaling.low_freq_factor", "llama3 needs it"});
  refused({{"rope_scaling", with(kLlama3, {{"high_freq_factor", 1}})}},
          {"rope_scaling.high_freq_factor: expected more than low_freq_factor, found 1"});
  refused({{"rope_scaling", with(kLlama3, {{"original_max_position_embeddings", -1}})}},
          {"rope_scaling.original_max_position_embeddings", "found -1"});
  refused({{"rope_theta", 0}}, {"config.json: rope_theta: expected a number > 0"});
  refused({{"rope_theta", "1e6"}}, {"rope_theta", "found \"1e6\""});
  refused({{"rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}}}},
          {"rope_parameters.full_attention: expected no table of its own"});
  refused({{"rope_parameters", {{"partial_rotary_factor", 0.25}}}}, {"rope_parameters.partial_rotary_factor"});
  refused({{"rope_scaling", {{"type", "default"}, {"mrope_section", {16, 24}}}}}, {"rope_scaling.mrope_section"});
}

// ---- native windows -------------------------------------------------------------------------------------------------

using Layers = std::vector<bool>;

TEST(NativeWindow, MistralHasItInEveryLayerUnlessNull) {
  EXPECT_FALSE(parse(small("mistral")).native_window);
  EXPECT_TRUE(parse(small("mistral")).native_window_layers.empty());
  const ModelConfig stated = parse(with(small("mistral"), {{"sliding_window", 64}}));
  EXPECT_EQ(stated.native_window, 64);
  EXPECT_EQ(stated.native_window_layers, (Layers{true, true, true, true}));
  EXPECT_EQ(parse(without(small("mistral"), "sliding_window")).native_window, 4096);
}

TEST(NativeWindow, LlamaIgnoresIt) {
  EXPECT_FALSE(parse(with(small("llama"), {{"sliding_window", 64}})).native_window);
}

TEST(NativeWindow, QwenNeedsTheSwitch) {
  for (const char* family : {"qwen2", "qwen3"}) {
    const Json json = with(small(family), {{"sliding_window", 64}, {"max_window_layers", 1}});
    EXPECT_FALSE(parse(json).native_window);
    const ModelConfig on = parse(with(json, {{"use_sliding_window", true}}));
    EXPECT_EQ(on.native_window, 64);
    EXPECT_EQ(on.native_window_layers, (Layers{false, true, true, true}));
    EXPECT_FALSE(parse(with(json, {{"use_sliding_window", true}, {"sliding_window", nullptr}})).native_window);
    // No layer is left where all are below max_window_layers, 28 by default.
    EXPECT_FALSE(parse(with(json, {{"use_sliding_window", true}, {"max_window_layers", 4}})).native_window);
    EXPECT_FALSE(parse(without(with(json, {{"use_sliding_window", true}}), "max_window_layers")).native_window);
  }
}

TEST(NativeWindow, QwenLayerTypesWinOverMaxWindowLayers) {
  const Json types = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
  const Json json = with(small("qwen3"), {{"layer_types", types}, {"sliding_window", 64}, {"max_window_layers", 0}});
  const ModelConfig on = parse(with(json, {{"use_sliding_window", true}}));
  EXPECT_EQ(on.native_window_layers, (Layers{true, false, true, false}));
  expect_refused(json, {"layer_types: expected no sliding_attention where use_sliding_window"});
  expect_refused(with(json, {{"use_sliding_window", true}, {"sliding_window", nullptr}}), {"layer_types"});
}

TEST(NativeWindow, GraniteHasFullAttentionInTheFirstOfFour) {
  const Json granite = with(without(small("granite_swa"), "sliding_window"), {{"num_hidden_layers", 5}});
  EXPECT_EQ(parse(granite).native_window, 128);
  EXPECT_EQ(parse(granite).native_window_layers, (Layers{false, true, true, true, false}));
  const Json stated =
      with(small("granite_swa"),
           {{"sliding_window", 32},
            {"layer_types", {"sliding_attention", "full_attention", "full_attention", "sliding_attention"}}});
  EXPECT_EQ(parse(stated).native_window, 32);
  EXPECT_EQ(parse(stated).native_window_layers, (Layers{true, false, false, true}));
}

TEST(NativeWindow, RefusesMalformedFields) {
  const Json on = with(small("qwen3"), {{"use_sliding_window", true}});
  expect_refused(with(on, {{"sliding_window", 0}}), {"sliding_window: expected an integer from 1"});
  expect_refused(with(small("mistral"), {{"sliding_window", "64"}}), {"sliding_window", "found \"64\""});
  expect_refused(with(on, {{"max_window_layers", -1}}), {"max_window_layers: expected an integer from 0"});
  expect_refused(with(on, {{"layer_types", {"full_attention"}}}), {"layer_types: expected a list of 4 names"});
  const Json chunked = {"full_attention", "full_attention", "full_attention", "chunked_attention"};
  for (const char* family : {"qwen3", "llama"}) {
    expect_refused(with(small(family), {{"layer_types", chunked}}),
                   {"layer_types", "\"chunked_attention\" is neither"});
  }
}

TEST(NativeWindow, RefusesLayerTypesThatTransformersIgnores) {
  const Json full = {"full_attention", "full_attention", "full_attention", "full_attention"};
  Json mixed = full;
  mixed[1] = "sliding_attention";
  EXPECT_EQ(parse(with(small("llama"), {{"layer_types", full}})).n_layers, 4);
  expect_refused(with(small("llama"), {{"layer_types", mixed}}), {"layer_types: expected full_attention in every"});
  expect_refused(with(small("mistral"), {{"layer_types", full}, {"sliding_window", 8}}),
                 {"layer_types: expected sliding_attention in every layer"});
}

// ---- files ----------------------------------------------------------------------------------------------------------

TEST(Config, ReadsTheFileOfADirectory) {
  const TempDir dir;
  expect_error(ExitCode::kNoInput, {"config.json", "cannot be read", "No such file"}, [&] { read_config(dir.path()); });
  dir.write("config.json", small("qwen2").dump(2));
  EXPECT_EQ(read_config(dir.path()).model_type, "qwen2");
  dir.write("config.json", "{");
  expect_error(ExitCode::kBadData, {(dir.path() / "config.json").string(), "not JSON"},
               [&] { read_config(dir.path()); });
}

}  // namespace
}  // namespace winnow::model
