// The vector kernels of one variant. kernels/CMakeLists.txt compiles this file for each type of processor, with
// WINNOW_KERNELS as the namespace of its table.
//
// The table is all that the linker may see: of an inline function or an instance of a template that several files
// emit, it keeps one, and were that the one of this compilation, it would run on processors that lack its instructions.
// So everything here and in the headers below has internal linkage, and nothing comes from the standard library.
#include "kernels/cpu/vector_kernels.h"

#include "kernels/cpu/attention_strip.h"
#include "kernels/cpu/row.h"
#include "kernels/cpu/simd.h"

namespace winnow::cpu::WINNOW_KERNELS {

extern const VectorKernels kernels;
const VectorKernels kernels = {
    .multiply_strip = multiply_columns<false>,
    .add_strip_product = multiply_columns<true>,
    .soften = soften,
    .score_block = score_block,
    .exp2_row = exp2_row,
    .sum_row = sum_row,
    .exp_sum = exp_sum,
    .weighted_difference = weighted_difference,
    .norm_row = norm_row,
    .rotate_row = rotate_row,
    .gate_row = gate_row,
    .cap_row = cap_row,
    .add_row = add_row,
};

}  // namespace winnow::cpu::WINNOW_KERNELS
