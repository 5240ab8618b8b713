// Weights: from files of every type into the backend's matrices.

#include "model/weights.h"
#include "kernels/cpu/cpu.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <bit>
#include <chrono>
#include <cstring>
#include <map>

#include "model/checkpoint_check.h"
#include "model/families.h"
#include "model/random_checkpoint.h"
#include "tests/model/model_files.h"

namespace winnow::model {
namespace {

using Json = nlohmann::ordered_json;
using testing::expect_error;
using testing::safetensors_image;
using testing::TempDir;

constexpr int64_t kHidden = 6;
constexpr int64_t kFfn = 10;
constexpr int64_t kVocab = 7;
constexpr int64_t kQDim = 8;   // 2 heads of 4
constexpr int64_t kKvDim = 4;  // 1 head

using Shapes = std::map<std::string, std::vector<int64_t>>;

// Element i of a tensor: a small integer, exact in every type.
float value(const std::string& name, int64_t i) {
  int64_t sum = i * 7;
  for (const char c : name) sum += c;
  return static_cast<float>(sum % 201 - 100);
}

void append(std::string& data, float x, const std::string& dtype) {
  const auto bits = std::bit_cast<uint32_t>(x);
  char bytes[4];
  if (dtype == "F32") {
    std::memcpy(bytes, &bits, 4);
    data.append(bytes, 4);
    return;
  }
  auto half = static_cast<uint16_t>(bits >> 16);  // BF16
  if (dtype == "F16" && x != 0.0F) {
    // Normal numbers of few bits: the exponent's bias goes from 127 to 15.
    half =
        static_cast<uint16_t>((bits >> 16 & 0x8000U) | (((bits >> 23 & 0xFFU) - 112U) << 10) | (bits >> 13 & 0x3FFU));
  }
  std::memcpy(bytes, &half, 2);
  data.append(bytes, 2);
}

// An image whose data begin at an odd offset.
std::string image_of(const Shapes& shapes, const std::string& dtype) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, shape] : shapes) {
    const std::size_t begin = data.size();
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    for (int64_t i = 0; i < count; ++i) append(data, value(name, i), dtype);
    header[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  if (text.size() % 2 == 0) text += ' ';
  return safetensors_image(text, data);
}

Json config_of(const std::string& family) {
  return {
      {"model_type", family},         {"num_hidden_layers", 2},   {"hidden_size", kHidden}, {"intermediate_size", kFfn},
      {"num_attention_heads", 2},     {"num_key_value_heads", 1}, {"head_dim", 4},          {"vocab_size", kVocab},
      {"tie_word_embeddings", false}, {"sliding_window", nullptr}};
}

Shapes shapes_of(const ModelConfig& config) {
  Shapes shapes = {{"model.embed_tokens.weight", {kVocab, kHidden}}, {"model.norm.weight", {kHidden}}};
  if (!config.tied_embeddings) shapes["lm_head.weight"] = {kVocab, kHidden};
  for (const std::string layer : {"0", "1"}) {
    const std::string p = "model.layers." + layer + ".";
    shapes[p + "input_layernorm.weight"] = {kHidden};
    shapes[p + "post_attention_layernorm.weight"] = {kHidden};
    shapes[p + "self_attn.q_proj.weight"] = {kQDim, kHidden};
    shapes[p + "self_attn.k_proj.weight"] = {kKvDim, kHidden};
    shapes[p + "self_attn.v_proj.weight"] = {kKvDim, kHidden};
    shapes[p + "self_attn.o_proj.weight"] = {kHidden, kQDim};
    shapes[p + "mlp.gate_proj.weight"] = {kFfn, kHidden};
    shapes[p + "mlp.up_proj.weight"] = {kFfn, kHidden};
    shapes[p + "mlp.down_proj.weight"] = {kHidden, kFfn};
    if (config.qkv_bias) {
      shapes[p + "self_attn.q_proj.bias"] = {kQDim};
      shapes[p + "self_attn.k_proj.bias"] = {kKvDim};
      shapes[p + "self_attn.v_proj.bias"] = {kKvDim};
    }
    if (config.o_bias) shapes[p + "self_attn.o_proj.bias"] = {kHidden};
    if (config.family->qk_norm != QkNorm::kNone) {
      shapes[p + "self_attn.q_norm.weight"] = {4};
      shapes[p + "self_attn.k_norm.weight"] = {4};
    }
    if (!config.family->names.sink_logits.empty()) shapes[p + "self_attn.sinks"] = {2};
    if (config.mlp_bias) {
      shapes[p + "mlp.gate_proj.bias"] = {kFfn};
      shapes[p + "mlp.up_proj.bias"] = {kFfn};
      shapes[p + "mlp.down_proj.bias"] = {kHidden};
    }
  }
  return shapes;
}

// Those whose layers have the tensors that most families have, by their names; the goldens have the others.
constexpr std::array kPlainFamilies = {"qwen3", "qwen2", "llama", "mistral", "granite_swa"};

class WeightsTest : public ::testing::Test {
 protected:
  // Writes a model, with `change` made to its tensors, and opens it.
  void write(
      const Json& config, const std::string& dtype, const std::function<void(Shapes&)>& change = [](Shapes&) {}) {
    weights_.reset();
    dir_.write("config.json", config.dump());
    config_ = read_config(dir_.path());
    Shapes shapes = shapes_of(config_);
    change(shapes);
    dir_.write("model.safetensors", image_of(shapes, dtype));
    checkpoint_ = std::make_unique<Checkpoint>(dir_.path());
  }
  ModelWeights& load() {
    weights_ = std::make_unique<ModelWeights>(config_, *checkpoint_, *ops_);
    return *weights_;
  }
  void expect_refused(const std::vector<std::string>& parts) {
    expect_error(ExitCode::kBadData, parts, [&] { load(); });
  }
  static void expect_values(const kernels::Matrix& matrix, const std::vector<std::string>& parts, int64_t rows,
                            int64_t cols) {
    ASSERT_TRUE(matrix) << parts.front();
    EXPECT_EQ(matrix.dtype, kernels::DType::kF32);
    EXPECT_EQ(matrix.rows, rows);
    EXPECT_EQ(matrix.cols, cols);
    const auto* data = matrix.as<float>();
    const int64_t n = rows * cols / static_cast<int64_t>(parts.size());
    for (const std::string& part : parts) {
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(*data++, value(part, i)) << part << " " << i;
    }
  }
  void expect_layer(int64_t index);

  TempDir dir_;
  ModelConfig config_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<kernels::Ops> ops_ = cpu::make_cpu_backend({.n_threads = 2});
  std::unique_ptr<ModelWeights> weights_;
};

void WeightsTest::expect_layer(int64_t index) {
  const std::string p = "model.layers." + std::to_string(index) + ".";
  const std::string a = p + "self_attn.";
  const LayerWeights& layer = weights_->layer(index);
  expect_values(layer.attention_norm.weight, {p + "input_layernorm.weight"}, kHidden, 1);
  expect_values(layer.mlp_norm.weight, {p + "post_attention_layernorm.weight"}, kHidden, 1);
  expect_values(layer.q, {a + "q_proj.weight"}, kQDim, kHidden);
  expect_values(layer.kv, {a + "k_proj.weight", a + "v_proj.weight"}, 2 * kKvDim, kHidden);
  expect_values(layer.o, {a + "o_proj.weight"}, kHidden, kQDim);
  expect_values(layer.gate_up, {p + "mlp.gate_proj.weight", p + "mlp.up_proj.weight"}, 2 * kFfn, kHidden);
  expect_values(layer.down, {p + "mlp.down_proj.weight"}, kHidden, kFfn);
  EXPECT_EQ(static_cast<bool>(layer.q_bias), config_.qkv_bias);
  EXPECT_EQ(static_cast<bool>(layer.kv_bias), config_.qkv_bias);
  EXPECT_EQ(static_cast<bool>(layer.o_bias), config_.o_bias);
  EXPECT_EQ(static_cast<bool>(layer.gate_up_bias), config_.mlp_bias);
  EXPECT_EQ(static_cast<bool>(layer.down_bias), config_.mlp_bias);
  EXPECT_EQ(static_cast<bool>(layer.q_norm.norm.weight), (config_.family->qk_norm == QkNorm::kPerHead));
  EXPECT_EQ(static_cast<bool>(layer.k_norm.norm.weight), (config_.family->qk_norm == QkNorm::kPerHead));
  if (config_.qkv_bias) {
    expect_values(layer.q_bias, {a + "q_proj.bias"}, kQDim, 1);
    expect_values(layer.kv_bias, {a + "k_proj.bias", a + "v_proj.bias"}, 2 * kKvDim, 1);
  }
  if (config_.o_bias) expect_values(layer.o_bias, {a + "o_proj.bias"}, kHidden, 1);
  if (config_.mlp_bias) {
    expect_values(layer.gate_up_bias, {p + "mlp.gate_proj.bias", p + "mlp.up_proj.bias"}, 2 * kFfn, 1);
    expect_values(layer.down_bias, {p + "mlp.down_proj.bias"}, kHidden, 1);
  }
  EXPECT_EQ(static_cast<bool>(layer.sink_logits), !config_.family->names.sink_logits.empty());
  if (layer.sink_logits) expect_values(layer.sink_logits, {a + "sinks"}, 2, 1);
  if ((config_.family->qk_norm == QkNorm::kPerHead)) {
    expect_values(layer.q_norm.norm.weight, {a + "q_norm.weight"}, 4, 1);
    expect_values(layer.k_norm.norm.weight, {a + "k_norm.weight"}, 4, 1);
    EXPECT_EQ(layer.q_norm.norm.shape.eps, config_.norm.eps);
    EXPECT_EQ(layer.k_norm.norm.shape.eps, config_.norm.eps);
  }
}

// ---- values ---------------------------------------------------------------------------------------------------------

TEST_F(WeightsTest, EveryFamilyAndTypeAtAnyAlignment) {
  for (const std::string family : kPlainFamilies) {
    for (const char* dtype : {"F32", "BF16", "F16"}) {
      SCOPED_TRACE(family + " " + dtype);
      write(config_of(family), dtype);
      load();
      for (const int64_t index : {0, 1, 0}) expect_layer(index);
      expect_values(weights_->final_norm().weight, {"model.norm.weight"}, kHidden, 1);
    }
  }
}

TEST_F(WeightsTest, LlamaWithAllBiases) {
  Json config = config_of("llama");
  config["attention_bias"] = true;
  config["mlp_bias"] = true;
  write(config, "BF16");
  load();
  expect_layer(1);
  expect_layer(0);
}

TEST_F(WeightsTest, EmbeddingAndHead) {
  write(config_of("qwen3"), "F32");
  const ModelWeights& untied = load();
  EXPECT_EQ(untied.embedding().data, checkpoint_->tensors().at("model.embed_tokens.weight").data);
  EXPECT_EQ(untied.head().data, checkpoint_->tensors().at("lm_head.weight").data);
  EXPECT_EQ(untied.head().rows, kVocab);
  EXPECT_EQ(untied.head().cols, kHidden);

  Json config = config_of("qwen3");
  config["tie_word_embeddings"] = true;
  write(config, "F32");
  const ModelWeights& tied = load();
  EXPECT_EQ(tied.head().data, tied.embedding().data);
}

TEST_F(WeightsTest, TheSameLayerIsConvertedOnce) {
  write(config_of("qwen3"), "BF16");
  ModelWeights& weights = load();
  const float original = *weights.layer(0).q.as<float>();
  *const_cast<float*>(weights.layer(0).q.as<float>()) = 1234.0F;
  EXPECT_EQ(*weights.layer(0).q.as<float>(), 1234.0F);
  weights.layer(1);
  EXPECT_EQ(*weights.layer(0).q.as<float>(), original);
}

TEST_F(WeightsTest, TakesWhatItPredicts) {
  write(config_of("qwen2"), "BF16");
  const int64_t predicted = ModelWeights::predicted_bytes(config_, *checkpoint_, *ops_);
  EXPECT_EQ(ops_->device().allocated_bytes(), 0);
  ModelWeights& weights = load();
  EXPECT_EQ(ops_->device().allocated_bytes(), predicted);
  weights.layer(0);
  weights.layer(1);
  EXPECT_EQ(ops_->device().peak_allocated_bytes(), predicted);
  // One layer in float32, not the model.
  const int64_t layer_count =
      int64_t{2} * kQDim * kHidden + int64_t{2} * kKvDim * kHidden + int64_t{3} * kFfn * kHidden;
  EXPECT_GE(predicted, layer_count * 4);
  EXPECT_LT(predicted, 2 * layer_count * 4 + int64_t{12} * 256);
}

TEST_F(WeightsTest, LayersMayHaveDifferentTypes) {
  write(config_of("qwen3"), "BF16");
  Shapes first;
  Shapes second;
  for (const auto& [name, shape] : shapes_of(config_)) {
    (name.starts_with("model.layers.1.") ? second : first)[name] = shape;
  }
  std::filesystem::remove(dir_.path() / "model.safetensors");
  dir_.write("a.safetensors", image_of(first, "BF16"));
  dir_.write("b.safetensors", image_of(second, "F32"));
  Json map = Json::object();
  for (const auto& [name, shape] : first) map[name] = "a.safetensors";
  for (const auto& [name, shape] : second) map[name] = "b.safetensors";
  dir_.write("model.safetensors.index.json", Json({{"weight_map", map}}).dump());
  checkpoint_ = std::make_unique<Checkpoint>(dir_.path());
  load();
  expect_layer(0);
  expect_layer(1);
}

TEST_F(WeightsTest, RandomCheckpointsOfEveryFamilyLoad) {
  for (const std::string family : kPlainFamilies) {
    for (const bool tied : {false, true}) {
      const auto path = dir_.path() / (family + (tied ? "-tied" : ""));
      write_random_checkpoint(path, {.model_type = family, .tied_embeddings = tied});
      const ModelConfig config = read_config(path);
      const Checkpoint checkpoint(path);
      ModelWeights weights(config, checkpoint, *ops_);
      EXPECT_EQ(weights.layer(3).gate_up.rows, 192) << family;
      EXPECT_EQ(weights.head().rows, 128);
    }
  }
}

// ---- refused --------------------------------------------------------------------------------------------------------

TEST_F(WeightsTest, RefusesAMissingTensor) {
  write(config_of("qwen3"), "BF16", [](Shapes& s) { s.erase("model.layers.1.self_attn.k_norm.weight"); });
  expect_refused({"tensor \"model.layers.1.self_attn.k_norm.weight\"", "expected shape [4]", "no such tensor"});
  write(config_of("qwen3"), "BF16", [](Shapes& s) { s.erase("lm_head.weight"); });
  expect_refused({"tensor \"lm_head.weight\"", "expected shape [7,6]"});
  write(config_of("granite_swa"), "BF16", [](Shapes& s) { s.erase("model.layers.1.self_attn.sinks"); });
  expect_refused({"tensor \"model.layers.1.self_attn.sinks\"", "expected shape [2]", "no such tensor"});
}

TEST_F(WeightsTest, RefusesAWrongShape) {
  write(config_of("qwen3"), "BF16", [](Shapes& s) { s["model.layers.0.mlp.up_proj.weight"] = {kHidden, kFfn}; });
  expect_refused(
      {"model.safetensors: tensor \"model.layers.0.mlp.up_proj.weight\"", "expected shape [10,6]", "found [6,10]"});
  write(config_of("qwen3"), "BF16", [](Shapes& s) { s["model.norm.weight"] = {kHidden, 1}; });
  expect_refused({"tensor \"model.norm.weight\"", "expected shape [6]", "found [6,1]"});
  write(config_of("granite_swa"), "BF16", [](Shapes& s) { s["model.layers.0.self_attn.sinks"] = {1, 2}; });
  expect_refused({"tensor \"model.layers.0.self_attn.sinks\"", "expected shape [2]", "found [1,2]"});
}

TEST_F(WeightsTest, RefusesTensorsThatTheFamilyDoesNotHave) {
  for (const char* name : {"model.layers.0.self_attn.q_proj.bias", "model.layers.1.self_attn.sinks",
                           "model.layers.2.input_layernorm.weight", "lm_head.bias", "model.layers.0.mlp.gate.weight"}) {
    write(config_of("mistral"), "BF16", [&](Shapes& s) { s[name] = {4}; });
    expect_refused({std::string("tensor \"") + name + '"', "family mistral with 2 layers", "leave it out"});
  }
  write(config_of("llama"), "F32", [](Shapes& s) { s["model.layers.0.self_attn.rotary_emb.inv_freq"] = {2}; });
  load();
  expect_layer(0);
}

TEST_F(WeightsTest, TiedEmbeddingsWithAHeadOfTheirOwn) {
  Json config = config_of("qwen3");
  config["tie_word_embeddings"] = true;
  write(config, "BF16", [](Shapes& s) { s["lm_head.weight"] = {kVocab, kHidden}; });
  expect_refused({"tensor \"lm_head.weight\"", "model.embed_tokens.weight", "tie_word_embeddings"});

  // The same values under both names: tied.
  dir_.write("model.safetensors", safetensors_image({{"model.embed_tokens.weight", "BF16", {kVocab, kHidden}},
                                                     {"lm_head.weight", "BF16", {kVocab, kHidden}},
                                                     {"model.norm.weight", "BF16", {kHidden}}}));
  std::vector<testing::TensorOfZeros> zeros;
  for (const auto& [name, shape] : shapes_of(config_)) zeros.push_back({name, "BF16", shape});
  zeros.push_back({"lm_head.weight", "BF16", {kVocab, kHidden}});
  dir_.write("model.safetensors", safetensors_image(zeros));
  checkpoint_ = std::make_unique<Checkpoint>(dir_.path());
  const ModelWeights& weights = load();
  EXPECT_EQ(weights.head().data, weights.embedding().data);
}

TEST_F(WeightsTest, RefusesQuantisedWeights) {
  write(config_of("qwen3"), "BF16");
  std::vector<testing::TensorOfZeros> tensors;
  for (const auto& [name, shape] : shapes_of(config_)) {
    tensors.push_back({name, name.ends_with("0.mlp.down_proj.weight") ? "F8_E4M3" : "BF16", shape});
  }
  dir_.write("model.safetensors", safetensors_image(tensors));
  checkpoint_ = std::make_unique<Checkpoint>(dir_.path());
  expect_refused({"tensor \"model.layers.0.mlp.down_proj.weight\"", "expected dtype BF16, F16 or F32", "F8_E4M3"});
}

TEST_F(WeightsTest, FindsAllFaultsOfACheckpoint) {
  write(config_of("qwen3"), "BF16");
  EXPECT_EQ(find_faults(config_, *checkpoint_, 5).count, 0);
  write(config_of("qwen3"), "BF16", [](Shapes& shapes) {
    shapes.erase("model.layers.1.mlp.up_proj.weight");
    shapes["model.norm.weight"] = {kHidden + 1};
    shapes["model.layers.0.self_attn.q_proj.bias"] = {kQDim};
    shapes["vision.weight"] = {2};
  });
  const CheckpointFaults faults = find_faults(config_, *checkpoint_, 2);
  EXPECT_EQ(faults.count, 3);
  ASSERT_EQ(faults.lines.size(), 2U);
  EXPECT_NE(faults.lines[0].find("\"model.layers.1.mlp.up_proj.weight\": expected shape [10,6], found no such tensor"),
            std::string::npos)
      << faults.lines[0];
  EXPECT_NE(faults.lines[1].find("\"model.norm.weight\": expected shape [6], found [7]"), std::string::npos)
      << faults.lines[1];
  expect_error(ExitCode::kBadData, {"model.layers.1.mlp.up_proj.weight"},
               [&] { require_model(config_, *checkpoint_); });
}

TEST_F(WeightsTest, FindsTheTensorThatIsNotFinite) {
  const std::map<std::string, std::pair<std::string, std::string>> broken = {
      {"F32", {std::string("\0\0\x80\x7f", 4), std::string("\1\0\xc0\xff", 4)}},
      {"BF16", {std::string("\x80\xff", 2), std::string("\x81\x7f", 2)}},
      {"F16", {std::string("\0\x7c", 2), std::string("\1\xfc", 2)}}};
  for (const auto& [dtype, bytes] : broken) {
    write(config_of("qwen3"), dtype);
    EXPECT_FALSE(find_not_finite(config_, *checkpoint_)) << dtype;
    EXPECT_NE(load().why_not_finite().find("all weights are finite"), std::string::npos);
    const kernels::HostTensor& tensor = checkpoint_->get("model.layers.1.mlp.down_proj.weight", {kHidden, kFfn});
    const auto path = checkpoint_->files()[0]->path();
    const auto begin = tensor.data - checkpoint_->files()[0]->bytes().data();
    for (const auto& [value, word] : {std::pair(bytes.first, "infinite"), std::pair(bytes.second, "NaN")}) {
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(begin + 3 * static_cast<std::streamoff>(value.size()));
      file.write(value.data(), static_cast<std::streamsize>(value.size()));
      file.close();
      const auto found = find_not_finite(config_, *checkpoint_);
      ASSERT_TRUE(found) << dtype;
      EXPECT_NE(found->find("tensor \"model.layers.1.mlp.down_proj.weight\": element 3 of 60 is " + std::string(word)),
                std::string::npos)
          << *found;
      EXPECT_NE(load().why_not_finite().find("the checkpoint is broken"), std::string::npos);
    }
  }
}

TEST_F(WeightsTest, RefusesALayerThatIsNotThere) {
  write(config_of("qwen3"), "BF16");
  ModelWeights& weights = load();
  for (const int64_t index : {int64_t{-1}, int64_t{2}}) {
    expect_error(ExitCode::kInternal, {"layer " + std::to_string(index) + " of 2"}, [&] { weights.layer(index); });
  }
}

}  // namespace
}  // namespace winnow::model
