// The process that reads HDF5 files. The HDF5 library was not made for files that somebody damaged: 1.10, which Debian
// 12 and Ubuntu 24.04 have, crashes on a flipped bit in a heap, runs on for ever in a B-tree that leads to itself, and
// has open CVEs. So winnow never hands a foreign file to the library in its own process. Files are read, once, in a
// process of their own, and their values come back through a socket; when it dies or does not end, that is one line on
// the file. A child that only looks at the file first would read everything twice, and what it survives may still kill
// the process that reads next, with another heap.
//
// A server is started with the first file: by posix_spawn, since a fork of a process with MPI, CUDA and threads is not
// safe. It is this executable again, so it is there wherever winnow is and never another version. For each file it
// forks, which is safe there (it has one thread and no MPI), so that no file's damage reaches another's values.
// Measured on two busy cores: the server costs 20 ms, a file 7 ms; 190 MiB of plain tokens take 0.7 s, as they would
// without, and under gzip 1.8 s instead of 1.6 s, for the look at every chunk's length.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "results/storage/hdf5_messages.h"

namespace winnow::storage {

enum class Request : uint8_t { kKind, kNames, kType, kShape, kRead, kStringAttribute, kIntegerAttribute };

// One open file: the end of its process that winnow holds.
class Reader {
 public:
  // Opens a file. path: absolute. origin: the name of the file in messages. Throws as File::open of
  // results/storage/hdf5.h.
  Reader(const std::string& path, const std::string& origin, uint64_t file_bytes);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // Sends `request` about `object` and returns the answer. An error over there is thrown here as it is; the end of
  // the process is Error(kBadData), or Error(kOutOfMemory) where the system ended it. `more` goes along.
  Message ask(Request request, const std::string& object, const Message& more = {});
  // Return the rest of the answer to kRead, piece by piece.
  Message answer(const std::string& object);
  void receive(const std::string& object, void* bytes, std::size_t size);
  // Returns the most bytes of values that the file may have, however compressed.
  uint64_t max_bytes() const;

 private:
  [[noreturn]] void fail_dead(const std::string& object);
  int end();

  std::string origin_;
  uint64_t file_bytes_;
  Socket socket_;
  pid_t process_ = -1;
};

}  // namespace winnow::storage
