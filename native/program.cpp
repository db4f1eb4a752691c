// Step programs: read and checked once, laid out for the vectors of an instruction set, and run on all threads.

#include "program.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "engine.hpp"
#include "memory.hpp"
#include "plan.hpp"

namespace unroll {
namespace {

struct Malformed {};

void demand(bool fine) {
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

// --- memory -------------------------------------------------------------------------------------------------------------

// Where everything lies for vectors of so many lanes.
class Places {
 public:
  Places(const Code& code, int64_t lanes) {
    const auto up = [lanes](int64_t n) { return (n + lanes - 1) / lanes * lanes; };
    at_.resize(static_cast<size_t>(code.values)), stride_.resize(at_.size());
    layout_.lanes = lanes;
    std::vector<int64_t> slots[2];
    slots[0].assign(at_.size(), -1), slots[1].assign(at_.size(), -1);
    int64_t widest = lanes;
    for (bool column : {false, true})  // whole vectors first, so that they are aligned
      for (int64_t v = 0; v < code.values; ++v) {
        const Value& value = code.value[v];
        if ((value.width == 1) != column) continue;
        const bool fixed = value.home == VECTOR || value.home == CONSTANT;
        const int64_t row = column ? 1 : up(value.width);
        int64_t& at = at_[static_cast<size_t>(v)];
        stride_[static_cast<size_t>(v)] = fixed ? 0 : row;
        const auto next = [&](int64_t& sum, int64_t more) { at = sum, sum += more; };
        switch (value.home) {
          case SAVED: next(layout_.saved, row); break;
          case GRADIENT: next(layout_.gradient, row); break;
          case STRIP: next(layout_.strip, row); break;
          case VECTOR:
          case CONSTANT: next(layout_.vectors, up(value.width)); break;
          case SCRATCH:
          case LOCAL: {
            const bool local = value.home == LOCAL;
            int64_t& slot = slots[local][static_cast<size_t>(value.index)];
            if (slot < 0) slot = v, next(local ? layout_.local : layout_.scratch, row);
            demand(code.value[slot].width == value.width);
            at = at_[static_cast<size_t>(slot)];
            if (local) widest = std::max(widest, row);
            break;
          }
          default: break;
        }
      }
    layout_.saved = up(layout_.saved);
    for (int64_t k = 0; k < code.states; ++k)
      for (int64_t n = 0; n < code.state[k].pieces; ++n) {
        const StatePiece& piece = code.state[k].piece[n];
        layout_.state += stride_[static_cast<size_t>(piece.fresh)];
        if (piece.sent >= 0) at_[static_cast<size_t>(piece.sent)] = at_[static_cast<size_t>(piece.gradient)];
      }
    layout_.rows = std::max<int64_t>(1, local_numbers / widest);
    const auto columns_of = [&](const Result* result, int64_t count) {
      std::vector<Column> found;
      for (int64_t n = 0; n < count; ++n)
        for (int64_t c = 0, width = code.value[result[n].value].width; c < width; c += lanes)
          found.push_back({n, c, std::min(lanes, width - c)});
      columns_.push_back(std::move(found));
      return static_cast<int64_t>(columns_.back().size());
    };
    for (int64_t n = 0; n < code.affines; ++n) {
      const int64_t vectors = columns_of(code.affine[n].result, code.affine[n].results);
      vectors_.push_back(vectors), panel_.push_back(layout_.panels), bias_.push_back(layout_.biases);
      add_product(layout_.panels, vectors * lanes, code.affine[n].inner), layout_.biases += vectors * lanes;
    }
    for (int64_t n = 0; n < code.jobs; ++n) {
      const int64_t vectors = columns_of(code.job[n].result, code.job[n].results);
      job_vectors_.push_back(vectors), partial_.push_back(layout_.partials);
      add_product(layout_.partials, vectors * lanes, code.job[n].inner);
      layout_.pack = std::max(layout_.pack, code.job[n].inner + 4 * lanes);
      operands_ = std::max(operands_, code.job[n].operands);
    }
    accumulated_.resize(static_cast<size_t>(code.backward_count));
    for (int64_t n = 0; n < code.backward_count; ++n)
      if (code.backward[n].op == ACCUMULATE) {
        accumulated_[static_cast<size_t>(n)] = layout_.partials;
        layout_.partials += up(code.value[code.backward[n].operand[2]].width);
      }
    for (const int64_t numbers : {layout_.saved, layout_.state, layout_.scratch, layout_.local, layout_.gradient, layout_.strip,
                                  layout_.vectors, layout_.panels, layout_.biases, layout_.partials})
      demand(numbers <= most_numbers);
    for (const auto& list : columns_) column_.push_back(list.data());
    layout_.at = at_.data(), layout_.stride = stride_.data();
    layout_.panel = panel_.data(), layout_.bias = bias_.data(), layout_.vector_count = vectors_.data();
    layout_.column = column_.data(), layout_.job_column = column_.data() + code.affines;
    layout_.partial = partial_.data(), layout_.job_vectors = job_vectors_.data(), layout_.accumulated = accumulated_.data();
  }
  const ProgramLayout& layout() const { return layout_; }
  int64_t operands() const { return operands_; }

 private:
  // Of a LOCAL value of the widest kind: few enough for the L2 cache, and so many that the instructions themselves cost little.
  static constexpr int64_t local_numbers = 4096;
  // More than any cell has, and so few that what is reckoned with them does not overflow.
  static constexpr int64_t most_numbers = int64_t(1) << 36;
  static void add_product(int64_t& sum, int64_t a, int64_t b) {
    demand(a <= most_numbers / b && sum <= most_numbers);
    sum += a * b;
  }
  ProgramLayout layout_{};
  std::vector<int64_t> at_, stride_, panel_, bias_, vectors_, partial_, job_vectors_, accumulated_;
  std::deque<std::vector<Column>> columns_;
  std::vector<const Column*> column_;
  int64_t operands_ = 1;
};

// In front of what is saved, as in engine.cpp.
struct Saved {
  int64_t mark, threads, set;
  int64_t twice, time, batch;
  uint64_t program, lengths;
};
static_assert(sizeof(Saved) == 64, "what follows has to be aligned to a vector");
constexpr int64_t saved_mark = 0x6d6172676f7270;
constexpr int64_t strip_cells = 128;

template <class T>
Scan<T> scan_of(const Program& program, const ProgramLayout& layout, const ProgramCall& call) {
  Scan<T> run{};
  run.code = &program.code(), run.layout = &layout;
  run.reverse = call.reverse, run.time = call.time, run.batch = call.batch;
  run.inputs = reinterpret_cast<const T* const*>(call.inputs);
  run.input_time = call.input_time, run.input_batch = call.input_batch;
  run.initial = reinterpret_cast<const T* const*>(call.initial);
  run.weights = reinterpret_cast<const T* const*>(call.weights);
  run.out = static_cast<T*>(call.out), run.last = reinterpret_cast<T* const*>(call.last);
  run.d_out = static_cast<const T*>(call.d_out), run.d_out_time = call.d_out_time, run.d_out_batch = call.d_out_batch;
  run.d_last = reinterpret_cast<const T* const*>(call.d_last);
  run.d_inputs = reinterpret_cast<T* const*>(call.d_inputs);
  run.d_initial = reinterpret_cast<T* const*>(call.d_initial);
  run.d_weights = reinterpret_cast<T* const*>(call.d_weights);
  return run;
}

int64_t useful_threads(const Program& program, const ProgramCall& call) {
  const double work = 2.0 * double(call.time) * double(call.batch) * program.work();
  int64_t threads = std::min(std::max<int64_t>(call.threads, 1), (call.batch + 3) / 4);
  if (work / 1e6 < double(threads)) threads = static_cast<int64_t>(work / 1e6) + 1;
  return std::max<int64_t>(threads, 1);
}

// The memory of all threads, one room each, and what is packed for all of them.
template <class T>
class Rooms {
 public:
  Rooms(Scan<T>& run, const Places& places, const Plan& plan, int64_t threads, bool backward)
      : run_(run), zero_(static_cast<size_t>(run.code->states)),
        finite_(static_cast<size_t>(run.code->affines * most_pieces), char(1)), partials_(static_cast<size_t>(threads)) {
    const ProgramLayout& L = places.layout();
    const int64_t most = plan.most(), capacity = std::max(most, strip_cells);
    const size_t panels = aligned(L.panels), biases = aligned(L.biases), vectors = aligned(L.vectors),
                 local = aligned(L.local * L.rows), scratch = aligned(L.scratch * most), states = aligned(2 * L.state * most),
                 gradients = backward ? aligned(2 * L.gradient * most) : 0, strips = backward ? aligned(L.strip * capacity) : 0,
                 pack = backward ? aligned(L.pack * capacity) : 0, partials = backward ? aligned(L.partials) : 0,
                 each = local + scratch + states + gradients + strips + pack + partials;
    memory_ = std::make_unique<Scratch>(sizeof(T) * (panels + biases + vectors + each * static_cast<size_t>(threads)));
    T* next = memory_->as<T>();
    run.panels = next, run.biases = next + panels, run.vectors = run.biases + biases;
    next = run.vectors + vectors;
    run.finite = finite_.data();
    const size_t values = static_cast<size_t>(run.code->values), cells = static_cast<size_t>(capacity);
    pointers_.resize(values * static_cast<size_t>(threads));
    const size_t instructions = static_cast<size_t>(std::max(run.code->forward_count, run.code->backward_count));
    ready_.resize(instructions * static_cast<size_t>(threads));
    rows_.resize((backward ? cells * static_cast<size_t>(places.operands()) : 0) * static_cast<size_t>(threads));
    cells_.resize((backward ? 2 * cells : 0) * static_cast<size_t>(threads));
    for (size_t n = 0; n < static_cast<size_t>(threads); ++n) {
      Room<T> room{};
      room.at = pointers_.data() + n * values, room.ready = ready_.data() + n * instructions;
      room.local = next, room.scratch = room.local + local, room.states = room.scratch + scratch;
      room.gradients = room.states + states, room.strips = room.gradients + gradients, room.pack = room.strips + strips;
      room.partials = room.pack + pack;
      next += each;
      room.most = most, room.capacity = capacity;
      room.rows = rows_.data() + n * cells * static_cast<size_t>(places.operands());
      room.cell_step = cells_.data() + 2 * n * cells, room.cell_row = room.cell_step + cells;
      std::fill_n(room.partials, partials, T(0));
      partials_[n] = room.partials;
      rooms_.push_back(room);
    }
  }
  const Room<T>& operator[](int thread) const { return rooms_[static_cast<size_t>(thread)]; }
  T* const* partials() const { return partials_.data(); }
  // After packing: which parts of the initial state are zero.
  void look(const Kernels<T>& k) {
    for (int64_t n = 0; n < run_.code->states; ++n)
      zero_[static_cast<size_t>(n)] = k.all_zero(run_.initial[n], run_.batch * run_.code->state[n].size);
    run_.zero = zero_.data();
  }

 private:
  Scan<T>& run_;
  std::vector<char> zero_, finite_;
  std::vector<T*> partials_, pointers_;
  std::vector<const T*> rows_;
  std::vector<int64_t> cells_;
  std::vector<Ready<T>> ready_;
  std::vector<Room<T>> rooms_;
  std::unique_ptr<Scratch> memory_;
};

template <class T>
void run_forward(const Program& program, ProgramCall& call) {
  const InstructionSet& set = current_set();
  const Kernels<T>& k = kernels_of<T>(set);
  const Places places(program.code(), k.lanes);
  Scan<T> run = scan_of<T>(program, places.layout(), call);
  const int64_t threads = useful_threads(program, call);
  const Plan plan(run.time, run.batch, call.lengths, threads);
  const size_t bytes = sizeof(T) * static_cast<size_t>(plan.cells() * places.layout().saved);
  Scratch own(call.save ? sizeof(Saved) + bytes : 0);
  if (call.save) {
    const Saved head{saved_mark, threads, number_of(set), call.twice, call.time, call.batch,
                     reinterpret_cast<uint64_t>(&program), mark_of(call.lengths, call.batch)};
    std::memcpy(own.as<char>(), &head, sizeof head);
    run.frames = reinterpret_cast<T*>(own.as<char>() + sizeof(Saved));
  }
  Rooms<T> rooms(run, places, plan, threads, false);
  Shelf::advise(run.out, sizeof(T) * static_cast<size_t>(run.time * run.batch * program.code().state[0].size));
  auto pack = [&](int thread) { k.pack_program(run, thread, threads); };
  auto walk = [&](int thread) {
    for (size_t n = plan.begin(thread); n < plan.end(thread); ++n) k.program_forward(run, plan.block(n), rooms[thread]);
  };
  in_parallel(threads, pack);
  rooms.look(k);
  in_parallel(threads, walk);
  call.saved = own.keep();
}

template <class T>
bool run_backward(const Program& program, ProgramCall& call) {
  Saved saved;
  if (!call.saved) return false;
  std::memcpy(&saved, call.saved, sizeof saved);
  const InstructionSet* set = set_of(saved.set);
  if (!program.differentiable() || saved.mark != saved_mark || saved.twice != call.twice || saved.time != call.time || saved.batch != call.batch ||
      saved.program != reinterpret_cast<uint64_t>(&program) || saved.lengths != mark_of(call.lengths, call.batch) ||
      saved.threads < 1 || saved.threads > std::max<int64_t>((call.batch + 3) / 4, 1) || !set)
    return false;
  const Kernels<T>& k = kernels_of<T>(*set);
  const int64_t threads = saved.threads;
  const Places places(program.code(), k.lanes);
  Scan<T> run = scan_of<T>(program, places.layout(), call);
  const Plan plan(run.time, run.batch, call.lengths, threads);
  run.frames = reinterpret_cast<T*>(static_cast<char*>(call.saved) + sizeof(Saved));
  for (int64_t n = 0; n < program.code().weight_count; ++n) run.wants_weights = run.wants_weights || run.d_weights[n];
  Rooms<T> rooms(run, places, plan, threads, true);
  rooms.look(k);
  auto pack = [&](int thread) { k.pack_program(run, thread, threads); };
  auto walk = [&](int thread) {
    for (size_t n = plan.begin(thread); n < plan.end(thread); ++n) k.program_backward(run, plan.block(n), rooms[thread]);
  };
  auto sum = [&](int thread) {
    const Code& code = program.code();
    for (int64_t n = thread; n < code.weight_count; n += threads)
      if (run.d_weights[n])
        std::memset(run.d_weights[n], 0, sizeof(T) * static_cast<size_t>(code.weights[2 * n] * code.weights[2 * n + 1]));
    k.program_sum(run, rooms.partials(), threads, thread, threads);
  };
  in_parallel(threads, pack);
  in_parallel(threads, walk);
  if (run.wants_weights) in_parallel(threads, sum);
  return true;
}

bool lengths_fit(const ProgramCall& call) {
  return !call.lengths || std::all_of(call.lengths, call.lengths + call.batch,
                                      [&](int64_t length) { return 0 <= length && length <= call.time; });
}

}  // namespace
}  // namespace unroll

using namespace unroll;

void* unroll_program_make(const int64_t* words, int64_t count, const double* numbers, int64_t number_count) {
  try {
    auto program = std::make_unique<Program>(words, count, numbers, number_count);
    Places(program->code(), 4);  // finds slots of two widths
    return program.release();
  } catch (...) {
    return nullptr;
  }
}

int unroll_program_free(void* program) {
  return guarded([program]() -> int {
    delete static_cast<Program*>(program);
    return DONE;
  });
}

int unroll_program_forward(void* program, ProgramCall* call) {
  return guarded([=]() -> int {
    if (!lengths_fit(*call)) return UNFIT;
    const Program& it = *static_cast<const Program*>(program);
    if (!call->save && it.saves()) return UNFIT;
    call->twice ? run_forward<double>(it, *call) : run_forward<float>(it, *call);
    return DONE;
  });
}

int unroll_program_backward(void* program, ProgramCall* call) {
  return guarded([=]() -> int {
    if (!lengths_fit(*call)) return UNFIT;
    const Program& it = *static_cast<const Program*>(program);
    return (call->twice ? run_backward<double>(it, *call) : run_backward<float>(it, *call)) ? DONE : NOT_SAVED;
  });
}
