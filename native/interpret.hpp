// Runs step programs (program.hpp) on blocks of rows, forward and backward over time.
//
// Included once per instruction set, after gemm.hpp, for the same reason. The instructions between two AFFINEs are run on a
// few rows at a time, so that what they hand each other stays in the L1 cache.

// --- element by element -------------------------------------------------------------------------------------------------

// exp(x) for any x, in two halves of the scale, so that neither overflows before the result does.
template <class S>
UNROLL_INLINE typename S::V exponential_of(typename S::V x) {
  using V = typename S::V;
  const V zero{}, negative = x < zero ? x : -x;
  const Exponential<S> e = exponential<S>(negative);
  const V down = e.scale * e.rest + e.scale;
  const V up = splat<S>(1) / down;
  const V highest = splat<S>(-S::lowest);
  const V found = x < zero ? down : x > highest ? x * splat<S>(S::largest) : up;
  return x == x ? found : x;
}

#define UNROLL_EACH(name, single, twice)                                     \
  UNROLL_INLINE float name(float x) { return single(x); }                   \
  UNROLL_INLINE double name(double x) { return twice(x); }
UNROLL_EACH(natural_log, __builtin_logf, __builtin_log)
UNROLL_EACH(log_plus_1, __builtin_log1pf, __builtin_log1p)
UNROLL_EACH(exact_exp, __builtin_expf, __builtin_exp)
UNROLL_EACH(sine, __builtin_sinf, __builtin_sin)
UNROLL_EACH(cosine, __builtin_cosf, __builtin_cos)
#undef UNROLL_EACH
UNROLL_INLINE float power(float a, float b) { return __builtin_powf(a, b); }
UNROLL_INLINE double power(double a, double b) { return __builtin_pow(a, b); }

template <class V, class F>
UNROLL_INLINE V each_lane(V a, F f) {
  for (size_t lane = 0; lane < sizeof(V) / sizeof(a[0]); ++lane) a[lane] = f(a[lane]);
  return a;
}

// One operand of an instruction: rows, or one number a row or for all.
template <class T>
struct Read {
  const T* at;
  int64_t stride;
  bool one;
};

// result = f(a, b, c) on `lines` lines of `count` numbers.
template <class S, bool one_a, bool one_b, bool one_c, int operands, class T, class F>
UNROLL_INLINE void lines_of(T* to, int64_t to_stride, int64_t lines, int64_t count, const Read<T>* o, F f) {
  using V = typename S::V;
  for (int64_t line = 0; line < lines; ++line) {
    const T* const a = o[0].at + line * o[0].stride;
    const T* const b = operands > 1 ? o[1].at + line * o[1].stride : nullptr;
    const T* const c = operands > 2 ? o[2].at + line * o[2].stride : nullptr;
    T* const out = to + line * to_stride;
    const V all_a = one_a ? splat<S>(*a) : V{}, all_b = one_b ? splat<S>(*b) : V{}, all_c = one_c ? splat<S>(*c) : V{};
    int64_t k = 0;
    for (; k + S::lanes <= count; k += S::lanes)
      store<S>(out + k, f(one_a ? all_a : load<S>(a + k), operands < 2 || one_b ? all_b : load<S>(b + k),
                          operands < 3 || one_c ? all_c : load<S>(c + k)));
    if (const int64_t left = count - k; left > 0)
      store<S>(out + k, f(one_a ? all_a : load<S>(a + k, left), operands < 2 || one_b ? all_b : load<S>(b + k, left),
                          operands < 3 || one_c ? all_c : load<S>(c + k, left)), left);
  }
}

