// cuDNN's backend API, looked up when the program runs: it starts where cuDNN is missing, and takes the cuDNN that the
// loader finds first (LD_LIBRARY_PATH, then where it was when winnow was built).
#pragma once

#include <cudnn.h>

#include <string>

namespace winnow::cuda {

struct CudnnLibrary {
  // Returns null where it cannot be loaded; `reason` then holds the loader's words.
  static const CudnnLibrary* load(std::string& reason);

  decltype(&cudnnGetVersion) get_version = nullptr;
  decltype(&cudnnGetErrorString) get_error_string = nullptr;
  decltype(&cudnnCreate) create = nullptr;
  decltype(&cudnnDestroy) destroy = nullptr;
  decltype(&cudnnSetStream) set_stream = nullptr;
  decltype(&cudnnBackendCreateDescriptor) create_descriptor = nullptr;
  decltype(&cudnnBackendDestroyDescriptor) destroy_descriptor = nullptr;
  decltype(&cudnnBackendSetAttribute) set_attribute = nullptr;
  decltype(&cudnnBackendGetAttribute) get_attribute = nullptr;
  decltype(&cudnnBackendFinalize) finalize = nullptr;
  decltype(&cudnnBackendExecute) execute = nullptr;

  std::string version() const;
};

}  // namespace winnow::cuda
