#include "pipeline/engine/pass_buffers.h"

#include <string>
#include <utility>

#include "base/error.h"

namespace winnow::engine {

std::size_t PassBuffers::add(Entry entry) {
  entries_.push_back(std::move(entry));
  return entries_.size() - 1;
}

PassBuffers::RowsId PassBuffers::add_rows(int64_t n_rows, int64_t cols, kernels::DType dtype, const char* what) {
  const kernels::Rows rows{nullptr, dtype, n_rows, cols};
  return RowsId{add({what, rows.size_bytes(), rows})};
}

PassBuffers::RowsId PassBuffers::residual(int64_t n_rows, const char* what) {
  return add_rows(n_rows, config_.hidden, ops_.device().residual_dtype(), what);
}

PassBuffers::RowsId PassBuffers::hidden(int64_t n_rows, const char* what) {
  return add_rows(n_rows, config_.hidden, ops_.device().activation_dtype(), what);
}

PassBuffers::RowsId PassBuffers::queries(int64_t n_rows, const char* what) {
  return add_rows(n_rows, config_.heads.q_dim(), ops_.device().activation_dtype(), what);
}

PassBuffers::KeysId PassBuffers::keys(int64_t n_rows, const char* what) {
  return KeysId{add({what, ops_.device().kv_bytes(n_rows, config_.heads)})};
}

PassBuffers::IntegersId PassBuffers::integers(int64_t n_rows, const char* what) {
  return IntegersId{
      add({.what = what, .size_bytes = n_rows * static_cast<int64_t>(sizeof(int32_t)), .is_uploaded = true})};
}

int64_t PassBuffers::size_bytes() const {
  int64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.size_bytes;
  return bytes;
}

void PassBuffers::allocate(kernels::Ops& ops) {
  for (Entry& entry : entries_) {
    if (!entry.is_uploaded) entry.memory = ops.device().allocate(entry.size_bytes, entry.what);
  }
}

void PassBuffers::upload(kernels::Ops& ops, IntegersId id, std::span<const int32_t> values) {
  Entry& entry = entries_[static_cast<std::size_t>(id)];
  if (static_cast<int64_t>(values.size_bytes()) > entry.size_bytes) {
    fail(ExitCode::kInternal, std::string(entry.what) + ": more than were planned");
  }
  entry.memory = ops.device().upload(values, entry.what);
}

kernels::Rows PassBuffers::at(RowsId id) const {
  kernels::Rows rows = entry(id).rows;
  rows.data = entry(id).memory->data();
  return rows;
}

kernels::KvSpan PassBuffers::at(KeysId id) const {
  return ops_.device().kv_span(entry(id).memory->bytes(), config_.heads);
}

std::span<const int32_t> PassBuffers::at(IntegersId id) const { return entry(id).memory->as<int32_t>(); }

}  // namespace winnow::engine
