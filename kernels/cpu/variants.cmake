# Compiles kernels/cpu/vector_kernels.cc for every type of processor that this build serves, into winnow_cpu: once
# for WINNOW_ARCH, and once more for x86-64-v4 where that lacks AVX-512.
include(CheckCXXSourceCompiles)

# A source file of its own for each: options of a file come last, so that this -march wins.
function(winnow_kernel_variant name)
  set(file ${CMAKE_CURRENT_BINARY_DIR}/kernels_${name}.cc)
  file(CONFIGURE OUTPUT ${file} @ONLY
    CONTENT "#define WINNOW_KERNELS @name@\n#include \"kernels/cpu/vector_kernels.cc\"  // NOLINT(bugprone-suspicious-include)\n")
  target_sources(winnow_cpu PRIVATE ${file})
  set_property(SOURCE ${file} PROPERTY COMPILE_OPTIONS ${ARGN})
endfunction()

set(CMAKE_REQUIRED_FLAGS -march=${WINNOW_ARCH})
set(CMAKE_REQUIRED_QUIET TRUE)
unset(WINNOW_ARCH_IS_BELOW_V4 CACHE)  # WINNOW_ARCH may have changed
check_cxx_source_compiles("
  #if !defined(__x86_64__) || defined(__AVX512F__)
  #error
  #endif
  int main() {}" WINNOW_ARCH_IS_BELOW_V4)
unset(CMAKE_REQUIRED_FLAGS)

winnow_kernel_variant(base)
set(definitions WINNOW_BASE_ARCH="${WINNOW_ARCH}")
if(WINNOW_ARCH_IS_BELOW_V4)
  # clang halves the vectors of what it takes for a server of today if it is not told.
  winnow_kernel_variant(x86_64_v4 -march=x86-64-v4 -mprefer-vector-width=512)
  list(APPEND definitions WINNOW_HAS_X86_64_V4)
endif()
set_property(SOURCE cpu/kernel_variants.cc PROPERTY COMPILE_DEFINITIONS "${definitions}")

if(WINNOW_TESTS AND NOT WINNOW_SANITIZE AND NOT WINNOW_FUZZ)  # sanitizers add symbols of their own
  # What vector_kernels.cc promises: an object of a variant gives the linker nothing to share.
  add_test(NAME kernel_variants_share_nothing
    COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} "-DOBJECTS=$<FILTER:$<TARGET_OBJECTS:winnow_cpu>,INCLUDE,/kernels_[^/]*$>"
            -P ${CMAKE_CURRENT_SOURCE_DIR}/cpu/check_symbols.cmake)
  set_tests_properties(kernel_variants_share_nothing PROPERTIES LABELS cpu)
endif()
