// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_FETCH_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_FETCH_INL_HPP
#undef MANYHEADS_FETCH_INL_HPP
#else
#define MANYHEADS_FETCH_INL_HPP
#endif

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
    each_step_ = (lines + steps - 1) / steps;
    if (count > 0) take();
  }
  HWY_INLINE void operator()(const float* /*here*/) {
    for (std::size_t i = 0; i < each_step_; ++i) {
      if (at_ == end_) {
        if (next_ == last_) return;
        take();
      }
      __builtin_prefetch(at_, 0, 2);  // to the second cache: the first is full of this run
      at_ += 64;
    }
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
  std::size_t each_step_ = 0;
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
