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

}  // namespace winnow
