#include "model/checkpoint.h"

// Files and shards of a checkpoint directory.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/text_file.h"
#include "model/expert_names.h"
#include "model/quantization/parts.h"

namespace winnow::model {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
const std::string kPrefix = "model.";
const std::string kTower = "language_model.";
const std::string kFirst = "embed_tokens.weight";  // of every model, whatever its layers are
constexpr std::size_t kMaxIndexBytes = std::size_t{100} << 20;

// Whether a file is there. One that a link leads to in vain, or that lies where winnow must not look, is not simply
// absent.
bool is_there(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status)) return true;
  if (status.type() != fs::file_type::not_found) {
    fail(ExitCode::kNoInput, path.string() + ": cannot be read: " + error.message());
  }
  if (fs::is_symlink(fs::symlink_status(path, error))) {
    fail(ExitCode::kNoInput, path.string() + ": is a link to a file that is not there: the download is incomplete");
  }
  return false;
}

// The shard that each tensor of the index is in. Names of shards are plain file names: an index is no way out of its
// directory. (The file may be a link, as in the hub's cache.)
std::map<std::string, std::string> read_index(const fs::path& path) {
  const Json index = parse_json(read_text(path, kMaxIndexBytes), path.string(), JsonDialect::kPython);
  const auto refuse = [&](const std::string& where, const std::string& expected, const Json& found) {
    fail(ExitCode::kBadData, path.string() + ": " + where + ": expected " + expected + ", found " + shown(found));
  };
  if (!index.is_object()) refuse("top level", "an object", index);
  const Json weight_map = index.value("weight_map", Json());
  if (!weight_map.is_object() || weight_map.empty()) refuse("weight_map", "an object of tensor to file", weight_map);
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : weight_map.items()) {
    const std::string where = "weight_map, tensor " + quote(tensor);
    if (!shard.is_string()) refuse(where, "a file name", shard);
    const auto& name = shard.get_ref<const std::string&>();
    const bool is_plain = !name.empty() && name != "." && name != ".." &&
                          name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!is_plain) refuse(where, "the name of a file in the same directory", shard);
    shards.emplace(tensor, name);
  }
  return shards;
}

}  // namespace

void read_ahead(const kernels::HostTensor& tensor) {
  if (tensor.values) {
    for (const kernels::HostTensor& part : tensor.values->stored()) read_ahead(part);
    return;
  }
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(tensor.data);
  const auto in_page = address % page;
  const auto size = static_cast<std::size_t>(tensor.count() * quantization::stored_bytes(tensor)) + in_page;
  auto* const begin = const_cast<std::byte*>(reinterpret_cast<const std::byte*>(tensor.data)) - in_page;
  static_cast<void>(madvise(begin, size, MADV_WILLNEED));  // what it refuses is read later
}

Checkpoint::Checkpoint(const fs::path& model_dir, const quantization::Scheme& scheme, const Family* family)
    : directory_(model_dir) {
  std::error_code error;
  if (!fs::is_directory(model_dir, error)) {
    const bool exists = fs::exists(model_dir, error);
    fail(ExitCode::kNoInput, model_dir.string() + ": expected a directory with a model, found " +
                                 (exists  ? "a file"
                                  : error ? error.message()
                                          : "nothing of that name"));
  }
  std::map<std::string, std::string> index;
  std::set<std::string> names = {kSingleFile};
  if (!is_there(model_dir / kSingleFile)) {
    if (!is_there(model_dir / kIndexFile)) {
      const bool has_pickle = fs::exists(model_dir / "pytorch_model.bin", error) ||
                              fs::exists(model_dir / "pytorch_model.bin.index.json", error);
      fail(ExitCode::kNoInput, model_dir.string() + ": expected " + kSingleFile + " or " + kIndexFile + ", found " +
                                   (has_pickle ? "pytorch_model.bin: save it as safetensors first" : "neither"));
    }
    index = read_index(model_dir / kIndexFile);
    names.clear();
    for (const auto& [tensor, shard] : index) names.insert(shard);
  }
  for (const std::string& name : names) add_file(model_dir / name, !index.empty());
  for (const auto& [tensor, shard] : index) {
    const auto found = shards_.find(tensor);
    if (found != shards_.end() && found->second == shard) continue;
    fail(ExitCode::kBadData, (model_dir / kIndexFile).string() + ": tensor " + quote(tensor) + ": expected in " +
                                 quote(shard) + ", found " +
                                 (found == shards_.end() ? "in no shard" : "in " + quote(found->second)));
  }
  change_prefix();
  if (family != nullptr) use_hub_names(family->experts, tensors_);
  if (scheme.empty()) return;
  quantization::Combined combined = quantization::combine(scheme, std::move(tensors_));
  tensors_ = std::move(combined.tensors);
  faults_ = std::move(combined.faults);
  cache_scales_ = std::move(combined.cache_scales);
  weight_formats_ = std::move(combined.counts);
  if (weight_formats_.empty() && faults_.empty()) {
    fail(ExitCode::kBadData, (model_dir / "config.json").string() +
                                 ": quantization_config: expected none for weights "
                                 "that are all plain, found quant_method " +
                                 quote(scheme.method) + ": take it out, or get the quantised weights");
  }
}

