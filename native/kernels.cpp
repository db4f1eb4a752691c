// The arithmetic: walking an LSTM or a vanilla RNN over time, and the derivatives of that walk.
//
// Compiled once per instruction set with other flags and other values of
//   UNROLL_SET           name of the set and of the exported table
//   UNROLL_VECTOR_BYTES  width of a vector
//   UNROLL_ROWS          rows of a register tile, so that the tile and its operands fit the vector registers
//
// Everything is a product of a few rows by a panel of weights, accumulated in a register tile of UNROLL_ROWS rows by
// at most four vectors. For an LSTM the four vectors are the four gates of the same hidden units, so that the gates
// meet in registers and the non-linearities are applied before anything is stored. A "group" is those four vectors
// with their panel; an RNN, which has one gate, takes four vectors of hidden units as a group instead.
//
// Saved gates lie as [group][cell][vector][lane]: a tile is stored, and later read by the weight-gradient product,
// as one contiguous stream. The backward pass overwrites them with the derivatives da of their arguments.
//
// Every element is summed in an order that depends on the shapes only, neither on the tile it falls into nor on timing.

#include "kernels.hpp"
#include "program.hpp"

#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define UNROLL_INLINE static inline __attribute__((always_inline))
// Loops with many constants, beside the products. NEON keeps constants in registers, and a compiler that sees both loads
// them before the product's loop, which then spills its sums; x86 takes constants from memory and loses nothing.
#if defined(__aarch64__)
#define UNROLL_APART static __attribute__((noinline))
#else
#define UNROLL_APART UNROLL_INLINE
#endif

