# Whether the CUDA backend is built: WINNOW_HAS_CUDA, and the target winnow_cuda_libraries that it links.
set(WINNOW_HAS_CUDA OFF)
set(WINNOW_CUDA_ARCHITECTURES "80-real;89-real;90-real;90-virtual" CACHE STRING
  "GPU architectures: A100, RTX 4090, H100 and H200, and PTX for what comes after")
set(CUDNN_ROOT "" CACHE PATH "Prefix of a cuDNN outside the CUDA toolkit (include/cudnn.h, lib/libcudnn.so)")

if(NOT WINNOW_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDNN_ROOT} /usr/local/cuda PATH_SUFFIXES include)
  find_library(CUDNN_LIBRARY cudnn HINTS ${CUDNN_ROOT} /usr/local/cuda PATH_SUFFIXES lib lib64)
  if(CMAKE_CUDA_COMPILER AND CUDNN_INCLUDE_DIR AND CUDNN_LIBRARY)
    set(WINNOW_HAS_CUDA ON)
  elseif(WINNOW_CUDA STREQUAL "ON")
    message(FATAL_ERROR "WINNOW_CUDA=ON needs nvcc (found: ${CMAKE_CUDA_COMPILER}) and cuDNN 9 (found: "
                        "${CUDNN_INCLUDE_DIR}, ${CUDNN_LIBRARY}): put nvcc on PATH or set CMAKE_CUDA_COMPILER, and set "
                        "CUDNN_ROOT; WINNOW_CUDA=AUTO or OFF builds the CPU program")
  endif()
endif()

if(WINNOW_HAS_CUDA)
  set(CMAKE_CUDA_ARCHITECTURES ${WINNOW_CUDA_ARCHITECTURES})
  enable_language(CUDA)
  # CUDA sources follow CMAKE_CXX_STANDARD, but CMake 3.25 does not know nvcc 13's flag for C++20.
  if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  find_package(CUDAToolkit REQUIRED)
  add_library(winnow_cuda_libraries INTERFACE)
  target_include_directories(winnow_cuda_libraries SYSTEM INTERFACE ${CUDNN_INCLUDE_DIR})
  target_link_libraries(winnow_cuda_libraries INTERFACE CUDA::cudart CUDA::cublasLt ${CUDNN_LIBRARY})
  message(STATUS "CUDA backend: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, ${CUDNN_LIBRARY}, for ${CMAKE_CUDA_ARCHITECTURES}")
else()
  message(STATUS "CUDA backend: not built")
endif()
