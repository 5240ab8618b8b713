#include "results/storage/hdf5_messages.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/error.h"

namespace winnow::storage {
namespace {

// Where a standard stream was closed, a new descriptor takes its number, and what is printed there would go into it.
FileDescriptor above_standard_streams(const FileDescriptor& file) {
  FileDescriptor higher(fcntl(file.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  if (!higher) fail(ExitCode::kInternal, std::string("a socket cannot be kept: ") + std::strerror(errno));
  return higher;
}

// One byte, and room for an open file beside it.
class OneByte {
 public:
  OneByte() {
    header_.msg_iov = &data_;
    header_.msg_iovlen = 1;
    header_.msg_control = control_.data();
    header_.msg_controllen = control_.size();
  }
  OneByte(const OneByte&) = delete;
  OneByte& operator=(const OneByte&) = delete;

  void put_file(int file) {
    if (file < 0) {
      header_.msg_control = nullptr;
      header_.msg_controllen = 0;
      return;
    }
    cmsghdr* part = CMSG_FIRSTHDR(&header_);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof file);
    std::memcpy(CMSG_DATA(part), &file, sizeof file);
  }
  int file() const {
    const cmsghdr* part = CMSG_FIRSTHDR(&header_);
    if (part == nullptr || part->cmsg_type != SCM_RIGHTS) return -1;
    int file = -1;
    std::memcpy(&file, CMSG_DATA(part), sizeof file);
    return file;
  }
  // `call`: sendmsg(2) or recvmsg(2). Whether the byte has gone through.
  template <typename Call>
  bool pass(const Call& call, int socket, int flags) {
    ssize_t n = 0;
    do {
      n = call(socket, &header_, flags);
    } while (n < 0 && errno == EINTR);
    return n == 1;
  }

 private:
  char byte_ = 0;
  iovec data_{&byte_, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control_{};
  msghdr header_{};
};

}  // namespace

void Socket::connect(Socket& one, Socket& other) {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    fail(ExitCode::kInternal, std::string("no socket to read HDF5 files through: ") + std::strerror(errno));
  }
  const FileDescriptor first(ends[0]);
  const FileDescriptor second(ends[1]);
  one.file_ = above_standard_streams(first);
  other.file_ = above_standard_streams(second);
}

bool Socket::send(const void* bytes, std::size_t size) const {
  const char* next = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t sent = ::send(fd(), next, size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    next += sent;
    size -= static_cast<std::size_t>(sent);
  }
  return true;
}

bool Socket::receive(void* bytes, std::size_t size) const {
  char* next = static_cast<char*>(bytes);
  while (size > 0) {
    const ssize_t received = recv(fd(), next, size, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0) return false;
    next += received;
    size -= static_cast<std::size_t>(received);
  }
  return true;
}

bool Socket::send_file(int passed) const {
  OneByte byte;
  byte.put_file(passed);
  return byte.pass(sendmsg, fd(), MSG_NOSIGNAL);
}

int Socket::receive_file() const {
  OneByte byte;
  return byte.pass(recvmsg, fd(), MSG_CMSG_CLOEXEC) ? byte.file() : -1;
}

void Message::put_text(const std::string& text) {
  put<uint64_t>(text.size());
  bytes_ += text;
}

const char* Message::take_bytes(std::size_t size) {
  if (size > bytes_.size() - taken_) fail(ExitCode::kInternal, "a message of the process that reads HDF5 is too short");
  return bytes_.data() + std::exchange(taken_, taken_ + size);
}

std::string Message::take_text() {
  const auto size = static_cast<std::size_t>(take<uint64_t>());
  return {take_bytes(size), size};
}

bool Message::send(const Socket& socket) const {
  const uint64_t size = bytes_.size();
  return socket.send(&size, sizeof size) && socket.send(bytes_.data(), bytes_.size());
}

bool Message::receive(const Socket& socket) {
  constexpr uint64_t kPieceBytes = uint64_t{1} << 20;  // memory is taken for what has come, not for what was announced
  uint64_t size = 0;
  if (!socket.receive(&size, sizeof size)) return false;
  bytes_.clear();
  taken_ = 0;
  while (bytes_.size() < size) {
    const std::size_t begin = bytes_.size();
    bytes_.resize(begin + static_cast<std::size_t>(std::min(size - begin, kPieceBytes)));
    if (!socket.receive(bytes_.data() + begin, bytes_.size() - begin)) return false;
  }
  return true;
}

}  // namespace winnow::storage
