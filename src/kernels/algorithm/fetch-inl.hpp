// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_FETCH_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_FETCH_INL_HPP
#undef MANYHEADS_FETCH_INL_HPP
#else
#define MANYHEADS_FETCH_INL_HPP
#endif

#include <cstddef>
#include <limits>

#include "hwy/highway.h"

// Memory on its way into the caches while the multipliers work.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {

// A stretch of memory, in whole lines; on the way to the second cache the line `again` bytes from each of them is asked
// for once more. Left as it is when made: every run makes an array of the most there may be.
struct Stretch {
  const char* begin;
  const char* end;
  std::ptrdiff_t again;
};

// Fetches stretches of memory line by line, evenly over the steps of other work: a burst would leave the memory idle
// for the rest of the time. As many lines each step: where their number changes, the steps pay for branches foretold
// wrong. Into the first cache, or into the second: where too many lines are on their way such a fetch is dropped, and
// each is asked for twice.
template <bool kMaySecond = false>
class Fetcher {
 public:
  Fetcher(const Stretch* stretches, std::size_t count, std::size_t steps, bool second = false)
      : next_(stretches), last_(stretches + count), second_(second) {
    std::size_t lines = 0;
    for (const Stretch* s = next_; s != last_; ++s) lines += static_cast<std::size_t>(s->end - s->begin) / 64;
    if (lines == 0 || steps == 0) {  // no steps: rows of less than a block
      stop();
      return;
    }
    each_step_ = static_cast<std::ptrdiff_t>((lines + steps - 1) / steps * 64);
  }
  HWY_INLINE void operator()(const float* /*here*/) {
    if (HWY_LIKELY(whole_steps_ > 0)) {
      --whole_steps_;
      const char* at = at_;
      for (std::ptrdiff_t left = each_step_; left > 0; left -= 64, at += 64) __builtin_prefetch(at, 0, 3);
      at_ = at;
    } else if (kMaySecond && HWY_LIKELY(whole_steps_ < 0)) {
      ++whole_steps_;
      const char* at = at_;
      for (std::ptrdiff_t left = each_step_; left > 0; left -= 64, at += 64) twice(at, again_);
      at_ = at;
    } else {
      across();
    }
#if HWY_TARGET == HWY_AVX3
    asm volatile("" : "+m"(at_), "+m"(whole_steps_));  // stays in memory: the work needs the registers
#endif
  }

 private:
  static HWY_INLINE void twice(const char* at, std::ptrdiff_t again) {
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(at + again, 0, 2);
  }
  // A step that does not lie in one stretch. Inline: a call would cost the work its registers.
  HWY_INLINE void across() {
    for (std::ptrdiff_t left = each_step_;;) {
      if (!kMaySecond || HWY_LIKELY(!second_)) {
        for (; left > 0 && at_ != end_; left -= 64, at_ += 64) __builtin_prefetch(at_, 0, 3);
      } else {
        for (; left > 0 && at_ != end_; left -= 64, at_ += 64) twice(at_, again_);
      }
      if (left == 0) break;
      if (next_ == last_) return stop();
      at_ = next_->begin;
      end_ = next_->end;
      again_ = next_->again;
      ++next_;
    }
    whole_steps_ = end_ - at_ < each_step_ ? 0 : (end_ - at_) / each_step_;
    if (kMaySecond && second_) whole_steps_ = -whole_steps_;
  }
  void stop() {
    each_step_ = 0;
    whole_steps_ = std::numeric_limits<std::ptrdiff_t>::max();
  }

  const Stretch* next_;
  const Stretch* last_;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
  std::ptrdiff_t each_step_ = 0;    // bytes
  std::ptrdiff_t whole_steps_ = 0;  // that lie in this stretch; negative: on the way to the second cache
  std::ptrdiff_t again_ = 0;
  bool second_;
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
