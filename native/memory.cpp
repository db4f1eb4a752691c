#include "memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "faults.hpp"

namespace unroll {

void* Shelf::take(size_t bytes) {
  bytes = std::max<size_t>((bytes + line - 1) / line * line, line);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t best = free_.size();
    for (size_t n = 0; n < free_.size(); ++n)
      if (free_[n].bytes >= bytes && free_[n].bytes <= bytes + bytes / 4 &&
          (best == free_.size() || free_[n].bytes < free_[best].bytes))
        best = n;
    if (best < free_.size()) {
      const Buffer buffer = free_[best];
      lend(buffer);
      free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(best));
      bytes_free_ -= buffer.bytes;
      return buffer.memory;
    }
  }
  const size_t alignment = bytes >= huge ? huge : line;
  void* memory = nullptr;
  if (refuses_memory() || posix_memalign(&memory, alignment, bytes)) throw std::bad_alloc();
  advise(memory, bytes);
  try {
    std::lock_guard<std::mutex> lock(mutex_);
    lend({memory, bytes});
  } catch (...) {
    std::free(memory);
    throw;
  }
  return memory;
}

void Shelf::give(void* memory) {
  if (!memory) return;
  void* dropped[kept + 1];
  size_t drops = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = std::find_if(taken_.rbegin(), taken_.rend(), [&](const Buffer& b) { return b.memory == memory; });
    if (found == taken_.rend()) return;
    free_.push_back(*found);
    bytes_free_ += found->bytes;
    bytes_taken_ -= found->bytes;
    taken_.erase(std::next(found).base());
    while (free_.size() > kept || bytes_free_ > most_taken_) {
      bytes_free_ -= free_.front().bytes;
      dropped[drops++] = free_.front().memory;
      free_.erase(free_.begin());
    }
  }
  while (drops) std::free(dropped[--drops]);
}

void Shelf::clear() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Buffer& buffer : free_) std::free(buffer.memory);
  free_.clear();
  bytes_free_ = 0;
  most_taken_ = bytes_taken_;
}

void Shelf::advise(void* memory, size_t bytes) {
#if defined(__linux__)
  if (bytes < 2 * huge) return;
  const uintptr_t from = (reinterpret_cast<uintptr_t>(memory) + huge - 1) / huge * huge;
  const uintptr_t to = (reinterpret_cast<uintptr_t>(memory) + bytes) / huge * huge;
  if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

void Shelf::lend(const Buffer& buffer) {
  free_.reserve(kept + 1);  // for `give`
  taken_.push_back(buffer);
  bytes_taken_ += buffer.bytes;
  most_taken_ = std::max(most_taken_, bytes_taken_);
}

// Never destroyed: a daemon thread may still be walking while the process ends.
alignas(Shelf) static unsigned char shelf_place[sizeof(Shelf)];
Shelf& shelf = *new (shelf_place) Shelf;

#if defined(__unix__) || defined(__APPLE__)
[[maybe_unused]] static const int at_fork =
    pthread_atfork([] { shelf.lock(); }, [] { shelf.unlock(); }, [] { shelf.unlock(); });
#endif

}  // namespace unroll