namespace unroll {
namespace {

#include "simd.hpp"

// Cells per strip of the weight-gradient product: a strip of da for one group stays in the L1 cache.
constexpr int64_t strip_cells = 128;

UNROLL_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
UNROLL_INLINE int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The sizes that all functions need, worked out once per call.
template <class S, class T = typename S::Scalar>
struct Layout {
  int64_t H, D, gates, units;  // units: vectors of hidden units
  int64_t groups;              // groups of gates, see above
  int64_t blocks;              // groups of four vectors of hidden units: the columns of dh
  explicit Layout(const Problem<T>& p)
      : H(p.hidden), D(p.projected ? 0 : p.inputs), gates(p.kind == LSTM ? 4 : 1), units(over(H, S::lanes)) {
    blocks = over(units, 4);
    groups = gates == 4 ? units : blocks;
  }
  int64_t vectors(int64_t group) const { return gates == 4 ? 4 : smaller(4, units - 4 * group); }
  int64_t block_vectors(int64_t block) const { return smaller(4, units - 4 * block); }
  int64_t padded() const { return units * S::lanes; }             // H rounded up
  int64_t padded_gates() const { return gates * padded(); }       // columns of da
  int64_t columns() const { return H + D + 1; }                   // rows of [dW, dU, db] transposed
  // First of the lanes of vector v of a group, as a row of W; `unit` tells which hidden units they are.
  int64_t unit(int64_t group, int64_t v) const { return (gates == 4 ? group : 4 * group + v) * S::lanes; }
  int64_t row(int64_t group, int64_t v) const { return gates == 4 ? v * H + unit(group, v) : unit(group, v); }
  int64_t lanes_left(int64_t group, int64_t v) const { return H - unit(group, v); }
};

UNROLL_INLINE int64_t time_of(bool reverse, const Block& block, int64_t sequence, int64_t step) {
  return reverse ? block.length[sequence] - 1 - step : step;
}

#include "gemm.hpp"

// --- questions about tensors ----------------------------------------------------------------------------------------

template <class S>
UNROLL_INLINE typename S::I finite(typename S::V value) {
  const typename S::V largest = splat<S>(S::largest);
  return (value <= largest) & (value >= -largest);
}

template <class S>
UNROLL_INLINE bool all(typename S::I lanes) {
  for (int lane = 0; lane < S::lanes; ++lane)
    if (!lanes[lane]) return false;
  return true;
}

template <class S, class T>
bool all_finite(const T* from, int64_t count) {
  typename S::I fine = typename S::V{} == typename S::V{};
  for (int64_t k = 0; k < count; k += S::lanes) fine &= finite<S>(load<S>(from + k, count - k));
  return all<S>(fine);
}

template <class S, class T>
bool all_zero(const T* from, int64_t count) {
  using V = typename S::V;
  typename S::I fine = V{} == V{};
  for (int64_t k = 0; k < count; k += S::lanes) fine &= load<S>(from + k, count - k) == V{};
  return all<S>(fine);
}

// --- packing --------------------------------------------------------------------------------------------------------

// [W, U] as panels [group][k][vector][lane], k over H then D; the bias as [group][vector][lane]. Units beyond H are
// zero, and stay zero through the walk: sigmoid(0) * tanh(0) = 0. Returns whether this part of W is finite.
template <class S, class T>
bool pack_forward(const Problem<T>& p, int64_t part, int64_t parts) {
  const Layout<S> L(p);
  constexpr int64_t lanes = S::lanes;
  typename S::I fine = typename S::V{} == typename S::V{};
  for (int64_t group = part; group < L.groups; group += parts) {
    const int64_t vectors = L.vectors(group), width = vectors * lanes;
    T* panel = p.weights + group * (L.H + L.D) * 4 * lanes;
    T* bias = p.bias + group * 4 * lanes;
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t row = L.row(group, v), left = smaller(lanes, L.lanes_left(group, v));
      for (int64_t lane = 0; lane < lanes; ++lane) bias[v * lanes + lane] = p.b && lane < left ? p.b[row + lane] : T(0);
      for (int source = 0; source < 2; ++source) {
        const int64_t count = source ? L.D : L.H;
        const T* from = (source ? p.U : p.W) + row * count;
        T* to = panel + (source ? L.H * width : 0) + v * lanes;
        for (int64_t k = 0; k < count; k += lanes) {
          typename S::V square[lanes];
          for (int64_t lane = 0; lane < lanes; ++lane)
            square[lane] = lane < left ? load<S>(from + lane * count + k, count - k) : typename S::V{};
          for (int64_t lane = 0; !source && lane < lanes; ++lane) fine &= finite<S>(square[lane]);
          transpose<S>(square);
          for (int64_t n = 0; n < smaller(lanes, count - k); ++n) store<S>(to + (k + n) * width, square[n]);
        }
      }
    }
  }
  return all<S>(fine);
}

// Columns of a row-major (G*H, columns) matrix as panels [block of 4 vectors of columns][k][vector][lane], k over the
// columns of da in the order they are saved in; rows of units beyond H are zero.
template <class S, class T>
void pack_columns(const Layout<S>& L, const T* matrix, int64_t columns, T* packed, int64_t part, int64_t parts) {
  constexpr int64_t lanes = S::lanes;
  const int64_t vectors = over(columns, lanes);
  for (int64_t block = part; 4 * block < vectors; block += parts) {
    const int64_t width = smaller(4, vectors - 4 * block) * lanes, first = 4 * block * lanes;
    T* to = packed + block * 4 * lanes * L.padded_gates();
    for (int64_t group = 0; group < L.groups; ++group)
      for (int64_t v = 0; v < L.vectors(group); ++v)
        for (int64_t lane = 0; lane < lanes; ++lane, to += width) {
          const T* from = matrix + (L.row(group, v) + lane) * columns + first;
          const bool there = lane < L.lanes_left(group, v);
          for (int64_t n = 0; n < width; n += lanes)
            store<S>(to + n, there ? load<S>(from + n, columns - first - n) : typename S::V{});
        }
  }
}

template <class S, class T>
void pack_backward(const Problem<T>& p, int64_t part, int64_t parts) {
  const Layout<S> L(p);
  pack_columns<S>(L, p.W, L.H, p.weights_back, part, parts);
  if (p.weights_in) pack_columns<S>(L, p.U, L.D, p.weights_in, part, parts);
}

// --- forward --------------------------------------------------------------------------------------------------------

// Where a register tile is put down for what comes after the product: [row][vector][lane].
template <class S>
struct Sums {
  alignas(64) typename S::Scalar value[UNROLL_ROWS * 4 * S::lanes];
  typename S::Scalar* at(int64_t row, int64_t vectors) { return value + row * vectors * S::lanes; }
};

// The arguments of the activations: bias + W h_{t-1} + U x_t, for M rows and one group.
template <class S, class T, int M, int N>
UNROLL_INLINE void forward_product(const Problem<T>& p, const Layout<S>& L, int64_t group, bool from_zero,
                                   const T* const (&before)[M], const T* const (&input)[M], Sums<S>& sums) {
  constexpr int64_t lanes = S::lanes;
  typename S::V acc[M][N];
  const T* bias = p.bias + group * 4 * lanes;
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) acc[m][n] = load<S>(bias + n * lanes);
  const T* panel = p.weights + group * (L.H + L.D) * 4 * lanes;
  accumulate<S, M, N>(acc, before, from_zero ? 0 : L.H, panel);
  accumulate<S, M, N>(acc, input, L.D, panel + L.H * N * lanes);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store<S>(sums.at(m, N) + n * lanes, acc[m][n]);
}

