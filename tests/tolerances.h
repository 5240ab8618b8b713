// Every tolerance of the C++ tests, in one place, with its reason.
#pragma once

namespace winnow {

// Unit roundoff of float32 times two: one operation and one conversion.
inline constexpr double kFloatEpsilon = 1.2e-7;

// A chain of about ten float32 operations on one element (norms, SwiGLU), relative.
inline constexpr double kElementwiseTolerance = 10 * kFloatEpsilon;

// Attention of unit-variance values: a convex combination of them, its weights off by the rounding of scores of
// magnitude up to about 30: 30 * eps * a few.
inline constexpr double kAttentionTolerance = 2e-5;

// NLL in nats, times (1 + |NLL|): the promise of the CPU path against float64.
inline constexpr double kNllTolerance = 2e-5;

// Angle of two hidden states / pi, relative: both come from some tens of float32 operations on each element, whose
// errors are independent of each other, so that the angle is off by about one of them.
inline constexpr double kAngleTolerance = 100 * kFloatEpsilon;

// Sums of some thousand float64 products of order 1, in another order: 1e3 * 2^-53 and some.
inline constexpr double kDoubleSumTolerance = 1e-12;

// One bfloat16 operation on exact inputs, relative root mean square: the result is rounded once, uniformly in
// [-2^-9, 2^-9] of its size at the most.
inline constexpr double kBf16Tolerance = 3e-3;

// Attention in bfloat16: the rounding of the normed queries and keys, of the probabilities and of the result.
inline constexpr double kBf16AttentionTolerance = 1.5e-2;

// NLL of a random model of 4 layers with a bfloat16 residual stream, nats.
inline constexpr double kBf16NllTolerance = 5e-2;
// KL of the same, nats: a mean of differences of two log-probabilities, each of which is off as an NLL is.
inline constexpr double kBf16KlTolerance = 2 * kBf16NllTolerance;

// RMS error of winnow's NLLs on a GPU against float64, relative to that of Transformers in bfloat16 on the same
// examples: both round the same activations, in different places, so that equal care gives a ratio around 1 with chance
// on both sides.
inline constexpr double kBf16ErrorRatio = 1.5;
// The same of single key heads, on a tenth as many NLLs as that error was measured on: there is more chance in it.
// Largest seen: 1.75 (granite_swa, an H100).
inline constexpr double kBf16HeadsErrorRatio = 2.0;

}  // namespace winnow
