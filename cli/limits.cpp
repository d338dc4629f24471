#include "limits.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/parallel.hpp"
#include "sampling.hpp"

namespace manyheads::cli {

namespace {

// More tasks than threads, so that a thread that wakes up late leaves no gap.
constexpr std::int64_t kTasksPerThread = 8;
// A round is a dozen instructions that take half a cycle each, whatever the instruction set: some tenths of a
// millisecond.
constexpr std::int64_t kTaskRounds = std::int64_t{1} << 17;

}  // namespace

std::size_t beyond_caches() {
  const long cache = ::sysconf(_SC_LEVEL3_CACHE_SIZE);
  const double physical = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  const double wanted = std::clamp(2.0 * static_cast<double>(cache), 0x1p28, 0x1p30);
  return static_cast<std::size_t>(std::min(wanted, physical / 8));
}

double Limits::arithmetic(Work work, int threads, double least) {
  std::atomic<double> flop{0};
  std::atomic<float> sink{0};
  const double begin = seconds_now();
  double seconds = 0;
  do {
    base::parallel_for(threads * kTasksPerThread, threads, nullptr, [&](std::int64_t, int) {
      float mine = 1;  // zero would let the sums decay to denormals, which are slow
      flop += work(kTaskRounds, &mine);
      sink += mine;
    });
    seconds = seconds_now() - begin;
  } while (seconds < least);
  return flop.load() / seconds / 1e9;
}

double Limits::memory(const kernels::KernelTable& table, int threads, int multiplies) {
  if (memory_.size() == 0) {
    memory_ = base::AlignedBuffer<float>(beyond_caches() / sizeof(float));
    std::memset(memory_.data(), 0, memory_.size() * sizeof(float));  // pages not yet touched would all be one
  }
  const auto count = static_cast<std::int64_t>(memory_.size());
  const std::int64_t tasks = threads * kTasksPerThread;
  std::atomic<float> sink{0};
  const double begin = seconds_now();
  base::parallel_for(tasks, threads, nullptr, [&](std::int64_t i, int) {
    const std::int64_t from = count * i / tasks / 16 * 16, to = count * (i + 1) / tasks / 16 * 16;
    sink += table.read_work(memory_.data() + from, to - from, multiplies);
  });
  return static_cast<double>(memory_.size() * sizeof(float)) / (seconds_now() - begin) / 1e9;
}

}  // namespace manyheads::cli
