#include "jobs/cli/commands/export_weights.h"

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>
#include <system_error>
#include <utility>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "base/text_file.h"
#include "model/safetensors_file.h"

namespace winnow::commands {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
// Readers that take one file where there is one look for the name above: beside a second file it gets another.
constexpr const char* kFirstOfTwo = "model-00001-of-00002.safetensors";
constexpr const char* kSecondOfTwo = "model-00002-of-00002.safetensors";
constexpr const char* kAddedFile = "model-added.safetensors";
constexpr std::size_t kMaxIndexBytes = std::size_t{100} << 20;

// The files of the weights, each with its name in the export.
std::map<std::string, std::string> weight_files(const fs::path& model) {
  if (fs::exists(model / kSingleFile)) return {{kSingleFile, kFirstOfTwo}};
  const fs::path index = model / kIndexFile;
  const nlohmann::json shards =
      parse_json(read_text(index, kMaxIndexBytes), index.string(), JsonDialect::kPython).at("weight_map");
  std::map<std::string, std::string> files;
  for (const auto& [tensor, shard] : shards.items()) files[shard.get<std::string>()] = shard.get<std::string>();
  return files;
}

std::string renamed(const serving::WeightChanges& changes, std::string name) {
  for (const serving::Renaming& change : changes.renamed) {
    if (const auto at = name.find(change.from); at != std::string::npos)
      name.replace(at, change.from.size(), change.to);
  }
  return name;
}

// What is known of the checkpoint's tensors while the index of the export is put together.
struct Index {
  nlohmann::ordered_json weight_map = nlohmann::ordered_json::object();
  std::map<std::string, std::pair<std::string, model::TensorEntry>> sources;  // of the checkpoint's own
  int64_t size_bytes = 0;
  std::string prefix;         // of the names of layers
  std::string dtype = "F32";  // of the weights of queries, where the format of the added tensors has it

  // The checkpoint's file and entry of a tensor.
  std::pair<std::string, model::TensorEntry> find(const std::string& name) const {
    const auto found = sources.find(name);
    if (found == sources.end()) fail(ExitCode::kBadData, "the checkpoint has no tensor " + quote(name));
    return found->second;
  }

  void add(const model::TensorEntry& entry, const std::string& name, const std::string& file) {
    weight_map[name] = file;
    size_bytes += entry.size_bytes;
    const auto at = entry.name.find("layers.0.self_attn.q_proj.weight");
    if (at == std::string::npos) return;
    prefix = entry.name.substr(0, at);
    if (entry.dtype == "BF16" || entry.dtype == "F16") dtype = entry.dtype;
  }
};

void write_added(const serving::WeightChanges& changes, const fs::path& model, const fs::path& folder,
                 const std::string& file, Index& index) {
  std::vector<model::TensorEntry> entries;
  std::vector<std::function<void(std::ostream&)>> values;
  for (const serving::NewTensor& tensor : changes.added) {
    int64_t count = 1;
    for (const int64_t extent : tensor.shape) count *= extent;
    const std::string bytes = model::filled_tensor(index.dtype, count, tensor.value);
    entries.push_back({index.prefix + tensor.name, index.dtype, tensor.shape, static_cast<int64_t>(bytes.size())});
    values.emplace_back([bytes](std::ostream& out) { out << bytes; });
  }
  for (const serving::CopiedTensor& copy : changes.copied) {
    const auto [from, entry] = index.find(index.prefix + copy.from);
    entries.push_back({copy.name, entry.dtype, entry.shape, entry.size_bytes});
    values.emplace_back(
        [path = model / from, name = entry.name](std::ostream& out) { model::copy_tensor(path, name, out); });
  }
  for (const model::TensorEntry& entry : entries) index.add(entry, entry.name, file);
  model::write_safetensors(folder / file, model::safetensors_head(entries), [&](std::ostream& out) {
    for (const auto& write : values) write(out);
  });
}

void link(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::create_symlink(fs::absolute(from), to, error);
  if (error) fail(ExitCode::kCannotCreate, to.string() + ": cannot be linked: " + error.message());
}

}  // namespace

std::set<std::string> write_weights(const fs::path& model, const fs::path& folder,
                                    const serving::WeightChanges& changes) {
  Index index;
  std::set<std::string> replaced = {kIndexFile};
  const std::map<std::string, std::string> files = weight_files(model);
  for (const auto& [file, new_file] : files) {
    replaced.insert(file);
    bool is_renamed = false;
    for (const model::TensorEntry& entry : model::read_entries(model / file)) {
      const std::string name = renamed(changes, entry.name);
      is_renamed = is_renamed || name != entry.name;
      index.add(entry, name, new_file);
      index.sources[entry.name] = {file, entry};
    }
    if (is_renamed) {
      model::copy_renamed(model / file, folder / new_file,
                          [&](const std::string& name) { return renamed(changes, name); });
    } else {
      link(model / file, folder / new_file);
    }
  }
  write_added(changes, model, folder, files.contains(kSingleFile) ? kSecondOfTwo : kAddedFile, index);
  const nlohmann::ordered_json text = {{"metadata", {{"total_size", index.size_bytes}}},
                                       {"weight_map", index.weight_map}};
  write_file_atomically(folder / kIndexFile, json_text(text, 2) + "\n");
  return replaced;
}

}  // namespace winnow::commands
