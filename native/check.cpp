// Runs the engine over odd shapes, options and every instruction set of this machine, and holds every result to the
// equations written out plainly in double precision: for the sanitizers to watch, and for a machine without Python.
// Every tensor is a heap block of exactly its size, so that a read or write beside it is found. Prints "fine:" and the
// sets it tried.

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "engine.hpp"
#include "faults.hpp"
#include "kernels.hpp"

using namespace unroll;

namespace {

// --- faults ---------------------------------------------------------------------------------------------------------

// How many more allocations the system gives to a thread, and how many threads; negative for no end of them.
thread_local long memory_left = -1;
std::atomic<long> threads_left{-1};
// What a thread does in the middle of its next allocation.
thread_local void (*meanwhile)() = nullptr;

template <class Number>
bool used_up(Number& left) {
  if (left < 0) return false;
  if (left == 0) return true;
  --left;
  return false;
}

}  // namespace

bool unroll::refuses_memory() { return used_up(memory_left); }
bool unroll::refuses_thread() { return used_up(threads_left); }

// Not inline, for compilers know what new and delete are, and not that they are malloc and free here.
#define UNROLL_REPLACED __attribute__((noinline))
UNROLL_REPLACED void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  if (const auto what = std::exchange(meanwhile, nullptr)) what();
  return refuses_memory() ? nullptr : std::malloc(size ? size : 1);
}
UNROLL_REPLACED void* operator new(std::size_t size) {
  if (void* memory = operator new(size, std::nothrow)) return memory;
  throw std::bad_alloc();
}
UNROLL_REPLACED void operator delete(void* memory) noexcept { std::free(memory); }
UNROLL_REPLACED void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
UNROLL_REPLACED void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

namespace {

// Makes a call without any memory, then with one allocation, with two, until it is done; false if it ends otherwise than
// for want of memory. A call that fails must leave its tensors ready for the next.
template <class Body>
bool done_at_last(const Body& call) {
  for (long memory = 0;; ++memory) {
    memory_left = memory;
    const int status = call();
    memory_left = -1;
    if (status != NO_MEMORY) return status == DONE;
  }
}

// --- cases ----------------------------------------------------------------------------------------------------------

struct Case {
  Kind kind;
  int64_t threads, time, batch, hidden, inputs;
  bool reverse, projected, ragged, bias, initial_gradients, output_gradient;
  bool zero_state;  // the kernels leave out the first step's product then
  double scale;     // of the inputs; large ones saturate the gates
};

using Results = std::vector<std::vector<double>>;

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

// One call with random tensors, and its results: out, h, (c), (dx, dh0, (dc0)), dW, (dU), (db).
template <class T>
class Run {
 public:
  Run(const Case& c, unsigned seed) : case_(c), random_(seed) {
    const int64_t gates = c.kind == LSTM ? 4 : 1, columns = c.projected ? gates * c.hidden : c.inputs;
    const int64_t cells = c.time * c.batch, state = c.batch * c.hidden;
    Call& call = call_;
    call.kind = c.kind, call.twice = sizeof(T) == 8, call.reverse = c.reverse, call.projected = c.projected;
    call.save = 1, call.threads = c.threads;
    call.time = c.time, call.batch = c.batch, call.hidden = c.hidden, call.inputs = c.inputs;
    if (c.ragged) {
      for (int64_t n = 0; n < c.batch; ++n)
        lengths_.push_back(static_cast<int64_t>(random_() % static_cast<unsigned>(c.time + 1)));
      lengths_.shrink_to_fit();
      call.lengths = lengths_.data();
    }
    // Weights small enough for rounding errors not to grow from step to step.
    const double small = 1 / std::sqrt(static_cast<double>(c.hidden));
    call.x = in(cells * columns, c.scale), call.x_time = c.batch * columns, call.x_batch = columns;
    call.h0 = in(state, c.zero_state ? 0 : 1), call.c0 = c.kind == LSTM ? in(state) : nullptr;
    call.W = in(gates * c.hidden * c.hidden, small), call.U = in(gates * c.hidden * c.inputs, small);
    call.b = c.bias ? in(gates * c.hidden) : nullptr;
    call.out = out(cells * c.hidden), call.h_last = out(state), call.c_last = c.kind == LSTM ? out(state) : nullptr;
    ok = done_at_last([&] {
      const int status = unroll_forward(&call);
      return status == DONE || !call.saved ? status : FAILED;  // memory that nobody would give back
    });
    call.d_out = c.output_gradient ? in(cells * c.hidden) : nullptr;
    call.d_out_time = state, call.d_out_batch = c.hidden;
    call.d_h_last = in(state), call.d_c_last = c.kind == LSTM ? in(state) : nullptr;
    if (c.initial_gradients) {
      call.d_x = out(cells * columns), call.d_h0 = out(state);
      call.d_c0 = c.kind == LSTM ? out(state) : nullptr;
    }
    call.d_W = out(gates * c.hidden * c.hidden);
    call.d_U = c.projected ? nullptr : out(gates * c.hidden * c.inputs);
    call.d_b = c.bias ? out(gates * c.hidden) : nullptr;
    ok = ok && done_at_last([&] { return unroll_backward(&call); });
    done_at_last([&] { return unroll_release(call.saved); });
  }
  Run(const Run&) = delete;  // `call_` points into it
  Run& operator=(const Run&) = delete;

