// The C interface of the library, which Python calls through ctypes. No torch here: tensors come as pointers.
#pragma once

#include <cstdint>

#define UNROLL_EXPORT extern "C" __attribute__((visibility("default")))

namespace unroll {

// Raised with every change to this interface, in unroll/engines/native/library.py as well (ABI): functions, fields, what they mean.
constexpr int64_t abi_number = 3;

// What the functions return. `FAILED` stands for whatever nobody thought of: no exception leaves the library.
enum Status : int { DONE = 0, NO_MEMORY = 1, UNFIT = 2, NOT_SAVED = 3, FAILED = -1 };

// One call of the kernels, as Python packs it (unroll/engines/native/library.py: FIELDS): every field has 8 bytes. See
// `Problem` in kernels.hpp for the shapes; `twice` asks for float64, x_time and the like are strides in elements.
struct Call {
  int64_t kind, twice, reverse, projected, save, threads;
  int64_t time, batch, hidden, inputs;
  const void *lengths, *x;
  int64_t x_time, x_batch;
  const void *h0, *c0, *W, *U, *b;
  void *out, *h_last, *c_last, *saved;
  const void* d_out;
  int64_t d_out_time, d_out_batch;
  const void *d_h_last, *d_c_last;
  void *d_x, *d_h0, *d_c0, *d_W, *d_U, *d_b;
};

// One step of Adam on parameters that lie end to end in theta (unroll/engines/native/library.py: AdamCall). Every field has
// 8 bytes.
struct AdamCall {
  int64_t twice, threads, tensors;
  const void* const* gradients;  // [tensors]; null stands for zeros
  const int64_t* sizes;          // [tensors]
  void *theta, *m, *v, *norm;    // norm: one number, of g before clipping
  double max_norm;               // 0 for none
  double penalty, keep, beta1, beta2, rate, eps;  // see `Update` in kernels.hpp
};

// Readout, cross-entropy and their gradients (unroll/engines/native/library.py: ReadoutCall); see `Readout` in kernels.hpp. Every
// field has 8 bytes.
struct ReadoutCall {
  int64_t twice, rows, classes, features;
  const void *h, *W, *b;
  const int64_t* targets;
  const void* class_weights;
  double smoothing, total;
  void *loss, *d_h, *d_W, *d_b;  // loss: one number; total: NaN for the sum of the targets' weights
};

// One call of a step program (unroll/engines/native/library.py: ProgramCall); see `Scan` in program.hpp. Every field has 8 bytes.
struct ProgramCall {
  int64_t twice, reverse, save, threads, time, batch;
  const int64_t* lengths;
  const void* const* inputs;
  const int64_t *input_time, *input_batch;  // strides in elements
  const void* const* initial;
  const void* const* weights;
  void* out;
  void* const* last;
  void* saved;
  const void* d_out;
  int64_t d_out_time, d_out_batch;
  const void* const* d_last;  // entries, and those below, may be null
  void* const* d_inputs;
  void* const* d_initial;
  void* const* d_weights;
};

}  // namespace unroll

// What Python compares with its own idea of them before it calls anything else: `abi_number`, and the bytes of a struct
// above by its name, 0 for a name that is none.
UNROLL_EXPORT int64_t unroll_abi();
UNROLL_EXPORT int64_t unroll_size(const char* name);

// The name of the instruction set in use; null if `name` is none that this machine has. Null or "" asks for the best.
UNROLL_EXPORT const char* unroll_select(const char* name);

// Lends us the threads of an OpenMP runtime, see threads.hpp.
UNROLL_EXPORT void unroll_use_openmp(void* parallel, void* thread_num, void* num_threads, void* in_parallel);

// The functions below return a Status, and leave no memory behind unless it is `DONE`.

// Walks over time. `UNFIT` if a length is negative or longer than the sequences are. With `save`, leaves in call->saved what
// the backward pass of an LSTM needs, there if it is not null, else in memory of the library's own.
UNROLL_EXPORT int unroll_forward(unroll::Call* call);

// The gradients, of the same call with `saved`, whose contents it destroys. `NOT_SAVED` if what lies there was not saved by
// such a call.
UNROLL_EXPORT int unroll_backward(unroll::Call* call);

// Gives back what unroll_forward left in call->saved.
UNROLL_EXPORT int unroll_release(void* saved);

// One step of Adam.
UNROLL_EXPORT int unroll_adam(const unroll::AdamCall* call);

// The cross-entropy of a batch, and its gradients. `UNFIT` if a target is no class.
UNROLL_EXPORT int unroll_readout(const unroll::ReadoutCall* call);

// Frees all memory that is only kept for the next call.
UNROLL_EXPORT int unroll_trim();

// Runs multiply-adds on `threads` threads and returns how many float32 operations it did: timed, the machine's peak.
// `FAILED` if it could not.
UNROLL_EXPORT int64_t unroll_multiply_add(int64_t rounds, int threads);

// --- step programs ----------------------------------------------------------------------------------------------------

// A program, checked, for calls of any size; null if `words` are none (unroll/engines/native/lowering.py writes them) or there
// is no memory.
UNROLL_EXPORT void* unroll_program_make(const int64_t* words, int64_t count, const double* numbers, int64_t number_count);
UNROLL_EXPORT int unroll_program_free(void* program);

// As unroll_forward and unroll_backward.
UNROLL_EXPORT int unroll_program_forward(void* program, unroll::ProgramCall* call);
UNROLL_EXPORT int unroll_program_backward(void* program, unroll::ProgramCall* call);
