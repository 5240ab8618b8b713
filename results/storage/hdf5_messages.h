// Messages between winnow and its process that reads HDF5 files (results/storage/hdf5_reader.h), over a socket between
// the two. Numbers travel as they lie in memory: both ends are one executable on one machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "base/file_descriptor.h"

namespace winnow::storage {

// A socket with one owner. Move only.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : file_(fd) {}

  int fd() const { return file_.get(); }
  // Makes the two ends of a new connection, neither of them one of the standard streams. Throws Error(kInternal).
  static void connect(Socket& one, Socket& other);
  // Return false when the other end is gone.
  bool send(const void* bytes, std::size_t size) const;
  bool receive(void* bytes, std::size_t size) const;
  // Pass on the right to use the open file `passed` (-1: none).
  bool send_file(int passed) const;
  int receive_file() const;

 private:
  FileDescriptor file_;
};

// A sequence of values, taken in the order in which they were put.
class Message {
 public:
  template <typename T>
  void put(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put_text(const std::string& text);
  // Throw Error(kInternal) where the message has no such value left.
  template <typename T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    std::memcpy(&value, take_bytes(sizeof value), sizeof value);
    return value;
  }
  std::string take_text();

  // Return false when the other end is gone.
  bool send(const Socket& socket) const;
  bool receive(const Socket& socket);

 private:
  const char* take_bytes(std::size_t size);

  std::string bytes_;
  std::size_t taken_ = 0;
};

}  // namespace winnow::storage