  // The same from the equations: one sequence, one step, one unit at a time.
  Results plain() const {
    const Call& call = call_;
    const Kind kind = case_.kind;
    const size_t H = static_cast<size_t>(case_.hidden), G = (kind == LSTM ? 4 : 1) * H;
    const size_t B = static_cast<size_t>(case_.batch), D = case_.projected ? 0 : static_cast<size_t>(case_.inputs);
    const size_t time = static_cast<size_t>(case_.time), columns = case_.projected ? G : D;
    const T *x = given(call.x), *h0 = given(call.h0), *c0 = given(call.c0), *W = given(call.W), *U = given(call.U),
            *b = given(call.b), *d_out = given(call.d_out), *d_h_last = given(call.d_h_last),
            *d_c_last = given(call.d_c_last);
    std::vector<double> out(time * B * H), h_last(B * H), c_last(B * H);
    std::vector<double> d_x(time * B * columns), d_h0(B * H), d_c0(B * H), d_W(G * H), d_U(G * D), d_b(G);
    for (size_t n = 0; n < B; ++n) {
      const size_t length = lengths_.empty() ? time : static_cast<size_t>(lengths_[n]);
      const auto place = [&](size_t step) { return (case_.reverse ? length - 1 - step : step) * B + n; };
      Results h(length + 1, std::vector<double>(H)), c = h, gates(length, std::vector<double>(G));
      for (size_t u = 0; u < H; ++u) h[0][u] = h0[n * H + u], c[0][u] = c0 ? c0[n * H + u] : 0;
      for (size_t step = 0; step < length; ++step) {
        const T* input = x + place(step) * columns;
        std::vector<double>& a = gates[step];
        for (size_t r = 0; r < G; ++r) {
          a[r] = b ? b[r] : 0;
          for (size_t k = 0; k < H; ++k) a[r] += static_cast<double>(W[r * H + k]) * h[step][k];
          for (size_t k = 0; k < D; ++k) a[r] += static_cast<double>(U[r * D + k]) * static_cast<double>(input[k]);
          if (case_.projected) a[r] += static_cast<double>(input[r]);
          if (kind == RNN_RELU) a[r] = a[r] > 0 ? a[r] : 0;
          else a[r] = kind == RNN_TANH || r / H == 2 ? std::tanh(a[r]) : sigmoid(a[r]);
        }
        for (size_t u = 0; u < H; ++u) {
          if (kind == LSTM) c[step + 1][u] = a[H + u] * c[step][u] + a[u] * a[2 * H + u];
          h[step + 1][u] = kind == LSTM ? a[3 * H + u] * std::tanh(c[step + 1][u]) : a[u];
          out[place(step) * H + u] = h[step + 1][u];
        }
      }
      std::vector<double> dh(H), dc(H), da(G);
      for (size_t u = 0; u < H; ++u) {
        h_last[n * H + u] = h[length][u], c_last[n * H + u] = c[length][u];
        dh[u] = d_h_last[n * H + u], dc[u] = d_c_last ? d_c_last[n * H + u] : 0;
      }
      for (size_t step = length; step-- > 0;) {
        const std::vector<double>& a = gates[step];
        for (size_t u = 0; u < H; ++u) {
          if (d_out) dh[u] += d_out[place(step) * H + u];
          if (kind == LSTM) {
            const double i = a[u], f = a[H + u], g = a[2 * H + u], o = a[3 * H + u], tanh_c = std::tanh(c[step + 1][u]);
            dc[u] += dh[u] * o * (1 - tanh_c * tanh_c);
            da[u] = dc[u] * g * i * (1 - i), da[H + u] = dc[u] * c[step][u] * f * (1 - f);
            da[2 * H + u] = dc[u] * i * (1 - g * g), da[3 * H + u] = dh[u] * tanh_c * o * (1 - o);
            dc[u] *= f;
          } else {
            da[u] = dh[u] * (kind == RNN_TANH ? 1 - a[u] * a[u] : a[u] > 0 ? 1.0 : 0.0);
          }
        }
        dh.assign(H, 0);
        const size_t at = place(step) * columns;
        for (size_t r = 0; r < G; ++r) {
          d_b[r] += da[r];
          for (size_t k = 0; k < H; ++k) {
            dh[k] += static_cast<double>(W[r * H + k]) * da[r];
            d_W[r * H + k] += da[r] * h[step][k];
          }
          for (size_t k = 0; k < D; ++k) {
            d_x[at + k] += static_cast<double>(U[r * D + k]) * da[r];
            d_U[r * D + k] += da[r] * static_cast<double>(x[at + k]);
          }
          if (case_.projected) d_x[at + r] = da[r];
        }
      }
      for (size_t u = 0; u < H; ++u) d_h0[n * H + u] = dh[u], d_c0[n * H + u] = dc[u];
    }
    Results all{out, h_last};
    const bool lstm = kind == LSTM;
    if (lstm) all.push_back(c_last);
    if (case_.initial_gradients) all.push_back(d_x), all.push_back(d_h0);
    if (case_.initial_gradients && lstm) all.push_back(d_c0);
    all.push_back(d_W);
    if (!case_.projected) all.push_back(d_U);
    if (case_.bias) all.push_back(d_b);
    return all;
  }

