// The memory that calls work in and that an LSTM keeps for its backward pass.
#pragma once

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

namespace unroll {

// Buffers go back to a shelf instead of to the system: fresh megabytes cost a page fault for every 4 KiB, a good part of
// a training step. The shelf keeps what the last few steps used, never more than was once in use at the same time, and
// frees the rest.
class Shelf {
 public:
  // Aligned to a cache line at least. Throws std::bad_alloc.
  void* take(size_t bytes);
  // Asks for no memory: a failed call gives back what it had.
  void give(void* memory);
  // Frees what nobody has taken.
  void clear();

  // Around a fork, for the child would wait for ever for a lock that a thread of its parent holds.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

  // Huge pages for what is large enough; the kernel takes it as a hint.
  static void advise(void* memory, size_t bytes);

 private:
  struct Buffer {
    void* memory;
    size_t bytes;
  };
  void lend(const Buffer& buffer);

  static constexpr size_t line = 64, huge = size_t(2) << 20, kept = 16;
  std::mutex mutex_;
  std::vector<Buffer> free_, taken_;
  size_t bytes_free_ = 0, bytes_taken_ = 0, most_taken_ = 0;
};

extern Shelf& shelf;

// A buffer for the time of one call, or until the caller of `keep` gives it back.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : memory_(bytes ? shelf.take(bytes) : nullptr) {}
  ~Scratch() { shelf.give(memory_); }
  void* keep() { return std::exchange(memory_, nullptr); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  void* memory_;
};

}  // namespace unroll
