#include "base/sha256.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/strings.h"

namespace winnow {
namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    if (context_ == nullptr || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) {
      fail(ExitCode::kInternal, "OpenSSL: SHA-256 cannot be started");
    }
  }
  void update(const void* data, std::size_t size) {
    if (EVP_DigestUpdate(context_.get(), data, size) != 1)
      fail(ExitCode::kInternal, "OpenSSL: EVP_DigestUpdate failed");
  }
  std::string finish() {  // the bytes of the hash
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    if (EVP_DigestFinal_ex(context_.get(), digest.data(), &size) != 1) {
      fail(ExitCode::kInternal, "OpenSSL: EVP_DigestFinal_ex failed");
    }
    return {digest.begin(), digest.begin() + size};
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string sha256_digest(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes.data(), bytes.size());
  return hash.finish();
}

std::string sha256_of(std::span<const std::byte> bytes) { return to_hex(sha256_digest(bytes)); }

std::string sha256_of(const std::string& text) { return sha256_of(std::as_bytes(std::span<const char>(text))); }

std::string sha256_of_file(const std::filesystem::path& path, int64_t n_bytes) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(ExitCode::kNoInput, path.string() + ": cannot be read: " + std::strerror(errno));
  Sha256 hash;
  std::vector<char> block(std::size_t{1} << 20);
  while (n_bytes > 0) {
    in.read(block.data(), std::min<int64_t>(n_bytes, static_cast<int64_t>(block.size())));
    if (in.gcount() == 0) break;
    hash.update(block.data(), static_cast<std::size_t>(in.gcount()));
    n_bytes -= in.gcount();
  }
  if (in.bad()) fail(ExitCode::kNoInput, path.string() + ": cannot be read to its end");
  return to_hex(hash.finish());
}

}  // namespace winnow
