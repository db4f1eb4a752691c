// torch's OpenMP workers keep spinning for a while after each of torch's parallel regions. A second pool of threads
// would have to fight them for the cores, which costs more than the kernels themselves; so where torch brought GNU
// OpenMP we run on its workers. Elsewhere (macOS, other runtimes) a pool of our own does it.

#include "threads.hpp"

#include <algorithm>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "faults.hpp"

namespace unroll {
namespace {

struct Job {
  void (*task)(void*, int) noexcept;
  void* context;
  int count;
};

// The part of one of so many threads, which may be fewer than the job has tasks.
void run_share(const Job& job, int thread, int threads) noexcept {
  for (int n = thread; n < job.count; n += threads) job.task(job.context, n);
}

template <class... Arguments>
std::thread start_thread(Arguments... arguments) {
  if (refuses_thread()) throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  return std::thread(arguments...);
}

// --- OpenMP's threads -----------------------------------------------------------------------------------------------

struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*thread_num)() = nullptr;
  int (*num_threads)() = nullptr;
  int (*in_parallel)() = nullptr;
} openmp;

void openmp_worker(void* data) noexcept {
  // The runtime may give fewer threads than asked for.
  run_share(*static_cast<const Job*>(data), openmp.thread_num(), openmp.num_threads());
}

// Whether the system gives that many more threads, all at a time.
bool can_start(int count) noexcept {
  std::vector<std::thread> threads;
  bool all = true;
  std::mutex gate;  // holds the first ones up until the last one is there
  try {
    std::lock_guard<std::mutex> closed(gate);
    threads.reserve(static_cast<size_t>(count));
    for (int n = 0; n < count; ++n)
      threads.push_back(start_thread([&gate] { std::lock_guard<std::mutex> pass(gate); }));
  } catch (...) {
    all = false;
  }
  for (std::thread& thread : threads) thread.join();
  return all;
}

// GNU OpenMP ends the process where a thread cannot start, so this is tried out first: once, for a number and a caller,
// for every caller has workers of its own there.
bool openmp_has(int count) noexcept {
  thread_local int most = 1, too_many = std::numeric_limits<int>::max();
  if (count <= most) return true;
  if (count >= too_many) return false;
  const bool can = can_start(count - 1);
  (can ? most : too_many) = count;
  return can;
}

// --- our own --------------------------------------------------------------------------------------------------------

class Pool {
 public:
  // False if another caller has the pool: waiting for it would take longer than doing the work.
  bool run(const Job& job) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    int threads;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      start_workers(job.count - 1);
      job_ = job;
      threads = threads_ = std::min(workers_ + 1, job.count);
      pending_ = workers_;
      ++round_;
    }
    start_.notify_all();
    run_share(job, 0, threads);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
    return true;
  }

 private:
  void start_workers(int wanted) noexcept {
    try {
      while (workers_ < wanted) {
        start_thread(&Pool::work, this, workers_ + 1, round_).detach();
        ++workers_;
      }
    } catch (...) {
      // No more threads, or no memory for one: those that are there have to do.
    }
  }

  void work(int number, unsigned long seen) noexcept {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      start_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      const Job job = job_;
      const int threads = threads_;
      lock.unlock();
      if (number < threads) run_share(job, number, threads);
      lock.lock();
      if (--pending_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_, mutex_;
  std::condition_variable start_, done_;
  Job job_{};
  unsigned long round_ = 0;
  int workers_ = 0, threads_ = 0, pending_ = 0;
};

// Never destroyed: its threads may outlive the library's static objects.
alignas(Pool) unsigned char pool_place[sizeof(Pool)];
Pool* pool = new (pool_place) Pool;

#if defined(__unix__) || defined(__APPLE__)
// A forked child has none of the threads: it starts with a new pool. GNU OpenMP would wait for its lost workers for ever.
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] {
  pool = new (pool_place) Pool;
  openmp.parallel = nullptr;
});
#endif

}  // namespace

void use_openmp(void* parallel, void* thread_num, void* num_threads, void* in_parallel) {
  openmp.thread_num = reinterpret_cast<int (*)()>(thread_num);
  openmp.num_threads = reinterpret_cast<int (*)()>(num_threads);
  openmp.in_parallel = reinterpret_cast<int (*)()>(in_parallel);
  openmp.parallel = reinterpret_cast<void (*)(void (*)(void*), void*, unsigned, unsigned)>(parallel);
}

void parallel(int count, void (*task)(void*, int) noexcept, void* context) {
  Job job{task, context, count};
  if (count > 1) {
    if (openmp.parallel && openmp.in_parallel()) {
      // Already one of several threads: no more of them.
    } else if (openmp.parallel && openmp_has(count)) {
      openmp.parallel(openmp_worker, &job, static_cast<unsigned>(count), 0);
      return;
    } else if (pool->run(job)) {
      return;
    }
  }
  run_share(job, 0, 1);
}

}  // namespace unroll
