// A sweep file of any text: it is a plan, or an error with a line and a column for everything that is wrong.
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "jobs/sweep/cells.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// "FILE:LINE:COLUMN: ...", without anything that a terminal obeys.
void check_line(const std::string& line) {
  const std::string file = "/none/input.yaml:";
  require(line.starts_with(file) && winnow::one_line(line) == line);
  std::size_t at = file.size();
  for (int i = 0; i < 2; ++i) {
    const std::size_t begin = at;
    while (at < line.size() && std::isdigit(static_cast<unsigned char>(line[at])) != 0) ++at;
    require(at > begin && line[begin] != '0' && at < line.size() && line[at] == ':');
    ++at;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  try {
    const winnow::sweep::Sweep sweep =
        winnow::sweep::parse_sweep("/none/input.yaml", std::string(reinterpret_cast<const char*>(data), size));
    require(!sweep.cells.empty());
  } catch (const winnow::sweep::SweepFileError& error) {
    require(!error.lines().empty());
    for (const std::string& line : error.lines()) check_line(line);
  }
  return 0;
}
