// An open file of the operating system, closed at the end of its scope.
#pragma once

#include <unistd.h>

namespace winnow {

class FileDescriptor {
 public:
  // Takes over what open(2) and its like return; -1 is no file.
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  // Closes now and returns what close(2) does: some file systems report a failed write only here.
  int close() {
    const int status = ::close(fd_);
    fd_ = -1;
    return status;
  }

 private:
  int fd_;
};

}  // namespace winnow
