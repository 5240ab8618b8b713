// The other side of results/storage/hdf5_reader.h, which runs in the process that reads HDF5 files.
#pragma once

#include <cstdint>
#include <optional>

namespace winnow::storage {

// The argument by which the executable is started as the server. Its socket is standard input.
constexpr const char* kServerArgument = "--hdf5-server";

enum class ServerRequest : uint8_t {
  kFork,  // a file's socket follows; answered with the number of its process
  kWait,  // for that process; answered with its status, as of waitpid
};

// Serves and returns the exit code in the process that reads HDF5 files, which is this executable again; none in any
// other process. main() calls it first.
std::optional<int> serve_if_asked(int argc, char** argv);

}  // namespace winnow::storage
