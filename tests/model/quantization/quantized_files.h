// The checkpoints of golden/quantized, as they are and damaged.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "tests/model/model_files.h"

namespace winnow::testing {

inline std::filesystem::path quantized_path(const std::string& name) {
  return std::filesystem::path(WINNOW_TESTS_DIR) / "golden" / "quantized" / name;
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

// A checkpoint in memory, to be changed and written.
struct QuantizedFiles {
  struct Stored {
    std::string dtype;
    std::vector<int64_t> shape;
    std::string bytes;
  };

  nlohmann::json config;
  std::map<std::string, Stored> tensors;

  explicit QuantizedFiles(const std::string& name) : config(read_json(quantized_path(name) / "config.json")) {
    std::ifstream file(quantized_path(name) / "model.safetensors", std::ios::binary);
    const std::string image((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i)
      length = length << 8 | static_cast<unsigned char>(image.at(static_cast<std::size_t>(i)));
    const nlohmann::json header = nlohmann::json::parse(image.substr(8, length));
    for (const auto& [key, info] : header.items()) {
      if (key == "__metadata__") continue;
      const auto begin = info.at("data_offsets").at(0).get<std::size_t>();
      const auto end = info.at("data_offsets").at(1).get<std::size_t>();
      tensors[key] = {info.at("dtype"), info.at("shape"), image.substr(8 + length + begin, end - begin)};
    }
  }

  nlohmann::json& quantization() { return config.at("quantization_config"); }

  void write(const TempDir& directory) const {
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    std::string data;
    for (const auto& [key, tensor] : tensors) {
      header[key] = {{"dtype", tensor.dtype},
                     {"shape", tensor.shape},
                     {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
      data += tensor.bytes;
    }
    directory.write("config.json", config.dump());
    directory.write("model.safetensors", safetensors_image(header.dump(), data));
  }
};

}  // namespace winnow::testing
