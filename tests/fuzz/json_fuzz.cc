// parse_json on any text: what the strict dialect reads Python's reads alike, and what is written is read as the same.
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/json.h"

namespace {

using winnow::JsonDialect;

void require(bool holds) {
  if (!holds) std::abort();
}

std::optional<std::string> written(const std::string& text, JsonDialect dialect) {
  try {
    return winnow::python_json(winnow::parse_ordered_json(text, "input", dialect));
  } catch (const winnow::Error& error) {
    require(error.code() == winnow::ExitCode::kBadData);
    return std::nullopt;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto strict = written(text, JsonDialect::kStrict);
  const auto python = written(text, JsonDialect::kPython);
  require(!strict || strict == python);
  require(!python || written(*python, JsonDialect::kPython) == python);
  try {
    winnow::parse_json(text, "input", JsonDialect::kPython);
    require(python.has_value());
  } catch (const winnow::Error& error) {
    require(error.code() == winnow::ExitCode::kBadData && !python);
  }
  return 0;
}
