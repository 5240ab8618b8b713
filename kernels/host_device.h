// Marks functions that the host and the kernels of a GPU share.
#pragma once

#if defined(__CUDACC__)
#define WINNOW_HOST_DEVICE __host__ __device__
#else
#define WINNOW_HOST_DEVICE
#endif
