// What a step program does with rows apart from products: operations element by element, and reductions over a row.
//
// Included once per instruction set, after simd.hpp, for the same reason.

// exp(x) for any x, in two halves of the scale, so that neither overflows before the result does.
template <class S>
UNROLL_INLINE typename S::V exponential_of(typename S::V x) {
  using V = typename S::V;
  const V zero{}, negative = x < zero ? x : -x;
  const Exponential<S> e = exponential<S>(negative);
  const V down = e.scale * e.rest + e.scale;
  const V up = splat<S>(1) / down;
  const V highest = splat<S>(-S::lowest);
  const V found = x < zero ? down : x > highest ? x * splat<S>(S::largest) : up;
  return x == x ? found : x;
}

#define UNROLL_EACH(name, single, twice)                                     \
  UNROLL_INLINE float name(float x) { return single(x); }                   \
  UNROLL_INLINE double name(double x) { return twice(x); }
UNROLL_EACH(natural_log, __builtin_logf, __builtin_log)
UNROLL_EACH(log_plus_1, __builtin_log1pf, __builtin_log1p)
UNROLL_EACH(exact_exp, __builtin_expf, __builtin_exp)
UNROLL_EACH(exp_minus_1, __builtin_expm1f, __builtin_expm1)
UNROLL_EACH(error_function, __builtin_erff, __builtin_erf)
UNROLL_EACH(sine, __builtin_sinf, __builtin_sin)
UNROLL_EACH(cosine, __builtin_cosf, __builtin_cos)
#undef UNROLL_EACH
UNROLL_INLINE float power(float a, float b) { return __builtin_powf(a, b); }
UNROLL_INLINE double power(double a, double b) { return __builtin_pow(a, b); }
// As torch has it: beyond 20 it is the number itself.
template <class T>
UNROLL_INLINE T softplus(T x) {
  return x > T(20) ? x : log_plus_1(exact_exp(x));
}

template <class V, class F>
UNROLL_INLINE V each_lane(V a, F f) {
  for (size_t lane = 0; lane < sizeof(V) / sizeof(a[0]); ++lane) a[lane] = f(a[lane]);
  return a;
}

// What an operation computes, of at most three operands.
#define UNROLL_ELEMENT(name, count, ...)                                                                  \
  template <class S>                                                                                      \
  struct name {                                                                                           \
    static constexpr int operands = count;                                                                \
    using V = typename S::V;                                                                              \
    using T = typename S::Scalar;                                                                         \
    UNROLL_INLINE V of([[maybe_unused]] V a, [[maybe_unused]] V b, [[maybe_unused]] V c) {         \
      [[maybe_unused]] const V one = splat<S>(1), zero{};                                                 \
      __VA_ARGS__                                                                                         \
    }                                                                                                     \
  };
UNROLL_ELEMENT(OfCopy, 1, return a;)
UNROLL_ELEMENT(OfNeg, 1, return -a;)
UNROLL_ELEMENT(OfSigmoid, 1, const Quotient<S> q = sigmoid<S>(a); return q.top / q.bottom;)
UNROLL_ELEMENT(OfTanh, 1, const Quotient<S> q = hyperbolic_tangent<S>(a); return q.top / q.bottom;)
UNROLL_ELEMENT(OfRelu, 1, return a < zero ? zero : a;)  // in this order a NaN passes
UNROLL_ELEMENT(OfExp, 1, return exponential_of<S>(a);)
UNROLL_ELEMENT(OfLog, 1, return each_lane(a, [](T x) { return natural_log(x); });)
UNROLL_ELEMENT(OfSqrt, 1, return square_root(a);)
UNROLL_ELEMENT(OfAbs, 1, return a < zero ? -a : a + zero;)
UNROLL_ELEMENT(OfSign, 1, return a > zero ? one : a < zero ? -one : zero;)
UNROLL_ELEMENT(OfSin, 1, return each_lane(a, [](T x) { return sine(x); });)
UNROLL_ELEMENT(OfCos, 1, return each_lane(a, [](T x) { return cosine(x); });)
UNROLL_ELEMENT(OfSoftplus, 1, return each_lane(a, [](T x) { return softplus(x); });)
UNROLL_ELEMENT(OfLog1p, 1, return each_lane(a, [](T x) { return log_plus_1(x); });)
UNROLL_ELEMENT(OfExpm1, 1, return each_lane(a, [](T x) { return exp_minus_1(x); });)
UNROLL_ELEMENT(OfErf, 1, return each_lane(a, [](T x) { return error_function(x); });)
UNROLL_ELEMENT(OfAdd, 2, return a + b;)
UNROLL_ELEMENT(OfSub, 2, return a - b;)
UNROLL_ELEMENT(OfMul, 2, return a * b;)
UNROLL_ELEMENT(OfDiv, 2, return a / b;)
UNROLL_ELEMENT(OfMaximum, 2, return a == a ? b == b ? (a > b ? a : b) : b : a;)
UNROLL_ELEMENT(OfMinimum, 2, return a == a ? b == b ? (a < b ? a : b) : b : a;)
UNROLL_ELEMENT(OfPow, 2, for (int lane = 0; lane < S::lanes; ++lane) a[lane] = power(a[lane], b[lane]); return a;)
UNROLL_ELEMENT(OfLess, 2, return a < b ? one : zero;)
UNROLL_ELEMENT(OfEqual, 2, return a == b ? one : zero;)
UNROLL_ELEMENT(OfSigmoidBack, 2, return a * (b * (one - b));)
UNROLL_ELEMENT(OfTanhBack, 2, return a * (one - b * b);)
UNROLL_ELEMENT(OfReluBack, 2, return b <= zero ? zero : a;)
UNROLL_ELEMENT(OfWhere, 3, return a != zero ? b : c;)
UNROLL_ELEMENT(OfMultiplyAdd, 3, return a * b + c;)
#undef UNROLL_ELEMENT

