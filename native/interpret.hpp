// Runs step programs (program.hpp) on blocks of rows, forward and backward over time.
//
// Included once per instruction set, after gemm.hpp and elements.hpp, for the same reason. The instructions between two AFFINEs are run on a
// few rows at a time, so that what they hand each other stays in the L1 cache.

// --- one step -----------------------------------------------------------------------------------------------------------

template <class S, class T>
struct Machine {
  const Scan<T>& run;
  const Code& code;
  const ProgramLayout& L;
  const Block& block;
  const Room<T>& room;

  // A value for the instructions that work on rows from `first` on.
  Read<T> read(int64_t v, int64_t first, bool column) const {
    const Value& value = code.value[v];
    const bool fixed = value.home == VECTOR || value.home == CONSTANT;
    const bool local = value.home == LOCAL;
    T* const at = room.at[v] + (fixed || local ? 0 : first * L.stride[v]);
    // One wide among columns of the same kind it is a column itself; a number for all rows stays one.
    return {at, column ? 0 : L.stride[v], value.width == 1 && (!column || fixed)};
  }

  // How the instructions of one direction are run; `point` says where their values are.
  void prepare(const Instruction* begin, int64_t count) const {
    for (int64_t n = 0; n < count; ++n) {
      const Instruction& i = begin[n];
      Ready<T>& ready = room.ready[n];
      ready = {};
      if (i.op < COPY) continue;
      const bool column = code.value[i.result].width == 1;
      ready.count = column ? 1 : L.stride[i.result];
      ready.to_move = moves(i.result);
      ready.operands = operands_of(i.op);
      bool by_row = false;
      int ones = 0;
      for (int k = 0; k < ready.operands; ++k) {
        const Read<T> o = read(i.operand[k], 0, column);
        by_row = by_row || (!column && o.stride != (o.one ? 0 : ready.count));
        ones |= o.one << k;
        ready.stride[k] = o.stride, ready.move[k] = moves(i.operand[k]);
      }
      ready.run = element_for<S, T>(i.op, ones, by_row);
    }
  }

  void aim(const Instruction* begin, int64_t count) const {
    for (int64_t n = 0; n < count; ++n) {
      Ready<T>& ready = room.ready[n];
      if (!ready.run) continue;
      ready.to = room.at[begin[n].result];
      for (int k = 0; k < ready.operands; ++k) ready.from[k] = room.at[begin[n].operand[k]];
    }
  }

  // How far a value's rows are apart where it is there for the whole block.
  int64_t moves(int64_t v) const { return code.value[v].home == LOCAL ? 0 : L.stride[v]; }

  void apart(const Instruction& i, int64_t first, int64_t rows, int64_t step) const {
    switch (i.op) {
      case SUM:
      case MAX:
      case DOT: {
        Read<T> piece[most_pieces];
        T* const to = const_cast<T*>(read(i.result, first, true).at);
        for (int64_t n = 0; n < i.count; ++n) piece[n] = read(i.list[n], first, false);
        if (i.op == DOT)
          dot_rows<S>(to, rows, i.list, i.count, piece, code.value);
        else if (i.op == SUM)
          over_rows<S>(to, rows, i.list, i.count, piece, code.value, T(0), [](auto a, auto b) { return a + b; });
        else
          over_rows<S>(to, rows, i.list, i.count, piece, code.value, -T(__builtin_inf()),
                       [](auto a, auto b) { return a == a ? b == b ? (a > b ? a : b) : b : a; });  // a NaN stays
        return;
      }
      case LOAD_INPUT:
      case STORE_INPUT: {
        const bool load_it = i.op == LOAD_INPUT;
        const int64_t v = load_it ? i.result : i.operand[2], which = i.operand[0], offset = i.operand[1],
                      width = code.value[v].width;
        const Read<T> rows_of = read(v, first, false);
        T* at = const_cast<T*>(rows_of.at);
        if (!load_it && !run.d_inputs[which]) return;
        for (int64_t m = 0; m < rows; ++m, at += L.stride[v]) {
          const int64_t place = block.index[first + m], t = time_of(run.reverse, block, first + m, step);
          if (load_it) {
            const T* from = run.inputs[which] + t * run.input_time[which] + place * run.input_batch[which] + offset;
            __builtin_memcpy(at, from, size_t(width) * sizeof(T));
          } else {
            T* to = run.d_inputs[which] + (t * run.batch + place) * code.inputs[which] + offset;
            __builtin_memcpy(to, at, size_t(width) * sizeof(T));
          }
        }
        return;
      }
      case ACCUMULATE: {
        if (!run.wants_weights) return;
        T* const sum = room.partials + L.accumulated[&i - code.backward];
        const int64_t v = i.operand[2], stride = L.stride[v], width = code.value[v].width;
        const Read<T> from = read(v, first, false);
        if (width == 1) {
          T all = 0;
          for (int64_t m = 0; m < rows; ++m) all += from.at[m * stride];
          sum[0] += all;
          return;
        }
        const Read<T> factor = i.result < 0 ? Read<T>{nullptr, 0, false} : read(i.result, first, false);
        for (int64_t k = 0; k < width; k += S::lanes) {
          typename S::V all{};  // of these rows first: sums of sums lose less
          const T *a = from.at + k, *b = factor.one ? factor.at : factor.at + k;
          if (!factor.at)
            for (int64_t m = 0; m < rows; ++m, a += stride) all += load<S>(a);
          else if (factor.one)
            for (int64_t m = 0; m < rows; ++m, a += stride, b += factor.stride) all += load<S>(a) * splat<S>(*b);
          else
            for (int64_t m = 0; m < rows; ++m, a += stride, b += factor.stride) all += load<S>(a) * load<S>(b);
          store<S>(sum + k, load<S>(sum + k) + all);
        }
        return;
      }
    }
  }

