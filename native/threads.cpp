// torch's OpenMP workers keep spinning for a while after each of torch's parallel regions. A second pool of threads
// would have to fight them for the cores, which costs more than the kernels themselves; so where torch brought GNU
// OpenMP we run on its workers. Elsewhere (macOS, other runtimes) a pool of our own does it.

#include "threads.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace unroll {
namespace {

struct Job {
  void (*task)(void*, int);
  void* context;
  int count;
};

struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*thread_num)() = nullptr;
  int (*num_threads)() = nullptr;
  int (*in_parallel)() = nullptr;
} openmp;

void openmp_worker(void* data) {
  const Job& job = *static_cast<const Job*>(data);
  // The runtime may give fewer threads than asked for.
  const int threads = openmp.num_threads();
  for (int n = openmp.thread_num(); n < job.count; n += threads) job.task(job.context, n);
}

class Pool {
 public:
  // False if another caller has the pool: waiting for it would take longer than doing the work.
  bool run(const Job& job) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(workers_) < job.count - 1) {
        const int number = static_cast<int>(++workers_);
        std::thread(&Pool::work, this, number, round_).detach();
      }
      job_ = job;
      pending_ = static_cast<int>(workers_);
      ++round_;
    }
    start_.notify_all();
    job.task(job.context, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
    return true;
  }

 private:
  void work(int number, unsigned long seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      start_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      const Job job = job_;
      lock.unlock();
      if (number < job.count) job.task(job.context, number);
      lock.lock();
      if (--pending_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_, mutex_;
  std::condition_variable start_, done_;
  Job job_{};
  unsigned long round_ = 0;
  unsigned workers_ = 0;
  int pending_ = 0;
};

// Never destroyed: its threads may outlive the library's static objects.
Pool* pool = nullptr;
std::once_flag pool_once;

void make_pool() {
  pool = new Pool;
#if defined(__unix__) || defined(__APPLE__)
  // A forked child has none of the threads; it starts with a new pool.
  static bool registered = false;
  if (!registered) {
    registered = true;
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
  }
#endif
}

}  // namespace

void use_openmp(void* parallel, void* thread_num, void* num_threads, void* in_parallel) {
  openmp.thread_num = reinterpret_cast<int (*)()>(thread_num);
  openmp.num_threads = reinterpret_cast<int (*)()>(num_threads);
  openmp.in_parallel = reinterpret_cast<int (*)()>(in_parallel);
  openmp.parallel = reinterpret_cast<void (*)(void (*)(void*), void*, unsigned, unsigned)>(parallel);
}

void parallel(int count, void (*task)(void*, int), void* context) {
  Job job{task, context, count};
  if (count > 1) {
    if (openmp.parallel) {
      if (!openmp.in_parallel()) {
        openmp.parallel(openmp_worker, &job, static_cast<unsigned>(count), 0);
        return;
      }
    } else {
      std::call_once(pool_once, make_pool);
      if (pool->run(job)) return;
    }
  }
  for (int n = 0; n < count; ++n) task(context, n);
}

}  // namespace unroll
