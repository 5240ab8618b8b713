#include "results/storage/hdf5_check.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::storage {
namespace {

herr_t keep_innermost(unsigned depth, const H5E_error2_t* frame, void* data) {
  StackMessage& message = *static_cast<StackMessage*>(data);
  const std::string text = frame->desc != nullptr ? frame->desc : "";
  if (depth == 0) message.text = text;
  if (text.find("errno = ") != std::string::npos) message = {text, true};
  return 0;
}

}  // namespace

StackMessage deepest_message() {
  StackMessage message;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &message);
  std::replace(message.text.begin(), message.text.end(), '\n', ' ');
  if (message.text.empty()) message.text = "no message from HDF5";
  return message;
}

void check_write(int64_t status, const std::string& where, const char* what) {
  if (status < 0) fail(ExitCode::kIoError, where + ": could not " + what + ": " + deepest_message().text);
}

void check_read(int64_t status, const std::string& where, const char* what) {
  if (status >= 0) return;
  const StackMessage message = deepest_message();
  fail(message.os_failure ? ExitCode::kIoError : ExitCode::kBadData,
       where + ": could not " + what + ": " + message.text);
}

Handle variable_string_type(H5T_cset_t cset) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  check_write(type.get(), "HDF5", "make a string type");
  check_write(H5Tset_size(type.get(), H5T_VARIABLE), "HDF5", "make a string type");
  check_write(H5Tset_cset(type.get(), cset), "HDF5", "make a string type");
  return type;
}

}  // namespace winnow::storage
