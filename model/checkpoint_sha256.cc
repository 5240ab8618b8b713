#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <optional>
#include <thread>

#include "kernels/cpu/thread_pool.h"
#include "kernels/error.h"
#include "model/json.h"
#include "model/weights.h"

namespace winnow {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Bytes = std::span<const std::byte>;

constexpr std::size_t kDigestBytes = 32;
constexpr std::size_t kChunkBytes = std::size_t{64} << 20;
constexpr std::size_t kMaxCacheBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxConfigBytes = std::size_t{16} << 20;
constexpr int kCacheVersion = 1;

// Into to[0 .. 32). False where the library fails.
bool digest(Bytes bytes, char* to) {
  return EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(to), nullptr, EVP_sha256(), nullptr) ==
         1;
}

std::string sha256(const std::string& text) {
  std::string result(kDigestBytes, '\0');
  if (!digest(std::as_bytes(std::span(text)), result.data())) {
    fail(ExitCode::kInternal, "OpenSSL cannot compute SHA-256");
  }
  return result;
}

std::string hex(const std::string& bytes) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto value = static_cast<unsigned char>(c);
    text += kDigits[value >> 4];
    text += kDigits[value & 15];
  }
  return text;
}

std::string sha256_of_file(Bytes bytes) {
  const std::size_t n_chunks = (bytes.size() + kChunkBytes - 1) / kChunkBytes;
  std::string digests(n_chunks * kDigestBytes, '\0');
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> is_good = true;  // an exception must not leave a thread
  const auto work = [&] {
    for (std::size_t i = next++; i < n_chunks; i = next++) {
      const Bytes chunk = bytes.subspan(i * kChunkBytes, std::min(kChunkBytes, bytes.size() - i * kChunkBytes));
      if (!digest(chunk, digests.data() + i * kDigestBytes)) is_good = false;
    }
  };
  {
    std::vector<std::jthread> others;  // joined at the end of this scope
    const std::size_t n_threads = std::min<std::size_t>(n_chunks, std::thread::hardware_concurrency());
    for (std::size_t i = 1; i < n_threads; ++i) others.emplace_back(work);
    work();
  }
  if (!is_good) fail(ExitCode::kInternal, "OpenSSL cannot compute SHA-256");
  return sha256(digests);
}

// What tells whether a file is the one that was hashed.
Json identity(const fs::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return nullptr;
  return {{"path", fs::absolute(path).string()},
          {"inode", status.st_ino},
          {"size_bytes", status.st_size},
          {"mtime_s", status.st_mtim.tv_sec},
          {"mtime_ns", status.st_mtim.tv_nsec}};
}

Json identities(const Checkpoint& checkpoint) {
  Json files = Json::array();
  for (const auto& file : checkpoint.files()) files.push_back(identity(file->path()));
  files.push_back(identity(checkpoint.directory() / "config.json"));
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

// Whole or not at all, as several processes may do it at once. Failing is no error: the next run hashes again.
void write_cache(const fs::path& path, const Json& files, const std::string& checkpoint_digest) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  const fs::path part = path.string() + "." + std::to_string(getpid()) + ".part";
  // x: nothing that has this name is opened, no link of it is followed.
  std::FILE* file = std::fopen(part.c_str(), "wxe");
  if (file == nullptr) return;
  const std::string text = Json{{"version", kCacheVersion}, {"files", files}, {"sha256", checkpoint_digest}}.dump(
                               1, ' ', false, Json::error_handler_t::replace) +
                           "\n";
  const bool is_written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) == 0 && is_written) fs::rename(part, path, error);
  if (!is_written || error) fs::remove(part, error);
}

}  // namespace

std::string checkpoint_sha256(const Checkpoint& checkpoint, const fs::path& cache_dir) {
  const fs::path config = checkpoint.directory() / "config.json";
  const Json files = cache_dir.empty() ? Json() : identities(checkpoint);
  const std::string key = hex(sha256(fs::absolute(checkpoint.directory()).string())).substr(0, 16);
  const fs::path cache = cache_dir / ("checkpoint-" + key + ".json");
  if (!cache_dir.empty()) {
    if (const auto known = read_cache(cache, files)) return *known;
  }
  std::string digests;
  for (const auto& file : checkpoint.files()) digests += sha256_of_file(file->bytes());
  digests += sha256(read_text(config, kMaxConfigBytes));
  const std::string result = hex(sha256(digests));
  if (!cache_dir.empty()) write_cache(cache, files, result);
  return result;
}

}  // namespace winnow
