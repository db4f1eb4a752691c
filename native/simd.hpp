// Vectors and the elementary functions on them.
//
// Included once per instruction set, inside that set's own namespace (see kernels.cpp): nothing here may be a shared
// inline symbol, or the linker would be free to hand the AVX-512 copy to a machine without AVX-512.
//
// The vectors are the GCC/Clang vector extension, so one source serves AVX-512, AVX2, NEON and plain SSE2; only the
// width differs. The arithmetic relies on IEEE rules (compile without -ffast-math): the rounding in `exponential` is an
// addition that must not be simplified away, and NaN has to survive every comparison.

template <class T>
struct Simd;

template <>
struct Simd<float> {
  using Scalar = float;
  using Int = int32_t;
  static constexpr int lanes = UNROLL_VECTOR_BYTES / sizeof(float);
  typedef float V __attribute__((vector_size(UNROLL_VECTOR_BYTES)));
  typedef int32_t I __attribute__((vector_size(UNROLL_VECTOR_BYTES)));
  typedef float Unaligned __attribute__((vector_size(UNROLL_VECTOR_BYTES), aligned(4), may_alias));

  static constexpr int mantissa = 23;
  static constexpr float smallest = 1.17549435e-38f, largest = 3.40282347e+38f;
  // exp(lowest) rounds to 2^-127, whose biased exponent is 0: the scale becomes an exact zero.
  static constexpr float lowest = -88.0f;
  static constexpr float log2e = 1.44269504f;
  static constexpr float ln2 = 0.693147181f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  // Adding this leaves round(x) + 127 in the low bits: an exponent field, ready to be shifted into place.
  static constexpr float magic = 12582912.0f + 127.0f;
  // (exp(r) - 1 - r) / r^2 on |r| <= ln2/2, interpolated at Chebyshev nodes; relative error of exp: 1.0e-8.
  static constexpr int terms = 5;
  static constexpr float q[terms] = {0.5f, 0.166665770255979882f, 0.041666554662050534f, 0.0083631730745137109f,
                                     0.00139261761199355789f};
};

template <>
struct Simd<double> {
  using Scalar = double;
  using Int = int64_t;
  static constexpr int lanes = UNROLL_VECTOR_BYTES / sizeof(double);
  typedef double V __attribute__((vector_size(UNROLL_VECTOR_BYTES)));
  typedef int64_t I __attribute__((vector_size(UNROLL_VECTOR_BYTES)));
  typedef double Unaligned __attribute__((vector_size(UNROLL_VECTOR_BYTES), aligned(8), may_alias));

  static constexpr int mantissa = 52;
  static constexpr double smallest = 2.2250738585072014e-308, largest = 1.7976931348623157e+308;
  static constexpr double lowest = -709.0;
  static constexpr double log2e = 1.4426950408889634;
  static constexpr double ln2 = 0.6931471805599453, ln2_high = 0.693147180369123816490,
                          ln2_low = 1.90821492927058770002e-10;
  static constexpr double magic = 6755399441055744.0 + 1023.0;
  // As above with ten terms; relative error of exp: 1.7e-17.
  static constexpr int terms = 10;
  static constexpr double q[terms] = {0.500000000000000102,     0.166666666666666675,    0.0416666666666241619,
                                      0.00833333333333006445,   0.00138888889171967191,  0.000198412698630405453,
                                      0.0000248015213223686933, 2.75572684803100255e-6,  2.76200758799833666e-7,
                                      2.51003758325612337e-8};
};

template <class S>
UNROLL_INLINE typename S::V splat(typename S::Scalar value) {
  return value - typename S::V{};  // x - 0 is x whatever x is; x + 0 is not, and would cost an addition
}

template <class S>
UNROLL_INLINE typename S::V load(const typename S::Scalar* from) {
  return (typename S::V)(*reinterpret_cast<const typename S::Unaligned*>(from));
}

template <class S>
UNROLL_INLINE void store(typename S::Scalar* to, typename S::V value) {
  *reinterpret_cast<typename S::Unaligned*>(to) = (typename S::Unaligned)value;
}

// The first `count` lanes; the others read as zero and are not written. Users' tensors have rows of any length.
template <class S>
UNROLL_INLINE typename S::V load(const typename S::Scalar* from, int64_t count) {
  if (count >= S::lanes) return load<S>(from);
#if defined(__AVX512F__) && UNROLL_VECTOR_BYTES == 64
  if constexpr (sizeof(*from) == 4) return (typename S::V)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), from);
  if constexpr (sizeof(*from) == 8) return (typename S::V)_mm512_maskz_loadu_pd(__mmask8((1u << count) - 1), from);
#endif
  typename S::V value{};
  for (int64_t lane = 0; lane < count; ++lane) value[lane] = from[lane];
  return value;
}

template <class S>
UNROLL_INLINE void store(typename S::Scalar* to, typename S::V value, int64_t count) {
  if (count >= S::lanes) return store<S>(to, value);
#if defined(__AVX512F__) && UNROLL_VECTOR_BYTES == 64
  if constexpr (sizeof(*to) == 4) return _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), (__m512)value);
  if constexpr (sizeof(*to) == 8) return _mm512_mask_storeu_pd(to, __mmask8((1u << count) - 1), (__m512d)value);
#endif
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = value[lane];
}

