// Statuses and types of the HDF5 C API, shared by what writes and what reads, and private to them.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <type_traits>

#include "results/storage/hdf5.h"

namespace winnow::storage {

static_assert(std::is_same_v<hid_t, int64_t> && std::is_same_v<herr_t, int>, "the header states ids as int64_t");

// Message of the innermost frame of HDF5's error stack, and whether the operating system failed there.
struct StackMessage {
  std::string text;
  bool os_failure = false;
};
StackMessage deepest_message();

// Throws Error(kIoError) with HDF5's message when status < 0. `what` is the step ("create the dataset").
void check_write(int64_t status, const std::string& where, const char* what);
// Throws Error(kBadData) when status < 0, or Error(kIoError) where a read of the operating system failed.
void check_read(int64_t status, const std::string& where, const char* what);

template <typename T>
hid_t memory_type() {
  if constexpr (std::is_same_v<T, double>) return H5T_NATIVE_DOUBLE;
  if constexpr (std::is_same_v<T, float>) return H5T_NATIVE_FLOAT;
  if constexpr (std::is_same_v<T, int64_t>) return H5T_NATIVE_INT64;
  if constexpr (std::is_same_v<T, int32_t>) return H5T_NATIVE_INT32;
  if constexpr (std::is_same_v<T, uint8_t>) return H5T_NATIVE_UINT8;
}

// Returns the type in the file: little-endian on every machine.
template <typename T>
hid_t file_type() {
  if constexpr (std::is_same_v<T, double>) return H5T_IEEE_F64LE;
  if constexpr (std::is_same_v<T, float>) return H5T_IEEE_F32LE;
  if constexpr (std::is_same_v<T, int64_t>) return H5T_STD_I64LE;
  if constexpr (std::is_same_v<T, int32_t>) return H5T_STD_I32LE;
  if constexpr (std::is_same_v<T, uint8_t>) return H5T_STD_U8LE;
}

// Makes a variable-length string type of that character set.
Handle variable_string_type(H5T_cset_t cset);

}  // namespace winnow::storage
