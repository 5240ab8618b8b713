// Quantised tensors from any bytes: a line with a config.json, then a safetensors image. Every tensor that comes out of
// it can be read as a whole and in pieces.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "kernels/convert.h"
#include "model/quantization/combine.h"
#include "model/safetensors.h"

namespace {

constexpr int64_t kMostValues = 1 << 16;  // that are read of one tensor

void require(bool holds) {
  if (!holds) std::abort();
}

void read(const winnow::kernels::HostTensor& tensor) {
  const int64_t n = tensor.count();
  if (n <= 0 || n > kMostValues) return;
  std::vector<float> values(static_cast<std::size_t>(n));
  winnow::kernels::read_float32(tensor, 0, n, values.data());
  std::vector<float> last(static_cast<std::size_t>(n - n / 2));
  winnow::kernels::read_float32(tensor, n / 2, n - n / 2, last.data());
  require(std::memcmp(last.data(), values.data() + n / 2, last.size() * sizeof(float)) == 0);
}

void check(const std::string& config, std::span<const std::byte> image) {
  const nlohmann::json object = winnow::parse_json(config, "config.json", winnow::JsonDialect::kPython);
  if (!object.is_object()) return;
  const auto scheme = winnow::quantization::parse_scheme(winnow::ConfigFields(object, "config.json"));
  if (scheme.empty()) return;
  const auto stored = winnow::model::parse_safetensors(image, "image");
  const winnow::quantization::Combined combined = winnow::quantization::combine(scheme, stored);
  require(combined.tensors.size() + combined.faults.size() <= stored.size());
  for (const auto& [name, tensor] : combined.tensors) {
    require(!combined.faults.contains(name));
    if (tensor.values) read(tensor);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::size_t line = text.find('\n');
  if (line == std::string::npos) return 0;
  // A copy, so that reading beyond the image is seen.
  const std::string rest = text.substr(line + 1);
  const std::vector<std::byte> image(reinterpret_cast<const std::byte*>(rest.data()),
                                     reinterpret_cast<const std::byte*>(rest.data()) + rest.size());
  try {
    check(text.substr(0, line), image);
  } catch (const winnow::Error& error) {
    require(error.code() == winnow::ExitCode::kBadData);
  }
  return 0;
}
