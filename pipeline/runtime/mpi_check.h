// Turns a status of MPI into an exception with the call, MPI's own message and the place.
#pragma once

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <array>
#include <string>

#include "base/error.h"

namespace winnow::runtime {

inline void check_mpi(int status, const char* call, const char* file, int line) {
  if (status == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(status, text.data(), &length) != MPI_SUCCESS) length = 0;
  const std::string path = file;
  const std::string place = path.substr(path.find_last_of('/') + 1) + ":" + std::to_string(line);
  fail(ExitCode::kInternal,
       std::string(call) + " failed: " + std::string(text.data(), static_cast<std::size_t>(length)) + " (code " +
           std::to_string(status) + ", " + place + "); a peer may have died: repeat the command to resume");
}

}  // namespace winnow::runtime

#define WINNOW_MPI(call) ::winnow::runtime::check_mpi((call), #call, __FILE__, __LINE__)
