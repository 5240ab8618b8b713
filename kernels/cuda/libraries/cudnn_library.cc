#include "kernels/cuda/libraries/cudnn_library.h"

#include <dlfcn.h>

namespace winnow::cuda {

namespace {

struct Loaded {
  CudnnLibrary library;
  std::string reason;  // empty: all of it is there
};

Loaded load_once() {
  Loaded loaded;
  const std::string name = "libcudnn.so." + std::to_string(CUDNN_MAJOR);
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* words = dlerror();
    loaded.reason = words != nullptr ? words : name + " cannot be loaded";
    return loaded;
  }
  const auto find = [&](auto& function, const char* symbol) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, symbol));
    if (function == nullptr) loaded.reason = name + " has no " + symbol;
  };
  CudnnLibrary& l = loaded.library;
  find(l.get_version, "cudnnGetVersion");
  find(l.get_error_string, "cudnnGetErrorString");
  find(l.create, "cudnnCreate");
  find(l.destroy, "cudnnDestroy");
  find(l.set_stream, "cudnnSetStream");
  find(l.create_descriptor, "cudnnBackendCreateDescriptor");
  find(l.destroy_descriptor, "cudnnBackendDestroyDescriptor");
  find(l.set_attribute, "cudnnBackendSetAttribute");
  find(l.get_attribute, "cudnnBackendGetAttribute");
  find(l.finalize, "cudnnBackendFinalize");
  find(l.execute, "cudnnBackendExecute");
  return loaded;
}

}  // namespace

const CudnnLibrary* CudnnLibrary::load(std::string& reason) {
  // Never unloaded: plans and handles may outlive whoever loaded it.
  static const Loaded loaded = load_once();
  reason = loaded.reason;
  return loaded.reason.empty() ? &loaded.library : nullptr;
}

std::string CudnnLibrary::version() const {
  const std::size_t v = get_version();
  return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
}

}  // namespace winnow::cuda