  std::vector<std::vector<T>> results;
  bool ok = false;

 private:
  T* in(int64_t count, double scale = 1) {
    given_.emplace_back(static_cast<size_t>(count));
    for (T& value : given_.back()) value = static_cast<T>(scale * (static_cast<double>(random_() % 2001) / 1000 - 1));
    return given_.back().data();
  }
  T* out(int64_t count) {
    // A vector of vectors may move, but what the inner ones point to does not.
    results.emplace_back(static_cast<size_t>(count), static_cast<T>(NAN));
    return results.back().data();
  }
  static const T* given(const void* tensor) { return static_cast<const T*>(tensor); }

  Case case_;
  Call call_{};
  std::mt19937 random_;
  std::vector<std::vector<T>> given_;
  std::vector<int64_t> lengths_;
};

template <class T>
bool agree(const std::vector<std::vector<T>>& found, const Results& expected) {
  const double tolerance = sizeof(T) == 8 ? 1e-13 : 1e-5;
  for (size_t n = 0; n < found.size(); ++n) {
    double largest = 1;
    for (const double value : expected[n]) largest = std::fmax(largest, std::fabs(value));
    for (size_t k = 0; k < found[n].size(); ++k)
      if (!(std::fabs(static_cast<double>(found[n][k]) - expected[n][k]) <= tolerance * largest)) {
        std::printf("result %zu[%zu]: %.17g, expected %.17g\n", n, k, static_cast<double>(found[n][k]), expected[n][k]);
        return false;
      }
  }
  return true;
}

template <class T>
bool check(const Case& c, const std::vector<std::string>& sets) {
  Results expected;
  bool ok = true;
  for (const std::string& set : sets) {
    unroll_select(set.c_str());
    const Run<T> run(c, 7);
    if (expected.empty()) expected = run.plain();
    if (!run.ok || !agree(run.results, expected)) {
      const auto number = [](int64_t value) { return static_cast<int>(value); };
      std::printf("%s, %zu bytes: kind %d T %d B %d H %d D %d\n", set.c_str(), sizeof(T), number(c.kind),
                  number(c.time), number(c.batch), number(c.hidden), number(c.inputs));
      ok = false;
    }
  }
  return ok;
}

// tanh and sigmoid by themselves: of small, large, infinite numbers, of zeros and NaN. A cell without weights but an
// input's for one unit is tanh(x); an LSTM's that forgets c0 = 1 by sigmoid(x) shows that.
template <class T>
bool check_functions(const std::string& set) {
  using Limits = std::numeric_limits<T>;
  std::vector<T> x{0, -T(0), Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(),
                   Limits::max(), Limits::lowest(), Limits::min(), Limits::denorm_min()};
  for (const double scale : {1e-5, 0.0571, 0.57})
    for (int n = -2000; n <= 2000; ++n) x.push_back(static_cast<T>(n * scale));
  const size_t B = x.size();
  const std::vector<T> zeros(B), ones(B, 1), W(4), U{0, 1, 0, 0};
  std::vector<T> out(B), h(B), c(B);
  Call call{};
  call.twice = sizeof(T) == 8, call.threads = 1;
  call.time = 1, call.batch = static_cast<int64_t>(B), call.hidden = call.inputs = 1;
  call.x = x.data(), call.x_time = call.batch, call.x_batch = 1;
  call.h0 = zeros.data(), call.c0 = ones.data(), call.W = W.data();
  call.out = out.data(), call.h_last = h.data(), call.c_last = c.data();
  unroll_select(set.c_str());
  for (const Kind kind : {RNN_TANH, LSTM}) {
    call.kind = kind, call.U = U.data() + (kind == LSTM ? 0 : 1);
    if (unroll_forward(&call)) return false;
    for (size_t n = 0; n < B; ++n) {
      // The other gates' weight of 0 makes 0 * inf = NaN.
      if (kind == LSTM && !std::isfinite(x[n])) continue;
      const double z = static_cast<double>(x[n]), expected = kind == LSTM ? sigmoid(z) : std::tanh(z);
      const double found = static_cast<double>(kind == LSTM ? c[n] : h[n]);
      // One rounding of z, and the kernels make one, is |z| roundings of exp(z). Below 2^-126 (2^-1022) theirs is 0.
      const double roundings = 4 + std::fmin(std::fabs(z), 1000);
      const double tolerance = roundings * static_cast<double>(Limits::epsilon()) * std::fabs(expected) +
                               2 * static_cast<double>(Limits::min());
      if (std::isnan(z) ? !std::isnan(found) : !(std::fabs(found - expected) <= tolerance)) {
        std::printf("%s, %zu bytes: %s(%g) is %.17g, expected %.17g\n", set.c_str(), sizeof(T),
                    kind == LSTM ? "sigmoid" : "tanh", z, found, expected);
        return false;
      }
    }
  }
  return true;
}

// Two steps of Adam on tensors of odd sizes, one of them without a gradient; readout and loss of a small batch.
template <class T>
bool check_step(const std::string& set, int64_t threads) {
  std::mt19937 random(11);
  std::normal_distribution<double> normal;
  const auto draw = [&](size_t count) {
    std::vector<T> values(count);
    for (T& value : values) value = static_cast<T>(normal(random));
    return values;
  };
  unroll_select(set.c_str());
  const double tolerance = sizeof(T) == 8 ? 1e-12 : 1e-5;
  bool ok = true;
  const auto hold = [&](const char* what, T found, double expected) {
    if (std::fabs(static_cast<double>(found) - expected) <= tolerance * (1 + std::fabs(expected))) return;
    if (ok) std::printf("%s, %zu bytes: %s is %.17g, expected %.17g\n", set.c_str(), sizeof(T), what, static_cast<double>(found), expected);
    ok = false;
  };

  const std::vector<int64_t> sizes{1, 4097, 0, 33, 12289};
  std::vector<std::vector<T>> gradients;
  size_t all = 0;
  for (const int64_t size : sizes) gradients.push_back(draw(static_cast<size_t>(size))), all += static_cast<size_t>(size);
  std::vector<const void*> pointers;
  for (size_t n = 0; n < gradients.size(); ++n) pointers.push_back(n == 3 ? nullptr : gradients[n].data());
  std::vector<T> theta = draw(all), m(all), v(all);
  std::vector<double> theta_plain(theta.begin(), theta.end()), m_plain(all), v_plain(all);
  for (int step = 0; step < 2; ++step) {
    T norm = 0;
    const AdamCall call{sizeof(T) == 8,  threads,  static_cast<int64_t>(sizes.size()), pointers.data(), sizes.data(),
                        theta.data(),    m.data(), v.data(),  &norm,  step ? 0.0 : 5.0,  0.125, 0.75, 0.875, 0.5, 0.25, 1e-3};
    ok = done_at_last([&] { return unroll_adam(&call); }) && ok;
    double squares = 0;
    for (size_t n = 0; n < gradients.size(); ++n)
      if (n != 3)
        for (const T g : gradients[n]) squares += static_cast<double>(g) * static_cast<double>(g);
    hold("the norm", norm, std::sqrt(squares));
    const double scale = step ? 1 : 5 / (std::sqrt(squares) + 1e-6);
    for (size_t n = 0, k = 0; n < gradients.size(); ++n)
      for (const T each : gradients[n]) {
        const double g = (n == 3 ? 0 : static_cast<double>(each) * scale) + 0.125 * theta_plain[k];
        m_plain[k] += (g - m_plain[k]) * 0.125;
        v_plain[k] = v_plain[k] * 0.5 + g * g * 0.5;
        theta_plain[k] = theta_plain[k] * 0.75 - 0.25 * m_plain[k] / (std::sqrt(v_plain[k]) + 1e-3);
        hold("theta", theta[k], theta_plain[k]), hold("m", m[k], m_plain[k]), hold("v", v[k], v_plain[k]);
        ++k;
      }
  }

  const size_t rows = 5, classes = 7, features = 19;
  const std::vector<T> h = draw(rows * features), W = draw(classes * features), b = draw(classes), weights = draw(classes);
  std::vector<int64_t> targets{0, 6, 3, 3, 1};
  std::vector<T> d_h(rows * features), d_W(classes * features), d_b(classes);
  T loss = 0;
  const ReadoutCall call{sizeof(T) == 8, rows, classes, features, h.data(), W.data(), b.data(), targets.data(), weights.data(),
                         0.25, 3.0, &loss, d_h.data(), d_W.data(), d_b.data()};
  ok = done_at_last([&] { return unroll_readout(&call); }) && ok;
  double plain = 0;
  std::vector<double> d_W_plain(classes * features), d_b_plain(classes);
  for (size_t n = 0; n < rows; ++n) {
    const size_t target = static_cast<size_t>(targets[n]);
    double sum = 0, q_sum = 0;
    std::vector<double> z(b.begin(), b.end()), q(classes), d_h_plain(features);
    for (size_t k = 0; k < classes; ++k) {
      for (size_t f = 0; f < features; ++f)
        z[k] += static_cast<double>(h[n * features + f]) * static_cast<double>(W[k * features + f]);
      sum += std::exp(z[k]);
      q[k] = static_cast<double>(weights[k]) * ((k == target ? 0.75 : 0) + 0.25 / static_cast<double>(classes));
      q_sum += q[k];
    }
    for (size_t k = 0; k < classes; ++k) {
      const double p = std::exp(z[k]) / sum, d = (p * q_sum - q[k]) / 3;
      plain -= q[k] * std::log(p) / 3;
      d_b_plain[k] += d;
      for (size_t f = 0; f < features; ++f) {
        d_h_plain[f] += d * static_cast<double>(W[k * features + f]);
        d_W_plain[k * features + f] += d * static_cast<double>(h[n * features + f]);
      }
    }
    for (size_t f = 0; f < features; ++f) hold("d_h", d_h[n * features + f], d_h_plain[f]);
  }
  for (size_t k = 0; k < classes; ++k) hold("d_b", d_b[k], d_b_plain[k]);
  for (size_t k = 0; k < classes * features; ++k) hold("d_W", d_W[k], d_W_plain[k]);
  hold("the loss", loss, plain);
  targets[2] = 7;
  return unroll_readout(&call) == UNFIT && ok;
}

// --- threads --------------------------------------------------------------------------------------------------------

const Case shared{LSTM, 8, 6, 64, 40, 4, false, false, true, true, true, true, false, 1};

// An OpenMP runtime that, as GNU's does, ends the process where a thread cannot start.
std::atomic<int> openmp_regions{0}, openmp_threads{1};
thread_local int openmp_number = 0;
void openmp_parallel(void (*task)(void*), void* data, unsigned count, unsigned) {
  if (threads_left >= 0) std::abort();
  const long memory = std::exchange(memory_left, -1);
  ++openmp_regions;
  openmp_threads = static_cast<int>(count);
  std::vector<std::thread> threads;
  for (unsigned n = 1; n < count; ++n) threads.emplace_back([=] { openmp_number = static_cast<int>(n), task(data); });
  task(data);
  for (std::thread& thread : threads) thread.join();
  memory_left = memory;
}

// However few threads start, the results are the same to the bit. The pool keeps what has started, so this comes first.
bool check_few_threads() {
  std::vector<std::vector<std::vector<float>>> results;
  bool ok = true;
  const auto run_with = [&](long threads) {
    threads_left = threads;
    ok = unroll_multiply_add(10, 8) > 0 && ok;  // with memory, for OpenMP's threads are tried out only once
    const Run<float> run(shared, 3);
    threads_left = -1;
    ok = run.ok && ok;
    results.push_back(run.results);
  };
  for (const long more : {0, 0, 1, 2, -1}) run_with(more);

  // OpenMP's workers belong to their caller.
  const auto pointer = [](auto function) { return reinterpret_cast<void*>(function); };
  unroll_use_openmp(pointer(openmp_parallel), pointer(+[] { return openmp_number; }), pointer(+[] { return openmp_threads.load(); }),
                    pointer(+[] { return 0; }));
  for (const long threads : {0, 3, -1}) {
    openmp_regions = 0;
    std::thread([&] { run_with(threads); }).join();
    ok = ok && (openmp_regions > 0) == (threads < 0);
  }
  unroll_use_openmp(nullptr, nullptr, nullptr, nullptr);

  for (const auto& each : results) ok = ok && each == results.front();
  if (!ok) std::printf("with few threads the results are others\n");
  return ok;
}

// A fork while another thread holds the lock of the kept memory: the child must not find it closed. The first call of all
// has to come from here, for it makes room for its notes under that lock.
bool check_fork() {
  static std::atomic<bool> inside{false};
  std::thread other([] {
    const float h = 1, W = 1, b = 0;
    const int64_t target = 0;
    float loss, d_h, d_W, d_b;
    const ReadoutCall call{0, 1, 1, 1, &h, &W, &b, &target, nullptr, 0, 1, &loss, &d_h, &d_W, &d_b};
    meanwhile = [] {
      inside = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    };
    unroll_readout(&call);
  });
  while (!inside) std::this_thread::yield();
  const pid_t child = fork();
  if (!child) {
    alarm(20);  // rather than wait for ever
    _exit(unroll_trim());
  }
  int status = 1;
  waitpid(child, &status, 0);
  other.join();
  if (status) std::printf("a forked child: status %d\n", status);
  return !status;
}

// The last of the static objects to go. A thread that nobody waits for may still call the library then.
struct Last {
  ~Last() {
    if (!Run<float>(shared, 3).ok) std::abort();
    unroll_trim();
  }
};
__attribute__((init_priority(200))) Last last;

}  // namespace

