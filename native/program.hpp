// Step programs: what a cell of any author's computes in one step, forward and backward, as data that an interpreter runs.
//
// unroll/engines/native/lowering.py writes them, decode.hpp checks them, program.cpp lays out memory, interpret.hpp runs them, once per
// instruction set. A program works on values: a block of rows of `width` columns each, padded to whole vectors; one that is
// one wide is a number a row, and fits every width.
#pragma once

#include <cstdint>

#include "kernels.hpp"

namespace unroll {

// In the order of OPS in instructions.py.
enum Op : int64_t {
  AFFINE,        // sums of products with weights, biases and addends
  SUM, MAX,      // over a row
  DOT,           // the sum over a row of the products of two, piece by piece
  LOAD_INPUT, STORE_INPUT, ACCUMULATE,
  COPY, ADD, SUB, MUL, DIV, NEG, SIGMOID, TANH, RELU, EXP, LOG, SQRT, ABS, SIGN, SIN, COS, SOFTPLUS, LOG1P, EXPM1,
  ERF, MAXIMUM, MINIMUM, POW,
  LESS, EQUAL, WHERE, SIGMOID_BACK, TANH_BACK, RELU_BACK, MULTIPLY_ADD, OPS
};

// Where a value lives. Of LOCAL ones only a few rows are there at a time: they are used up before the next AFFINE.
enum Home : int64_t { SCRATCH, SAVED, BEFORE, STATE, VECTOR, CONSTANT, GRADIENT, SENT, STRIP, LOCAL, HOMES };
enum Source : int64_t { OF_VALUE, OF_INPUT, OF_OUTPUT };

// Of an AFFINE's operands, and of a row that is summed.
constexpr int64_t most_pieces = 64;

struct Value {
  int64_t width, home;
  int64_t index;   // BEFORE: the value it is a step later; VECTOR: which weight; CONSTANT: which number; SCRATCH, LOCAL: which slot
  int64_t offset;  // VECTOR: its first number
};

struct Instruction {
  int64_t op, result, operand[3];
  const int64_t* list;  // SUM, MAX: the pieces of a row; DOT: pairs of pieces
  int64_t count;        // of them; AFFINE: which one
};

// Rows of a weight's columns that one operand is multiplied with for one result.
struct Matrix {
  int64_t weight, row, column, turned;
};

struct Result {
  int64_t value;
  const int64_t *biases, *addends;
  int64_t bias_count, addend_count;
  const Matrix* matrix;  // one for each operand
};

struct Affine {
  const int64_t* operand;
  const Result* result;
  int64_t operands, results;
  int64_t inner;  // the operands' columns
};

struct Operand {
  int64_t source, index, offset, width;
};

// The gradient of weights, summed over steps and sequences: the products of rows d with rows of operands.
struct Job {
  const Operand* operand;
  const Result* result;  // `value` is d; no biases or addends
  int64_t operands, results;
  int64_t inner;
};

struct StatePiece {
  int64_t start, width, fresh, before, gradient, sent;
};

struct State {
  int64_t size;
  const StatePiece* piece;
  int64_t pieces;
};

// A program, checked. Nothing here owns its memory.
struct Code {
  const int64_t *inputs, *weights;  // widths of the inputs; rows and columns of the weights
  const Value* value;
  const State* state;
  const double* number;
  const Instruction *forward, *backward;
  const Affine* affine;
  const Job* job;
  int64_t input_count, weight_count, values, states, numbers, forward_count, backward_count, affines, jobs;
};

// A vector of a result of an AFFINE or a job: `column` is its first one in the value, `left` how many are there.
struct Column {
  int64_t result, column, left;
};

// Where everything lies for vectors of so many lanes, in elements.
struct ProgramLayout {
  int64_t lanes;
  const int64_t *at, *stride;         // of each value: its place in a row of its home (times the rows), and from row to row
  int64_t saved, state, scratch, local, gradient, strip, vectors;  // numbers a row of each home; all of the vectors
  const int64_t *panel, *bias, *vector_count;                      // of each AFFINE
  const Column* const* column;
  const int64_t *partial, *job_vectors;                            // of each job
  const Column* const* job_column;
  const int64_t* accumulated;         // of each ACCUMULATE, by its place in the backward code
  int64_t panels, biases, partials, pack, rows;  // rows: those of LOCAL values
};

template <class T>
struct Scan {
  const Code* code;
  const ProgramLayout* layout;
  bool reverse;
  int64_t time, batch;
  const T* const* inputs;
  const int64_t *input_time, *input_batch;
  const T* const* initial;   // (B, size) for each part of the state
  const T* const* weights;
  T* out;                    // (T, B, size of the first part)
  T* const* last;
  T* frames;                 // what is saved, cell by cell; null where nothing is
  const T* d_out;
  int64_t d_out_time, d_out_batch;
  const T* const* d_last;
  T* const* d_inputs;        // (T, B, width)
  T* const* d_initial;
  T* const* d_weights;
  bool wants_weights;
  T *panels, *biases, *vectors;
  char *zero;                // [states]: all of the initial state is zero
  char *finite;              // [affines][most_pieces]: the weights are finite
};

// One operand of an instruction: rows, or one number a row or for all.
template <class T>
struct Read {
  const T* at;
  int64_t stride;
  bool one;
};

template <class T>
struct Ready;

template <class T>
using Element = void (*)(T* to, const T* a, const T* b, const T* c, int64_t rows, const Ready<T>& how);

// An instruction with all that need not be asked again for every few rows.
template <class T>
struct Ready {
  Element<T> run;              // null where it is no operation element by element
  T* to;                       // for the first row of the block
  const T* from[3];
  int64_t to_move, move[3];    // from there to the same of the next row, unless only a few rows are there at a time
  int64_t stride[3], count;    // from row to row of those that are there; numbers a row
  int operands;
};

// The memory of one thread.
template <class T>
struct Room {
  Ready<T>* ready;           // of each instruction
  T** at;                    // of each value, for its first row of the block
  T *local, *scratch, *states, *gradients, *strips, *pack, *partials;
  int64_t most, capacity;    // rows of a block; cells of a strip
  const T** rows;            // [capacity] for each operand of a job
  int64_t *cell_step, *cell_row;  // of the cells of the strip
};

}  // namespace unroll
