#include "kernels/device.h"

#include "base/error.h"
#include "kernels/weight_queue.h"

namespace winnow::kernels {

KvSpan Device::kv_span(std::span<std::byte> memory, const HeadShape& heads) const {
  const int64_t tile_bytes = kv_bytes(row_tile(), heads);
  const int64_t n_tiles = static_cast<int64_t>(memory.size()) / tile_bytes;
  return {memory.data(), n_tiles * row_tile(), tile_bytes / row_tile()};
}

Matrix Device::load(const HostTensor& source, WeightUse use, std::span<std::byte> storage) {
  const int64_t needed = weight_bytes(source, use);
  if (static_cast<int64_t>(storage.size()) < needed) {
    fail(ExitCode::kInternal,
         source.name + ": " + std::to_string(needed) + " bytes do not fit into " + std::to_string(storage.size()));
  }
  return do_load(source, use, storage.data());
}

int64_t Device::staged_bytes(const HostTensor& source, WeightUse use) const {
  const int64_t packed = packed_bytes(source, use);
  return packed > 0 ? packed : weight_bytes(source, use);
}

void Device::stage(const HostTensor& source, WeightUse use, std::span<std::byte> host) {
  if (packed_bytes(source, use) > 0) {
    pack(source, host);
  } else {
    load(source, use, host);
  }
}

Matrix Device::weight_at(const std::byte* data, const HostTensor& source, WeightUse use) const {
  return {data, use == WeightUse::kTable ? DType::kF32 : activation_dtype(), source.rows(), source.cols()};
}

std::unique_ptr<WeightQueue> Device::make_weight_queue() { return make_immediate_queue(*this); }

std::shared_ptr<void> Device::pin(std::span<std::byte> /*memory*/) { return nullptr; }

int64_t Device::packed_bytes(const HostTensor& /*source*/, WeightUse /*use*/) const { return 0; }

void Device::pack(const HostTensor& source, std::span<std::byte> /*packed*/) {
  fail(ExitCode::kInternal, source.name + ": " + name() + " packs no weights");
}

Matrix Device::unpack(const HostTensor& source, std::span<const std::byte> /*packed*/,
                      std::span<std::byte> /*storage*/) {
  fail(ExitCode::kInternal, source.name + ": " + name() + " packs no weights");
}

}  // namespace winnow::kernels