  template <int M, int N>
  __attribute__((always_inline)) void tile(const Affine& affine, const T* panel, const T* bias, const Column* column, const char* silent,
                          int64_t first) const {
    constexpr int64_t lanes = S::lanes;
    typename S::V acc[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) acc[m][n] = load<S>(bias + n * lanes);
    for (int64_t o = 0; o < affine.operands; ++o) {
      const int64_t v = affine.operand[o], width = code.value[v].width;
      if (!silent[o]) {
        const int64_t stride = L.stride[v];
        const T* const at = room.at[v] + first * stride;
        const T* row[M];
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) row[m] = at + m * stride;
        accumulate<S, M, N>(acc, row, width, panel);
      }
      panel += width * N * lanes;
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const Result& result = affine.result[column[n].result];
      const int64_t to_stride = L.stride[result.value];
      T* const to = room.at[result.value] + first * to_stride + column[n].column;
      for (int64_t a = 0; a < result.addend_count; ++a) {
        const int64_t v = result.addends[a];
        const Read<T> addend = read(v, first, false);
        const bool one = code.value[v].width == 1;
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m)
          acc[m][n] += one ? splat<S>(addend.at[m * addend.stride]) : load<S>(addend.at + m * addend.stride + column[n].column);
      }
      if (code.value[result.value].width == 1)
        for (int m = 0; m < M; ++m) to[m * to_stride] = acc[m][n][0];
      else
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) store<S>(to + m * to_stride, acc[m][n]);
    }
  }

  void affine(int64_t which, int64_t rows, bool beginning) const {
    const Affine& a = code.affine[which];
    constexpr int64_t lanes = S::lanes;
    const int64_t vectors = L.vector_count[which];
    const Tiles tiles(0, rows);
    const T* panel = run.panels + L.panel[which];
    char silent[most_pieces] = {};  // operands that are zero, with weights that are finite: they have nothing to say
    if (beginning)
      for (int64_t o = 0; o < a.operands; ++o) silent[o] = is_silent(a.operand[o], which, o);
    for (int64_t group = 0; 4 * group < vectors; ++group) {
      const int64_t width = smaller(4, vectors - 4 * group);
      const T* const bias = run.biases + L.bias[which] + group * 4 * lanes;
      const Column* const column = L.column[which] + 4 * group;
      for (int64_t n = 0; n < tiles.count; ++n)
        dispatch_rows(tiles.rows(n), [&](auto height) {
          dispatch_vectors(width, [&](auto wide) {
            tile<decltype(height)::value, decltype(wide)::value>(a, panel, bias, column, silent, tiles.first(n));
          });
        });
      panel += a.inner * width * lanes;
    }
  }

  // Whether a product goes back to the initial state alone, whose gradient nobody wants.
  bool only_for_initial(int64_t which) const {
    for (int64_t k = 0; k < code.states; ++k)
      if (run.d_initial[k]) return false;
    for (int64_t n = 0; n < code.affine[which].results; ++n)
      if (code.value[code.affine[which].result[n].value].home != SENT) return false;
    return true;
  }

  bool is_silent(int64_t v, int64_t which, int64_t operand) const {
    if (code.value[v].home != BEFORE || !run.zero) return false;
    for (int64_t k = 0; k < code.states; ++k)
      for (int64_t n = 0; n < code.state[k].pieces; ++n)
        if (code.state[k].piece[n].before == v) return run.zero[k] && run.finite[which * most_pieces + operand];
    return false;
  }

  static int operands_of(int64_t op) {
    switch (op) {
      case WHERE:
      case MULTIPLY_ADD: return 3;
      case ADD: case SUB: case MUL: case DIV: case MAXIMUM: case MINIMUM: case POW: case LESS: case EQUAL:
      case SIGMOID_BACK: case TANH_BACK: case RELU_BACK: return 2;
      default: return 1;
    }
  }

  void execute(const Instruction* begin, int64_t count, int64_t rows, int64_t step) const {
    for (int64_t n = 0; n < count;) {
      if (begin[n].op == AFFINE) {
        const int64_t which = begin[n++].count;
        if (step || begin == code.forward || !only_for_initial(which)) affine(which, rows, !step);
        continue;
      }
      int64_t end = n;
      while (end < count && begin[end].op != AFFINE) ++end;
      for (int64_t first = 0; first < rows; first += L.rows) {
        const int64_t some = smaller(L.rows, rows - first);
        for (int64_t k = n; k < end; ++k)
          if (const Ready<T>& r = room.ready[k]; r.run)
            r.run(r.to + first * r.to_move, r.from[0] + first * r.move[0], r.from[1] + first * r.move[1],
                  r.from[2] + first * r.move[2], some, r);
          else
            apart(begin[k], first, some, step);
      }
      n = end;
    }
  }

  // --- over time --------------------------------------------------------------------------------------------------------

  T* frame(int64_t step) const { return run.frames + (block.cells_before + block.offset[step]) * L.saved; }

  // Points every value that moves to where it is at a step; `backward` with the cells of the strip that are filled.
  void point(int64_t step, int64_t filled) const {
    for (int64_t v = 0; v < code.values; ++v) {
      const Value& value = code.value[v];
      const auto fresh_at = [&](int64_t n, int64_t of) -> T* {
        if (of < 0 || code.value[n].home == STATE)  // before the first step all parts of the state are there
          return room.states + ((of & 1) * L.state + state_at(n)) * room.most;
        return frame(of) + L.at[n] * block.active[of];
      };
      switch (value.home) {
        case SAVED:
        case STATE: room.at[v] = fresh_at(v, step); break;
        case BEFORE: room.at[v] = fresh_at(value.index, step - 1); break;
        case GRADIENT: room.at[v] = room.gradients + ((step & 1) * L.gradient + L.at[v]) * room.most; break;
        case SENT: room.at[v] = room.gradients + (((step & 1) ^ 1) * L.gradient + L.at[v]) * room.most; break;
        case STRIP: room.at[v] = room.strips + L.at[v] * room.capacity + filled * L.stride[v]; break;
        default: break;
      }
    }
  }

  // The place of a new state's piece among all states' pieces.
  int64_t state_at(int64_t fresh) const {
    int64_t at = 0;
    for (int64_t k = 0; k < code.states; ++k)
      for (int64_t n = 0; n < code.state[k].pieces; ++n) {
        if (code.state[k].piece[n].fresh == fresh) return at;
        at += L.stride[code.state[k].piece[n].fresh];
      }
    return at;
  }

  void point_fixed() const {
    for (int64_t v = 0; v < code.values; ++v) {
      if (code.value[v].home == SCRATCH) room.at[v] = room.scratch + L.at[v] * room.most;
      if (code.value[v].home == LOCAL) room.at[v] = room.local + L.at[v] * L.rows;
      if (code.value[v].home == VECTOR || code.value[v].home == CONSTANT) room.at[v] = run.vectors + L.at[v];
    }
  }

  // The initial state as what was there before the first step.
  void begin() const {
    point_fixed();
    for (int64_t k = 0; k < code.states; ++k)
      for (int64_t n = 0; n < code.state[k].pieces; ++n) {
        const StatePiece& piece = code.state[k].piece[n];
        T* const to = room.states + (L.state + state_at(piece.fresh)) * room.most;
        put(run.initial[k], code.state[k].size, piece, 0, block.sequences, to, L.stride[piece.fresh]);
      }
  }

  // Rows of a (B, size) tensor of the caller's into a value; what fills up a row is zero.
  void put(const T* from, int64_t size, const StatePiece& piece, int64_t first, int64_t end, T* to, int64_t stride) const {
    for (int64_t r = first; r < end; ++r)
      for (int64_t j = 0; j < stride; ++j)
        to[r * stride + j] = from && j < piece.width ? from[block.index[r] * size + piece.start + j] : T(0);
  }

  void take(const T* from, int64_t stride, int64_t first, int64_t end, T* to, int64_t size, const StatePiece& piece) const {
    for (int64_t r = first; r < end; ++r)
      __builtin_memcpy(to + block.index[r] * size + piece.start, from + r * stride, size_t(piece.width) * sizeof(T));
  }

  void forward() const {
    begin();
    prepare(code.forward, code.forward_count);
    const int64_t H = code.state[0].size;
    const auto keep_last = [&](int64_t first, int64_t end, bool fresh) {
      for (int64_t k = 0; k < code.states; ++k)
        for (int64_t n = 0; n < code.state[k].pieces; ++n) {
          const StatePiece& piece = code.state[k].piece[n];
          const T* from = fresh ? room.at[piece.fresh] : room.states + (L.state + state_at(piece.fresh)) * room.most;
          take(from, L.stride[piece.fresh], first, end, run.last[k], code.state[k].size, piece);
        }
    };
    keep_last(block.steps ? block.active[0] : 0, block.sequences, false);
    for (int64_t step = 0; step < block.steps; ++step) {
      const int64_t rows = block.active[step];
      point(step, 0);
      aim(code.forward, code.forward_count);
      execute(code.forward, code.forward_count, rows, step);
      for (int64_t n = 0; n < code.state[0].pieces; ++n) {
        const StatePiece& piece = code.state[0].piece[n];
        const T* from = room.at[piece.fresh];
        for (int64_t r = 0; r < rows; ++r, from += L.stride[piece.fresh]) {
          const int64_t t = time_of(run.reverse, block, r, step);
          __builtin_memcpy(run.out + (t * run.batch + block.index[r]) * H + piece.start, from, size_t(piece.width) * sizeof(T));
        }
      }
      keep_last(step + 1 < block.steps ? block.active[step + 1] : 0, rows, true);
    }
    for (int64_t r = 0; r < block.sequences; ++r)
      for (int64_t t = block.length[r]; t < run.time; ++t)
        __builtin_memset(run.out + (t * run.batch + block.index[r]) * H, 0, size_t(H) * sizeof(T));
  }

  void backward() const {
    begin();
    prepare(code.backward, code.backward_count);
    int64_t filled = 0;
    for (int64_t step = block.steps - 1; step >= 0; --step) {
      const int64_t rows = block.active[step], going_on = step + 1 < block.steps ? block.active[step + 1] : 0;
      if (filled + rows > room.capacity) {
        flush(filled);
        filled = 0;
      }
      point(step, filled);
      aim(code.backward, code.backward_count);
      for (int64_t k = 0; k < code.states; ++k)
        for (int64_t n = 0; n < code.state[k].pieces; ++n) {
          const StatePiece& piece = code.state[k].piece[n];
          T* const to = room.at[piece.gradient];
          const int64_t stride = L.stride[piece.gradient];
          put(run.d_last[k], code.state[k].size, piece, going_on, rows, to, stride);
          if (k || !run.d_out) continue;
          for (int64_t r = 0; r < rows; ++r) {
            const int64_t t = time_of(run.reverse, block, r, step);
            const T* from = run.d_out + t * run.d_out_time + block.index[r] * run.d_out_batch + piece.start;
            T* const row = to + r * stride;
            if (piece.width == 1) {
              *row += *from;
              continue;
            }
            for (int64_t j = 0; j < piece.width; j += S::lanes)
              store<S>(row + j, load<S>(row + j) + load<S>(from + j, piece.width - j));
          }
        }
      for (int64_t r = 0; r < rows; ++r) room.cell_step[filled + r] = step, room.cell_row[filled + r] = r;
      execute(code.backward, code.backward_count, rows, step);
      for (int64_t k = 0; k < code.states; ++k)
        for (int64_t n = 0; n < code.state[k].pieces; ++n) {
          const StatePiece& piece = code.state[k].piece[n];
          if (piece.sent >= 0) continue;
          const int64_t stride = L.stride[piece.gradient];  // nothing goes back: zeros
          T* const to = room.gradients + (((step & 1) ^ 1) * L.gradient + L.at[piece.gradient]) * room.most;
          __builtin_memset(to, 0, size_t(rows * stride) * sizeof(T));
        }
      filled += rows;
    }
    flush(filled);
    const int64_t started = block.steps ? block.active[0] : 0;
    for (int64_t k = 0; k < code.states; ++k)
      for (int64_t n = 0; n < code.state[k].pieces; ++n) {
        const StatePiece& piece = code.state[k].piece[n];
        const int64_t stride = L.stride[piece.gradient];
        T* const at = room.gradients + (L.gradient + L.at[piece.gradient]) * room.most;  // as if of the step before the first
        put(run.d_last[k], code.state[k].size, piece, started, block.sequences, at, stride);
        if (run.d_initial[k]) take(at, stride, 0, block.sequences, run.d_initial[k], code.state[k].size, piece);
      }
    for (int64_t i = 0; i < code.input_count; ++i)
      for (int64_t r = 0; run.d_inputs[i] && r < block.sequences; ++r)
        for (int64_t t = block.length[r]; t < run.time; ++t)
          __builtin_memset(run.d_inputs[i] + (t * run.batch + block.index[r]) * code.inputs[i], 0,
                           size_t(code.inputs[i]) * sizeof(T));
  }

  // --- gradients of the weights -----------------------------------------------------------------------------------------

  // The row of a value that belongs to a cell of the strip.
  const T* row_of(int64_t v, int64_t cell) const {
    const int64_t step = room.cell_step[cell], r = room.cell_row[cell];
    const Value& value = code.value[v];
    if (value.home == STRIP) return room.strips + L.at[v] * room.capacity + cell * L.stride[v];
    if (value.home == SAVED) return frame(step) + L.at[v] * block.active[step] + r * L.stride[v];
    const int64_t fresh = value.index;  // BEFORE
    if (!step) return room.states + (L.state + state_at(fresh)) * room.most + r * L.stride[v];
    return frame(step - 1) + L.at[fresh] * block.active[step - 1] + r * L.stride[v];
  }

  const T* operand_row(const Operand& o, int64_t cell) const {
    const int64_t step = room.cell_step[cell], r = room.cell_row[cell], place = block.index[r];
    if (o.source == OF_VALUE) return row_of(o.index, cell);
    const int64_t t = time_of(run.reverse, block, r, step), H = code.state[0].size;
    if (o.source == OF_INPUT)
      return run.inputs[o.index] + t * run.input_time[o.index] + place * run.input_batch[o.index] + o.offset;
    if (!step) return run.initial[0] + place * H + o.offset;
    return run.out + ((run.reverse ? t + 1 : t - 1) * run.batch + place) * H + o.offset;
  }

  void flush(int64_t cells) const {
    if (!run.wants_weights || !cells) return;
    constexpr int64_t lanes = S::lanes;
    int64_t beginning = 0;  // cells of the first step
    while (beginning < cells && !room.cell_step[cells - 1 - beginning]) ++beginning;
    for (int64_t j = 0; j < code.jobs; ++j) {
      const Job& job = code.job[j];
      const Tiles tiles(0, job.inner);
      // The operands' columns as tiles [cell][column], read as one stream.
      T* const strip = room.pack;
      int64_t column = 0, tile = 0;
      for (int64_t o = 0; o < job.operands; ++o)
        for (int64_t cell = 0; cell < cells; ++cell) room.rows[o * room.capacity + cell] = operand_row(job.operand[o], cell);
      for (int64_t o = 0; o < job.operands; ++o)
        for (int64_t k = 0; k < job.operand[o].width;) {
          const int64_t first = tiles.first(tile), height = tiles.rows(tile), inside = column - first;
          const int64_t some = smaller(height - inside, job.operand[o].width - k);
          T* to = strip + first * cells + inside;
          const T* const* row = room.rows + o * room.capacity;
          if (some == height)
            dispatch_rows(height, [&](auto m) {
              constexpr int M = decltype(m)::value;
              for (int64_t cell = 0; cell < cells; ++cell)
                __builtin_memcpy(to + cell * M, row[cell] + k, M * sizeof(T));
            });
          else
            for (int64_t cell = 0; cell < cells; ++cell)
              for (int64_t n = 0; n < some; ++n) to[cell * height + n] = row[cell][k + n];
          k += some, column += some;
          if (column == first + height) ++tile;
        }
      T* const rows = strip + job.inner * room.capacity;  // of d, for four vectors at a time
      int64_t handed_up = 0;  // columns at the beginning that are of the state before
      for (int64_t o = 0; o < job.operands && job.operand[o].source == OF_OUTPUT; ++o) handed_up += job.operand[o].width;
      const int64_t vectors = L.job_vectors[j];
      for (int64_t group = 0; 4 * group < vectors; ++group)
        dispatch_vectors(smaller(4, vectors - 4 * group), [&](auto n) {
          constexpr int N = decltype(n)::value;
          const Column* const part = L.job_column[j] + 4 * group;
          for (int w = 0; w < N; ++w) {
            const int64_t v = job.result[part[w].result].value, stride = L.stride[v];
            T* put_to = rows + w * lanes;
            if (code.value[v].width == 1)
              for (int64_t cell = 0; cell < cells; ++cell, put_to += N * lanes) store<S>(put_to, load<S>(row_of(v, cell), 1));
            else if (code.value[v].home == STRIP)
              for (const T *from = row_of(v, 0) + part[w].column, *end = from + cells * stride; from < end; from += stride) {
                store<S>(put_to, load<S>(from));
                put_to += N * lanes;
              }
            else
              for (int64_t cell = 0; cell < cells; ++cell, put_to += N * lanes)
                store<S>(put_to, load<S>(row_of(v, cell) + part[w].column));
          }
          // Of the first step, whose cells come last: a state of zeros adds nothing, unless d is infinite or NaN.
          const bool silent = beginning && run.zero[0] &&
                              all_finite<S>(rows + (cells - beginning) * N * lanes, beginning * N * lanes);
          T* const to = room.partials + L.partial[j] + group * 4 * lanes * job.inner;
          for (int64_t t = 0; t < tiles.count; ++t)
            dispatch_rows(tiles.rows(t), [&](auto m) {
              constexpr int M = decltype(m)::value;
              const int64_t first = tiles.first(t), some = silent && first + M <= handed_up ? cells - beginning : cells;
              gradient_tile<S, T, M, N, true>(strip + first * cells, rows, some, to + first * N * lanes, false);
            });
        });
    }
  }
};

