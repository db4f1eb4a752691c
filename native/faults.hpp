// Where the check program (check.cpp) lets the system refuse memory or a thread. In the library it never does: there these
// are constants, and nothing of them is left.
#pragma once

namespace unroll {

#if defined(UNROLL_FAULTS)
bool refuses_memory();
bool refuses_thread();
#else
constexpr bool refuses_memory() { return false; }
constexpr bool refuses_thread() { return false; }
#endif

}  // namespace unroll
