// The identity of a checkpoint, byte for byte, and a watch that notices its changes.
#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/safetensors.h"

namespace winnow::model {

// Returns the checkpoint's identity, 64 hex digits. With H = SHA-256 it is H(H(file 1) ... H(file n) H(config.json)),
// files in name order, where H(file) = H(H(chunk 1) H(chunk 2) ...) over chunks of 64 MiB, so that threads share one
// file's work. It is cached under `cache_dir` (empty: no cache) by path and FileStamp of every file; a cache that is
// broken, stale or cannot be written is ignored. Throws Error(kNoInput) for an unreadable config.json, Error(kBadData)
// for files that change all the while, and HashStopped soon after somebody has asked for it.
std::string checkpoint_sha256(const Checkpoint& checkpoint, const std::filesystem::path& cache_dir,
                              const std::stop_token& stop = {});
struct HashStopped : Unwinding {};

// Notices that the files of a run are others than when it began. Stamps say when to look, the bytes decide: a link or
// another owner changes a file's stamp, too.
class CheckpointWatch {
 public:
  // Watches `checkpoint`, whose hash is `sha256`. Both references must outlive this. Throws Error(kBadData) where
  // config.json is not the one that `config` was read from.
  CheckpointWatch(const ModelConfig& config, const Checkpoint& checkpoint, std::string sha256);
  // Throws Error(kBadData), naming the file, where the mapped bytes are not those that were hashed. A file that was
  // replaced stays in the map as it was. Call it after weights were used and before anything that came of them is kept.
  void require_unchanged();

 private:
  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  std::string sha256_;
  std::vector<std::optional<FileStamp>> known_;  // by file: with this stamp the bytes are the right ones
};

}  // namespace winnow::model
