#include "jobs/sweep/files.h"

#include <ctime>
#include <fstream>
#include <iterator>

#include "kernels/error.h"
#include "model/json.h"

namespace winnow {

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
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return std::nullopt;  // a pipe would make us wait
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
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

}  // namespace winnow