// Gates, c and h of one group of hidden units. Two short loops over the rows instead of a long one: the chain from the
// argument to h is some 150 cycles deep, and the processor can only overlap rows that it sees at the same time.
template <class S, class T>
UNROLL_APART void lstm_activations(const Problem<T>& p, const Layout<S>& L, const Block& block, int64_t group,
                                    int64_t rows, int64_t first, int64_t cell, Sums<S>& sums, T* const* after, T* state) {
  using V = typename S::V;
  constexpr int64_t lanes = S::lanes;
  const int64_t unit = group * lanes, left = L.H - unit;
  T* const c_row = state + (group * block.sequences + first) * lanes;
  const V one = splat<S>(1);
#pragma GCC unroll 1
  for (int64_t m = 0; m < rows; ++m) {
    T* const sum = sums.at(m, 4);
    const Quotient<S> a = sigmoid<S>(load<S>(sum)), b = sigmoid<S>(load<S>(sum + lanes)),
                      g = hyperbolic_tangent<S>(load<S>(sum + 2 * lanes));
    // One division for i and c~. f has its own: saturated it must be exactly 1, or long memories leak.
    const V both = one / (a.bottom * g.bottom);
    const V i = a.top * (g.bottom * both), c_tilde = g.top * (a.bottom * both), f = b.top / b.bottom;
    store<S>(c_row + m * lanes, f * load<S>(c_row + m * lanes) + i * c_tilde);
    store<S>(sum, i);
    store<S>(sum + lanes, f);
    store<S>(sum + 2 * lanes, c_tilde);
  }
  T* const gates = p.gates ? p.gates + (block.cells_before * L.units + group * block.cells + cell) * 4 * lanes : nullptr;
  T* const memory = p.gates ? p.memory + (block.cells_before * L.units + group * block.cells + cell) * lanes : nullptr;
#pragma GCC unroll 1
  for (int64_t m = 0; m < rows; ++m) {
    T* const sum = sums.at(m, 4);
    const V c = load<S>(c_row + m * lanes);
    const Quotient<S> d = sigmoid<S>(load<S>(sum + 3 * lanes)), e = hyperbolic_tangent<S>(c);
    const V both = one / (d.bottom * e.bottom);
    const V o = d.top * (e.bottom * both);
    store<S>(after[m] + unit, o * (e.top * (d.bottom * both)), left);
    if (gates) {
      for (int n = 0; n < 3; ++n) store<S>(gates + (m * 4 + n) * lanes, load<S>(sum + n * lanes));
      store<S>(gates + (m * 4 + 3) * lanes, o);
      store<S>(memory + m * lanes, c);
    }
  }
}

template <class S, class T>
UNROLL_APART void rnn_activations(const Problem<T>& p, const Layout<S>& L, int64_t group, int64_t rows, Sums<S>& sums,
                                   T* const* after) {
  using V = typename S::V;
  const int64_t vectors = L.vectors(group);
#pragma GCC unroll 1
  for (int64_t n = 0; n < vectors; ++n) {
    const int64_t unit = L.unit(group, n), left = L.lanes_left(group, n);
#pragma GCC unroll 1
    for (int64_t m = 0; m < rows; ++m) {
      V s = load<S>(sums.at(m, vectors) + n * S::lanes);
      if (p.kind == RNN_TANH) {
        const Quotient<S> q = hyperbolic_tangent<S>(s);
        s = q.top / q.bottom;
      } else {
        s = s < V{} ? V{} : s;  // in this order a NaN passes
      }
      store<S>(after[m] + unit, s, left);
    }
  }
}

template <class S, class T, bool lstm>
void forward_block(const Problem<T>& p, const Block& block, T* state) {
  const Layout<S> L(p);
  constexpr int64_t lanes = S::lanes;
  const int64_t H = L.H;
  if (lstm)
    for (int64_t u = 0; u < L.units; ++u)
      for (int64_t r = 0; r < block.sequences; ++r)
        store<S>(state + (u * block.sequences + r) * lanes,
                 load<S>(p.c0 + block.index[r] * H + u * lanes, H - u * lanes));

  Sums<S> sums;
  for (int64_t step = 0; step < block.steps; ++step) {
    const Tiles tiles(0, block.active[step]);
    for (int64_t group = 0; group < L.groups; ++group)
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int64_t first = tiles.first(tile), rows = tiles.rows(tile), vectors = L.vectors(group);
        T* after[UNROLL_ROWS];
        dispatch_rows(rows, [&](auto height) {
          constexpr int M = decltype(height)::value;
          const T *before[M], *input[M];
#pragma GCC unroll 8
          for (int m = 0; m < M; ++m) {
            const int64_t place = block.index[first + m], t = time_of(p.reverse, block, first + m, step);
            input[m] = p.x + t * p.x_time + place * p.x_batch;
            after[m] = p.out + (t * p.batch + place) * H;
            before[m] = step ? after[m] - (p.reverse ? -p.batch : p.batch) * H : p.h0 + place * H;
          }
          if constexpr (lstm)
            forward_product<S, T, M, 4>(p, L, group, !step && p.from_zero, before, input, sums);
          else
            dispatch_vectors(vectors, [&](auto width) {
              forward_product<S, T, M, decltype(width)::value>(p, L, group, !step && p.from_zero, before, input, sums);
            });
          if (p.projected)
            for (int m = 0; m < M; ++m)
              for (int64_t n = 0; n < vectors; ++n) {
                T* sum = sums.at(m, vectors) + n * lanes;
                store<S>(sum, load<S>(sum) + load<S>(input[m] + L.row(group, n), L.lanes_left(group, n)));
              }
        });
        if constexpr (lstm)
          lstm_activations<S, T>(p, L, block, group, rows, first, block.offset[step] + first, sums, after, state);
        else
          rnn_activations<S, T>(p, L, group, rows, sums, after);
      }
  }

  for (int64_t r = 0; r < block.sequences; ++r) {
    const int64_t place = block.index[r], length = block.length[r];
    const T* last = length ? p.out + (time_of(p.reverse, block, r, length - 1) * p.batch + place) * H : p.h0 + place * H;
    memcpy(p.h_last + place * H, last, H * sizeof(T));
    if (lstm)
      for (int64_t u = 0; u < L.units; ++u)
        store<S>(p.c_last + place * H + u * lanes, load<S>(state + (u * block.sequences + r) * lanes), H - u * lanes);
    for (int64_t t = length; t < p.time; ++t) memset(p.out + (t * p.batch + place) * H, 0, H * sizeof(T));
  }
}

