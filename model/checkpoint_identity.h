// Which checkpoint it is, byte for byte, and whether it still is that one.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "model/safetensors.h"

namespace winnow::model {

// The checkpoint's identity, 64 hex digits. With H = SHA-256: H(H(file 1) ... H(file n) H(config.json)), files in name
// order, where H(file) = H(H(chunk 1) H(chunk 2) ...) over chunks of 64 MiB, so that threads share one file's work.
// Cached under `cache_dir` (empty: no cache) by path and FileStamp of every file; a cache that is broken, stale or
// cannot be written is no error. Throws Error(kNoInput) for an unreadable config.json, Error(kBadData) for files that
// change all the while.
std::string checkpoint_sha256(const Checkpoint& checkpoint, const std::filesystem::path& cache_dir);

// Notices that the files of a run are others than when it began. Stamps say when to look, the bytes decide: a link or
// another owner changes a file's stamp, too.
class CheckpointWatch {
 public:
  // `sha256` is that of `checkpoint`; both references must outlive this. Throws Error(kBadData) where config.json is
  // another than `config` was read from.
  CheckpointWatch(const ModelConfig& config, const Checkpoint& checkpoint, std::string sha256);
  // Throws Error(kBadData), naming the file, where what lies in the map are not the bytes any more that were hashed. A
  // file that was replaced stays in the map as it was. To be called after weights were used and before anything that
  // came of them is kept.
  void require_unchanged();

 private:
  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  std::string sha256_;
  std::vector<std::optional<FileStamp>> known_;  // by file: with this stamp the bytes are the right ones
};

}  // namespace winnow::model