// --- what the engine calls ------------------------------------------------------------------------------------------------

// Weights as panels [group of four vectors][k][vector][lane], biases as [vector][lane], and padded vectors and numbers.
template <class S, class T>
void pack_program(const Scan<T>& run, int64_t part, int64_t parts) {
  const Code& code = *run.code;
  const ProgramLayout& L = *run.layout;
  constexpr int64_t lanes = S::lanes;
  for (int64_t v = 0; v < code.values && !part; ++v) {
    const Value& value = code.value[v];
    if (value.home == CONSTANT) run.vectors[L.at[v]] = T(code.number[value.index]);
    if (value.home == VECTOR)
      for (int64_t k = 0; k < over(value.width, lanes) * lanes; ++k)
        run.vectors[L.at[v] + k] = k < value.width ? run.weights[value.index][value.offset + k] : T(0);
  }
  for (int64_t n = 0; n < code.affines; ++n) {
    const Affine& affine = code.affine[n];
    const int64_t vectors = L.vector_count[n];
    for (int64_t group = part; 4 * group < vectors; group += parts) {
      const int64_t wide = smaller(4, vectors - 4 * group);
      for (int64_t w = 0; w < wide; ++w) {
        const Column& column = L.column[n][4 * group + w];
        const Result& result = affine.result[column.result];
        T* const bias = run.biases + L.bias[n] + (4 * group + w) * lanes;
        for (int64_t lane = 0; lane < lanes; ++lane) {
          T sum = 0;
          for (int64_t b = 0; b < result.bias_count; ++b) {
            const Value& value = code.value[result.biases[b]];
            if (lane < column.left) sum += run.weights[value.index][value.offset + column.column + lane];
          }
          bias[lane] = sum;
        }
        T* to = run.panels + L.panel[n] + 4 * group * lanes * affine.inner + w * lanes;
        for (int64_t o = 0; o < affine.operands; ++o) {
          const Matrix& matrix = result.matrix[o];
          const int64_t width = code.value[affine.operand[o]].width, columns = code.weights[2 * matrix.weight + 1];
          const T* const weight = run.weights[matrix.weight];
          typename S::I fine = typename S::V{} == typename S::V{};
          if (matrix.turned) {
            for (int64_t k = 0; k < width; ++k, to += wide * lanes) {
              const auto row = load<S>(weight + (matrix.row + k) * columns + matrix.column + column.column, column.left);
              fine &= finite<S>(row);
              store<S>(to, row);
            }
          } else {
            const T* const from = weight + (matrix.row + column.column) * columns + matrix.column;
            for (int64_t k = 0; k < width; k += lanes) {
              typename S::V square[lanes];
              for (int64_t lane = 0; lane < lanes; ++lane) {
                square[lane] = lane < column.left ? load<S>(from + lane * columns + k, width - k) : typename S::V{};
                fine &= finite<S>(square[lane]);
              }
              transpose<S>(square);
              for (int64_t m = 0; m < smaller(lanes, width - k); ++m, to += wide * lanes) store<S>(to, square[m]);
            }
          }
          if (!all<S>(fine)) __atomic_store_n(run.finite + n * most_pieces + o, char(0), __ATOMIC_RELAXED);
        }
      }
    }
  }
}

