// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_FETCH_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_FETCH_INL_HPP
#undef MANYHEADS_FETCH_INL_HPP
#else
#define MANYHEADS_FETCH_INL_HPP
#endif

#include <algorithm>
#include <cstddef>

#include "hwy/highway.h"

// Memory on its way into the caches while the multipliers work.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {

// A stretch of memory, in whole lines.
struct Stretch {
  const char* begin;
  const char* end;
};

// Fetches stretches of memory line by line, evenly over the steps of other work: a burst would leave the memory idle for
// the rest of the time.
class Fetcher {
 public:
  Fetcher(const Stretch* stretches, std::size_t count, std::size_t steps) : next_(stretches), last_(stretches + count) {
    std::size_t lines = 0;
    for (const Stretch* s = next_; s != last_; ++s) lines += static_cast<std::size_t>(s->end - s->begin) / 64;
    each_step_ = static_cast<std::ptrdiff_t>((lines + steps - 1) / steps * 64);
    if (count > 0) take();
  }
  HWY_INLINE void operator()(const float* /*here*/) {
    for (std::ptrdiff_t left = each_step_; left > 0;) {
      if (at_ == end_) {
        if (next_ == last_) break;
        take();
      }
      const std::ptrdiff_t part = std::min(left, end_ - at_);
      left -= part;
      for (const char* stop = at_ + part; at_ != stop; at_ += 64) {
        __builtin_prefetch(at_, 0, 3);
      }
    }
#if HWY_TARGET == HWY_AVX3
    asm volatile("" : "+m"(at_), "+m"(end_));  // stays in memory: the work needs the registers
#endif
  }

 private:
  HWY_INLINE void take() {
    at_ = next_->begin;
    end_ = next_->end;
    ++next_;
  }
  const Stretch* next_;
  const Stretch* last_;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
  std::ptrdiff_t each_step_ = 0;  // bytes
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
