#include "pipeline/engine/pass_buffers.h"

#include <string>
#include <utility>

#include "base/error.h"

namespace winnow::engine {

PassBuffers::Id PassBuffers::add(Entry entry) {
  entries_.push_back(std::move(entry));
  return Id{entries_.size() - 1};
}

PassBuffers::Id PassBuffers::residual(int64_t n_rows, const char* what) {
  return add({what, n_rows, config_.hidden * kernels::size_bytes(ops_.device().residual_dtype())});
}

PassBuffers::Id PassBuffers::hidden(int64_t n_rows, const char* what) {
  return add({what, n_rows, config_.hidden * kernels::size_bytes(ops_.device().activation_dtype())});
}

PassBuffers::Id PassBuffers::queries(int64_t n_rows, const char* what) {
  return add({what, n_rows, config_.heads.q_dim() * kernels::size_bytes(ops_.device().activation_dtype())});
}

PassBuffers::Id PassBuffers::keys(int64_t n_rows, const char* what) { return add({what, n_rows, 0}); }

PassBuffers::Id PassBuffers::integers(int64_t n_rows, const char* what) {
  return add({what, n_rows, static_cast<int64_t>(sizeof(int32_t)), true});
}

int64_t PassBuffers::bytes_before(const Entry& entry, int64_t row) const {
  return entry.row_bytes == 0 ? ops_.device().kv_bytes(row, config_.heads) : row * entry.row_bytes;
}

int64_t PassBuffers::size_bytes() const {
  int64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += bytes_before(entry, entry.n_rows);
  return bytes;
}

void PassBuffers::allocate(kernels::Ops& ops) {
  for (Entry& entry : entries_) {
    if (!entry.is_uploaded) entry.memory = ops.device().allocate(bytes_before(entry, entry.n_rows), entry.what);
  }
}

void PassBuffers::upload(kernels::Ops& ops, Id id, std::span<const int32_t> values) {
  Entry& entry = entries_[static_cast<std::size_t>(id)];
  if (static_cast<int64_t>(values.size()) > entry.n_rows) {
    fail(ExitCode::kInternal, std::string(entry.what) + ": more than were planned");
  }
  entry.memory = ops.device().upload(values, entry.what);
}

void* PassBuffers::at(Id id, int64_t row) const {
  return static_cast<std::byte*>(entry(id).memory->data()) + bytes_before(entry(id), row);
}

}  // namespace winnow::engine
