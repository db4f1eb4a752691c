// What a training step does beside the recurrence: readout and loss with their gradients in one pass over the batch, and
// Adam's update in two passes over the parameters.
//
// Included once per instruction set, after simd.hpp, for the same reason.

// Builtins, not std::, whose functions would be shared between the instruction sets.
UNROLL_INLINE float log_of(float x) { return __builtin_logf(x); }
UNROLL_INLINE double log_of(double x) { return __builtin_log(x); }
UNROLL_INLINE float root_of(float x) { return __builtin_sqrtf(x); }
UNROLL_INLINE double root_of(double x) { return __builtin_sqrt(x); }

// Classes, rounded up to whole vectors.
template <class S>
UNROLL_INLINE int64_t class_lanes(int64_t classes) {
  return over(classes, S::lanes) * S::lanes;
}

// The sum of the rows' losses; the equations stand in unroll/engines/native/eager.py. `room` holds W with the classes side by side,
// and for one row its logits, their exponentials and their derivatives. Adds to d_W and d_b.
template <class S, class T>
double readout(const Readout<T>& r, T* room) {
  using V = typename S::V;
  constexpr int64_t lanes = S::lanes;
  const auto weight = [&](int64_t k) { return r.class_weights ? r.class_weights[k] : T(1); };
  const int64_t F = r.features, C = r.classes, width = class_lanes<S>(C);
  T *const turned = room, *const z = room + F * width, *const e = z + width, *const d = e + width;
  for (int64_t f = 0; f < F; ++f)
    for (int64_t k = 0; k < width; ++k) turned[f * width + k] = k < C ? r.W[k * F + f] : T(0);
  const T smoothing = T(r.smoothing), each = smoothing / T(C), total = T(r.total);
  T spread = 0;
  for (int64_t k = 0; k < C; ++k) spread += weight(k) * each;
  double loss = 0;
  for (int64_t n = 0; n < r.rows; ++n) {
    const T* h = r.h + n * F;
    for (int64_t k = 0; k < width; k += lanes) {
      V sum[4] = {load<S>(r.b + k, C - k)};
      for (int64_t f = 0; f < F; f += 4)  // four sums, for one would wait for itself
#pragma GCC unroll 4
        for (int64_t m = 0; m < 4; ++m)
          if (f + m < F) sum[m] += load<S>(turned + (f + m) * width + k) * splat<S>(h[f + m]);
      store<S>(z + k, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
    T largest = z[0], sum = 0;
    for (int64_t k = 1; k < C; ++k) largest = z[k] > largest ? z[k] : largest;
    for (int64_t k = 0; k < width; k += lanes) {
      const Exponential<S> exp = exponential<S>(load<S>(z + k) - splat<S>(largest));
      store<S>(e + k, exp.scale * exp.rest + exp.scale);
    }
    for (int64_t k = 0; k < C; ++k) sum += e[k];
    const int64_t target = r.targets[n];
    const T of_target = weight(target) * (1 - smoothing), log_sum = log_of(sum);
    for (int64_t k = 0; k < C; ++k) {
      const T q = weight(k) * each + (k == target ? of_target : T(0));
      if (q != 0) loss -= double(q * (z[k] - largest - log_sum));  // a class that is not asked for may have -inf
      d[k] = (e[k] / sum * (spread + of_target) - q) / total;
      r.d_b[k] += d[k];
    }
    for (int64_t f = 0; f < F; f += lanes) {
      const int64_t left = F - f;
      const V of_h = load<S>(h + f, left);
      V d_h{};
      for (int64_t k = 0; k < C; ++k) {
        const V derivative = splat<S>(d[k]);
        d_h += load<S>(r.W + k * F + f, left) * derivative;
        store<S>(r.d_W + k * F + f, load<S>(r.d_W + k * F + f, left) + of_h * derivative, left);
      }
      store<S>(r.d_h + n * F + f, d_h, left);
    }
  }
  return loss;
}

template <class V>
UNROLL_INLINE V square_root(V a) {
#if defined(__AVX512F__) && UNROLL_VECTOR_BYTES == 64
  if constexpr (sizeof(a[0]) == 4) return (V)_mm512_maskz_sqrt_ps(0xffff, (__m512)a);
  return (V)_mm512_maskz_sqrt_pd(0xff, (__m512d)a);
#elif defined(__AVX__) && UNROLL_VECTOR_BYTES == 32
  if constexpr (sizeof(a[0]) == 4) return (V)_mm256_sqrt_ps((__m256)a);
  return (V)_mm256_sqrt_pd((__m256d)a);
#else
  for (size_t lane = 0; lane < sizeof(V) / sizeof(a[0]); ++lane) a[lane] = root_of(a[lane]);
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
