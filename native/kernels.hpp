// What the engine (engine.cpp) asks of the kernels (kernels.cpp), and the data both of them see.
//
// The kernels are compiled once per instruction set; each copy exports one table of this shape.
#pragma once

#include <cstdint>

namespace unroll {

enum Kind : int64_t { LSTM = 0, RNN_TANH = 1, RNN_RELU = 2 };

// A block of sequences that one thread walks through time together, longest first: the sequences still running at a
// step are then the first `active[step]` of the block, and no arithmetic is spent on padding.
//
// A "cell" is one step of one sequence. `offset[step]` counts the cells of the block before that step, so that the
// saved values of a block with ragged lengths lie without gaps.
struct Block {
  int64_t sequences, steps, cells;
  const int64_t* index;   // place of a sequence in the batch
  const int64_t* length;  // its number of steps
  const int64_t* active;  // [steps]
  const int64_t* offset;  // [steps]
  int64_t cells_before;   // cells of all earlier blocks
};

// Tensors as the caller holds them, row-major and without gaps except where strides are given; null where a thing is not
// there or not wanted.
template <class T>
struct Problem {
  Kind kind;
  bool reverse, projected;
  bool from_zero;  // h0 is zero, and W is known to be finite (forward): W has nothing to say in the first step
  int64_t time, batch, hidden, inputs;
  const T *x, *h0, *c0;         // x: (T,B,D), or (T,B,G*H) if it is projected already
  int64_t x_time, x_batch;      // strides: a batch-first tensor is read where it lies
  const T *W, *U, *b;           // (G*H,H), (G*H,D), (G*H)
  T *out, *h_last, *c_last;     // (T,B,H), (B,H), (B,H)
  T *gates, *memory;            // kept for the backward pass: activated gates, c
  const T *d_out, *d_h_last, *d_c_last;
  int64_t d_out_time, d_out_batch;
  T *d_x, *d_h0, *d_c0, *d_W, *d_U, *d_b;
  // Packed once per call, shared by all threads.
  T *weights, *bias;            // [W, U] for the forward pass
  T *weights_back, *weights_in; // W for dh = da W, U for dx = da U
};

// Logits h Wᵀ + b, their cross-entropy and all gradients, see `readout` in step.hpp.
template <class T>
struct Readout {
  int64_t rows, classes, features;
  const T *h, *W, *b;      // (rows,features), (classes,features), (classes)
  const int64_t* targets;  // (rows)
  const T* class_weights;  // (classes); null for ones
  double smoothing, total;  // total: what the loss is divided by
  T *d_h, *d_W, *d_b;
};

// The constants of one step of Adam, see `adam` in step.hpp.
struct Update {
  double scale;          // of g: what clipping leaves of it
  double penalty, keep;  // weight decay: added to g as penalty * theta, or theta shrunk to keep * theta
  double beta1, beta2, rate, eps;
};

template <class T>
struct Scan;
template <class T>
struct Room;

template <class T>
struct Kernels {
  int64_t lanes;
  // Sizes, in elements, of what the engine has to provide.
  int64_t (*forward_weights)(const Problem<T>&);
  int64_t (*backward_weights)(const Problem<T>&);
  int64_t (*input_weights)(const Problem<T>&);
  int64_t (*gate_row)(const Problem<T>&);     // saved gates per cell
  int64_t (*state_row)(const Problem<T>&);    // padded H: saved c per cell, state per sequence
  int64_t (*bias_size)(const Problem<T>&);
  int64_t (*gradient_size)(const Problem<T>&);  // the partial [dW, dU, db] of a thread
  int64_t (*strip_size)(const Problem<T>&);     // scratch of the weight-gradient product
  bool (*all_zero)(const T*, int64_t count);
  // Part `part` of `parts`, so that threads can share the packing. The first returns whether its part of W is finite.
  bool (*pack_forward)(const Problem<T>&, int64_t part, int64_t parts);
  void (*pack_backward)(const Problem<T>&, int64_t part, int64_t parts);
  void (*forward)(const Problem<T>&, const Block&, T* state);
  void (*backward)(const Problem<T>&, const Block&, T* state);
  void (*weight_gradient)(const Problem<T>&, const Block&, T* partial, T* strip, bool first);
  void (*sum_gradients)(const Problem<T>&, T* const* partial, int64_t partials, int64_t part, int64_t parts);
  int64_t (*readout_size)(const Readout<T>&);  // scratch of the next
  double (*readout)(const Readout<T>&, T* room);
  double (*sum_squares)(const T* g, int64_t count);
  // Step programs, see program.hpp.
  void (*pack_program)(const Scan<T>&, int64_t part, int64_t parts);
  void (*program_forward)(const Scan<T>&, const Block&, const Room<T>&);
  void (*program_backward)(const Scan<T>&, const Block&, const Room<T>&);
  void (*program_sum)(const Scan<T>&, T* const* partial, int64_t partials, int64_t part, int64_t parts);
  void (*adam)(const Update&, const T* g, T* theta, T* m, T* v, int64_t count);
};

struct InstructionSet {
  const char* name;
  Kernels<float> single;
  Kernels<double> twice;
  // Runs `rounds` rounds of independent multiply-adds; returns the number of float32 operations done.
  int64_t (*multiply_add)(int64_t rounds, float* sink);
};

extern const InstructionSet portable, avx2, avx512, neon;

}  // namespace unroll
