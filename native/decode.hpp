// Step programs as lowering.py writes them: read word by word and checked, so that nothing that is run touches foreign memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "program.hpp"

namespace unroll {

struct Malformed {};

inline void demand(bool fine) {
  if (!fine) throw Malformed();
}

// The words that lowering.py writes, one after the other.
class Reader {
 public:
  Reader(const int64_t* words, int64_t count) : next_(words), end_(words + count) {}
  int64_t word() {
    demand(next_ < end_);
    return *next_++;
  }
  // A word from `low` up to but not including `end`.
  int64_t within(int64_t low, int64_t end) {
    const int64_t found = word();
    demand(found >= low && found < end);
    return found;
  }
  int64_t count() { return within(0, int64_t(1) << 24); }
  Reader part() {
    const int64_t size = count();
    demand(size <= end_ - next_);
    const Reader found(next_, size);
    next_ += size;
    return found;
  }
  bool done() const { return next_ == end_; }

 private:
  const int64_t *next_, *end_;
};

constexpr int64_t most_width = int64_t(1) << 24;

class Program {
 public:
  Program(const int64_t* words, int64_t count, const double* numbers, int64_t number_count)
      : numbers_(numbers, numbers + number_count) {
    Reader r(words, count);
    for (int64_t n = r.count(); n > 0; --n) inputs_.push_back(r.within(1, most_width));
    for (int64_t n = r.count(); n > 0; --n) {
      weights_.push_back(r.within(1, most_width));
      weights_.push_back(r.within(1, most_width));
    }
    for (int64_t n = r.count(); n > 0; --n) {
      Value value{};
      value.width = r.within(1, most_width), value.home = r.within(0, HOMES);
      value.index = r.word(), value.offset = r.word();
      values_.push_back(value);
    }
    const int64_t all = static_cast<int64_t>(values_.size());
    fresh_.resize(values_.size()), sent_.resize(values_.size());
    for (int64_t n = r.within(1, 64); n > 0; --n) {
      State state{};
      state.size = r.within(1, most_width);
      int64_t start = 0;
      std::vector<StatePiece> pieces;
      for (int64_t m = r.within(1, 1024); m > 0; --m) {
        StatePiece piece{};
        piece.start = r.word(), piece.width = r.word();
        demand(piece.start == start && piece.width >= 1 && piece.width <= state.size - start);
        start += piece.width;
        piece.fresh = r.within(0, all), piece.before = r.within(0, all);
        piece.gradient = r.within(-1, all), piece.sent = r.within(-1, all);
        demand(home(piece.fresh, piece.width, SAVED) || home(piece.fresh, piece.width, STATE));
        demand(home(piece.before, piece.width, BEFORE) && value(piece.before).index == piece.fresh);
        demand(piece.gradient < 0 || home(piece.gradient, piece.width, GRADIENT));
        demand(piece.sent < 0 || (piece.gradient >= 0 && home(piece.sent, piece.width, SENT)));
        differentiable_ = differentiable_ && piece.gradient >= 0;
        fresh_[static_cast<size_t>(piece.fresh)] = 1;
        if (piece.sent >= 0) sent_[static_cast<size_t>(piece.sent)] = 1;
        pieces.push_back(piece);
      }
      demand(start == state.size);
      pieces_.push_back(std::move(pieces));
      state.piece = pieces_.back().data(), state.pieces = static_cast<int64_t>(pieces_.back().size());
      states_.push_back(state);
    }
    demand(r.word() == number_count);
    check_values();
    read_code(r, forward_, false);
    read_code(r, backward_, true);
    for (int64_t n = r.count(); n > 0; --n) read_job(r.part());
    demand(r.done());
    demand(differentiable_ || (backward_.empty() && jobs_.empty()));
    code_.inputs = inputs_.data(), code_.weights = weights_.data(), code_.value = values_.data();
    code_.state = states_.data(), code_.number = numbers_.data();
    code_.forward = forward_.data(), code_.backward = backward_.data(), code_.affine = affines_.data(), code_.job = jobs_.data();
    code_.input_count = size(inputs_), code_.weight_count = size(weights_) / 2, code_.values = all;
    code_.states = size(states_), code_.numbers = number_count, code_.forward_count = size(forward_);
    code_.backward_count = size(backward_), code_.affines = size(affines_), code_.jobs = size(jobs_);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  const Code& code() const { return code_; }
  // Whether it has a backward step.
  bool differentiable() const { return differentiable_; }
  // Whether it has values that only a call that saves has room for.
  bool saves() const {
    return std::any_of(values_.begin(), values_.end(), [](const Value& v) { return v.home == SAVED; });
  }
  // Multiplications with weights in a step of one sequence.
  double work() const {
    double found = 1;
    for (const Affine& affine : affines_)
      for (int64_t n = 0; n < affine.results; ++n)
        found += double(affine.inner) * double(values_[static_cast<size_t>(affine.result[n].value)].width);
    return found;
  }

 private:
  template <class V>
  static int64_t size(const V& v) {
    return static_cast<int64_t>(v.size());
  }
  const Value& value(int64_t v) const { return values_[static_cast<size_t>(v)]; }
  bool home(int64_t v, int64_t width, int64_t home) const { return value(v).width == width && value(v).home == home; }

  void check_values() const {
    const int64_t all = size(values_);
    for (size_t n = 0; n < values_.size(); ++n) {
      const Value& v = values_[n];
      if (v.home == BEFORE) {
        demand(v.index >= 0 && v.index < all);
        const Value& fresh = value(v.index);
        demand(fresh.width == v.width && fresh_[static_cast<size_t>(v.index)]);
      } else if (v.home == STATE) {
        demand(fresh_[n]);
      } else if (v.home == SENT) {
        demand(sent_[n]);
      } else if (v.home == VECTOR) {
        demand(v.index >= 0 && v.index < size(weights_) / 2);
        const int64_t numbers = weights_[static_cast<size_t>(2 * v.index)] * weights_[static_cast<size_t>(2 * v.index + 1)];
        demand(v.offset >= 0 && v.offset <= numbers - v.width);
      } else if (v.home == CONSTANT) {
        demand(v.width == 1 && v.index >= 0 && v.index < size(numbers_));
      } else if (v.home == SCRATCH || v.home == LOCAL) {
        demand(v.index >= 0 && v.index < all);
      }
    }
  }

  // A value that may be read.
  int64_t operand(Reader& r, bool backward) const {
    const int64_t v = r.within(0, size(values_));
    const int64_t where = value(v).home;
    demand(backward || (where != GRADIENT && where != SENT && where != STRIP));
    demand(!backward || where != STATE);
    demand(!backward || where != BEFORE || value(value(v).index).home == SAVED);
    return v;
  }
  // A value that may be written.
  int64_t result(Reader& r, bool backward) const {
    const int64_t v = r.within(0, size(values_));
    const int64_t where = value(v).home;
    demand(where == SCRATCH || where == LOCAL ||
           (backward ? where == SENT || where == STRIP : where == SAVED || where == STATE));
    return v;
  }
  bool fits(int64_t v, int64_t width) const { return value(v).width == width || value(v).width == 1; }

  // The wider one of a pair.
  int64_t width_of(const std::vector<int64_t>& list, size_t pair) const {
    return std::max(value(list[pair]).width, value(list[pair + 1]).width);
  }

  Matrix read_matrix(Reader& r, int64_t rows, int64_t columns) const {
    Matrix m{};
    m.weight = r.within(0, size(weights_) / 2), m.row = r.word(), m.column = r.word(), m.turned = r.within(0, 2);
    if (m.turned) std::swap(rows, columns);
    const int64_t n = weights_[static_cast<size_t>(2 * m.weight)], k = weights_[static_cast<size_t>(2 * m.weight + 1)];
    demand(m.row >= 0 && m.row <= n - rows && m.column >= 0 && m.column <= k - columns);
    return m;
  }

  const int64_t* keep(std::vector<int64_t> list) {
    lists_.push_back(std::move(list));
    return lists_.back().data();
  }

  void read_code(Reader& all, std::vector<Instruction>& to, bool backward) {
    for (int64_t n = all.count(); n > 0; --n) {
      Reader r = all.part();
      Instruction i{};
      i.op = r.within(0, OPS);
      if (i.op == AFFINE) {
        i.count = size(affines_);
        read_affine(r, backward);
      } else if (i.op == SUM || i.op == MAX || i.op == DOT) {
        i.result = result(r, backward);
        demand(value(i.result).width == 1);
        std::vector<int64_t> list;
        for (int64_t m = r.within(1, most_pieces + 1); m > 0; --m) list.push_back(operand(r, backward));
        if (i.op == DOT) {
          demand(list.size() % 2 == 0);
          for (size_t m = 0; m < list.size(); m += 2) demand(value(list[m]).width > 1 || value(list[m + 1]).width > 1);
          for (size_t m = 0; m < list.size(); m += 2) demand(fits(list[m], width_of(list, m)) && fits(list[m + 1], width_of(list, m)));
        }
        i.count = size(list), i.list = keep(std::move(list));
      } else if (i.op == LOAD_INPUT) {
        i.result = result(r, backward);
        i.operand[0] = r.within(0, size(inputs_)), i.operand[1] = r.word();
        demand(i.operand[1] >= 0 && i.operand[1] <= inputs_[static_cast<size_t>(i.operand[0])] - value(i.result).width);
      } else if (i.op == STORE_INPUT) {
        demand(backward);
        i.operand[0] = r.within(0, size(inputs_)), i.operand[1] = r.word(), i.operand[2] = operand(r, backward);
        const Value& from = value(i.operand[2]);
        demand(from.home != CONSTANT && from.home != VECTOR);
        demand(i.operand[1] >= 0 && i.operand[1] <= inputs_[static_cast<size_t>(i.operand[0])] - from.width);
      } else if (i.op == ACCUMULATE) {
        demand(backward);
        i.operand[0] = r.within(0, size(weights_) / 2), i.operand[1] = r.word(), i.operand[2] = operand(r, backward);
        i.result = r.done() ? -1 : operand(r, backward);  // a second factor
        const size_t w = static_cast<size_t>(2 * i.operand[0]);
        if (i.result >= 0 && value(i.operand[2]).width < value(i.result).width) std::swap(i.operand[2], i.result);
        const Value& from = value(i.operand[2]);
        demand(i.result < 0 || (from.width > 1 && fits(i.result, from.width)));
        demand(i.result >= 0 || (from.home != CONSTANT && from.home != VECTOR));
        demand(i.operand[1] >= 0 && i.operand[1] <= weights_[w] * weights_[w + 1] - from.width);
      } else {
        i.result = result(r, backward);
        const int64_t width = value(i.result).width;
        for (int m = 0; m < operand_count(i.op); ++m) {
          i.operand[m] = operand(r, backward);
          demand(fits(i.operand[m], width));
        }
      }
      demand(r.done());
      to.push_back(i);
    }
  }

  void read_affine(Reader& r, bool backward) {
    Affine affine{};
    std::vector<int64_t> operands;
    for (int64_t n = r.within(1, most_pieces + 1); n > 0; --n) {
      operands.push_back(operand(r, backward));
      const Value& v = value(operands.back());
      demand(v.home != CONSTANT && v.home != VECTOR && v.home != LOCAL);
      affine.inner += v.width;
    }
    affine.operands = size(operands), affine.operand = keep(operands);
    std::vector<Result> results;
    for (int64_t n = r.within(1, 4096); n > 0; --n) {
      Result one{};
      one.value = result(r, backward);
      demand(value(one.value).home != LOCAL);
      const int64_t width = value(one.value).width;
      std::vector<int64_t> biases, addends;
      for (int64_t m = r.count(); m > 0; --m) {
        biases.push_back(r.within(0, size(values_)));
        demand(home(biases.back(), width, VECTOR));
      }
      for (int64_t m = r.count(); m > 0; --m) {
        addends.push_back(operand(r, backward));
        demand(fits(addends.back(), width) && value(addends.back()).home != LOCAL);
      }
      std::vector<Matrix> matrices;
      for (int64_t v : operands) {
        demand(v != one.value);
        matrices.push_back(read_matrix(r, width, value(v).width));
      }
      one.bias_count = size(biases), one.addend_count = size(addends);
      one.biases = keep(std::move(biases)), one.addends = keep(std::move(addends));
      matrices_.push_back(std::move(matrices));
      one.matrix = matrices_.back().data();
      results.push_back(one);
    }
    demand(r.done());
    results_.push_back(std::move(results));
    affine.result = results_.back().data(), affine.results = size(results_.back());
    affines_.push_back(affine);
  }

  // A row that is there when a strip is full.
  bool lasting(int64_t v) const {
    const Value& it = value(v);
    return it.home == STRIP || it.home == SAVED || (it.home == BEFORE && value(it.index).home == SAVED);
  }

  void read_job(Reader r) {
    Job job{};
    std::vector<Operand> operands;
    for (int64_t n = r.within(1, most_pieces + 1); n > 0; --n) {
      Operand o{};
      o.source = r.within(0, 3), o.index = r.word(), o.offset = r.word(), o.width = r.within(1, most_width);
      demand(o.offset >= 0);
      if (o.source == OF_VALUE)
        demand(o.index >= 0 && o.index < size(values_) && value(o.index).width == o.width && lasting(o.index));
      else if (o.source == OF_INPUT)
        demand(o.index >= 0 && o.index < size(inputs_) && o.offset <= inputs_[static_cast<size_t>(o.index)] - o.width);
      else
        demand(o.offset <= states_[0].size - o.width);
      job.inner += o.width;
      operands.push_back(o);
    }
    std::vector<Result> results;
    for (int64_t n = r.within(1, 4096); n > 0; --n) {
      Result one{};
      one.value = r.within(0, size(values_));
      demand(lasting(one.value));
      std::vector<Matrix> matrices;
      for (const Operand& o : operands) {
        matrices.push_back(read_matrix(r, value(one.value).width, o.width));
        demand(!matrices.back().turned);
      }
      matrices_.push_back(std::move(matrices));
      one.matrix = matrices_.back().data();
      results.push_back(one);
    }
    demand(r.done());
    job.operands = size(operands);
    operands_.push_back(std::move(operands));
    job.operand = operands_.back().data();
    results_.push_back(std::move(results));
    job.result = results_.back().data(), job.results = size(results_.back());
    jobs_.push_back(job);
  }

  static int operand_count(int64_t op) {
    if (op == WHERE || op == MULTIPLY_ADD) return 3;
    switch (op) {
      case ADD: case SUB: case MUL: case DIV: case MAXIMUM: case MINIMUM: case POW: case LESS: case EQUAL:
      case SIGMOID_BACK: case TANH_BACK: case RELU_BACK: return 2;
      default: return 1;
    }
  }

  std::vector<int64_t> inputs_, weights_;
  std::vector<Value> values_;
  std::vector<char> fresh_, sent_;  // of each value: whether a state's piece is made there, or goes back from there
  bool differentiable_ = true;
  std::deque<std::vector<StatePiece>> pieces_;
  std::vector<State> states_;
  std::vector<double> numbers_;
  std::vector<Instruction> forward_, backward_;
  std::vector<Affine> affines_;
  std::vector<Job> jobs_;
  std::deque<std::vector<int64_t>> lists_;
  std::deque<std::vector<Matrix>> matrices_;
  std::deque<std::vector<Result>> results_;
  std::deque<std::vector<Operand>> operands_;
  Code code_{};
};

}  // namespace unroll