template <class S, class T>
void forward(const Problem<T>& p, const Block& block, T* state) {
  p.kind == LSTM ? forward_block<S, T, true>(p, block, state) : forward_block<S, T, false>(p, block, state);
}

// --- backward -------------------------------------------------------------------------------------------------------

// sums = da @ packed, for M rows of da from `cell` on and the N vectors of columns of one block of `packed`.
template <class S, class T, int M, int N>
UNROLL_INLINE void backward_product(const Problem<T>& p, const Layout<S>& L, const Block& block, int64_t cell,
                                    const T* packed, Sums<S>& sums) {
  constexpr int64_t lanes = S::lanes;
  typename S::V acc[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) acc[m][n] = typename S::V{};
  const T* da = p.gates + block.cells_before * L.padded_gates();
  for (int64_t group = 0; group < L.groups; ++group) {
    const int64_t width = L.vectors(group) * lanes;
    const T* from = da + group * block.cells * 4 * lanes + cell * width;
    const T* row[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) row[m] = from + m * width;
    accumulate<S, M, N>(acc, row, width, packed);
    packed += width * N * lanes;
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store<S>(sums.at(m, N) + n * lanes, acc[m][n]);
}

template <class S, class T>
void backward_product(const Problem<T>& p, const Layout<S>& L, const Block& block, int64_t cell, int64_t rows,
                      const T* packed, int64_t column, int64_t vectors, Sums<S>& sums) {
  packed += column * 4 * S::lanes * L.padded_gates();
  dispatch_vectors(vectors, [&](auto width) {
    dispatch_rows(rows, [&](auto height) {
      backward_product<S, T, decltype(height)::value, decltype(width)::value>(p, L, block, cell, packed, sums);
    });
  });
}

// Asks for what `backward_cells` will read, in time for the product to hide the way from memory.
template <class S, class T, bool lstm>
UNROLL_INLINE void prefetch_cells(const Problem<T>& p, const Layout<S>& L, const Block& block, int64_t step,
                                  int64_t column, int64_t vectors, int64_t first, int64_t rows) {
  constexpr int64_t line = 64 / sizeof(T), lanes = S::lanes;
  for (int64_t n = 0; n < vectors; ++n) {
    const int64_t u = 4 * column + n;
    if (lstm) {
      const T* gate = p.gates + block.cells_before * L.padded_gates() + (u * block.cells + block.offset[step] + first) * 4 * lanes;
      for (int64_t k = 0; k < rows * 4 * lanes; k += line) __builtin_prefetch(gate + k, 1);
      if (step) {
        const T* c = p.memory + block.cells_before * L.padded() + (u * block.cells + block.offset[step - 1] + first) * lanes;
        for (int64_t k = 0; k < rows * lanes; k += line) __builtin_prefetch(c + k);
      }
    }
    for (int64_t m = 0; m < rows; ++m) {
      const int64_t place = block.index[first + m], t = time_of(p.reverse, block, first + m, step);
      __builtin_prefetch(p.out + (t * p.batch + place) * L.H + u * lanes);
      if (p.d_out) __builtin_prefetch(p.d_out + t * p.d_out_time + place * p.d_out_batch + u * lanes);
    }
  }
}

// One step back for some rows and one vector of hidden units, n-th of a block of columns. `later`: these sequences have a
// step after this one, and dh is what came back from it (`sums`); otherwise dh and dc are the gradients of the final state.
// Either way the gradient of h_t as an output adds. `left`: how many of the lanes are hidden units.
template <class S, class T, bool lstm, bool later>
UNROLL_INLINE void backward_unit(const Problem<T>& p, const Layout<S>& L, const Block& block, T* state, int64_t step,
                                 int64_t column, int64_t n, int64_t first, int64_t rows, int64_t left, Sums<S>& sums,
                                 const T* const* out, const T* const* d_out, T* const* d_pre) {
  using V = typename S::V;
  constexpr int64_t lanes = S::lanes;
  const int64_t H = L.H, vectors = L.block_vectors(column), u = 4 * column + n, unit = u * lanes;
  const int64_t cell = block.offset[step] + first;
  const V one = splat<S>(1), zero{}, smallest = splat<S>(S::smallest);
  T* const da = p.gates + block.cells_before * L.padded_gates();
  T* const gates = da + (u * block.cells + cell) * 4 * lanes;
  T* const ds_row = da + column * block.cells * 4 * lanes + (cell * vectors + n) * lanes;
  T* const d_c = state + (u * block.sequences + first) * lanes;
  // c of the step before: the cells of that step begin active[step - 1] earlier.
  const T* const c_row =
      lstm && step ? p.memory + block.cells_before * L.padded() + (u * block.cells + block.offset[step - 1] + first) * lanes
                   : nullptr;
#pragma GCC unroll 1
  for (int64_t m = 0; m < rows; ++m) {
    V dh;
    if constexpr (later)
      dh = load<S>(sums.at(m, vectors) + n * lanes);
    else
      dh = p.d_h_last ? load<S>(p.d_h_last + block.index[first + m] * H + unit, left) : zero;
    if (d_out[m]) dh += load<S>(d_out[m] + unit, left);
    const V h = load<S>(out[m] + unit, left);
    T* const d_x = d_pre[m] ? d_pre[m] + unit : nullptr;

    if constexpr (lstm) {
      V dc;
      if constexpr (later)
        dc = load<S>(d_c + m * lanes);
      else
        dc = p.d_c_last ? load<S>(p.d_c_last + block.index[first + m] * H + unit, left) : zero;
      T* const gate = gates + m * 4 * lanes;
      const V i = load<S>(gate), f = load<S>(gate + lanes), c_tilde = load<S>(gate + 2 * lanes),
              o = load<S>(gate + 3 * lanes);
      const V c_before = c_row ? load<S>(c_row + m * lanes) : load<S>(p.c0 + block.index[first + m] * H + unit, left);
      // tanh(c) = h / o was not stored. Where o has underflowed h has too, and the product below is zero either way.
      const V tanh_c = h / larger(smallest, o);
      dc += dh * (o - h * tanh_c);
      // Units that only fill up the last vector have weights of zero, but zero times an infinite input is NaN: what they
      // send back stays zero, or it would reach everything.
      const auto real = [left](V v) {
        if (left >= lanes) return v;
        T spare[lanes];
        store<S>(spare, v);
        return load<S>(spare, left);
      };
      const V d_i = real(dc * c_tilde * (i * (one - i))), d_f = real(dc * c_before * (f * (one - f))),
              d_g = real(dc * i * (one - c_tilde * c_tilde)), d_o = real(dh * h * (one - o));
      store<S>(d_c + m * lanes, real(dc * f));
      store<S>(gate, d_i);
      store<S>(gate + lanes, d_f);
      store<S>(gate + 2 * lanes, d_g);
      store<S>(gate + 3 * lanes, d_o);
      if (d_x) {
        store<S>(d_x, d_i, left);
        store<S>(d_x + H, d_f, left);
        store<S>(d_x + 2 * H, d_g, left);
        store<S>(d_x + 3 * H, d_o, left);
      }
    } else {
      const V ds = p.kind == RNN_TANH ? dh * (one - h * h) : (h <= zero ? zero : dh);
      store<S>(ds_row + m * vectors * lanes, ds);
      if (d_x) store<S>(d_x, ds, left);
    }
  }
}

template <class S, class T, bool lstm, bool later>
UNROLL_INLINE void backward_cells(const Problem<T>& p, const Layout<S>& L, const Block& block, T* state, int64_t step,
                                  int64_t column, int64_t vectors, int64_t first, int64_t rows, Sums<S>& sums) {
  const T *out[UNROLL_ROWS], *d_out[UNROLL_ROWS];
  T* d_pre[UNROLL_ROWS];
  for (int64_t m = 0; m < rows; ++m) {
    const int64_t place = block.index[first + m], t = time_of(p.reverse, block, first + m, step);
    out[m] = p.out + (t * p.batch + place) * L.H;
    d_out[m] = p.d_out ? p.d_out + t * p.d_out_time + place * p.d_out_batch : nullptr;
    d_pre[m] = p.projected && p.d_x ? p.d_x + (t * p.batch + place) * L.gates * L.H : nullptr;
  }
  for (int64_t n = 0; n < vectors; ++n) {
    const int64_t left = L.H - (4 * column + n) * S::lanes;
    if (left >= S::lanes)  // known to the compiler, so that whole vectors are moved without asking
      backward_unit<S, T, lstm, later>(p, L, block, state, step, column, n, first, rows, S::lanes, sums, out, d_out, d_pre);
    else
      backward_unit<S, T, lstm, later>(p, L, block, state, step, column, n, first, rows, left, sums, out, d_out, d_pre);
  }
}

template <class S, class T, bool lstm>
void backward_block(const Problem<T>& p, const Block& block, T* state) {
  const Layout<S> L(p);
  constexpr int64_t lanes = S::lanes;
  const int64_t H = L.H;

  Sums<S> sums;
  // da @ packed of all rows at a step, to rows of the caller's that `to` finds.
  const auto product_to = [&](int64_t step, const T* packed, int64_t columns, auto to) {
    const Tiles tiles(0, block.active[step]);
    const int64_t all = over(columns, lanes);
    for (int64_t column = 0; 4 * column < all; ++column)
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int64_t first = tiles.first(tile), rows = tiles.rows(tile), vectors = smaller(4, all - 4 * column);
        backward_product<S, T>(p, L, block, block.offset[step] + first, rows, packed, column, vectors, sums);
        for (int64_t m = 0; m < rows; ++m)
          for (int64_t n = 0; n < vectors; ++n) {
            const int64_t k = (4 * column + n) * lanes;
            store<S>(to(first + m) + k, load<S>(sums.at(m, vectors) + n * lanes), columns - k);
          }
      }
  };

  for (int64_t step = block.steps - 1; step >= 0; --step) {
    const int64_t going_on = step + 1 < block.steps ? block.active[step + 1] : 0;
    const Tiles tiles(0, going_on);
    for (int64_t column = 0; column < L.blocks; ++column) {
      const int64_t vectors = L.block_vectors(column);
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int64_t first = tiles.first(tile), rows = tiles.rows(tile);
        prefetch_cells<S, T, lstm>(p, L, block, step, column, vectors, first, rows);
        backward_product<S, T>(p, L, block, block.offset[step + 1] + first, rows, p.weights_back, column, vectors, sums);
        backward_cells<S, T, lstm, true>(p, L, block, state, step, column, vectors, first, rows, sums);
      }
      for (int64_t first = going_on; first < block.active[step]; first += UNROLL_ROWS)
        backward_cells<S, T, lstm, false>(p, L, block, state, step, column, vectors, first,
                                          smaller(UNROLL_ROWS, block.active[step] - first), sums);
    }
    if (p.weights_in)
      product_to(step, p.weights_in, L.D, [&](int64_t sequence) {
        return p.d_x + (time_of(p.reverse, block, sequence, step) * p.batch + block.index[sequence]) * L.D;
      });
  }

  const int64_t started = block.steps ? block.active[0] : 0;
  if (p.d_h0 && started)
    product_to(0, p.weights_back, H, [&](int64_t sequence) { return p.d_h0 + block.index[sequence] * H; });
  const int64_t input_row = p.projected ? L.gates * H : L.D;
  for (int64_t r = 0; r < block.sequences; ++r) {
    const int64_t place = block.index[r], length = block.length[r];
    if (p.d_x)
      for (int64_t t = length; t < p.time; ++t)
        memset(p.d_x + (t * p.batch + place) * input_row, 0, input_row * sizeof(T));
    if (r >= started && p.d_h0) {
      if (p.d_h_last)
        memcpy(p.d_h0 + place * H, p.d_h_last + place * H, H * sizeof(T));
      else
        memset(p.d_h0 + place * H, 0, H * sizeof(T));
    }
    if (lstm && p.d_c0) {
      if (r < started)
        for (int64_t u = 0; u < L.units; ++u)
          store<S>(p.d_c0 + place * H + u * lanes, load<S>(state + (u * block.sequences + r) * lanes), H - u * lanes);
      else if (p.d_c_last)
        memcpy(p.d_c0 + place * H, p.d_c_last + place * H, H * sizeof(T));
      else
        memset(p.d_c0 + place * H, 0, H * sizeof(T));
    }
  }
}

