#include "view/timing.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <manyheads/error.hpp>
#include <utility>

namespace manyheads::view {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double clock_step(const Clock& clock) {
  constexpr int kSteps = 3;  // a browser may blur its clock, so that one step alone tells little
  constexpr std::int64_t kMostLooks = 20'000'000;
  double least = 0;
  for (int i = 0; i < kSteps; ++i) {
    const double from = clock();
    double now = from;
    for (std::int64_t looks = 0; now <= from; now = clock()) {
      if (++looks > kMostLooks) throw Error(ErrorCode::kUnsupported, "the clock stands still: nothing can be timed");
    }
    least = i == 0 ? now - from : std::min(least, now - from);
  }
  return least;
}

double least_seconds(const Clock& clock) {
  constexpr double kSeconds = 20e-3, kSteps = 16;
  return std::max(kSeconds, kSteps * clock_step(clock));
}

RepeatedWork::RepeatedWork(std::function<void()> work, Clock clock) : work_(std::move(work)), clock_(std::move(clock)) {
  constexpr double kMostGrowth = 100, kUnseen = 10;  // below one step
  const double least = least_seconds(clock_);
  work_();
  for (double taken = seconds_of(repeats_); taken < least; taken = seconds_of(repeats_)) {
    // Aims a little above: the next try is then the last one.
    const double growth = taken > 0 ? std::clamp(1.2 * least / taken, 2.0, kMostGrowth) : kUnseen;
    repeats_ = static_cast<std::int64_t>(std::ceil(static_cast<double>(repeats_) * growth));
  }
}

double RepeatedWork::seconds_of(std::int64_t runs) const {
  const double begin = clock_();
  for (std::int64_t i = 0; i < runs; ++i) work_();
  return clock_() - begin;
}

double RepeatedWork::seconds() const { return seconds_of(repeats_) / static_cast<double>(repeats_); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace manyheads::view
