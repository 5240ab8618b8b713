// parse_safetensors on any bytes: it returns or throws Error, and every view that it returns lies within the input.
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace winnow;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    for (const auto& [name, tensor] : model::parse_safetensors(bytes, "input")) {
      if (tensor.data < bytes.data() || tensor.data > bytes.data() + size) std::abort();
      const int64_t n_bytes = tensor.count() * kernels::size_bytes(tensor.dtype);
      if (n_bytes == 0) continue;
      // Read, so that the address sanitizer sees a view that runs out of the input.
      const volatile std::byte* view = tensor.data;
      static_cast<void>(view[0]);
      static_cast<void>(view[n_bytes - 1]);
    }
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadData) std::abort();
  }
  return 0;
}
