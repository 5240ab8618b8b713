#include "jobs/sweep/files.h"

#include "base/error.h"
#include "base/json.h"
#include "base/text_file.h"

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
  constexpr std::size_t kLargest = std::size_t{256} << 20;
  const FileText file = read_file(path, {.max_bytes = kLargest});
  if (file.status != FileText::Status::kDone) return std::nullopt;
  nlohmann::json json = nlohmann::json::parse(file.text, nullptr, false);
  if (json.is_discarded()) return std::nullopt;
  return json;
}

}  // namespace winnow::sweep
