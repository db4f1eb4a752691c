// The engine behind the kernels: which instruction set, and which thread walks which sequences.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <new>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "engine.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "plan.hpp"

namespace unroll {
namespace {

// --- instruction sets -----------------------------------------------------------------------------------------------

const InstructionSet* const all_sets[] = {
#if defined(UNROLL_HAS_X86)
    &avx512, &avx2,
#endif
#if defined(__aarch64__)
    &neon,
#else
    &portable,
#endif
};

bool runs_here(const InstructionSet& set) {
#if defined(UNROLL_HAS_X86)
  __builtin_cpu_init();
  if (&set == &avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma");
  if (&set == &avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  (void)set;
#endif
  return true;
}

const InstructionSet* find_set(const char* name) {
  for (const InstructionSet* set : all_sets)
    if (runs_here(*set) && (!name || !*name || !std::strcmp(name, set->name))) return set;
  return nullptr;
}

// A call reads it once: another thread may choose anew at any time.
std::atomic<const InstructionSet*> chosen{nullptr};

}  // namespace

const InstructionSet& current_set() {
  const InstructionSet* set = chosen;
  if (!set) set = find_set(nullptr);
  if (!set) throw std::logic_error("no instruction set for this machine");
  return *set;
}

int64_t number_of(const InstructionSet& set) { return std::find(std::begin(all_sets), std::end(all_sets), &set) - std::begin(all_sets); }

const InstructionSet* set_of(int64_t number) {
  const bool there = number >= 0 && number < std::end(all_sets) - std::begin(all_sets);
  return there && runs_here(*all_sets[number]) ? all_sets[number] : nullptr;
}

namespace {

// --- calls ----------------------------------------------------------------------------------------------------------

// In front of the saved gates: the backward pass must cut the batch as the forward pass did, and with the same vectors,
// even if the number of threads has been changed in between.
struct Saved {
  int64_t mark, threads;
  int64_t set;  // its place in all_sets
  int64_t twice, time, batch, hidden;
  uint64_t lengths;  // a number that other lengths hardly have
};
static_assert(sizeof(Saved) == 64, "what follows has to be aligned to a vector");
constexpr int64_t saved_mark = 0x6c6c6f726e75;

template <class T>
Problem<T> problem_of(const Call& call) {
  Problem<T> p{};
  p.kind = static_cast<Kind>(call.kind);
  p.reverse = call.reverse;
  p.projected = call.projected;
  p.time = call.time, p.batch = call.batch, p.hidden = call.hidden, p.inputs = call.projected ? 0 : call.inputs;
  p.x = static_cast<const T*>(call.x), p.x_time = call.x_time, p.x_batch = call.x_batch;
  p.h0 = static_cast<const T*>(call.h0), p.c0 = static_cast<const T*>(call.c0);
  p.W = static_cast<const T*>(call.W), p.U = static_cast<const T*>(call.U), p.b = static_cast<const T*>(call.b);
  p.out = static_cast<T*>(call.out);
  p.h_last = static_cast<T*>(call.h_last), p.c_last = static_cast<T*>(call.c_last);
  p.d_out = static_cast<const T*>(call.d_out), p.d_out_time = call.d_out_time, p.d_out_batch = call.d_out_batch;
  p.d_h_last = static_cast<const T*>(call.d_h_last), p.d_c_last = static_cast<const T*>(call.d_c_last);
  p.d_x = static_cast<T*>(call.d_x), p.d_h0 = static_cast<T*>(call.d_h0), p.d_c0 = static_cast<T*>(call.d_c0);
  p.d_W = static_cast<T*>(call.d_W), p.d_U = static_cast<T*>(call.d_U), p.d_b = static_cast<T*>(call.d_b);
  return p;
}

// A thread is worth waking if it gets a few rows, and enough arithmetic to outweigh the waking (some microseconds).
int64_t useful_threads(const Call& call) {
  const int64_t gates = call.kind == LSTM ? 4 : 1;
  const double work = 2.0 * double(call.time) * double(call.batch) * double(gates * call.hidden) *
                      double(call.hidden + (call.projected ? 0 : call.inputs));
  int64_t threads = std::max<int64_t>(call.threads, 1);
  threads = std::min(threads, (call.batch + 3) / 4);
  if (work / 1e6 < double(threads)) threads = static_cast<int64_t>(work / 1e6) + 1;
  return std::max<int64_t>(threads, 1);
}

template <class T>
void run_forward(Call& call) {
  const InstructionSet& set = current_set();
  const Kernels<T>& k = kernels_of<T>(set);
  Problem<T> p = problem_of<T>(call);
  const int64_t threads = useful_threads(call);
  const Plan plan(p.time, p.batch, static_cast<const int64_t*>(call.lengths), threads);
  const bool save = call.save && p.kind == LSTM;
  const auto cells = [&](int64_t row) { return sizeof(T) * static_cast<size_t>(plan.cells() * row); };
  Scratch own(save && !call.saved ? sizeof(Saved) + cells(k.gate_row(p) + k.state_row(p)) : 0);
  char* const saved = call.saved ? static_cast<char*>(call.saved) : own.as<char>();
  if (save) {
    const Saved head{saved_mark, threads, number_of(set), call.twice, call.time, call.batch, call.hidden,
                     mark_of(static_cast<const int64_t*>(call.lengths), call.batch)};
    std::memcpy(saved, &head, sizeof head);
    p.gates = reinterpret_cast<T*>(saved + sizeof(Saved));
    p.memory = p.gates + plan.cells() * k.gate_row(p);
  }
  const size_t weights = aligned(k.forward_weights(p)), bias = aligned(k.bias_size(p)),
               state = p.kind == LSTM ? aligned(plan.most() * k.state_row(p)) : 0;
  const Scratch scratch(sizeof(T) * (weights + bias + state * static_cast<size_t>(threads)));
  p.weights = scratch.as<T>();
  p.bias = p.weights + weights;
  T* const states = p.bias + bias;
  Shelf::advise(p.out, sizeof(T) * static_cast<size_t>(p.time * p.batch * p.hidden));

  std::vector<char> finite(static_cast<size_t>(threads));
  auto pack = [&](int thread) { finite[static_cast<size_t>(thread)] = k.pack_forward(p, thread, threads); };
  auto walk = [&](int thread) {
    for (size_t n = plan.begin(thread); n < plan.end(thread); ++n)
      k.forward(p, plan.block(n), states + state * static_cast<size_t>(thread));
  };
  in_parallel(threads, pack);
  p.from_zero = std::find(finite.begin(), finite.end(), 0) == finite.end() && k.all_zero(p.h0, p.batch * p.hidden);
  in_parallel(threads, walk);
  // Nothing can fail from here on.
  if (save) call.saved = saved;
  own.keep();
}

// False if what should have been saved was not, by a call like this one.
template <class T>
bool run_backward(Call& call) {
  const InstructionSet* set = &current_set();
  int64_t threads = useful_threads(call);
  Problem<T> p = problem_of<T>(call);
  if (p.kind == LSTM) {
    Saved saved;
    std::memcpy(&saved, call.saved, sizeof saved);
    if (saved.mark != saved_mark || saved.twice != call.twice || saved.time != call.time || saved.batch != call.batch ||
        saved.hidden != call.hidden || saved.lengths != mark_of(static_cast<const int64_t*>(call.lengths), call.batch) ||
        saved.threads < 1 || saved.threads > std::max<int64_t>((call.batch + 3) / 4, 1) ||
        !(set = set_of(saved.set)))
      return false;
    threads = saved.threads;
  }
  const Kernels<T>& k = kernels_of<T>(*set);
  p.from_zero = k.all_zero(p.h0, p.batch * p.hidden);
  const Plan plan(p.time, p.batch, static_cast<const int64_t*>(call.lengths), threads);
  // An RNN saves nothing but its outputs; its da need a place of their own.
  const Scratch derivatives(p.kind == LSTM ? 0 : sizeof(T) * static_cast<size_t>(plan.cells() * k.gate_row(p)));
  if (p.kind == LSTM) {
    p.gates = reinterpret_cast<T*>(static_cast<char*>(call.saved) + sizeof(Saved));
    p.memory = p.gates + plan.cells() * k.gate_row(p);
  } else {
    p.gates = derivatives.as<T>();
  }
  const bool input = p.d_x && !p.projected, weight = p.d_W || p.d_U || p.d_b;
  const size_t back = aligned(k.backward_weights(p)), in = input ? aligned(k.input_weights(p)) : 0,
               state = p.kind == LSTM ? aligned(plan.most() * k.state_row(p)) : 0,
               partial = weight ? aligned(k.gradient_size(p)) : 0, strip = weight ? aligned(k.strip_size(p)) : 0;
  const size_t each = state + partial + strip;
  const Scratch scratch(sizeof(T) * (back + in + each * static_cast<size_t>(threads)));
  p.weights_back = scratch.as<T>();
  p.weights_in = input ? p.weights_back + back : nullptr;
  T* const own = p.weights_back + back + in;
  std::vector<T*> partials(static_cast<size_t>(threads));
  for (size_t n = 0; n < partials.size(); ++n) partials[n] = own + each * n + state;

  auto pack = [&](int thread) { k.pack_backward(p, thread, threads); };
  auto walk = [&](int thread) {
    T* const mine = own + each * static_cast<size_t>(thread);
    if (weight && plan.begin(thread) == plan.end(thread))
      std::memset(mine + state, 0, sizeof(T) * partial);  // an empty batch
    for (size_t n = plan.begin(thread); n < plan.end(thread); ++n) {
      k.backward(p, plan.block(n), mine);
      if (weight) k.weight_gradient(p, plan.block(n), mine + state, mine + state + partial, n == plan.begin(thread));
    }
  };
  auto sum = [&](int thread) { k.sum_gradients(p, partials.data(), threads, thread, threads); };
  in_parallel(threads, pack);
  in_parallel(threads, walk);
  if (weight) in_parallel(threads, sum);
  return true;
}

// Numbers that one thread updates at a time. The squares are summed piece by piece, and the pieces' sums in their order and in
// double precision: the norm does not depend on who summed which.
constexpr int64_t update_piece = 4096;

template <class T>
void run_adam(const AdamCall& call) {
  const Kernels<T>& k = kernels_of<T>(current_set());
  struct Piece {
    const T* g;
    int64_t from, count;
  };
  std::vector<Piece> pieces;
  int64_t from = 0;
  for (int64_t n = 0; n < call.tensors; ++n) {
    const T* g = static_cast<const T*>(call.gradients[n]);
    for (int64_t done = 0; done < call.sizes[n]; done += update_piece)
      pieces.push_back({g ? g + done : nullptr, from + done, std::min(update_piece, call.sizes[n] - done)});
    from += call.sizes[n];
  }
  const int64_t all = static_cast<int64_t>(pieces.size()),
                threads = std::max<int64_t>(1, std::min(call.threads, all / 4));  // waking one costs some microseconds
  const auto each = [&](auto work) {
    auto share = [&](int thread) {
      for (int64_t n = all * thread / threads; n < all * (thread + 1) / threads; ++n) work(static_cast<size_t>(n));
    };
    in_parallel(threads, share);
  };
  std::vector<double> squares(pieces.size());
  each([&](size_t n) {
    if (pieces[n].g) squares[n] = k.sum_squares(pieces[n].g, pieces[n].count);
  });
  const double norm = std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
  *static_cast<T*>(call.norm) = T(norm);
  Update update{1, call.penalty, call.keep, call.beta1, call.beta2, call.rate, call.eps};
  // A norm that is no number makes g so too, which the loss then shows.
  if (call.max_norm > 0 && !(call.max_norm / (norm + 1e-6) >= 1)) update.scale = call.max_norm / (norm + 1e-6);
  T *const theta = static_cast<T*>(call.theta), *const m = static_cast<T*>(call.m), *const v = static_cast<T*>(call.v);
  each([&](size_t n) {
    const Piece& piece = pieces[n];
    k.adam(update, piece.g, theta + piece.from, m + piece.from, v + piece.from, piece.count);
  });
}

template <class T>
void run_readout(const ReadoutCall& call) {
  double total = call.total;
  if (std::isnan(total)) {
    const T* weights = static_cast<const T*>(call.class_weights);
    total = 0;
    for (int64_t n = 0; n < call.rows; ++n) total += weights ? double(weights[call.targets[n]]) : 1;
  }
  const Readout<T> r{call.rows,
                     call.classes,
                     call.features,
                     static_cast<const T*>(call.h),
                     static_cast<const T*>(call.W),
                     static_cast<const T*>(call.b),
                     call.targets,
                     static_cast<const T*>(call.class_weights),
                     call.smoothing,
                     total,
                     static_cast<T*>(call.d_h),
                     static_cast<T*>(call.d_W),
                     static_cast<T*>(call.d_b)};
  std::fill_n(r.d_W, r.classes * r.features, T(0));
  std::fill_n(r.d_b, r.classes, T(0));
  const Kernels<T>& k = kernels_of<T>(current_set());
  const Scratch room(sizeof(T) * static_cast<size_t>(k.readout_size(r)));
  *static_cast<T*>(call.loss) = T(k.readout(r, room.as<T>()) / r.total);
}

bool lengths_fit(const Call& call) {
  const int64_t* lengths = static_cast<const int64_t*>(call.lengths);
  return !lengths || std::all_of(lengths, lengths + call.batch,
                                 [&](int64_t length) { return 0 <= length && length <= call.time; });
}

}  // namespace
}  // namespace unroll

using namespace unroll;

int64_t unroll_abi() { return abi_number; }

int64_t unroll_size(const char* name) {
  if (!std::strcmp(name, "Call")) return sizeof(Call);
  if (!std::strcmp(name, "AdamCall")) return sizeof(AdamCall);
  if (!std::strcmp(name, "ReadoutCall")) return sizeof(ReadoutCall);
  if (!std::strcmp(name, "ProgramCall")) return sizeof(ProgramCall);
  return 0;
}

const char* unroll_select(const char* name) {
  const InstructionSet* set = find_set(name);
  if (!set) return nullptr;
  chosen = set;
  return set->name;
}

void unroll_use_openmp(void* parallel, void* thread_num, void* num_threads, void* in_parallel) {
  use_openmp(parallel, thread_num, num_threads, in_parallel);
}

int unroll_forward(Call* call) {
  return guarded([call]() -> int {
    if (!lengths_fit(*call)) return UNFIT;
    call->twice ? run_forward<double>(*call) : run_forward<float>(*call);
    return DONE;
  });
}

int unroll_backward(Call* call) {
  return guarded([call]() -> int {
    if (!lengths_fit(*call)) return UNFIT;
    return (call->twice ? run_backward<double>(*call) : run_backward<float>(*call)) ? DONE : NOT_SAVED;
  });
}

int unroll_adam(const AdamCall* call) {
  return guarded([call]() -> int {
    call->twice ? run_adam<double>(*call) : run_adam<float>(*call);
    return DONE;
  });
}

int unroll_readout(const ReadoutCall* call) {
  return guarded([call]() -> int {
    if (!std::all_of(call->targets, call->targets + call->rows,
                     [&](int64_t target) { return 0 <= target && target < call->classes; }))
      return UNFIT;
    call->twice ? run_readout<double>(*call) : run_readout<float>(*call);
    return DONE;
  });
}

int unroll_release(void* saved) {
  return guarded([saved]() -> int {
    shelf.give(saved);
    return DONE;
  });
}

int unroll_trim() {
  return guarded([]() -> int {
    shelf.clear();
    return DONE;
  });
}

int64_t unroll_multiply_add(int64_t rounds, int threads) {
  int64_t operations = 0;
  const int status = guarded([&]() -> int {
    const InstructionSet& set = current_set();
    std::vector<int64_t> counts(static_cast<size_t>(threads));
    auto work = [&](int thread) {
      float sink[2] = {1.0f, 1e-9f};  // sums that stay what they are: neither infinite nor subnormal, which may be slow
      counts[static_cast<size_t>(thread)] = set.multiply_add(rounds, sink);
    };
    in_parallel(threads, work);
    operations = std::accumulate(counts.begin(), counts.end(), int64_t(0));
    return DONE;
  });
  return status == DONE ? operations : int64_t(FAILED);
}
