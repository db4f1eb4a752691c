// Runs the engine over odd shapes, options and every instruction set of this machine, for the sanitizers to watch. Every
// tensor is a heap block of exactly its size, so that a read or write beside it is found. All instruction sets have to
// agree with each other; that they are right is for the tests against the reference engine to say.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine.hpp"
#include "kernels.hpp"

using namespace unroll;

namespace {

struct Case {
  Kind kind;
  int64_t threads, time, batch, hidden, inputs;
  bool reverse, projected, ragged, bias, initial_gradients, output_gradient;
};

template <class T>
class Run {
 public:
  Run(const Case& c, unsigned seed) : random_(seed) {
    const int64_t gates = c.kind == LSTM ? 4 : 1, columns = c.projected ? gates * c.hidden : c.inputs;
    const int64_t cells = c.time * c.batch, state = c.batch * c.hidden;
    Call call{};
    call.kind = c.kind, call.twice = sizeof(T) == 8, call.reverse = c.reverse, call.projected = c.projected;
    call.save = 1, call.threads = c.threads;
    call.time = c.time, call.batch = c.batch, call.hidden = c.hidden, call.inputs = c.inputs;
    if (c.ragged) {
      for (int64_t n = 0; n < c.batch; ++n) lengths_.push_back(static_cast<int64_t>(random_() % static_cast<unsigned>(c.time + 1)));
      lengths_.shrink_to_fit();
      call.lengths = lengths_.data();
    }
    call.x = in(cells * columns), call.x_time = c.batch * columns, call.x_batch = columns;
    call.h0 = in(state), call.c0 = c.kind == LSTM ? in(state) : nullptr;
    call.W = in(gates * c.hidden * c.hidden), call.U = in(gates * c.hidden * c.inputs);
    call.b = c.bias ? in(gates * c.hidden) : nullptr;
    call.out = out(cells * c.hidden), call.h_last = out(state), call.c_last = c.kind == LSTM ? out(state) : nullptr;
    ok = unroll_forward(&call) == 0;
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
    ok = ok && unroll_backward(&call) == 0;
    unroll_release(call.saved);
  }

  std::vector<std::vector<T>> results;
  bool ok = false;

 private:
  T* in(int64_t count) {
    given_.emplace_back(static_cast<size_t>(count));
    for (T& value : given_.back()) value = static_cast<T>(static_cast<double>(random_() % 2001) / 1000 - 1);
    return given_.back().data();
  }
  T* out(int64_t count) {
    // A vector of vectors may move, but what the inner ones point to does not.
    results.emplace_back(static_cast<size_t>(count), static_cast<T>(NAN));
    return results.back().data();
  }
  std::mt19937 random_;
  std::vector<std::vector<T>> given_;
  std::vector<int64_t> lengths_;
};

template <class T>
bool agree(const Run<T>& a, const Run<T>& b) {
  const double tolerance = sizeof(T) == 8 ? 1e-11 : 2e-3;
  for (size_t n = 0; n < a.results.size(); ++n)
    for (size_t k = 0; k < a.results[n].size(); ++k) {
      const double x = static_cast<double>(a.results[n][k]), y = static_cast<double>(b.results[n][k]);
      if (!(std::fabs(x - y) <= tolerance * (1 + std::fabs(x)))) {
        std::printf("result %zu[%zu]: %g and %g\n", n, k, x, y);
        return false;
      }
    }
  return true;
}

template <class T>
bool check(const Case& c, const std::vector<std::string>& sets) {
  unroll_select("");
  const Run<T> first(c, 7);
  bool ok = first.ok;
  for (const std::string& set : sets) {
    unroll_select(set.c_str());
    const Run<T> run(c, 7);
    if (!run.ok || !agree(first, run)) {
      std::printf("%s, %zu bytes: kind %d T %d B %d H %d D %d\n", set.c_str(), sizeof(T), static_cast<int>(c.kind),
                  static_cast<int>(c.time), static_cast<int>(c.batch), static_cast<int>(c.hidden), static_cast<int>(c.inputs));
      ok = false;
    }
  }
  return ok;
}

}  // namespace

int main() {
  std::vector<std::string> sets;
  for (const char* name : {"portable", "avx2", "avx512", "neon"})
    if (unroll_select(name)) sets.push_back(name);

  std::mt19937 random(1);
  bool ok = true;
  const int64_t sizes[][5] = {// threads, T, B, H, D
                              {1, 1, 1, 1, 1},   {2, 3, 0, 4, 2},    {1, 5, 3, 7, 5},    {2, 4, 9, 17, 3},   {3, 4, 31, 16, 28},
                              {2, 3, 40, 33, 20}, {4, 2, 64, 66, 70}, {1, 2, 133, 20, 9}, {2, 40, 12, 10, 1}, {8, 3, 5, 31, 2}};
  for (const auto& size : sizes)
    for (const Kind kind : {LSTM, RNN_TANH, RNN_RELU})
      for (int repeat = 0; repeat < 4; ++repeat) {
        const unsigned bits = static_cast<unsigned>(random());
        const Case c{kind, size[0], size[1], size[2], size[3], size[4], (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0,
                     (bits & 8) != 0, (bits & 16) != 0, (bits & 32) != 0};
        ok = check<float>(c, sets) && check<double>(c, sets) && ok;
      }

  // Several callers at once, as Python threads may be.
  unroll_select("");
  const Case shared{LSTM, 2, 6, 24, 20, 4, false, false, true, true, true, true};
  const Run<float> alone(shared, 3);
  std::vector<std::thread> callers;
  std::vector<int> fine(3);
  for (size_t n = 0; n < fine.size(); ++n)
    callers.emplace_back([&, n] {
      for (int repeat = 0; repeat < 5; ++repeat) {
        const Run<float> run(shared, 3);
        fine[n] += run.ok && run.results == alone.results;
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (const int count : fine) ok = ok && count == 5;

  unroll_trim();
  std::printf("%s\n", ok ? "fine" : "wrong");
  return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
