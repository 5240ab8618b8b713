// What computes: a CPU or a GPU. Its memory and events, and what is known of it; the operations are in ops.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "kernels/experts.h"
#include "kernels/tensor.h"

namespace winnow::kernels {

// Memory of the backend, owned: freed on destruction and counted by Device::allocated_bytes(). The views that it hands
// out must not outlive it.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() = 0;
  virtual int64_t size_bytes() const = 0;

  // Returns all of it as elements of a type: of int32_t for what upload() brought there, of bytes for copies.
  template <typename T>
  std::span<T> as() {
    return {static_cast<T*>(data()), static_cast<std::size_t>(size_bytes()) / sizeof(T)};
  }
  std::span<std::byte> bytes() { return as<std::byte>(); }
  // Returns as many rows of `cols` elements as it holds. cols >= 1.
  Rows rows(DType dtype, int64_t cols) {
    return {data(), dtype, size_bytes() / (cols * kernels::size_bytes(dtype)), cols};
  }
};

enum class WeightUse {
  kLinear,      // (out_features, in_features)
  kVector,      // norm weights and biases
  kTable,       // stays float32 on every backend: the rotary table, sink logits, vectors of routers
  kVocabulary,  // embedding and head, (vocab, hidden): may stay in the checkpoint's own memory and type
};

// Heads [begin, end).
struct HeadRange {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t count() const { return end - begin; }
  bool operator==(const HeadRange&) const = default;
};

// Shape of the attention of a model.
struct HeadShape {
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;  // even
  float scale = 0.F;     // multiplies q.k, usually 1 / sqrt(head_dim)
  float softcap = 0.F;   // scores s become softcap * tanh(s / softcap) before the softmax; 0: they stay

  int64_t q_dim() const { return n_heads * head_dim; }
  int64_t kv_dim() const { return n_kv_heads * head_dim; }
  // Returns the query heads that share the keys of these key heads.
  HeadRange query_heads(const HeadRange& kv_heads) const {
    const int64_t group = n_heads / n_kv_heads;
    return {kv_heads.begin * group, kv_heads.end * group};
  }
};

class WeightQueue;  // kernels/weight_queue.h

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;         // "cpu" or "cuda"
  virtual std::string description() const = 0;  // device, threads, libraries: for logs and provenance

  // Returns the rows of a tile: kernels/ops.h says what they are.
  virtual int64_t row_tile() const = 0;
  // Returns how many rows row-wise operations should be given at a time: as many as keep intermediates in fast memory.
  // A multiple of row_tile(); changes speed and workspace only, never a result.
  virtual int64_t chunk_rows() const = 0;
  // Returns how many base rows are worth computing together: shorter sequences are stacked until they are that many.
  virtual int64_t stack_rows() const = 0;
  virtual DType activation_dtype() const = 0;
  virtual DType residual_dtype() const = 0;
  // Returns the size of the keys and values of n_rows rows (a multiple of row_tile()), in bytes.
  virtual int64_t kv_bytes(int64_t n_rows, const HeadShape& heads) const = 0;
  // Returns `memory` as keys and values of as many whole tiles of rows as it holds.
  KvSpan kv_span(std::span<std::byte> memory, const HeadShape& heads) const;
  // Returns the most memory that an operation takes for itself while it runs on sequences of n_rows rows, bytes.
  virtual int64_t workspace_bytes(int64_t n_rows, int64_t hidden, int64_t vocab, const HeadShape& heads) const = 0;

  // Returns what Ops::experts takes of that for n_rows rows, bytes.
  virtual int64_t experts_bytes(int64_t n_rows, int64_t hidden, int64_t ffn, const RouterShape& shape) const = 0;

  // Says which kernels compute the attention of such a model: part of what makes two runs the same measurement.
  virtual std::string attention_path(const HeadShape& heads) = 0;
  // Throws Error(kUnavailable), saying what to do, for a model that this backend's kernels cannot take.
  virtual void require_shape(int64_t hidden, int64_t ffn, const HeadShape& heads) const = 0;

  // Allocates zero-initialised memory; `what` names it in messages. Throws Error(kOutOfMemory).
  virtual std::unique_ptr<Buffer> allocate(int64_t size_bytes, const char* what) = 0;
  // Allocates memory of the host that Ops::copy_async() copies from and to at full speed; not counted by
  // allocated_bytes(). Throws Error(kOutOfMemory).
  virtual std::unique_ptr<Buffer> allocate_host(int64_t size_bytes, const char* what) = 0;
  // Returns the memory of the device that is free now, bytes; none where the backend's memory is the host's.
  virtual std::optional<int64_t> free_bytes() const = 0;
  virtual int64_t allocated_bytes() const = 0;       // now
  virtual int64_t peak_allocated_bytes() const = 0;  // most since reset_peak()
  virtual void reset_peak() = 0;

  // Returns how many of a model's layers have their weights kept at a time: all of them where loading is slow beside
  // computing.
  virtual int64_t resident_layers(int64_t n_layers) const = 0;
  // Returns the bytes that load() needs for a tensor of that use; 0 when it stays where it is.
  virtual int64_t weight_bytes(const HostTensor& source, WeightUse use) const = 0;
  // Brings a tensor into the backend's compute type at the beginning of `storage`, of weight_bytes() or more. The
  // source must outlive the matrix for kVocabulary. Throws Error(kInternal) where the storage is too small.
  Matrix load(const HostTensor& source, WeightUse use, std::span<std::byte> storage);

  // What load() does in two steps, of which another device may take the second: packed weights are what is sent to it.
  // Returns their size, bytes, less than weight_bytes(); 0: such a tensor has no packed form.
  virtual int64_t packed_bytes(const HostTensor& source, WeightUse use) const;
  // Brings a tensor's packed form to the beginning of `packed`, memory of the backend aligned to 256 bytes.
  virtual void pack(const HostTensor& source, std::span<std::byte> packed);
  // Makes of it, at the beginning of `storage`, what load() makes. Reads no values of the source.
  virtual Matrix unpack(const HostTensor& source, std::span<const std::byte> packed, std::span<std::byte> storage);

  // Returns the bytes of a tensor on its way to load(): of its packed form, where it has one.
  int64_t staged_bytes(const HostTensor& source, WeightUse use) const;
  // Writes that form to the host's memory, staged_bytes() aligned to 256 bytes, by several threads.
  virtual void stage(const HostTensor& source, WeightUse use, std::span<std::byte> host);
  // Returns the weight that lies at `data` once load() or unpack() has brought it there.
  Matrix weight_at(const std::byte* data, const HostTensor& source, WeightUse use) const;
  // Makes the queue that brings weights beside the operations. What it fills was allocated before.
  virtual std::unique_ptr<WeightQueue> make_weight_queue();
  // Locks pages of the host's memory that were got elsewhere, so that a queue copies from them at full speed, until
  // what is returned goes. Throws Error(kOutOfMemory).
  virtual std::shared_ptr<void> pin(std::span<std::byte> memory);

  // Copies host values into memory of the backend; returns when they have been read.
  virtual std::unique_ptr<Buffer> upload(std::span<const int32_t> values, const char* what) = 0;
  // Waits until everything asked for so far is done.
  virtual void synchronize() = 0;

  // Mark a moment in the order of the operations, and return the seconds between two of them, once both have passed.
  // Marks are few and reused: n is any small number, and marking it again forgets the former moment.
  virtual void record_event(int64_t n) = 0;
  virtual double elapsed_seconds(int64_t first, int64_t second) = 0;

 private:
  virtual Matrix do_load(const HostTensor& source, WeightUse use, std::byte* storage) = 0;
};

}  // namespace winnow::kernels
