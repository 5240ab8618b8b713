// Keeps two jobs out of one run directory.
#pragma once

#include <filesystem>
#include <string>

#include "base/file_descriptor.h"

namespace winnow::runtime {

// RUN_DIR/lock, held by an advisory lock of the kernel on the open file, which ends with the process however it ends: a
// crash leaves a file, never a lock. Network file systems pass such locks on to other hosts. Where the file system has
// none at all, the host and process named in the file decide: a dead process on this host does not hold it; one on
// another host cannot be asked, so it is believed.
class RunLock {
 public:
  // Takes the lock. Throws Error(kInterrupted) naming the holder, Error(kCannotCreate) when the file cannot be made or
  // something else than a lock file has its name: a link, a file with other content or with other names. `name`: of the
  // file, for other locks on the same directory.
  RunLock(const std::filesystem::path& run_directory, const std::string& host, const std::string& name = "lock");
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  ~RunLock();  // removes the file, unless another has its name by now

 private:
  bool try_take(const std::string& host);
  bool has_name() const;

  std::filesystem::path path_;
  FileDescriptor file_;
};

// Returns true if somebody holds that lock, as far as the kernel knows. It takes the lock for a moment, so who wants it
// must try more than once.
bool is_locked(const std::filesystem::path& lock_file, const std::string& host);

}  // namespace winnow::runtime