// result = F(a, b, c) on all numbers of some rows that lie one after the other; bits of `ones`: operands that are one number.
template <class S, template <class> class F, int ones, class T>
void all_rows(T* to, const T* a, const T* b, const T* c, int64_t rows, const Ready<T>& how) {
  using V = typename S::V;
  constexpr int operands = F<S>::operands;
  const V all_a = ones & 1 ? splat<S>(*a) : V{}, all_b = ones & 2 ? splat<S>(*b) : V{}, all_c = ones & 4 ? splat<S>(*c) : V{};
  const int64_t count = rows * how.count;
  int64_t k = 0;
  for (; k + S::lanes <= count; k += S::lanes)
    store<S>(to + k, F<S>::of(ones & 1 ? all_a : load<S>(a + k), operands < 2 || ones & 2 ? all_b : load<S>(b + k),
                              operands < 3 || ones & 4 ? all_c : load<S>(c + k)));
  if (const int64_t left = count - k; left > 0)
    store<S>(to + k, F<S>::of(ones & 1 ? all_a : load<S>(a + k, left), operands < 2 || ones & 2 ? all_b : load<S>(b + k, left),
                              operands < 3 || ones & 4 ? all_c : load<S>(c + k, left)), left);
}

// The same row by row, where an operand is one number a row, or one row for all.
template <class S, template <class> class F, int ones, class T>
void each_row(T* to, const T* a, const T* b, const T* c, int64_t rows, const Ready<T>& how) {
  using V = typename S::V;
  constexpr int operands = F<S>::operands;
  const int64_t count = how.count;
  for (int64_t row = 0; row < rows; ++row) {
    const V all_a = ones & 1 ? splat<S>(*a) : V{}, all_b = ones & 2 ? splat<S>(*b) : V{}, all_c = ones & 4 ? splat<S>(*c) : V{};
    for (int64_t k = 0; k < count; k += S::lanes)
      store<S>(to + k, F<S>::of(ones & 1 ? all_a : load<S>(a + k), operands < 2 || ones & 2 ? all_b : load<S>(b + k),
                                operands < 3 || ones & 4 ? all_c : load<S>(c + k)));
    to += count, a += how.stride[0];
    if constexpr (operands > 1) b += how.stride[1];
    if constexpr (operands > 2) c += how.stride[2];
  }
}

template <class S, template <class> class F, class T, int... ones>
Element<T> element_for(int which, bool by_row, std::integer_sequence<int, ones...>) {
  constexpr Element<T> rows[] = {each_row<S, F, ones, T>...}, all[] = {all_rows<S, F, ones, T>...};
  return by_row ? rows[which] : all[which];
}