template <class S, class T>
void backward(const Problem<T>& p, const Block& block, T* state) {
  p.kind == LSTM ? backward_block<S, T, true>(p, block, state) : backward_block<S, T, false>(p, block, state);
}

// --- weight gradient ------------------------------------------------------------------------------------------------

// [dW, dU, db]^T, as [group][column][vector][lane], of one block: the sum over its cells of [h_{t-1}, x_t, 1]^T da_t.
// `strip` holds [h_{t-1}, x_t, 1] of `strip_cells` cells as tiles [cell][column], read as one stream.
// `apart`: they are summed by themselves and then added, for sums of sums lose less.
template <class S, class T, int M, int N, bool apart = false>
UNROLL_INLINE void gradient_tile(const T* strip, const T* da, int64_t cells, T* to, bool first) {
  using V = typename S::V;
  constexpr int64_t lanes = S::lanes;
  V acc[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) acc[m][n] = first || apart ? V{} : load<S>(to + (m * N + n) * lanes);
  for (int64_t k = 0; k < cells; ++k, strip += M, da += N * lanes) {
    V derivative[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) derivative[n] = load<S>(da + n * lanes);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const V value = splat<S>(strip[m]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) acc[m][n] += derivative[n] * value;
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
      store<S>(to + (m * N + n) * lanes, apart ? load<S>(to + (m * N + n) * lanes) + acc[m][n] : acc[m][n]);
}

template <class T, int M>
UNROLL_INLINE void copy_pieces(const T* const* row, int64_t from, int64_t cells, T* to) {
  for (int64_t cell = 0; cell < cells; ++cell, to += M) memcpy(to, row[cell] + from, M * sizeof(T));
}

template <class S, class T>
void weight_gradient(const Problem<T>& p, const Block& block, T* partial, T* strip, bool first) {
  const Layout<S> L(p);
  constexpr int64_t lanes = S::lanes;
  const int64_t H = L.H, D = L.D, columns = L.columns();
  const Tiles tiles(0, columns);
  const T* da = p.gates + block.cells_before * L.padded_gates();
  int64_t step = 0, sequence = 0;
  if (first && !block.cells) memset(partial, 0, L.groups * columns * 4 * lanes * sizeof(T));

  // The first step's cells add nothing to dW where h_0 is zero; unless da is infinite or NaN there, for then 0 * da is NaN.
  bool from_zero = p.from_zero && block.cells;
  for (int64_t group = 0; from_zero && group < L.groups; ++group)
    from_zero = all_finite<S>(da + group * block.cells * 4 * lanes, block.active[0] * L.vectors(group) * lanes);
  const int64_t nothing = from_zero ? block.active[0] : 0;

  for (int64_t start = 0; start < block.cells; start += strip_cells) {
    const int64_t cells = smaller(strip_cells, block.cells - start);
    const T *h[strip_cells], *x[strip_cells];
    for (int64_t cell = 0; cell < cells; ++cell) {
      const int64_t place = block.index[sequence], t = time_of(p.reverse, block, sequence, step);
      h[cell] = step ? p.out + ((p.reverse ? t + 1 : t - 1) * p.batch + place) * H : p.h0 + place * H;
      x[cell] = p.x + t * p.x_time + place * p.x_batch;
      if (++sequence == block.active[step]) sequence = 0, ++step;
    }
    for (int64_t tile = 0; tile < tiles.count; ++tile) {
      const int64_t from = tiles.first(tile), height = tiles.rows(tile), to = from + height;
      T* piece = strip + from * cells;
      if (to <= H || (from >= H && to <= H + D))
        dispatch_rows(height, [&](auto m) {
          copy_pieces<T, decltype(m)::value>(to <= H ? h : x, to <= H ? from : from - H, cells, piece);
        });
      else
        for (int64_t cell = 0; cell < cells; ++cell)
          for (int64_t k = from; k < to; ++k) *piece++ = k < H ? h[cell][k] : k < H + D ? x[cell][k - H] : T(1);
    }
    for (int64_t group = 0; group < L.groups; ++group)
      dispatch_vectors(L.vectors(group), [&](auto n) {
        constexpr int N = decltype(n)::value;
        const T* da_strip = da + group * block.cells * 4 * lanes + start * N * lanes;
        T* to = partial + group * columns * 4 * lanes;
        for (int64_t tile = 0; tile < tiles.count; ++tile)
          dispatch_rows(tiles.rows(tile), [&](auto m) {
            constexpr int M = decltype(m)::value;
            const int64_t k0 = tiles.first(tile),
                          skip = k0 + M <= H && start < nothing ? smaller(nothing - start, cells) : 0;
            gradient_tile<S, T, M, N>(strip + k0 * cells + skip * M, da_strip + skip * N * lanes, cells - skip,
                                      to + k0 * N * lanes, first && start == 0);
          });
      });
  }
}

// The threads' partial sums, added in their order and laid out as the caller's dW, dU and db.
template <class S, class T>
void sum_gradients(const Problem<T>& p, T* const* partial, int64_t partials, int64_t part, int64_t parts) {
  const Layout<S> L(p);
  constexpr int64_t lanes = S::lanes;
  const int64_t columns = L.columns();
  for (int64_t group = part; group < L.groups; group += parts) {
    const int64_t vectors = L.vectors(group), width = vectors * lanes;
    const auto sum = [&](int64_t v, int64_t k) {
      const int64_t at = group * columns * 4 * lanes + k * width + v * lanes;
      typename S::V total = load<S>(partial[0] + at);
      for (int64_t other = 1; other < partials; ++other) total += load<S>(partial[other] + at);
      return total;
    };
    // Column by column through all vectors, in the order in which the sums lie in memory.
    const auto spread = [&](T* to, int64_t count, int64_t first) {
      for (int64_t k = 0; k < count; k += lanes)
        for (int64_t v = 0; v < vectors; ++v) {
          typename S::V square[lanes];
          for (int64_t n = 0; n < lanes; ++n) square[n] = k + n < count ? sum(v, first + k + n) : typename S::V{};
          transpose<S>(square);
          const int64_t row = L.row(group, v), left = smaller(lanes, L.lanes_left(group, v));
          for (int64_t lane = 0; lane < left; ++lane) store<S>(to + (row + lane) * count + k, square[lane], count - k);
        }
    };
    if (p.d_W) spread(p.d_W, L.H, 0);
    if (p.d_U) spread(p.d_U, L.D, L.H);
    for (int64_t v = 0; p.d_b && v < vectors; ++v)
      store<S>(p.d_b + L.row(group, v), sum(v, columns - 1), L.lanes_left(group, v));
  }
}

// --- the rest of a training step ------------------------------------------------------------------------------------

#include "step.hpp"

// --- step programs ---------------------------------------------------------------------------------------------------

#include "elements.hpp"
#include "interpret.hpp"

// --- the table ------------------------------------------------------------------------------------------------------

template <class T>
constexpr Kernels<T> kernels() {
  using S = Simd<T>;
  Kernels<T> k{};
  k.lanes = S::lanes;
  k.forward_weights = [](const Problem<T>& p) {
    const Layout<S> L(p);
    return L.groups * (L.H + L.D) * 4 * S::lanes;
  };
  k.backward_weights = [](const Problem<T>& p) {
    const Layout<S> L(p);
    return L.blocks * 4 * S::lanes * L.padded_gates();
  };
  k.input_weights = [](const Problem<T>& p) {
    const Layout<S> L(p);
    return over(over(L.D, S::lanes), 4) * 4 * S::lanes * L.padded_gates();
  };
  k.gate_row = [](const Problem<T>& p) { return Layout<S>(p).padded_gates(); };
  k.state_row = [](const Problem<T>& p) { return Layout<S>(p).padded(); };
  k.bias_size = [](const Problem<T>& p) { return Layout<S>(p).groups * 4 * S::lanes; };
  k.gradient_size = [](const Problem<T>& p) {
    const Layout<S> L(p);
    return L.groups * L.columns() * 4 * S::lanes;
  };
  k.strip_size = [](const Problem<T>& p) { return strip_cells * Layout<S>(p).columns(); };
  k.all_zero = all_zero<S, T>;
  k.pack_forward = pack_forward<S, T>;
  k.pack_backward = pack_backward<S, T>;
  k.forward = forward<S, T>;
  k.backward = backward<S, T>;
  k.weight_gradient = weight_gradient<S, T>;
  k.sum_gradients = sum_gradients<S, T>;
  k.readout_size = [](const Readout<T>& r) { return (r.features + 3) * class_lanes<S>(r.classes); };
  k.readout = readout<S, T>;
  k.sum_squares = sum_squares<S, T>;
  k.adam = adam<S, T>;
  k.pack_program = pack_program<S, T>;
  k.program_forward = program_forward<S, T>;
  k.program_backward = program_backward<S, T>;
  k.program_sum = program_sum<S, T>;
  return k;
}

int64_t multiply_add(int64_t rounds, float* sink) {
  using S = Simd<float>;
  constexpr int chains = UNROLL_ROWS * 4;  // enough to hide the latency, few enough for the registers
  typename S::V sum[chains];
  for (int n = 0; n < chains; ++n) sum[n] = splat<S>(sink[0] + float(n));
  const typename S::V factor = splat<S>(sink[1]);
  // Added to the sum itself, for NEON's multiply-add overwrites what it adds to: with any other addend it is a copy too.
  for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 24
    for (int n = 0; n < chains; ++n) sum[n] += sum[n] * factor;
  typename S::V total{};
  for (int n = 0; n < chains; ++n) total += sum[n];
  sink[0] = total[0];
  return rounds * chains * S::lanes * 2;
}

}  // namespace

#define UNROLL_TEXT2(name) #name
#define UNROLL_TEXT(name) UNROLL_TEXT2(name)
// A constant, not an initialiser: no instruction of this file may run before the machine is known to have it.
constexpr InstructionSet UNROLL_SET = {UNROLL_TEXT(UNROLL_SET), kernels<float>(), kernels<double>(), multiply_add};

}  // namespace unroll