template <class S, int operands, class T, class F>
UNROLL_APART void element_wise(T* to, int64_t to_stride, int64_t lines, int64_t count, const Read<T>* o, F f) {
  if constexpr (operands == 1) {
    o[0].one ? lines_of<S, true, false, false, 1>(to, to_stride, lines, count, o, f)
             : lines_of<S, false, false, false, 1>(to, to_stride, lines, count, o, f);
  } else if constexpr (operands == 2) {
    switch (o[0].one + 2 * o[1].one) {
      case 0: return lines_of<S, false, false, false, 2>(to, to_stride, lines, count, o, f);
      case 1: return lines_of<S, true, false, false, 2>(to, to_stride, lines, count, o, f);
      case 2: return lines_of<S, false, true, false, 2>(to, to_stride, lines, count, o, f);
      default: return lines_of<S, true, true, false, 2>(to, to_stride, lines, count, o, f);
    }
  } else {
    switch (o[0].one + 2 * o[1].one + 4 * o[2].one) {
      case 0: return lines_of<S, false, false, false, 3>(to, to_stride, lines, count, o, f);
      case 1: return lines_of<S, true, false, false, 3>(to, to_stride, lines, count, o, f);
      case 2: return lines_of<S, false, true, false, 3>(to, to_stride, lines, count, o, f);
      case 3: return lines_of<S, true, true, false, 3>(to, to_stride, lines, count, o, f);
      case 4: return lines_of<S, false, false, true, 3>(to, to_stride, lines, count, o, f);
      case 5: return lines_of<S, true, false, true, 3>(to, to_stride, lines, count, o, f);
      case 6: return lines_of<S, false, true, true, 3>(to, to_stride, lines, count, o, f);
      default: return lines_of<S, true, true, true, 3>(to, to_stride, lines, count, o, f);
    }
  }
}

template <class S, class T>
void compute(int64_t op, T* to, int64_t stride, int64_t lines, int64_t count, const Read<T>* o) {
  using V = typename S::V;
  using I = typename S::I;
  const V one = splat<S>(1), zero{};
  const auto number = [=](I mask) { return mask ? one : zero; };
#define UNROLL_1(expression) \
  return element_wise<S, 1>(to, stride, lines, count, o, [=](V a, V, V) -> V { return expression; })
#define UNROLL_2(expression) \
  return element_wise<S, 2>(to, stride, lines, count, o, [=](V a, V b, V) -> V { return expression; })
#define UNROLL_3(expression) \
  return element_wise<S, 3>(to, stride, lines, count, o, [=](V a, V b, V c) -> V { return expression; })
  switch (op) {
    case COPY: UNROLL_1(a);
    case NEG: UNROLL_1(-a);
    case SIGMOID:
      return element_wise<S, 1>(to, stride, lines, count, o, [](V a, V, V) -> V {
        const Quotient<S> q = sigmoid<S>(a);
        return q.top / q.bottom;
      });
    case TANH:
      return element_wise<S, 1>(to, stride, lines, count, o, [](V a, V, V) -> V {
        const Quotient<S> q = hyperbolic_tangent<S>(a);
        return q.top / q.bottom;
      });
    case RELU: UNROLL_1((a < zero ? zero : a));  // in this order a NaN passes
    case EXP: UNROLL_1(exponential_of<S>(a));
    case LOG: UNROLL_1(each_lane(a, [](T x) { return natural_log(x); }));
    case SQRT: UNROLL_1(square_root(a));
    case ABS: UNROLL_1((a < zero ? -a : a + zero));
    case SIGN: UNROLL_1((a > zero ? one : a < zero ? -one : zero));
    case SIN: UNROLL_1(each_lane(a, [](T x) { return sine(x); }));
    case COS: UNROLL_1(each_lane(a, [](T x) { return cosine(x); }));
    case SOFTPLUS:  // as torch has it: beyond 20 it is the number itself
      UNROLL_1(each_lane(a, [](T x) { return x > T(20) ? x : log_plus_1(exact_exp(x)); }));
    case ADD: UNROLL_2(a + b);
    case SUB: UNROLL_2(a - b);
    case MUL: UNROLL_2(a * b);
    case DIV: UNROLL_2(a / b);
    case MAXIMUM: UNROLL_2((a == a ? b == b ? (a > b ? a : b) : b : a));
    case MINIMUM: UNROLL_2((a == a ? b == b ? (a < b ? a : b) : b : a));
    case POW:
      return element_wise<S, 2>(to, stride, lines, count, o, [](V a, V b, V) -> V {
        for (int lane = 0; lane < S::lanes; ++lane) a[lane] = power(a[lane], b[lane]);
        return a;
      });
    case LESS: UNROLL_2(number(a < b));
    case EQUAL: UNROLL_2(number(a == b));
    case SIGMOID_BACK: UNROLL_2(a * (b * (one - b)));
    case TANH_BACK: UNROLL_2(a * (one - b * b));
    case RELU_BACK: UNROLL_2((b <= zero ? zero : a));
    case WHERE: UNROLL_3((a != zero ? b : c));
    case MULTIPLY_ADD: UNROLL_3(a * b + c);
  }
#undef UNROLL_1
#undef UNROLL_2
#undef UNROLL_3
}

