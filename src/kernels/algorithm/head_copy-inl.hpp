// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_HEAD_COPY_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_HEAD_COPY_INL_HPP
#undef MANYHEADS_HEAD_COPY_INL_HPP
#else
#define MANYHEADS_HEAD_COPY_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/algorithm/pack-inl.hpp"
#include "kernels/kernel_table.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {

// A head's keys and values as a unit's words, dense, to be read by many tiles: keys, then values.
template <class Unit>
std::size_t KeyFloats(const AttentionCall& call) {
  return static_cast<std::size_t>(call.tk) * Words<Unit>(static_cast<std::size_t>(call.d));
}
template <class Unit>
std::size_t HeadFloats(const AttentionCall& call) {
  return KeyFloats<Unit>(call) + Words<Unit>(static_cast<std::size_t>(call.tk)) * static_cast<std::size_t>(call.dv);
}
template <class Unit>
void Gather(const AttentionCall& call, const Tile& tile, std::int64_t keys, float* to) {
  const std::int64_t words = static_cast<std::int64_t>(Words<Unit>(static_cast<std::size_t>(call.d)));
  float* values = to + KeyFloats<Unit>(call);
  for (std::int64_t j = 0; j < keys; ++j) {
    const std::int64_t at = call.k_at(tile.batch, tile.kv_head, j);
    const float* row = Unit::Row(call.kv_type, call.k, at, call.k_stride[3], call.d, to + j * words);
    if (row != to + j * words) std::memcpy(to + j * words, row, static_cast<std::size_t>(words) * sizeof(float));
  }
  if constexpr (Unit::kTerms == 1) {
    for (std::int64_t j = 0; j < keys; ++j) {
      CopyRow(call.kv_type, call.v, call.v_at(tile.batch, tile.kv_head, j), call.v_stride[3], call.dv,
              values + j * call.dv);
    }
  } else {
    JoinValues(call, tile, 0, keys, static_cast<std::size_t>(call.dv), values);
  }
}
template <class Unit>
AttentionCall Gathered(AttentionCall call, const float* from) {
  const std::int64_t words = static_cast<std::int64_t>(Words<Unit>(static_cast<std::size_t>(call.d)));
  const float* values = from + KeyFloats<Unit>(call);
  const std::int64_t k_stride[4] = {0, 0, words * static_cast<std::int64_t>(Unit::kTerms), 1};
  const std::int64_t v_stride[4] = {0, 0, call.dv, 1};
  call.k = from;
  call.v = values;
  std::copy_n(k_stride, 4, call.k_stride);
  std::copy_n(v_stride, 4, call.v_stride);
  if constexpr (Unit::kTerms == 1) {
    call.kv_type = DType::kF32;
  } else {
    call.kv_type = DType::kBF16;
    call.value_words = values;
  }
  return call;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
