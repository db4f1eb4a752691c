// What a training step does beside the recurrence: readout and loss with their gradients in one pass over the batch, and
// Adam's update in two passes over the parameters.
//
// Included once per instruction set, after simd.hpp, for the same reason.

template <class S, class T>
UNROLL_INLINE T dot(const T* a, const T* b, int64_t count) {
  typename S::V sum{};
  for (int64_t k = 0; k < count; k += S::lanes) sum += load<S>(a + k, count - k) * load<S>(b + k, count - k);
  T total = 0;
  for (int64_t lane = 0; lane < S::lanes; ++lane) total += sum[lane];
  return total;
}

template <class S, class T>
UNROLL_INLINE void add_scaled(T* to, T factor, const T* from, int64_t count) {
  const typename S::V factors = splat<S>(factor);
  for (int64_t k = 0; k < count; k += S::lanes)
    store<S>(to + k, load<S>(to + k, count - k) + load<S>(from + k, count - k) * factors, count - k);
}

// Builtins, not std::, whose functions would be shared between the instruction sets.
UNROLL_INLINE float exp_of(float x) { return __builtin_expf(x); }
UNROLL_INLINE double exp_of(double x) { return __builtin_exp(x); }
UNROLL_INLINE float log_of(float x) { return __builtin_logf(x); }
UNROLL_INLINE double log_of(double x) { return __builtin_log(x); }

// The sum of the rows' losses; the equations stand in unroll/engines/step.py. `z` has room for a row of logits, which become
// their derivatives in place. Adds to d_W and d_b.
template <class S, class T>
double readout(const Readout<T>& r, T* z) {
  const auto weight = [&](int64_t k) { return r.class_weights ? r.class_weights[k] : T(1); };
  const int64_t F = r.features, C = r.classes;
  const T smoothing = T(r.smoothing), each = smoothing / T(C), total = T(r.total);
  T spread = 0;
  for (int64_t k = 0; k < C; ++k) spread += weight(k) * each;
  double loss = 0;
  for (int64_t n = 0; n < r.rows; ++n) {
    const T* h = r.h + n * F;
    T* d_h = r.d_h + n * F;
    for (int64_t k = 0; k < C; ++k) z[k] = dot<S>(h, r.W + k * F, F) + r.b[k];
    T largest = z[0], sum = 0;
    for (int64_t k = 1; k < C; ++k) largest = z[k] > largest ? z[k] : largest;
    for (int64_t k = 0; k < C; ++k) sum += exp_of(z[k] - largest);
    const int64_t target = r.targets[n];
    const T of_target = weight(target) * (1 - smoothing), log_sum = log_of(sum);
    for (int64_t k = 0; k < F; ++k) d_h[k] = 0;
    for (int64_t k = 0; k < C; ++k) {
      const T q = weight(k) * each + (k == target ? of_target : T(0)), log_p = z[k] - largest - log_sum;
      if (q != 0) loss -= double(q * log_p);  // a class that is not asked for may have -inf
      z[k] = (exp_of(log_p) * (spread + of_target) - q) / total;
      add_scaled<S>(d_h, z[k], r.W + k * F, F);
      add_scaled<S>(r.d_W + k * F, z[k], h, F);
      r.d_b[k] += z[k];
    }
  }
  return loss;
}

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
