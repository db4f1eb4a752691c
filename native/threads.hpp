// Threads for the engine: those of an OpenMP runtime that is already in the process, or a pool of our own.
#pragma once

namespace unroll {

// Runs task(context, 0) ... task(context, count - 1) on up to `count` threads and returns when all are done. Where the
// system gives fewer threads, those that are there do the work of the others as well: what a task computes depends on its
// number and not on who runs it, so the results are the same. Safe to call from several threads at once. A task must not
// throw, for the threads have nobody to catch it.
void parallel(int count, void (*task)(void*, int) noexcept, void* context);

// Lends us the runtime's GOMP_parallel, omp_get_thread_num, omp_get_num_threads and omp_in_parallel.
void use_openmp(void* parallel, void* thread_num, void* num_threads, void* in_parallel);

}  // namespace unroll
