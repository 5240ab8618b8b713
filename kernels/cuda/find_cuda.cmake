# Whether the CUDA backend is built: WINNOW_HAS_CUDA, and the target winnow_cuda_libraries that it links; whether it can
# use cuDNN: WINNOW_HAS_CUDNN. Only cuDNN's headers are needed: the program looks for the library when it runs. Whether
# its ranks talk over NCCL: WINNOW_HAS_NCCL, and the target winnow_nccl_library.
set(WINNOW_HAS_CUDA OFF)
set(WINNOW_HAS_CUDNN OFF)
set(WINNOW_HAS_NCCL OFF)
option(WINNOW_NCCL "NCCL between the ranks of a CUDA build, where it is found" ON)
set(WINNOW_CUDA_ARCHITECTURES "80-real;90-real;90-virtual" CACHE STRING
  "GPU architectures: A100 (RTX 3090 and 4090 run its code), H100 and H200, and PTX for what comes after")
set(NCCL_ROOT "" CACHE PATH "Prefix of an NCCL outside the CUDA toolkit (include/nccl.h, lib/libnccl.so.2)")
set(CUDNN_ROOT "" CACHE PATH "Prefix of a cuDNN outside the CUDA toolkit (include/cudnn.h, lib/libcudnn.so)")

if(NOT WINNOW_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(WINNOW_HAS_CUDA ON)
  elseif(WINNOW_CUDA STREQUAL "ON")
    message(FATAL_ERROR "WINNOW_CUDA=ON needs nvcc: put it on PATH or set CMAKE_CUDA_COMPILER; WINNOW_CUDA=AUTO or OFF "
                        "builds the CPU program")
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
  # cuBLASLt is not linked: cuda/libraries/ looks for it when the program runs.
  target_link_libraries(winnow_cuda_libraries INTERFACE CUDA::cudart ${CMAKE_DL_LIBS})

  find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDNN_ROOT} ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
  find_file(CUDNN_LIBRARY NAMES libcudnn.so.9 HINTS ${CUDNN_ROOT} ${CUDAToolkit_LIBRARY_DIR}
    PATH_SUFFIXES lib lib64 lib/x86_64-linux-gnu)
  if(CUDNN_INCLUDE_DIR)
    set(WINNOW_HAS_CUDNN ON)
    target_include_directories(winnow_cuda_libraries SYSTEM INTERFACE ${CUDNN_INCLUDE_DIR})
    if(CUDNN_LIBRARY)
      # Where dlopen looks after LD_LIBRARY_PATH.
      get_filename_component(CUDNN_LIBRARY_DIR ${CUDNN_LIBRARY} DIRECTORY)
      target_link_options(winnow_cuda_libraries INTERFACE "-Wl,--enable-new-dtags,-rpath,${CUDNN_LIBRARY_DIR}")
    endif()
  endif()
  message(STATUS "CUDA backend: nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}; cuDNN: "
                 "${CUDNN_INCLUDE_DIR}, ${CUDNN_LIBRARY}")

  if(WINNOW_NCCL)
    find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${NCCL_ROOT} ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
    # Python packages have the library under its versioned name only. Folder by folder: another folder's libnccl.so must
    # not come before it.
    find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 NAMES_PER_DIR HINTS ${NCCL_ROOT} ${CUDAToolkit_LIBRARY_DIR}
      PATH_SUFFIXES lib lib64)
  endif()
  if(WINNOW_NCCL AND NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
    set(WINNOW_HAS_NCCL ON)
    add_library(winnow_nccl_library INTERFACE)
    target_include_directories(winnow_nccl_library SYSTEM INTERFACE ${NCCL_INCLUDE_DIR})
    target_link_libraries(winnow_nccl_library INTERFACE ${NCCL_LIBRARY})
    message(STATUS "NCCL: ${NCCL_LIBRARY}")
  else()
    message(STATUS "NCCL: not used, so ranks talk over MPI alone; NCCL_ROOT names an NCCL outside the CUDA toolkit")
  endif()
else()
  message(STATUS "CUDA backend: not built")
endif()
