// Vectors of floats as wide as this CPU's registers, and the functions of them that our ops need.

#ifndef TRAINING_LANES_H_
#define TRAINING_LANES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif

// Loops over sums that are to stay in registers; what is unrolled later has been through the stack.
#define UNROLLED _Pragma("GCC unroll 16")

typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef float Unaligned __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Lanes Load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void Store(float* to, Lanes value) { *reinterpret_cast<Unaligned*>(to) = value; }
inline Lanes Fill(float value) { return value - Lanes{}; }  // a sum would be computed: -0 + 0 is another float

// What several sums need stays in a register; GCC would read it from memory again for each.
inline void Keep(Lanes& value) {
#ifdef __x86_64__
  asm("" : "+v"(value));
#endif
}

// The first `count` lanes; the others are 0.
inline Lanes LoadSome(const float* from, int count) {
  if (count == kLanes) return Load(from);
  Lanes value{};
  std::memcpy(&value, from, count * sizeof(float));
  return value;
}
inline void StoreSome(float* to, Lanes value, int count) {
  if (count == kLanes) return Store(to, value);
  std::memcpy(to, &value, count * sizeof(float));
}

// body(place, lanes) for each group of lanes of `count` values; the last may be shorter.
template <typename Body>
inline void ByLanes(std::int64_t count, Body body) {
  for (std::int64_t place = 0; place < count; place += kLanes)
    body(place, static_cast<int>(std::min<std::int64_t>(kLanes, count - place)));
}

// The quotient of two polynomials that Eigen uses, within 3e-7 of the true value; NaN of NaN.
inline Lanes Tanh(Lanes x) {
  const Lanes largest = Fill(7.90531110763549805f);  // from here on it rounds to the same
  x = x > largest ? largest : x;
  x = x < -largest ? -largest : x;
  const Lanes square = x * x;
  Lanes above = Fill(-2.76076847742355e-16f);
  above = above * square + 2.00018790482477e-13f;
  above = above * square - 8.60467152213735e-11f;
  above = above * square + 5.12229709037114e-08f;
  above = above * square + 1.48572235717979e-05f;
  above = above * square + 6.37261928875436e-04f;
  above = above * square + 4.89352455891786e-03f;
  Lanes below = Fill(1.19825839466702e-06f);
  below = below * square + 1.18534705686654e-04f;
  below = below * square + 2.26843463243900e-03f;
  below = below * square + 4.89352518554385e-03f;
  return x * above / below;
}

inline Lanes Sigmoid(Lanes x) { return 0.5f * Tanh(0.5f * x) + 0.5f; }

typedef std::int32_t Bits __attribute__((vector_size(4 * kLanes)));

// 2^n times a polynomial on +-ln(2) / 2 (Cephes), its share of the true value within 2e-7 of 1; NaN of NaN, 0 where
// a float would be denormal, infinity where it would overflow.
inline Lanes Exp(Lanes x) {
  const Lanes given = x, largest = Fill(88.3762626647949f), smallest = Fill(-87.3365478515625f);
  x = x > largest ? largest : x;
  x = x < smallest ? smallest : x;
  const Lanes rounding = Fill(12582912.0f);  // 1.5 * 2^23: what is added to it is rounded to a whole number
  const Lanes shifted = x * 1.44269504088896341f + rounding;
  const Lanes whole = shifted - rounding;
  x = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  Lanes power = Fill(1.9875691500e-4f);
  power = power * x + 1.3981999507e-3f;
  power = power * x + 8.3334519073e-3f;
  power = power * x + 4.1665795894e-2f;
  power = power * x + 1.6666665459e-1f;
  power = power * x + 5.0000001201e-1f;
  power = power * (x * x) + x + 1.0f;
  const Bits exponent = (reinterpret_cast<const Bits&>(shifted) - reinterpret_cast<const Bits&>(rounding)) << 23;
  const Bits raised = reinterpret_cast<const Bits&>(power) + exponent;
  Lanes result = given < smallest ? Lanes{} : reinterpret_cast<const Lanes&>(raised);
  result = given > largest ? Fill(HUGE_VALF) : result;
  return given == given ? result : given;
}

// Lanes of one vector and, counted on from kLanes, of another: the i-th is number place(i).
template <typename Place>
inline Lanes Chosen(Lanes one, Lanes other, Place place) {
#ifdef __clang__
  Lanes chosen;
  UNROLLED for (int lane = 0; lane < kLanes; ++lane)
    chosen[lane] = place(lane) < kLanes ? one[place(lane) % kLanes] : other[place(lane) % kLanes];
  return chosen;
#else
  Bits places;
  UNROLLED for (int lane = 0; lane < kLanes; ++lane) places[lane] = place(lane);  // a constant, when unrolled
  return __builtin_shuffle(one, other, places);
#endif
}

// A square of lanes, [kLanes] vectors, becomes its transpose: its quarters are, and then two of them change places.
template <int half = kLanes / 2>
inline void Transpose(Lanes* square) {
  UNROLLED for (int row = 0; row < kLanes; ++row) {
    if (row & half) continue;
    const Lanes one = square[row], other = square[row + half];
    square[row] = Chosen(one, other, [](int lane) { return lane & half ? lane - half + kLanes : lane; });
    square[row + half] = Chosen(one, other, [](int lane) { return lane & half ? lane + kLanes : lane + half; });
  }
  if (half > 1) Transpose<(half > 1 ? half / 2 : 1)>(square);
}

// Each lane beside the one that is `half` away.
template <int half>
inline Lanes Across(Lanes lanes) {
  return Chosen(lanes, lanes, [](int lane) { return lane ^ half; });
}

// The largest of all lanes; of NaN it may be any.
template <int half = kLanes / 2>
inline float MostOf(Lanes lanes) {
  const Lanes others = Across<half>(lanes);
  lanes = lanes > others ? lanes : others;
  return half > 1 ? MostOf<(half > 1 ? half / 2 : 1)>(lanes) : lanes[0];
}

// The sum of all lanes, in halves.
template <int half = kLanes / 2>
inline float SumOf(Lanes lanes) {
  lanes += Across<half>(lanes);
  return half > 1 ? SumOf<(half > 1 ? half / 2 : 1)>(lanes) : lanes[0];
}

#endif  // TRAINING_LANES_H_
