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
  // One buffer of the list, by what it holds.
  enum class RowsId : std::size_t {};
  enum class KeysId : std::size_t {};
  enum class IntegersId : std::size_t {};

  PassBuffers(const kernels::Ops& ops, const model::ModelConfig& config) : ops_(ops), config_(config) {}

  // List one more buffer each; `what` names it in messages. Nothing is allocated yet.
  RowsId residual(int64_t n_rows, const char* what);      // (n_rows, hidden) of the residual type
  RowsId hidden(int64_t n_rows, const char* what);        // (n_rows, hidden) activations
  RowsId queries(int64_t n_rows, const char* what);       // (n_rows, q_dim) activations
  KeysId keys(int64_t n_rows, const char* what);          // keys and values, as Ops::store_kv lays them out
  IntegersId integers(int64_t n_rows, const char* what);  // (n_rows) int32: upload() takes the memory
  // Returns the size of all buffers, bytes.
  int64_t size_bytes() const;

  // Allocates all buffers but those of integers. Throws Error(kOutOfMemory).
  void allocate(kernels::Ops& ops);
  // Fills a buffer of integers with as many values as it has rows or fewer, in place of what it held.
  void upload(kernels::Ops& ops, IntegersId id, std::span<const int32_t> values);
  // Return a view of a whole buffer, whose memory has been taken; of integers, of as many as were uploaded.
  kernels::Rows at(RowsId id) const;
  kernels::KvSpan at(KeysId id) const;
  std::span<const int32_t> at(IntegersId id) const;

 private:
  struct Entry {
    const char* what;
    int64_t size_bytes;
    kernels::Rows rows = {};   // the shape, without memory; empty but for rows
    bool is_uploaded = false;  // integers
    std::unique_ptr<kernels::Buffer> memory = nullptr;
  };
  std::size_t add(Entry entry);
  RowsId add_rows(int64_t n_rows, int64_t cols, kernels::DType dtype, const char* what);
  template <typename Id>
  const Entry& entry(Id id) const {
    return entries_[static_cast<std::size_t>(id)];
  }

  const kernels::Ops& ops_;
  const model::ModelConfig& config_;
  std::vector<Entry> entries_;
};

}  // namespace winnow::engine
