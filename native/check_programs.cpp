// Step programs for the sanitizers to watch: each as it is, and many times with words changed, cut out or put in. A changed
// program is refused, or runs on tensors of the sizes that it says without touching other memory.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <random>

#include "check.hpp"
#include "engine.hpp"

using namespace unroll;

namespace {

struct Words {
  std::vector<int64_t> words;
  std::vector<double> numbers;
};

bool take(std::ifstream& from, int64_t& to) { return static_cast<bool>(from.read(reinterpret_cast<char*>(&to), 8)); }

std::vector<Words> read_file(const char* file) {
  std::ifstream from(file, std::ios::binary);
  std::vector<Words> found;
  for (int64_t count = 0; take(from, count);) {
    Words one;
    one.words.resize(static_cast<size_t>(count));
    for (int64_t& word : one.words) take(from, word);
    take(from, count);
    one.numbers.resize(static_cast<size_t>(count));
    from.read(reinterpret_cast<char*>(one.numbers.data()), 8 * count);
    found.push_back(std::move(one));
  }
  return found;
}

// The sizes that a program says at its beginning; of one that was made.
struct Sizes {
  std::vector<int64_t> inputs, weights, states;
  bool small = true;  // enough to be run here

  explicit Sizes(const std::vector<int64_t>& words) {
    size_t at = 0;
    const auto next = [&] { return words[at++]; };
    for (int64_t n = next(); n > 0; --n) inputs.push_back(sized(next(), 4096));
    for (int64_t n = next(); n > 0; --n) {
      const int64_t rows = sized(next(), 4096);
      weights.push_back(rows * sized(next(), 4096));
    }
    int64_t width = 0;
    for (int64_t n = next(); n > 0; --n) width += sized(next(), 1 << 16), at += 3;
    small = small && width < 1 << 20;
    for (int64_t n = next(); n > 0; --n) {
      states.push_back(sized(next(), 4096));
      at += static_cast<size_t>(6 * next());
    }
  }

