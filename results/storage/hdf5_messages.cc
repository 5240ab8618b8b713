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
int above_standard_streams(int fd) {
  const int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  const int error = errno;
  close(fd);
  if (higher < 0) fail(ExitCode::kInternal, std::string("a socket cannot be kept: ") + std::strerror(error));
  return higher;
}

}  // namespace

Socket::Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Socket::~Socket() {
  if (fd_ >= 0) close(fd_);
}

void Socket::connect(Socket& one, Socket& other) {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    fail(ExitCode::kInternal, std::string("no socket to read HDF5 files through: ") + std::strerror(errno));
  }
  one = Socket(ends[0]);
  other = Socket(ends[1]);
  one = Socket(above_standard_streams(std::exchange(one.fd_, -1)));
  other = Socket(above_standard_streams(std::exchange(other.fd_, -1)));
}

bool Socket::send(const void* bytes, std::size_t size) const {
  const char* next = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t sent = ::send(fd_, next, size, MSG_NOSIGNAL);
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
    const ssize_t received = recv(fd_, next, size, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0) return false;
    next += received;
    size -= static_cast<std::size_t>(received);
  }
  return true;
}

bool Socket::send_file(int passed) const {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (passed >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof passed);
    std::memcpy(CMSG_DATA(header), &passed, sizeof passed);
  }
  ssize_t sent = 0;
  do {
    sent = sendmsg(fd_, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == 1;
}

int Socket::receive_file() const {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t received = 0;
  do {
    received = recvmsg(fd_, &message, MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  const cmsghdr* header = received == 1 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return -1;
  int passed = -1;
  std::memcpy(&passed, CMSG_DATA(header), sizeof passed);
  return passed;
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
