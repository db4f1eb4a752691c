// Products: register tiles of a few rows by at most four vectors, and how rows are split into them.
//
// Included once per instruction set, after simd.hpp, for the same reason.

// acc[m][n] += sum over k of row[m][k] * panel[k][n]
template <class S, int M, int N>
UNROLL_INLINE void accumulate(typename S::V (&acc)[M][N], const typename S::Scalar* const (&row)[M], int64_t count,
                              const typename S::Scalar* panel) {
  for (int64_t k = 0; k < count; ++k) {
    typename S::V weight[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) weight[n] = load<S>(panel + (k * N + n) * S::lanes);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const typename S::V value = splat<S>(row[m][k]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) acc[m][n] += weight[n] * value;
    }
  }
}

// A number as a type: the height and the width of a register tile have to be known to the compiler.
template <int number>
struct Constant {
  static constexpr int value = number;
};

template <class Body>
UNROLL_INLINE void dispatch_rows(int64_t rows, const Body& body) {
  switch (rows) {
    case 1: return body(Constant<1>());
    case 2: return body(Constant<2>());
    case 3: return body(Constant<3>());
#if UNROLL_ROWS >= 4
    case 4: return body(Constant<4>());
    case 5: return body(Constant<5>());
    case 6: return body(Constant<6>());
#endif
  }
}

template <class Body>
UNROLL_INLINE void dispatch_vectors(int64_t vectors, const Body& body) {
  switch (vectors) {
    case 1: return body(Constant<1>());
    case 2: return body(Constant<2>());
    case 3: return body(Constant<3>());
    case 4: return body(Constant<4>());
  }
}

// Splits [from, to) into the fewest tiles, all of nearly the same height: 32 rows are 6+6+5+5+5+5, not 5 x 6 + 2.
struct Tiles {
  int64_t from, count, height, higher;
  Tiles(int64_t begin, int64_t end) : from(begin) {
    const int64_t rows = end - begin;
    count = over(rows, UNROLL_ROWS);
    height = count ? rows / count : 0;
    higher = count ? rows % count : 0;
  }
  int64_t first(int64_t tile) const { return from + tile * height + smaller(tile, higher); }
  int64_t rows(int64_t tile) const { return height + (tile < higher); }
};
