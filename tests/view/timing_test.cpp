#include "view/timing.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <manyheads/error.hpp>

namespace manyheads::view {
namespace {

// Time passes by work and by looks alone, and is seen in steps.
struct SlowClock {
  double step = 0;
  double now = 0;
  Clock clock() {
    return [this] {
      now += 1e-7;
      return std::floor(now / step) * step;
    };
  }
};

TEST(ViewTiming, TheStepOfAClockIsSeen) {
  for (const double step : {1e-6, 1e-4, 1e-3, 0.1}) {
    SlowClock slow{step};
    EXPECT_NEAR(clock_step(slow.clock()), step, 1e-9) << step;
    EXPECT_NEAR(least_seconds(slow.clock()), std::max(20e-3, 16 * step), 1e-7) << step;
  }
  EXPECT_LT(clock_step(), 1e-3);
}

TEST(ViewTiming, WorkBelowTheClocksStepIsRepeatedAndDivided) {
  for (const double step : {1e-6, 1e-4, 1e-3, 0.1}) {
    for (const double takes : {3e-8, 1e-5, 7e-4, 0.3, 5.0}) {
      SlowClock slow{step};
      std::int64_t runs = 0;
      const RepeatedWork work(
          [&] {
            slow.now += takes;
            ++runs;
          },
          slow.clock());
      const double least = std::max(20e-3, 16 * step);
      EXPECT_GE(static_cast<double>(work.repeats()) * takes, least - step) << step << " " << takes;
      EXPECT_LE(work.repeats(), std::ceil(2.5 * (least + step) / takes)) << step << " " << takes;
      EXPECT_LE(static_cast<double>(runs), 4.0 * static_cast<double>(work.repeats())) << step << " " << takes;
      runs = 0;
      EXPECT_NEAR(work.seconds(), takes, takes / 15) << step << " " << takes;  // 16 steps tell a 16th
      EXPECT_EQ(runs, work.repeats());
    }
  }
}

TEST(ViewTiming, LongWorkRunsOnce) {
  SlowClock slow{1e-6};
  EXPECT_EQ(RepeatedWork([&] { slow.now += 1; }, slow.clock()).repeats(), 1);
}

TEST(ViewTiming, AClockThatStandsStillIsAnError) {
  EXPECT_THROW(clock_step([] { return 1.0; }), Error);
}

TEST(ViewTiming, MedianIsTheMiddle) { EXPECT_EQ(median({5, 1, 9, 2, 7}), 5); }

}  // namespace
}  // namespace manyheads::view
