// A pipe of the operating system, closed at the end of its scope and in programs that are started.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace winnow {

class Pipe {
 public:
  Pipe() {  // throws Error(kInternal)
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail(ExitCode::kInternal, std::string("pipe: ") + std::strerror(errno));
    read_end_ = FileDescriptor(ends[0]);
    write_end_ = FileDescriptor(ends[1]);
  }
  int read_end() const { return read_end_.get(); }
  int write_end() const { return write_end_.get(); }
  void close_write_end() { write_end_.close(); }

 private:
  FileDescriptor read_end_;
  FileDescriptor write_end_;
};

}  // namespace winnow