template <class S, class T>
void program_forward(const Scan<T>& run, const Block& block, const Room<T>& room) {
  Machine<S, T>{run, *run.code, *run.layout, block, room}.forward();
}

template <class S, class T>
void program_backward(const Scan<T>& run, const Block& block, const Room<T>& room) {
  Machine<S, T>{run, *run.code, *run.layout, block, room}.backward();
}

// The threads' partial sums, added in their order, into the caller's gradients, which are zero before. One thread does all
// that goes into one weight.
template <class S, class T>
void program_sum(const Scan<T>& run, T* const* partial, int64_t partials, int64_t part, int64_t parts) {
  const Code& code = *run.code;
  const ProgramLayout& L = *run.layout;
  constexpr int64_t lanes = S::lanes;
  for (int64_t j = 0; j < code.jobs; ++j) {
    const Job& job = code.job[j];
    const int64_t vectors = L.job_vectors[j];
    for (int64_t n = 0; n < vectors; ++n) {
      const int64_t group = n / 4, wide = smaller(4, vectors - 4 * group), w = n % 4;
      const Column& column = L.job_column[j][n];
      const Result& result = job.result[column.result];
      int64_t first = 0;
      for (int64_t o = 0; o < job.operands; first += job.operand[o++].width) {
        const Matrix& matrix = result.matrix[o];
        if (matrix.weight % parts != part || !run.d_weights[matrix.weight]) continue;
        const int64_t columns = code.weights[2 * matrix.weight + 1], width = job.operand[o].width;
        T* const to = run.d_weights[matrix.weight] + (matrix.row + column.column) * columns + matrix.column;
        for (int64_t k = 0; k < width; k += lanes) {
          typename S::V square[lanes];
          for (int64_t m = 0; m < lanes; ++m) {
            square[m] = typename S::V{};
            const int64_t at = L.partial[j] + group * 4 * lanes * job.inner + ((first + k + m) * wide + w) * lanes;
            for (int64_t p = 0; k + m < width && p < partials; ++p) square[m] += load<S>(partial[p] + at);
          }
          transpose<S>(square);
          for (int64_t lane = 0; lane < column.left; ++lane) {
            T* const at = to + lane * columns + k;
            store<S>(at, load<S>(at, width - k) + square[lane], width - k);
          }
        }
      }
    }
  }
  for (int64_t n = 0; n < code.backward_count; ++n) {
    const Instruction& i = code.backward[n];
    if (i.op != ACCUMULATE || i.operand[0] % parts != part || !run.d_weights[i.operand[0]]) continue;
    for (int64_t k = 0; k < code.value[i.operand[2]].width; ++k)
      for (int64_t p = 0; p < partials; ++p) run.d_weights[i.operand[0]][i.operand[1] + k] += partial[p][L.accumulated[n] + k];
  }
}