// The sum over a row of the products of two rows, piece by piece; one of them may be one number.
template <class S, class T>
UNROLL_INLINE void dot_rows(T* to, int64_t rows, const int64_t* list, int64_t count, const Read<T>* piece, const Value* value) {
  using V = typename S::V;
  for (int64_t row = 0; row < rows; ++row) {
    V all[2] = {};
    for (int64_t n = 0; n < count; n += 2) {
      const T *const a = piece[n].at + row * piece[n].stride, *const b = piece[n + 1].at + row * piece[n + 1].stride;
      const bool one_a = piece[n].one, one_b = piece[n + 1].one;
      const int64_t width = value[list[one_a ? n + 1 : n]].width;
      const V all_a = one_a ? splat<S>(*a) : V{}, all_b = one_b ? splat<S>(*b) : V{};
      int64_t k = 0, turn = 0;
      for (; k + S::lanes <= width; k += S::lanes, turn ^= 1)
        all[turn] += (one_a ? all_a : load<S>(a + k)) * (one_b ? all_b : load<S>(b + k));
      if (k < width) {
        const int64_t left = width - k;
        V product = (one_a ? all_a : load<S>(a + k, left)) * (one_b ? all_b : load<S>(b + k, left));
        for (int64_t lane = left; lane < S::lanes; ++lane) product[lane] = 0;
        all[0] += product;
      }
    }
    const V both = all[0] + all[1];
    T total = 0;
    for (int lane = 0; lane < S::lanes; ++lane) total += both[lane];
    to[row] = total;
  }
}

// Over the pieces of each row, in an order of their own: vector by vector, then lane by lane.
template <class S, class T, class F>
UNROLL_INLINE void over_rows(T* to, int64_t rows, const int64_t* list, int64_t count, const Read<T>* piece,
                             const Value* value, T begin, F f) {
  using V = typename S::V;
  for (int64_t row = 0; row < rows; ++row) {
    V all = splat<S>(begin);
    for (int64_t n = 0; n < count; ++n) {
      const T* from = piece[n].at + row * piece[n].stride;
      const int64_t width = value[list[n]].width;
      int64_t k = 0;
      for (; k + S::lanes <= width; k += S::lanes) all = f(all, load<S>(from + k));
      if (k < width) {
        V tail = splat<S>(begin);
        for (int64_t lane = 0; k + lane < width; ++lane) tail[lane] = from[k + lane];
        all = f(all, tail);
      }
    }
    T total = begin;
    for (int lane = 0; lane < S::lanes; ++lane) total = f(total, T(all[lane]));
    to[row] = total;
  }
}

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

  void element(const Instruction& i, int64_t first, int64_t rows, int operands) const {
    const Value& to = code.value[i.result];
    const bool column = to.width == 1;
    const Read<T> result = read(i.result, first, column);
    Read<T> o[3];
    bool straight = !column;
    for (int n = 0; n < operands; ++n) {
      o[n] = read(i.operand[n], first, column);
      straight = straight && (o[n].one ? o[n].stride == 0 : o[n].stride == result.stride);
    }
    T* const at = const_cast<T*>(result.at);
    if (column)
      compute<S>(i.op, at, 0, 1, rows, o);
    else if (straight)  // one line of all rows
      compute<S>(i.op, at, 0, 1, rows * result.stride, o);
    else
      compute<S>(i.op, at, result.stride, rows, result.stride, o);
  }

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
          begin[k].op < COPY ? apart(begin[k], first, some, step) : element(begin[k], first, some, operands_of(begin[k].op));
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
    int64_t filled = 0;
    for (int64_t step = block.steps - 1; step >= 0; --step) {
      const int64_t rows = block.active[step], going_on = step + 1 < block.steps ? block.active[step + 1] : 0;
      if (filled + rows > room.capacity) {
        flush(filled);
        filled = 0;
      }
      point(step, filled);
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
