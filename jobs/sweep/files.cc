#include "jobs/sweep/files.h"

#include <array>
#include <cstdint>
#include <ctime>
#include <fstream>

#include "base/error.h"
#include "base/json.h"

namespace winnow::sweep {

void make_directories(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error && std::filesystem::is_directory(path)) return;
  fail(error == std::errc::no_space_on_device ? ExitCode::kIoError : ExitCode::kCannotCreate,
       path.string() + ": the directory cannot be created: " + (error ? error.message() : "a file is in its place") +
           "; name an output directory that is writable");
}

std::string dump_json(const nlohmann::json& json, int indent) { return json_text(json, indent) + "\n"; }

std::optional<nlohmann::json> read_json(const std::filesystem::path& path) {
  constexpr std::uintmax_t kLargest = std::uintmax_t{256} << 20;
  std::error_code error;
  // A pipe would be waited for.
  if (!std::filesystem::is_regular_file(path, error)) return std::nullopt;
  if (std::filesystem::file_size(path, error) > kLargest) return std::nullopt;
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::string text;
  std::array<char, 65536> buffer{};
  while (in.read(buffer.data(), buffer.size()) || in.gcount() > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(in.gcount()));
  }
  nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) return std::nullopt;
  return json;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace winnow::sweep