void Checkpoint::add_file(const fs::path& path, bool is_shard) {
  if (is_shard && !is_there(path)) {
    fail(ExitCode::kNoInput, path.string() + ": expected this shard, which " + std::string(kIndexFile) +
                                 " names, found nothing of that name: the download is incomplete");
  }
  files_.push_back(std::make_unique<MappedFile>(path));
  const std::string file = path.filename().string();
  for (auto& [name, tensor] : parse_safetensors(files_.back()->bytes(), path.string())) {
    const auto [shard, is_new] = shards_.emplace(name, file);
    if (!is_new) {
      fail(ExitCode::kBadData, tensor.name + ": expected in one shard, found in " + quote(shard->second) + " too");
    }
    tensors_.emplace(name, std::move(tensor));
  }
}

// What Transformers does when it loads a base model's checkpoint into a causal language model, or one that was wrapped
// in another: "layers.0..." and "model.model.layers.0..." become "model.layers.0...". Of a model with several towers
// the one for text is kept: "model.language_model.layers.0..." or, as older versions wrote it,
// "language_model.model.layers.0..."; the tensors of the others are not read.
void Checkpoint::change_prefix() {
  const auto begins_at = [&](const std::string& prefix) { return contains(prefix + kFirst); };
  if (begins_at(kPrefix)) return;
  const bool is_bare = begins_at("");
  const bool is_double = begins_at(kPrefix + kPrefix);
  const bool is_inner_tower = begins_at(kPrefix + kTower);
  const bool is_outer_tower = begins_at(kTower + kPrefix);
  if (!is_bare && !is_double && !is_inner_tower && !is_outer_tower) return;
  const auto known_name = [&](const std::string& name) -> std::optional<std::string> {
    if (is_bare) {
      const bool is_of_base = name == kFirst || name.starts_with("layers.") || name == "norm.weight";
      return is_of_base ? kPrefix + name : name;
    }
    if (is_double) return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
    if (name.starts_with("lm_head.")) return name;
    const std::string prefix = is_inner_tower ? kPrefix + kTower : kTower;
    if (!name.starts_with(prefix)) return std::nullopt;
    return (is_inner_tower ? kPrefix : "") + name.substr(prefix.size());
  };
  std::map<std::string, kernels::HostTensor> tensors;
  for (auto& [name, tensor] : tensors_) {
    if (std::optional<std::string> known = known_name(name)) tensors.emplace(*std::move(known), std::move(tensor));
  }
  tensors_ = std::move(tensors);
}

std::string Checkpoint::found_instead(const std::string& name) const {
  const std::string stem = name.substr(0, name.rfind('.'));
  if (contains(stem + ".qweight") || contains(stem + ".weight_packed")) {
    return "no such tensor but packed weights: they are quantised, and config.json has no quantization_config that "
           "says "
           "how";
  }
  const std::string none = "no such tensor";
  if (tensors_.empty()) return none + ", and no other: the file is empty";
  // The names of another program begin, or go on after "model.", with a word of its own.
  const std::string last = name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
  for (const auto& [other, tensor] : tensors_) {
    const std::string& end = other.ends_with("." + name) ? name : last;
    if (contains(kPrefix + kFirst) || !other.ends_with("." + end)) continue;
    const std::string prefix = other.substr(0, other.size() - end.size());
    const auto n_with = std::ranges::count_if(tensors_, [&](const auto& e) { return e.first.starts_with(prefix); });
    return none + " but " + quote(other) + "; " + std::to_string(n_with) + " of " + std::to_string(tensors_.size()) +
           " names begin with " + quote(prefix) + ", which Transformers would not find either: save the model anew " +
           "with the names of its Transformers class";
  }
  // The shortest that tells one model's names from another's: a few from the beginning, in the middle and at the end.
  std::string names;
  const std::size_t n = tensors_.size();
  for (const std::size_t i : std::set<std::size_t>{0, n / 2, n - 1}) {
    names += (names.empty() ? "" : ", ") + quote(std::next(tensors_.begin(), static_cast<std::ptrdiff_t>(i))->first);
  }
  return none + " among " + std::to_string(n) + ", such as " + names;
}

bool Checkpoint::has(const std::string& name, const std::vector<int64_t>& shape) const {
  const auto found = tensors_.find(name);
  return found != tensors_.end() && found->second.dtype != kernels::DType::kOther && found->second.shape == shape;
}

const kernels::HostTensor& Checkpoint::get(const std::string& name, const std::vector<int64_t>& shape) const {
  const auto found = tensors_.find(name);
  if (const auto fault = faults_.find(name); fault != faults_.end()) fail(ExitCode::kBadData, fault->second);
  if (found == tensors_.end()) {
    fail(ExitCode::kBadData, directory_.string() + ": tensor " + quote(name) + ": expected shape " +
                                 quantization::shape_text(shape) + ", found " + found_instead(name));
  }
  const kernels::HostTensor& tensor = found->second;
  if (tensor.dtype == kernels::DType::kOther) {
    fail(ExitCode::kBadData, tensor.name + ": expected dtype BF16, F16 or F32, found " + tensor.dtype_name +
                                 ": quantised, and not as config.json's quantization_config says, or no number");
  }
  if (tensor.shape != shape) {
    fail(ExitCode::kBadData, tensor.name + ": expected shape " + quantization::shape_text(shape) + ", found " +
                                 quantization::shape_text(tensor.shape));
  }
  return tensor;
}

kernels::DType Checkpoint::dtype() const {
  for (const auto& [name, tensor] : tensors_) {
    if (tensor.dtype != kernels::DType::kOther && !tensor.values) return tensor.dtype;
  }
  return kernels::DType::kF32;
}

int64_t Checkpoint::size_bytes() const {
  int64_t total = 0;
  for (const auto& file : files_) total += static_cast<int64_t>(file->bytes().size());
  return total;
}

}  // namespace winnow::model
