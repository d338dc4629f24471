// Row states, and the fixed tree that combines those of the chunks.
//
//   m = max(m_a, m_b);  sum and output: x = x_a 2^(m_a - m) + x_b 2^(m_b - m)
//
// Contract: m is a whole number, so the factors are exact. The shape of the tree depends on chunk numbers alone.
// Cost: a multiplication and a multiply-add for each element of output and chunk.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_COMBINE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_COMBINE_INL_HPP
#undef MANYHEADS_ALGORITHM_COMBINE_INL_HPP
#else
#define MANYHEADS_ALGORITHM_COMBINE_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/workspace-inl.hpp"
#include "kernels/canonical_order.hpp"
#include "kernels/isa/exp2-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Row states for prefill, rows in the lanes: maxima [lanes], sums [lanes], outputs [Dv][lanes].
struct StatesInLanes {
  std::size_t lanes, width;

  void Combine(float* HWY_RESTRICT a, const float* HWY_RESTRICT b) const {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    for (std::size_t at = 0; at < lanes; at += n) {
      const VF ma = hn::LoadU(d, a + at);
      const VF mb = hn::LoadU(d, b + at);
      const VF m = hn::Max(ma, mb);
      const VF fa = PowerOfTwo(d, hn::Sub(ma, m));
      const VF fb = PowerOfTwo(d, hn::Sub(mb, m));
      hn::StoreU(m, d, a + at);
      // Row 1 is the sum, the rows behind it the output: both scale alike.
      for (std::size_t i = lanes + at; i < (2 + width) * lanes; i += lanes) {
        hn::StoreU(Fma(hn::LoadU(d, a + i), fa, hn::Mul(hn::LoadU(d, b + i), fb)), d, a + i);
      }
    }
  }
};
// Row states for decode, row by row: maxima and sums [kDecodeRows], outputs [row][width].
struct StatesInRows {
  std::size_t width, rows;  // rows: those in use, of kDecodeRows

  void Combine(float* HWY_RESTRICT a, const float* HWY_RESTRICT b) const {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    for (std::size_t r = 0; r < rows; ++r) {
      const VF ma = hn::Set(d, a[r]);
      const VF mb = hn::Set(d, b[r]);
      const VF m = hn::Max(ma, mb);
      const VF fa = PowerOfTwo(d, hn::Sub(ma, m));
      const VF fb = PowerOfTwo(d, hn::Sub(mb, m));
      a[r] = hn::GetLane(m);
      float& l = a[kDecodeRows + r];
      l = hn::GetLane(Fma(hn::Set(d, l), fa, hn::Mul(hn::Set(d, b[kDecodeRows + r]), fb)));
      for (std::size_t i = 2 * kDecodeRows + r * width; i < 2 * kDecodeRows + (r + 1) * width; i += n) {
        hn::StoreU(Fma(hn::LoadU(d, a + i), fa, hn::Mul(hn::LoadU(d, b + i), fb)), d, a + i);
      }
    }
  }
};

// Row states of no keys: combining them changes no bit but the sign of a zero.
template <class Mma>
HWY_INLINE void ClearRowStates(const QkvMask& params, const QueryBlock& q_block, float* states) {
  const std::size_t padded_rows = PaddedRows<Mma>(q_block.rows);
  std::fill_n(states, padded_rows, kNoMaximum);
  std::fill_n(states + padded_rows, RowStateFloats<Mma>(params, q_block.rows) - padded_rows, 0.0f);
}

// Combines row states in the binary tree over chunk numbers. A missing chunk counts as empty, so the shape does not
// depend on the chunks that a query block read.
template <class States>
class CombineTree {
 public:
  CombineTree(const States& combiner, const OpenStates& open, bool anew)
      : combiner_(combiner), states_(open.states), state_floats_(open.floats), opened_(*open.chunks) {
    if (anew) opened_.count = 0;
  }

  // The row states opened last, and their chunk; null and -1 where there are none.
  float* states() const { return opened_.count == 0 ? nullptr : at(opened_.count - 1); }
  std::int64_t chunk() const { return opened_.count == 0 ? -1 : opened_.last[opened_.count - 1]; }
  // Opens the row states of a chunk and returns them. States whose common branch does not reach the chunk are complete:
  // they are combined first.
  float* open(std::int64_t chunk) {
    const std::int64_t* last = opened_.last;
    while (opened_.count >= 2 && combine_before(last[opened_.count - 2], last[opened_.count - 1], chunk)) {
      combine_top();
    }
    opened_.last[opened_.count++] = chunk;
    return states();
  }
  // Combines all open states; null where no chunk was opened.
  float* close() {
    while (opened_.count >= 2) combine_top();
    return states();
  }

 private:
  float* at(std::int64_t i) const { return states_ + static_cast<std::size_t>(i) * state_floats_; }

  void combine_top() {
    combiner_.Combine(at(opened_.count - 2), at(opened_.count - 1));
    opened_.last[opened_.count - 2] = opened_.last[opened_.count - 1];
    --opened_.count;
  }

  States combiner_;
  float* states_;
  std::size_t state_floats_;
  OpenStates::Chunks& opened_;
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
