// A checkpoint: its safetensors files and the tensors in them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/quantization/combine.h"
#include "model/quantization/scheme.h"
#include "model/safetensors.h"

namespace winnow::model {

struct Family;  // model/families.h

// Asks the system to bring a tensor's pages into memory while other work goes on. It is a hint and cannot fail.
void read_ahead(const kernels::HostTensor& tensor);

// All tensors of a checkpoint directory: model.safetensors, or model.safetensors.index.json with its shards. Names are
// those of a causal language model, "model.layers.0...": where a file has them without "model.", or with one more of
// it, the names are changed, as Transformers does. No other prefix is taken off. Quantised weights are there under the
// names that they have in an unquantised checkpoint, with the values that they stand for.
class Checkpoint {
 public:
  // Opens the files of a checkpoint. `scheme` is ModelConfig::quantization, `family` ModelConfig::family: without it
  // experts are looked for by the names of model hubs alone. Throws Error(kNoInput) for a file or shard
  // that is missing or unreadable, Error(kBadData) for what is malformed and for a tensor in two shards or in another
  // than the index says.
  explicit Checkpoint(const std::filesystem::path& model_dir, const quantization::Scheme& scheme = {},
                      const Family* family = nullptr);

  bool contains(const std::string& name) const { return tensors_.count(name) != 0; }
  // Returns true if get() finds it.
  bool has(const std::string& name, const std::vector<int64_t>& shape) const;
  // Returns the tensor, which must have that shape and a floating dtype that winnow reads. Throws Error(kBadData) with
  // the resolved name, the file, expected and found; for a quantised one, what is wrong with its parts.
  const kernels::HostTensor& get(const std::string& name, const std::vector<int64_t>& shape) const;
  const std::map<std::string, kernels::HostTensor>& tensors() const { return tensors_; }
  const std::vector<std::unique_ptr<MappedFile>>& files() const { return files_; }
  const std::filesystem::path& directory() const { return directory_; }
  int64_t size_bytes() const;  // of all files
  // Returns the type of the first plain tensor, by name, that winnow computes with: the type of a model whose
  // config.json names none.
  kernels::DType dtype() const;
  // Returns the scales of keys and values, as quantization::read_kv_scales() does.
  std::vector<quantization::KvScales> kv_scales(int64_t n_layers) const {
    return quantization::read_kv_scales(cache_scales_, n_layers);
  }
  // How many tensors are stored in each weight format, by its description; empty where all are plain.
  const std::map<std::string, int64_t>& weight_formats() const { return weight_formats_; }

 private:
  void add_file(const std::filesystem::path& path, bool is_shard);
  void change_prefix();
  // Says what is there in place of a tensor that is missing, as the end of a sentence.
  std::string found_instead(const std::string& name) const;

  std::filesystem::path directory_;
  std::vector<std::unique_ptr<MappedFile>> files_;  // in name order
  std::map<std::string, std::string> shards_;       // tensor -> name of its file
  std::map<std::string, kernels::HostTensor> tensors_;
  std::map<std::string, std::string> faults_;  // of quantised tensors that are not in tensors_
  std::map<std::string, int64_t> weight_formats_;
  quantization::Tensors cache_scales_;
};

}  // namespace winnow::model
