// Hopper's own instructions as functions: barriers in shared memory, the bulk copy engine, products of a warpgroup.
// Source of forms and layouts: PTX ISA 8.5, "Asynchronous warpgroup level matrix instructions" and "mbarrier".
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

namespace winnow::cuda::hopper {

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// A barrier in shared memory. Its phases are told apart by their parity: wait(p) returns once phase p is complete.
struct Barrier {
  uint64_t word;

  __device__ void init(int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&word)), "r"(arrivals));
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&word)) : "memory");
  }
  __device__ void arrive_and_expect(int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&word)), "r"(bytes)
                 : "memory");
  }
  __device__ void wait(int parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra.uni through;\n"
        "bra.uni again;\n"
        "through:\n"
        "}" ::"r"(shared_address(&word)),
        "r"(parity)
        : "memory");
  }
};

// Copies one box of a tensor of three dimensions to shared memory; `barrier` is told of its bytes.
__device__ inline void copy_box(void* to, const CUtensorMap& map, Barrier& barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(shared_address(to)),
      "l"(&map), "r"(shared_address(&barrier.word)), "r"(x), "r"(y), "r"(z)
      : "memory");
}

// Named barriers of a block: `threads` is the number of those that wait and those that arrive together.
__device__ inline void wait_named(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void arrive_named(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <int kRegisters>
__device__ inline void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// An operand in shared memory, in columns of 64 bfloat16 (128 bytes) with the swizzle of 128 bytes, as copy_box leaves
// it. Groups of eight rows lie 1024 bytes apart; `column_bytes` from one column of 64 to the next, where the rows are
// the sum's index (the values of attention).
__device__ inline uint64_t operand(const void* data, int column_bytes) {
  constexpr uint64_t kGroupBytes = 1024;
  constexpr uint64_t kSwizzle128 = 1;
  return ((shared_address(data) & 0x3FFFFU) >> 4) | (static_cast<uint64_t>(column_bytes >> 4) << 16) |
         ((kGroupBytes >> 4) << 32) | (kSwizzle128 << 62);
}

// Before the first product that reads registers which ordinary instructions wrote.
__device__ inline void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most kPending groups of products are under way.
template <int kPending>
__device__ inline void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving or reusing registers that a product under way reads or writes.
template <int kCount>
__device__ inline void hold(float (&x)[kCount]) {
#pragma unroll
  for (float& value : x) asm volatile("" : "+f"(value)::"memory");
}
template <int kCount>
__device__ inline void hold(uint32_t (&x)[kCount]) {
#pragma unroll
  for (uint32_t& value : x) asm volatile("" : "+r"(value)::"memory");
}

#define WINNOW_D8(d, i)                                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define WINNOW_D32(d, i) WINNOW_D8(d, i), WINNOW_D8(d, i + 8), WINNOW_D8(d, i + 16), WINNOW_D8(d, i + 24)
#define WINNOW_R32                                                                                            \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WINNOW_R48 WINNOW_R32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WINNOW_R64 WINNOW_R48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d (64 rows, 2 * kCount columns) = a b^T (first) or += a b^T: 16 columns of both, rows of 64 columns in shared memory.
template <int kCount>
__device__ inline void multiply(float (&d)[kCount], uint64_t a, uint64_t b, bool adds) {
  static_assert(kCount == 32 || kCount == 64);
  if constexpr (kCount == 64) {
    asm volatile(
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" WINNOW_R64 "}, %64, %65, adds, 1, 1, 0, 0;\n}"
        : WINNOW_D32(d, 0), WINNOW_D32(d, 32)
        : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
  } else {
    asm volatile(
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WINNOW_R32 "}, %32, %33, adds, 1, 1, 0, 0;\n}"
        : WINNOW_D32(d, 0)
        : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
  }
}

// d (64 rows, 2 * kCount columns) += a b: a (64 rows, 16) in registers, b 16 rows in shared memory.
template <int kCount>
__device__ inline void multiply(float (&d)[kCount], const uint32_t* a, uint64_t b) {
  static_assert(kCount == 32 || kCount == 48 || kCount == 64);
  if constexpr (kCount == 64) {
    asm volatile(
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" WINNOW_R64
        "}, {%64, %65, %66, %67}, %68, adds, 1, 1, 1;\n}"
        : WINNOW_D32(d, 0), WINNOW_D32(d, 32)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else if constexpr (kCount == 48) {
    asm volatile(
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" WINNOW_R48
        "}, {%48, %49, %50, %51}, %52, adds, 1, 1, 1;\n}"
        : WINNOW_D32(d, 0), WINNOW_D8(d, 32), WINNOW_D8(d, 40)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else {
    asm volatile(
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WINNOW_R32
        "}, {%32, %33, %34, %35}, %36, adds, 1, 1, 1;\n}"
        : WINNOW_D32(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
}

#undef WINNOW_D8
#undef WINNOW_D32
#undef WINNOW_R32
#undef WINNOW_R48
#undef WINNOW_R64

}  // namespace winnow::cuda::hopper