// The only argument, if there is one, is a file of step programs.
int main(int given, char** arguments) {
  std::vector<std::string> sets;
  for (const char* name : {"portable", "avx2", "avx512", "neon"})
    if (unroll_select(name)) sets.push_back(name);

  unroll_select("");
  bool ok = !sets.empty() && check_fork() && check_few_threads();
  // A number of threads beyond all memory.
  ok = unroll_multiply_add(1, -1) == FAILED && ok;
  std::mt19937 random(1);
  for (const std::string& set : sets) {
    ok = check_functions<float>(set) && check_functions<double>(set) && ok;
    for (const int64_t threads : {1, 3}) ok = check_step<float>(set, threads) && check_step<double>(set, threads) && ok;
  }
  const int64_t sizes[][5] = {// threads, T, B, H, D
                              {1, 1, 1, 1, 1},   {2, 3, 0, 4, 2},    {1, 5, 3, 7, 5},    {2, 4, 9, 17, 3},   {3, 4, 31, 16, 28},
                              {2, 3, 40, 33, 20}, {4, 2, 64, 66, 70}, {1, 2, 133, 20, 9}, {2, 40, 12, 10, 1}, {8, 3, 5, 31, 2}};
  for (const auto& size : sizes)
    for (const Kind kind : {LSTM, RNN_TANH, RNN_RELU})
      for (int repeat = 0; repeat < 4; ++repeat) {
        const unsigned bits = static_cast<unsigned>(random());
        const auto bit = [&](int n) { return (bits >> n & 1) != 0; };
        const Case c{kind,   size[0], size[1], size[2], size[3], size[4], bit(0),
                     bit(1), bit(2),  bit(3),  bit(4),  bit(5),  bit(6),  bit(7) ? 40.0 : 1.0};
        ok = check<float>(c, sets) && check<double>(c, sets) && ok;
      }

  if (given > 1) ok = check_programs(arguments[1], sets) && ok;

  // Several callers at once, as Python threads may be; and once more while another one chooses the instruction set anew.
  unroll_select("");
  const Run<float> alone(shared, 3);
  const Results plain = alone.plain();
  for (const bool choosing : {false, true}) {
    std::vector<std::thread> callers;
    std::vector<int> fine(3);
    std::atomic<size_t> working{fine.size()};
    for (size_t n = 0; n < fine.size(); ++n)
      callers.emplace_back([&, n] {
        for (int repeat = 0; repeat < 5; ++repeat) {
          const Run<float> run(shared, 3);
          fine[n] += run.ok && (choosing ? agree(run.results, plain) : run.results == alone.results);
        }
        --working;
      });
    for (size_t n = 0; choosing && working; ++n) unroll_select(sets[n % sets.size()].c_str());
    for (std::thread& caller : callers) caller.join();
    for (const int count : fine) ok = ok && count == 5;
  }

  unroll_trim();
  std::string tried;
  for (const std::string& set : sets) tried += " " + set;
  std::printf("%s:%s\n", ok ? "fine" : "wrong", tried.c_str());
  return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