 private:
  int64_t sized(int64_t n, int64_t most) {
    small = small && n <= most;
    return n;
  }
};

// Forward and backward on random tensors, each a heap block of its size. False where a number of the results was not written
// or is not finite.
template <class T>
class Run {
 public:
  Run(void* program, const Sizes& sizes, std::mt19937& random) : random_(random) {
    const bool ragged = random() % 2, save = random() % 8;
    const int64_t time = 1 + below(4), batch = below(10);
    ProgramCall call{};
    call.twice = sizeof(T) == 8, call.reverse = random() % 2, call.save = save;
    call.threads = 1 + below(3), call.time = time, call.batch = batch;
    std::vector<int64_t> lengths, by_time, by_batch;
    for (int64_t n = 0; n < batch; ++n) lengths.push_back(below(time + 1));
    lengths.shrink_to_fit();
    if (ragged) call.lengths = lengths.data();
    std::vector<const void*> inputs, initial, weights, d_last;
    std::vector<void*> last, d_inputs, d_initial, d_weights;
    for (const int64_t n : sizes.inputs) {
      inputs.push_back(in(time * batch * n)), by_time.push_back(batch * n), by_batch.push_back(n);
      d_inputs.push_back(nullptr);  // not all programs write all of them
    }
    for (const int64_t n : sizes.states) {
      initial.push_back(in(batch * n)), d_last.push_back(random() % 4 ? in(batch * n) : nullptr);
      last.push_back(out(batch * n)), d_initial.push_back(nullptr);
    }
    for (const int64_t n : sizes.weights) weights.push_back(in(n)), d_weights.push_back(nullptr);
    call.inputs = inputs.data(), call.input_time = by_time.data(), call.input_batch = by_batch.data();
    call.initial = initial.data(), call.weights = weights.data(), call.last = last.data();
    call.out = out(time * batch * sizes.states[0]);
    const int status = unroll_program_forward(program, &call);
    fine = status == DONE || (status == UNFIT && !save);
    if (status != DONE) results_.clear();  // it has to save, and was not let
    if (status != DONE || !save) return;
    for (size_t n = 0; n < d_inputs.size(); ++n)
      if (random() % 4) d_inputs[n] = spare(time * batch * sizes.inputs[n]);
    for (size_t n = 0; n < d_initial.size(); ++n)
      if (random() % 4) d_initial[n] = out(batch * sizes.states[n]);
    for (size_t n = 0; n < d_weights.size(); ++n)
      if (random() % 4) d_weights[n] = out(sizes.weights[n]);
    call.d_last = d_last.data(), call.d_inputs = d_inputs.data(), call.d_initial = d_initial.data();
    call.d_weights = d_weights.data();
    call.d_out = random() % 4 ? in(time * batch * sizes.states[0]) : nullptr;
    call.d_out_time = batch * sizes.states[0], call.d_out_batch = sizes.states[0];
    const int backward = unroll_program_backward(program, &call);
    fine = (backward == DONE || backward == NOT_SAVED) && unroll_release(call.saved) == DONE;
    if (backward == NOT_SAVED) results_.clear();  // it has no backward step
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  bool written() const {
    for (const auto& tensor : results_)
      for (const T value : tensor)
        if (!std::isfinite(value)) return false;
    return true;
  }

  bool fine = false;

 private:
  int64_t below(int64_t end) { return static_cast<int64_t>(random_()) % end; }
  T* made(std::vector<std::vector<T>>& where, int64_t count, T value) {
    where.emplace_back(static_cast<size_t>(count), value);
    return where.back().data();
  }
  T* in(int64_t count) {  // none is zero, for programs divide by weights
    T* const found = made(given_, count, T(0));
    for (int64_t n = 0; n < count; ++n) found[n] = static_cast<T>((static_cast<double>(below(2000)) + 0.5) / 1000 - 1);
    return found;
  }
  T* out(int64_t count) { return made(results_, count, std::numeric_limits<T>::quiet_NaN()); }
  T* spare(int64_t count) { return made(given_, count, T(0)); }

  std::mt19937& random_;
  std::vector<std::vector<T>> given_, results_;
};

void* make(const Words& one) {
  return unroll_program_make(one.words.data(), static_cast<int64_t>(one.words.size()), one.numbers.data(),
                             static_cast<int64_t>(one.numbers.size()));
}

void change(Words& one, std::mt19937& random) {
  std::vector<int64_t>& words = one.words;
  const size_t place = random() % words.size();
  const auto drop = [&](size_t from, size_t count) {
    const auto begin = words.begin() + static_cast<std::ptrdiff_t>(from);
    words.erase(begin, begin + static_cast<std::ptrdiff_t>(count));
  };
  const int64_t extreme[] = {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min(), -1, 0,
                             int64_t(1) << 32, (int64_t(1) << 24) - 1, int64_t(1) << 62};
  switch (random() % 12) {
    case 0: words[place] ^= int64_t(uint64_t(1) << random() % 64); break;
    case 1: words[place] = extreme[random() % 7]; break;
    case 2: drop(place, 1); break;
    case 3: words.insert(words.begin() + static_cast<std::ptrdiff_t>(place), static_cast<int64_t>(random() % 40)); break;
    case 4: words.resize(place); break;
    case 5: std::swap(words[place], words[random() % words.size()]); break;
    case 6:
      if (!one.numbers.empty()) one.numbers.pop_back();
      break;
    case 7: words[place] ^= 1; break;
    case 8: words[place] = static_cast<int64_t>(random() % 11) - 2; break;
    default: words[place] = words[random() % words.size()]; break;  // most likely to be taken for what it is not
  }
  words.shrink_to_fit();
}

bool run(void* program, const Sizes& sizes, std::mt19937& random, bool whole) {
  if (random() % 2) {
    const Run<float> found(program, sizes, random);
    return found.fine && (!whole || found.written());
  }
  const Run<double> found(program, sizes, random);
  return found.fine && (!whole || found.written());
}

}  // namespace

bool check_programs(const char* file, const std::vector<std::string>& sets) {
  std::mt19937 random(5);
  size_t made = 0, changed = 0, ran = 0;
  bool ok = true;
  const std::vector<Words> programs = read_file(file);
  for (const Words& each : programs) {
    void* const program = make(each);
    if (!program) ok = false;
    for (const std::string& set : sets) {
      unroll_select(set.c_str());
      for (int repeat = 0; program && repeat < 4; ++repeat)
        if (!run(program, Sizes(each.words), random, true)) {
          std::printf("program %zu on %s: not all results are there\n", made, set.c_str());
          ok = false;
        }
    }
    unroll_program_free(program);
    ++made;
    for (int repeat = 0; repeat < 60; ++repeat) {
      Words other = each;
      for (unsigned n = 1 + random() % 2; n > 0 && !other.words.empty(); --n) change(other, random);
      unroll_select(sets[random() % sets.size()].c_str());
      void* const found = make(other);
      ++changed;
      if (!found) continue;
      const Sizes sizes(other.words);
      if (sizes.small) ++ran, run(found, sizes, random, false);
      unroll_program_free(found);
    }
  }
  std::printf("%zu programs; of %zu changed ones %zu ran\n", made, changed, ran);
  return ok && made;
}