template <class S, class T>
Element<T> element_for(int64_t op, int ones, bool by_row) {
  switch (op) {
#define UNROLL_CASE(op, F) \
  case op: return element_for<S, F, T>(ones, by_row, std::make_integer_sequence<int, 1 << F<S>::operands>());
    UNROLL_CASE(COPY, OfCopy)
    UNROLL_CASE(NEG, OfNeg)
    UNROLL_CASE(SIGMOID, OfSigmoid)
    UNROLL_CASE(TANH, OfTanh)
    UNROLL_CASE(RELU, OfRelu)
    UNROLL_CASE(EXP, OfExp)
    UNROLL_CASE(LOG, OfLog)
    UNROLL_CASE(SQRT, OfSqrt)
    UNROLL_CASE(ABS, OfAbs)
    UNROLL_CASE(SIGN, OfSign)
    UNROLL_CASE(SIN, OfSin)
    UNROLL_CASE(COS, OfCos)
    UNROLL_CASE(SOFTPLUS, OfSoftplus)
    UNROLL_CASE(LOG1P, OfLog1p)
    UNROLL_CASE(EXPM1, OfExpm1)
    UNROLL_CASE(ERF, OfErf)
    UNROLL_CASE(ADD, OfAdd)
    UNROLL_CASE(SUB, OfSub)
    UNROLL_CASE(MUL, OfMul)
    UNROLL_CASE(DIV, OfDiv)
    UNROLL_CASE(MAXIMUM, OfMaximum)
    UNROLL_CASE(MINIMUM, OfMinimum)
    UNROLL_CASE(POW, OfPow)
    UNROLL_CASE(LESS, OfLess)
    UNROLL_CASE(EQUAL, OfEqual)
    UNROLL_CASE(SIGMOID_BACK, OfSigmoidBack)
    UNROLL_CASE(TANH_BACK, OfTanhBack)
    UNROLL_CASE(RELU_BACK, OfReluBack)
    UNROLL_CASE(WHERE, OfWhere)
    UNROLL_CASE(MULTIPLY_ADD, OfMultiplyAdd)
#undef UNROLL_CASE
  }
  return nullptr;
}

// --- reductions over a row ----------------------------------------------------------------------------------------------

// The lanes of a vector, changed over at a distance.
template <int distance, class V, int... lane>
UNROLL_INLINE V swapped(V a, std::integer_sequence<int, lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, a, (lane ^ distance)...);
#else
  using I = decltype(a < a);
  return __builtin_shuffle(a, I{(lane ^ distance)...});
#endif
}

// f over the lanes of a vector, halves first.
template <class S, int distance = S::lanes / 2, class F>
UNROLL_INLINE typename S::Scalar over_lanes(typename S::V a, F f) {
  if constexpr (distance == 0) {
    return a[0];
  } else {
    return over_lanes<S, distance / 2>(f(a, swapped<distance>(a, std::make_integer_sequence<int, S::lanes>())), f);
  }
}

// The sum over each row of the products of two, piece by piece; one of them may be one number.
template <class S, class T>
UNROLL_APART void dot_rows(T* to, int64_t rows, const int64_t* list, int64_t count, const Read<T>* piece, const Value* value) {
  using V = typename S::V;
  for (int64_t row = 0; row < rows; ++row) {
    V all[2] = {};
    for (int64_t n = 0; n < count; n += 2) {
      const T *const a = piece[n].at + row * piece[n].stride, *const b = piece[n + 1].at + row * piece[n + 1].stride;
      const bool one_a = piece[n].one, one_b = piece[n + 1].one;
      const int64_t width = value[list[one_a ? n + 1 : n]].width;
      const V all_a = one_a ? splat<S>(*a) : V{}, all_b = one_b ? splat<S>(*b) : V{};
      int64_t k = 0, turn = 0;
      for (; k + S::lanes <= width; k += S::lanes, turn ^= 1)
        all[turn] += (one_a ? all_a : load<S>(a + k)) * (one_b ? all_b : load<S>(b + k));
      if (k < width) {
        const int64_t left = width - k;
        V product = (one_a ? all_a : load<S>(a + k, left)) * (one_b ? all_b : load<S>(b + k, left));
        for (int64_t lane = left; lane < S::lanes; ++lane) product[lane] = 0;
        all[0] += product;
      }
    }
    to[row] = over_lanes<S>(all[0] + all[1], [](auto a, auto b) { return a + b; });
  }
}

// f over the pieces of each row.
template <class S, class T, class F>
UNROLL_APART void over_rows(T* to, int64_t rows, const int64_t* list, int64_t count, const Read<T>* piece,
                            const Value* value, T begin, F f) {
  using V = typename S::V;
  for (int64_t row = 0; row < rows; ++row) {
    V all = splat<S>(begin);
    for (int64_t n = 0; n < count; ++n) {
      const T* from = piece[n].at + row * piece[n].stride;
      const int64_t width = value[list[n]].width;
      int64_t k = 0;
      for (; k + S::lanes <= width; k += S::lanes) all = f(all, load<S>(from + k));
      if (k < width) {
        V tail = splat<S>(begin);
        for (int64_t lane = 0; k + lane < width; ++lane) tail[lane] = from[k + lane];
        all = f(all, tail);
      }
    }
    to[row] = over_lanes<S>(all, f);
  }
}
