// What all calls share: the instruction set in use, how the sequences of a batch are dealt out to threads and blocks, and how
// errors leave.
#pragma once

#include <algorithm>
#include <cstdint>
#include <new>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "engine.hpp"
#include "kernels.hpp"
#include "threads.hpp"

namespace unroll {

const InstructionSet& current_set();
// An instruction set by its place in the list of all; null where this machine does not have it.
int64_t number_of(const InstructionSet& set);
const InstructionSet* set_of(int64_t number);

template <class T>
const Kernels<T>& kernels_of(const InstructionSet& set) {
  if constexpr (sizeof(T) == 4)
    return set.single;
  else
    return set.twice;
}

// No exception may leave a C function: Python's process would end. What `body` returns, or what became of it.
template <class Body>
int guarded(Body body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return NO_MEMORY;
  } catch (const std::length_error&) {  // more than any memory holds
    return NO_MEMORY;
  } catch (...) {
    return FAILED;
  }
}

// Sequences that one thread walks together. More of them use each panel of weights more often while it is in the
// cache; but their states have to stay in the cache as well.
constexpr int64_t most_sequences = 126;

// Who walks what: every thread has its blocks, and nothing is shared between threads until the gradients are summed.
class Plan {
 public:
  Plan(int64_t time, int64_t batch, const int64_t* lengths, int64_t threads) {
    std::vector<int64_t> order(static_cast<size_t>(batch));
    std::iota(order.begin(), order.end(), 0);
    if (lengths)
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
    index_.reserve(order.size());
    length_.reserve(order.size());
    struct Cut {
      size_t from, to;
    };
    std::vector<Cut> cuts;
    for (int64_t thread = 0; thread < threads; ++thread) {
      const size_t begin = index_.size();
      if (lengths) {
        // Dealt out like cards, to and fro, so that all threads get as many steps.
        for (int64_t n = 0; n < batch; ++n) {
          const int64_t round = n / threads, seat = n % threads;
          if ((round % 2 ? threads - 1 - seat : seat) == thread) index_.push_back(order[static_cast<size_t>(n)]);
        }
      } else {
        for (int64_t n = batch * thread / threads; n < batch * (thread + 1) / threads; ++n) index_.push_back(n);
      }
      const int64_t mine = static_cast<int64_t>(index_.size() - begin), count = (mine + most_sequences - 1) / most_sequences;
      first_.push_back(cuts.size());
      for (int64_t n = 0; n < count; ++n)
        cuts.push_back({begin + static_cast<size_t>(mine * n / count), begin + static_cast<size_t>(mine * (n + 1) / count)});
    }
    first_.push_back(cuts.size());
    for (int64_t place : index_) length_.push_back(lengths ? lengths[place] : time);

    size_t steps = 0;
    for (const Cut& cut : cuts) steps += static_cast<size_t>(length_[cut.from]);
    steps_.resize(2 * steps);
    int64_t* next = steps_.data();
    for (const Cut& cut : cuts) {
      Block block;
      block.sequences = static_cast<int64_t>(cut.to - cut.from);
      block.index = index_.data() + cut.from;
      block.length = length_.data() + cut.from;
      block.steps = block.length[0];
      block.cells = 0;
      block.cells_before = cells_;
      int64_t *active = next, *offset = next + block.steps;
      next = offset + block.steps;
      int64_t running = block.sequences;
      for (int64_t step = 0; step < block.steps; ++step) {
        while (block.length[running - 1] <= step) --running;
        active[step] = running;
        offset[step] = block.cells;
        block.cells += running;
      }
      block.active = active;
      block.offset = offset;
      cells_ += block.cells;
      most_ = std::max(most_, block.sequences);
      blocks_.push_back(block);
    }
  }

  int64_t cells() const { return cells_; }
  int64_t most() const { return most_; }
  size_t begin(int64_t thread) const { return first_[static_cast<size_t>(thread)]; }
  size_t end(int64_t thread) const { return first_[static_cast<size_t>(thread) + 1]; }
  const Block& block(size_t n) const { return blocks_[n]; }

 private:
  std::vector<int64_t> index_, length_, steps_;
  std::vector<Block> blocks_;
  std::vector<size_t> first_;
  int64_t cells_ = 0, most_ = 0;
};

// FNV-1a (Fowler, Noll, Vo), a number at a time instead of a byte.
inline uint64_t mark_of(const int64_t* lengths, int64_t count) {
  uint64_t mark = 0xcbf29ce484222325;
  for (int64_t n = 0; lengths && n < count; ++n) mark = (mark ^ static_cast<uint64_t>(lengths[n])) * 0x100000001b3;
  return mark;
}

template <class Body>
void in_parallel(int64_t threads, Body& body) {
  parallel(static_cast<int>(threads), [](void* context, int n) noexcept { (*static_cast<Body*>(context))(n); }, &body);
}

// Elements, rounded up so that what follows is aligned again.
inline size_t aligned(int64_t elements) { return static_cast<size_t>((elements + 63) / 64 * 64); }

}  // namespace unroll
