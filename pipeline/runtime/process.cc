#include "pipeline/runtime/process.h"

#include <fstream>
#include <sstream>
#include <string>

namespace winnow::runtime {
namespace {

// Fields of /proc/PID/stat from the third on, "" when the process is gone. The second, in brackets, is the program's
// name, which may hold anything.
std::string fields_behind_name(int64_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(')');
  return name_end == std::string::npos || name_end + 2 >= line.size() ? "" : line.substr(name_end + 2);
}

}  // namespace

bool is_running(int64_t process) {
  const std::string fields = fields_behind_name(process);
  return !fields.empty() && fields.front() != 'Z' && fields.front() != 'X';
}

int64_t start_ticks(int64_t process) {
  std::istringstream fields(fields_behind_name(process));
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;
  int64_t ticks = 0;
  fields >> ticks;
  return ticks;
}

}  // namespace winnow::runtime
