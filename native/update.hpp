// Adam's update of a vector of parameters: two passes over the memory instead of a dozen.
//
// Included once per instruction set, after simd.hpp, for the same reason.

template <class V>
UNROLL_INLINE V square_root(V a) {
#if defined(__AVX512F__)
  if constexpr (sizeof(a[0]) == 4) return (V)_mm512_maskz_sqrt_ps(0xffff, (__m512)a);
  return (V)_mm512_maskz_sqrt_pd(0xff, (__m512d)a);
#elif defined(__AVX__)
  if constexpr (sizeof(a[0]) == 4) return (V)_mm256_sqrt_ps((__m256)a);
  return (V)_mm256_sqrt_pd((__m256d)a);
#else
  for (size_t lane = 0; lane < sizeof(V) / sizeof(a[0]); ++lane)
    a[lane] = sizeof(a[0]) == 4 ? __builtin_sqrtf(a[lane]) : __builtin_sqrt(a[lane]);
  return a;
#endif
}

template <class S, class T>
double sum_squares(const T* g, int64_t count) {
  constexpr int64_t lanes = S::lanes;
  typename S::V sum[4] = {};
  int64_t k = 0;
  for (; k + 4 * lanes <= count; k += 4 * lanes)
#pragma GCC unroll 4
    for (int64_t n = 0; n < 4; ++n) sum[n] += load<S>(g + k + n * lanes) * load<S>(g + k + n * lanes);
  for (; k < count; k += lanes) sum[0] += load<S>(g + k, count - k) * load<S>(g + k, count - k);
  const typename S::V both = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  double total = 0;
  for (int64_t lane = 0; lane < lanes; ++lane) total += double(both[lane]);
  return total;
}

// Algorithm 1 of Kingma & Ba with the constants of `update`; the equations stand in unroll/optim.py, class Adam. Without
// gradients they count as zero.
template <class S, class T>
void adam(const Update& update, const T* g, T* theta, T* m, T* v, int64_t count) {
  using V = typename S::V;
  const V scale = splat<S>(T(update.scale)), penalty = splat<S>(T(update.penalty)), keep = splat<S>(T(update.keep)),
          rate = splat<S>(T(update.rate)), eps = splat<S>(T(update.eps)), beta2 = splat<S>(T(update.beta2)),
          rest1 = splat<S>(T(1 - update.beta1)), rest2 = splat<S>(T(1 - update.beta2));
  for (int64_t k = 0; k < count; k += S::lanes) {
    const int64_t left = count - k;
    const V p = load<S>(theta + k, left), first = load<S>(m + k, left);
    const V gradient = (g ? load<S>(g + k, left) * scale : V{}) + p * penalty;
    const V m_new = first + (gradient - first) * rest1, v_new = load<S>(v + k, left) * beta2 + gradient * gradient * rest2;
    store<S>(m + k, m_new, left);
    store<S>(v + k, v_new, left);
    store<S>(theta + k, p * keep - m_new / (square_root(v_new) + eps) * rate, left);
  }
}
