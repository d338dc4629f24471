#pragma once

#include <cstdint>
#include <functional>
#include <vector>

// Times by a clock that may tick slowly: in a browser every 0.1 ms or every 1 ms.
namespace manyheads::view {

using Clock = std::function<double()>;  // seconds
double steady_seconds();

// The least step that the clock takes. Throws Error where it stands still.
double clock_step(const Clock& clock = steady_seconds);

// What lies well above the clock's step: 20 ms, and at least 16 steps.
double least_seconds(const Clock& clock = steady_seconds);

// Work that is repeated until it lasts that long. A run before grows workspaces, some more find out how often.
class RepeatedWork {
 public:
  explicit RepeatedWork(std::function<void()> work, Clock clock = steady_seconds);

  std::int64_t repeats() const { return repeats_; }
  double seconds() const;  // of one run: the time of all repeats, divided

 private:
  double seconds_of(std::int64_t runs) const;

  std::function<void()> work_;
  Clock clock_;
  std::int64_t repeats_ = 1;
};

double median(std::vector<double> values);

}  // namespace manyheads::view
