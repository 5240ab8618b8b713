// The memory that a forward pass works in. A pass lists every buffer once, and from that list come both what it is
// predicted to take and what it takes, so that the two cannot differ.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"

namespace winnow::engine {

class PassBuffers {
 public:
  // One buffer of the list.
  enum class Id : std::size_t {};

  PassBuffers(const kernels::Ops& ops, const model::ModelConfig& config) : ops_(ops), config_(config) {}

  // Each lists one more buffer; `what` names it in messages. Nothing is taken yet.
  Id residual(int64_t n_rows, const char* what);  // (n_rows, hidden) of the residual type
  Id hidden(int64_t n_rows, const char* what);    // (n_rows, hidden) activations
  Id queries(int64_t n_rows, const char* what);   // (n_rows, q_dim) activations
  Id keys(int64_t n_rows, const char* what);      // keys and values, as Ops::store_kv lays them out
  Id integers(int64_t n_rows, const char* what);  // (n_rows) int32: upload() takes the memory
  // Of all buffers, and of one of them, bytes.
  int64_t size_bytes() const;
  int64_t size_bytes(Id id) const { return bytes_before(entry(id), entry(id).n_rows); }

  // Takes the memory of all buffers but those of integers. Throws Error(kOutOfMemory).
  void allocate(kernels::Ops& ops);
  // Fills a buffer of integers with as many values as it has rows or fewer, in place of what it held.
  void upload(kernels::Ops& ops, Id id, std::span<const int32_t> values);
  // Where a row of a buffer begins; of keys a multiple of row_tile().
  void* at(Id id, int64_t row = 0) const;
  const int32_t* integers_at(Id id) const { return static_cast<const int32_t*>(at(id)); }

 private:
  struct Entry {
    const char* what;
    int64_t n_rows;
    int64_t row_bytes;  // 0: of keys, whose layout is the backend's
    bool is_uploaded = false;
    std::unique_ptr<kernels::Buffer> memory = nullptr;
  };
  Id add(Entry entry);
  int64_t bytes_before(const Entry& entry, int64_t row) const;
  const Entry& entry(Id id) const { return entries_[static_cast<std::size_t>(id)]; }

  const kernels::Ops& ops_;
  const model::ModelConfig& config_;
  std::vector<Entry> entries_;
};

}  // namespace winnow::engine
