#include "kernels/roofline.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "base/parallel.hpp"

namespace manyheads::kernels {

namespace {

// More tasks than threads, so that a thread that wakes up late leaves no gap.
constexpr std::int64_t kTasksPerThread = 8;
// A round is a dozen instructions that take half a cycle each, whatever the instruction set: some tenths of a
// millisecond.
constexpr std::int64_t kTaskRounds = std::int64_t{1} << 17;

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

}  // namespace

double Roofline::arithmetic(ArithmeticProbe work, int threads, double least) {
  std::atomic<double> flop{0};
  std::atomic<float> sink{0};
  const Clock::time_point begin = Clock::now();
  double seconds = 0;
  do {
    base::parallel_for(threads * kTasksPerThread, threads, executor_, [&](std::int64_t, int) {
      float mine = 1;  // zero would let the sums decay to denormals, which are slow
      flop += work(kTaskRounds, &mine);
      sink += mine;
    });
    seconds = seconds_since(begin);
  } while (seconds < least);
  return flop.load() / seconds / 1e9;
}

const float* Roofline::memory_to_read() {
  if (memory_.size() == 0) {
    memory_ = base::AlignedBuffer<float>(beyond_caches() / sizeof(float));
    std::memset(memory_.data(), 0, memory_.size() * sizeof(float));  // untouched pages would all be one page
  }
  return memory_.data();
}

template <class Read>
double Roofline::reading(std::int64_t count, int threads, const Read& read) {
  const std::int64_t tasks = threads * kTasksPerThread;
  std::atomic<float> sink{0};
  const Clock::time_point begin = Clock::now();
  base::parallel_for(tasks, threads, executor_,
                     [&](std::int64_t i, int) { sink += read(count * i / tasks, count * (i + 1) / tasks); });
  return static_cast<double>(memory_.size() * sizeof(float)) / seconds_since(begin) / 1e9;
}

double Roofline::memory(const KernelTable& table, int threads, int multiplies) {
  const float* from = memory_to_read();
  const auto lines = static_cast<std::int64_t>(memory_.size() / 16);
  constexpr std::int64_t kAhead = 4096;  // floats: farther or nearer is no faster
  return reading(lines, threads, [&](std::int64_t begin, std::int64_t end) {
    const float* first = from + begin * 16;
    return table.probes.read(first, (end - begin) * 16, multiplies, multiplies > 0 ? first + kAhead : nullptr);
  });
}

double Roofline::memory_in_pieces(const KernelTable& table, int threads, std::size_t bytes) {
  const float* from = memory_to_read();
  const std::size_t size = bytes / sizeof(float);
  std::vector<std::size_t> order(memory_.size() / size);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::shuffle(order.begin(), order.end(), std::mt19937_64(7));
  return reading(static_cast<std::int64_t>(order.size()), threads, [&](std::int64_t begin, std::int64_t end) {
    constexpr std::int64_t kAhead = 4;  // pieces
    const auto piece = [&](std::int64_t i) { return from + order[static_cast<std::size_t>(i)] * size; };
    float sum = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      sum += table.probes.read(piece(i), static_cast<std::int64_t>(size), 0, piece(std::min(i + kAhead, end - 1)));
    }
    return sum;
  });
}

}  // namespace manyheads::kernels
