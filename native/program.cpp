// Step programs: laid out for the vectors of an instruction set, and run on all threads.

#include "program.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "decode.hpp"
#include "engine.hpp"
#include "memory.hpp"
#include "plan.hpp"

namespace unroll {
namespace {

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