// The larger of two numbers, and b if it is NaN. Compilers make a comparison and a blend of it, so x86 is told.
template <class V>
UNROLL_INLINE V larger(V a, V b) {
#if defined(__AVX512F__) && UNROLL_VECTOR_BYTES == 64
  if constexpr (sizeof(a[0]) == 4) return (V)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
  return (V)_mm512_maskz_max_pd(0xff, (__m512d)a, (__m512d)b);
#elif defined(__AVX__) && UNROLL_VECTOR_BYTES == 32
  if constexpr (sizeof(a[0]) == 4) return (V)_mm256_max_ps((__m256)a, (__m256)b);
  return (V)_mm256_max_pd((__m256d)a, (__m256d)b);
#elif defined(__SSE2__) && UNROLL_VECTOR_BYTES == 16
  if constexpr (sizeof(a[0]) == 4) return (V)_mm_max_ps((__m128)a, (__m128)b);
  return (V)_mm_max_pd((__m128d)a, (__m128d)b);
#else
  return a > b ? a : b;
#endif
}

// From the rows a, b: (side 0) the left blocks of both, (side 1) the right ones; b's lanes count on from a's.
template <int distance, int side, class V, int... lane>
UNROLL_INLINE V exchanged(V a, V b, std::integer_sequence<int, lane...>) {
  constexpr int lanes = sizeof...(lane);
#if defined(__clang__)
  return __builtin_shufflevector(
      a, b, (lane & distance ? lanes + lane - (side ? 0 : distance) : lane + (side ? distance : 0))...);
#else
  using I = decltype(a < b);
  return __builtin_shuffle(
      a, b, I{(lane & distance ? lanes + lane - (side ? 0 : distance) : lane + (side ? distance : 0))...});
#endif
}

// lanes x lanes numbers, rows to columns, in log2(lanes) rounds: round d swaps the blocks of d x d that lie on either side
// of the diagonals of blocks of 2d x 2d.
template <class S, int distance = 1>
UNROLL_INLINE void transpose(typename S::V (&row)[S::lanes]) {
  if constexpr (distance < S::lanes) {
#pragma GCC unroll 16
    for (int n = 0; n < S::lanes; ++n)
      if (!(n & distance)) {
        const typename S::V a = row[n], b = row[n + distance];
        row[n] = exchanged<distance, 0>(a, b, std::make_integer_sequence<int, S::lanes>());
        row[n + distance] = exchanged<distance, 1>(a, b, std::make_integer_sequence<int, S::lanes>());
      }
    transpose<S, 2 * distance>(row);
  }
}

template <class S>
UNROLL_INLINE typename S::V minus_magnitude(typename S::V z) {
  using I = typename S::I;
  const I sign = I{} + (typename S::Int)(typename S::Int(1) << (sizeof(typename S::Scalar) * 8 - 1));
  return (typename S::V)((I)z | sign);
}

// exp(x) for x <= 0, in two parts: exp(x) = scale * (1 + rest), |rest| < 0.42. Kept apart so that exp(x) - 1 near
// x = 0 loses nothing. NaN stays in `rest`.
template <class S>
struct Exponential {
  typename S::V scale, rest;
};

template <class S>
UNROLL_INLINE Exponential<S> exponential(typename S::V x) {
  using V = typename S::V;
  using I = typename S::I;
  const V lowest = splat<S>(S::lowest);
  x = larger(lowest, x);
  const V shifted = x * S::log2e + S::magic;
  const V n = shifted - S::magic;
#if defined(__FMA__) || defined(__aarch64__)
  const V r = x - n * S::ln2;
#else
  const V r = (x - n * S::ln2_high) - n * S::ln2_low;  // n * ln2_high is exact, as the fused product above is
#endif
  V q = splat<S>(S::q[S::terms - 1]);
#pragma GCC unroll 16
  for (int term = S::terms - 2; term >= 0; --term) q = q * r + S::q[term];
  Exponential<S> e;
  e.rest = (r * r) * q + r;
  e.scale = (V)((I)shifted << S::mantissa);
  return e;
}

// Both functions come as a quotient, so that one division can serve several of them: denominators lie in [1, 2].
template <class S>
struct Quotient {
  typename S::V top, bottom;
};

// 1 / (1 + exp(-z)), from exp(-|z|), which cannot overflow.
template <class S>
UNROLL_INLINE Quotient<S> sigmoid(typename S::V z) {
  using V = typename S::V;
  const Exponential<S> e = exponential<S>(minus_magnitude<S>(z));
  const V exp = e.scale * e.rest + e.scale;
  const V one = splat<S>(1);
  return {z >= V{} ? one : exp, exp + one};
}

// (1 - exp(-2|z|)) / (1 + exp(-2|z|)) with the sign of z.
template <class S>
UNROLL_INLINE Quotient<S> hyperbolic_tangent(typename S::V z) {
  using V = typename S::V;
  using I = typename S::I;
  const Exponential<S> e = exponential<S>(minus_magnitude<S>(z) * 2);
  const V exp_minus_1 = e.scale * e.rest + (e.scale - 1);
  const I sign = (I)minus_magnitude<S>(V{});
  return {(V)((I)(V{} - exp_minus_1) | ((I)z & sign)), exp_minus_1 + 2};
}
