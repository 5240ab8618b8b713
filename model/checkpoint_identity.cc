#include "model/checkpoint_identity.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/text_file.h"

namespace winnow::model {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Bytes = std::span<const std::byte>;

constexpr std::size_t kDigestBytes = 32;
constexpr std::size_t kChunkBytes = std::size_t{64} << 20;
constexpr std::size_t kMaxCacheBytes = std::size_t{1} << 20;
constexpr int kCacheVersion = 2;
constexpr int kMostReadings = 3;  // of files that somebody may be writing

std::string digest_of(const std::string& bytes) { return sha256_digest(std::as_bytes(std::span(bytes))); }

// H(file) of the header, 32 bytes.
std::string digest_of_file(Bytes bytes, const std::stop_token& stop) {
  const std::size_t n_chunks = (bytes.size() + kChunkBytes - 1) / kChunkBytes;
  std::string digests(n_chunks * kDigestBytes, '\0');
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> is_good = true;  // an exception must not leave a thread
  const auto work = [&] {
    for (std::size_t i = next++; i < n_chunks && !stop.stop_requested(); i = next++) {
      const Bytes chunk = bytes.subspan(i * kChunkBytes, std::min(kChunkBytes, bytes.size() - i * kChunkBytes));
      try {
        sha256_digest(chunk).copy(digests.data() + i * kDigestBytes, kDigestBytes);
      } catch (const Error&) {
        is_good = false;
      }
    }
  };
  {
    std::vector<std::jthread> others;  // joined at the end of this scope
    const std::size_t n_threads = std::min<std::size_t>(n_chunks, std::thread::hardware_concurrency());
    for (std::size_t i = 1; i < n_threads; ++i) others.emplace_back(work);
    work();
  }
  if (stop.stop_requested()) throw HashStopped{};
  if (!is_good) fail(ExitCode::kInternal, "OpenSSL cannot compute SHA-256");
  return digest_of(digests);
}

std::string sha256_of_weights_and(const std::string& config_text, const Checkpoint& checkpoint,
                                  const std::stop_token& stop = {}) {
  std::string digests;
  for (const auto& file : checkpoint.files()) digests += digest_of_file(file->bytes(), stop);
  digests += digest_of(config_text);
  return sha256_of(digests);
}

using Stamps = std::vector<std::optional<FileStamp>>;

fs::path config_path(const Checkpoint& checkpoint) { return checkpoint.directory() / "config.json"; }

// As the files are now: the weights', then config.json's.
Stamps current_stamps(const Checkpoint& checkpoint) {
  Stamps stamps;
  for (const auto& file : checkpoint.files()) stamps.push_back(FileStamp::of(file->path()));
  stamps.push_back(FileStamp::of(config_path(checkpoint)));
  return stamps;
}

// Whether the names still lead to the files that are in the map.
bool are_mapped(const Stamps& stamps, const Checkpoint& checkpoint) {
  const auto is_mapped = [](const auto& file, const auto& stamp) { return stamp == file->stamp(); };
  return std::equal(checkpoint.files().begin(), checkpoint.files().end(), stamps.begin(), is_mapped);
}

Json to_json(const Stamps& stamps, const Checkpoint& checkpoint) {
  Json files = Json::array();
  for (std::size_t i = 0; i < stamps.size(); ++i) {
    const fs::path path = i < checkpoint.files().size() ? checkpoint.files()[i]->path() : config_path(checkpoint);
    const FileStamp stamp = stamps[i].value_or(FileStamp{});
    // A path need not be UTF-8, as JSON is.
    files.push_back({{"path", shown(fs::absolute(path).string())},
                     {"path_sha256", sha256_of(fs::absolute(path).string())},
                     {"device", stamp.device},
                     {"inode", stamp.inode},
                     {"size_bytes", stamp.size_bytes},
                     {"changed_ns", stamp.changed_ns}});
  }
  return files;
}

std::optional<std::string> read_cache(const fs::path& path, const Json& files) {
  try {
    const Json cache = parse_json(read_text(path, kMaxCacheBytes), path.string());
    if (cache.at("version") != kCacheVersion || cache.at("files") != files) return std::nullopt;
    auto found = cache.at("sha256").get<std::string>();
    const bool is_hex = found.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (is_hex && found.size() == 2 * kDigestBytes) return found;
  } catch (const Error&) {  // none there, or broken: written anew
  } catch (const Json::exception&) {
  }
  return std::nullopt;
}

// Failing is no error: the next run hashes again.
void write_cache(const fs::path& path, const Json& files, const std::string& checkpoint_digest) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  const Json cache = {{"version", kCacheVersion}, {"files", files}, {"sha256", checkpoint_digest}};
  try {
    write_file_atomically(path, json_text(cache, 1) + "\n");
  } catch (const Error&) {
  }
}

}  // namespace

std::string checkpoint_sha256(const Checkpoint& checkpoint, const fs::path& cache_dir, const std::stop_token& stop) {
  const std::string key = sha256_of(fs::absolute(checkpoint.directory()).string()).substr(0, 16);
  const fs::path cache = cache_dir / ("checkpoint-" + key + ".json");
  for (int reading = 0; reading < kMostReadings; ++reading) {
    const Stamps stamps = current_stamps(checkpoint);
    const bool has_cache = !cache_dir.empty() && are_mapped(stamps, checkpoint);
    const Json files = to_json(stamps, checkpoint);
    if (has_cache) {
      if (const auto known = read_cache(cache, files)) return *known;
    }
    const std::string config_text = read_text(config_path(checkpoint), kMaxConfigBytes);
    const std::string result = sha256_of_weights_and(config_text, checkpoint, stop);
    if (current_stamps(checkpoint) != stamps) continue;
    const bool is_settled = std::ranges::all_of(stamps, [](const auto& stamp) { return stamp && stamp->is_settled(); });
    if (has_cache && is_settled) write_cache(cache, files, result);
    return result;
  }
  fail(ExitCode::kBadData, checkpoint.directory().string() +
                               ": its files change while winnow reads them; repeat the command when they are complete");
}

CheckpointWatch::CheckpointWatch(const ModelConfig& config, const Checkpoint& checkpoint, std::string sha256)
    : config_(config), checkpoint_(checkpoint), sha256_(std::move(sha256)) {
  const fs::path path = config_path(checkpoint);
  if (read_text(path, kMaxConfigBytes) != config.text) {
    fail(ExitCode::kBadData, path.string() + ": was changed while winnow read it; repeat the command");
  }
  // A stamp of just now could be that of a later change, too.
  for (const auto& file : checkpoint.files()) {
    known_.push_back(file->stamp().is_settled() ? std::optional(file->stamp()) : std::nullopt);
  }
}

void CheckpointWatch::require_unchanged() {
  std::vector<std::optional<FileStamp>> now;
  std::size_t first = known_.size();
  for (std::size_t i = 0; i < known_.size(); ++i) {
    now.push_back(FileStamp::of(checkpoint_.files()[i]->path()));
    const bool is_known = known_[i] && now[i] == known_[i];
    if (!is_known && first == known_.size()) first = i;
  }
  if (first == known_.size()) return;
  if (sha256_of_weights_and(config_.text, checkpoint_) != sha256_) {
    fail(ExitCode::kBadData, checkpoint_.files()[first]->path().string() +
                                 ": was changed while this run used it; put the former weights back and repeat the "
                                 "command, or measure the new ones with another --out");
  }
  for (std::size_t i = 0; i < known_.size(); ++i) {
    known_[i] = now[i] && now[i]->is_settled() ? now[i] : std::nullopt;
  }
}

}  // namespace winnow::model
