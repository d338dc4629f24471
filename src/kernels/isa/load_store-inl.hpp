// Rows of memory of any type and stride: loads as F32, stores rounded once to nearest even.
//
// Contract: any address; `step` counts elements.
// Cost: vectors where step is 1 and the target converts the type in vectors (kWhole); else one value at a time.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_LOAD_STORE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_LOAD_STORE_INL_HPP
#undef MANYHEADS_ISA_LOAD_STORE_INL_HPP
#else
#define MANYHEADS_ISA_LOAD_STORE_INL_HPP
#endif

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/isa/transpose-inl.hpp"
#include "kernels/isa/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Loads a vector of neighbouring values of a type as F32. kWhole: the target converts vectors of them.
template <DType kType>
struct ValuesOf;
template <>
struct ValuesOf<DType::kF32> {
  using Element = float;
  static constexpr bool kWhole = true;
  static HWY_INLINE VF Load(const Element* from) { return hn::LoadU(DF(), from); }
};
template <>
struct ValuesOf<DType::kBF16> {
  using Element = bfloat16;
  static constexpr bool kWhole = true;
  static HWY_INLINE VF Load(const Element* from) {
    const hn::Rebind<std::uint16_t, DF> dh;
    const auto bits = hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(from));
    return hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<DF>(), bits)));
  }
};
template <>
struct ValuesOf<DType::kI8> {
  using Element = std::int8_t;
  static constexpr bool kWhole = true;
  static HWY_INLINE VF Load(const Element* from) {
    const hn::Rebind<std::int8_t, DF> db;
    return hn::ConvertTo(DF(), hn::PromoteTo(hn::RebindToSigned<DF>(), hn::LoadU(db, from)));
  }
};
template <>
struct ValuesOf<DType::kF16> {
  using Element = float16;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
  // Targets that convert in hardware. Highway's software conversion has no infinities.
  static constexpr bool kWhole = true;
  static HWY_INLINE VF Load(const Element* from) {
    const hn::Rebind<hwy::float16_t, DF> dh;
    return hn::PromoteTo(DF(), hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(from)));
  }
#else
  static constexpr bool kWhole = false;
#endif
};

// Loads neighbouring values as NV vectors. The values of each two vectors come in the cheapest order, which InOrder
// undoes.
template <class Values, int NV>
HWY_INLINE void LoadVectors(const typename Values::Element* from, VF (&to)[NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  if constexpr (std::is_same_v<typename Values::Element, bfloat16> && NV % 2 == 0) {
    const hn::RebindToUnsigned<DF> du;
#pragma GCC unroll 4
    for (std::size_t v = 0; v < NV; v += 2) {  // the even values, then the odd ones: no shuffles
      const auto words = hn::LoadU(du, reinterpret_cast<const std::uint32_t*>(from + v * n));
      to[v] = hn::BitCast(d, hn::ShiftLeft<16>(words));
      to[v + 1] = hn::BitCast(d, hn::And(words, hn::Set(du, 0xffff0000u)));
    }
  } else {
#pragma GCC unroll 4
    for (std::size_t v = 0; v < NV; ++v) to[v] = Values::Load(from + v * n);
  }
}
template <class Values, int NV>
HWY_INLINE void InOrder([[maybe_unused]] VF (&vectors)[NV]) {
  if constexpr (std::is_same_v<typename Values::Element, bfloat16> && NV % 2 == 0) {
    for (std::size_t v = 0; v < NV; v += 2) Interleave(vectors[v], vectors[v + 1]);
  }
}

// Calls visit with the ValuesOf a type.
template <class Visit>
HWY_INLINE void WithType(DType type, Visit&& visit) {
  switch (type) {
    case DType::kF32:
      return visit(ValuesOf<DType::kF32>());
    case DType::kBF16:
      return visit(ValuesOf<DType::kBF16>());
    case DType::kI8:
      return visit(ValuesOf<DType::kI8>());
    default:
      return visit(ValuesOf<DType::kF16>());
  }
}

// Copies a row of `count` values, `step` apart, to dense F32.
HWY_INLINE void CopyRow(DType type, const void* base, std::int64_t at, std::int64_t step, std::int64_t count,
                        float* HWY_RESTRICT to) {
  WithType(type, [&]<class Values>(Values) HWY_ATTR {
    const DF d;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
    const typename Values::Element* from = static_cast<const typename Values::Element*>(base) + at;
    std::int64_t i = 0;
    if constexpr (Values::kWhole) {
      if (step == 1) {
        for (; i + lanes <= count; i += lanes) hn::StoreU(Values::Load(from + i), d, to + i);
      }
    }
    for (; i < count; ++i) to[i] = static_cast<float>(from[i * step]);
  });
}

// The bits of floats rounded to BF16, to nearest even; a NaN stays a NaN.
template <class VU>
HWY_INLINE VU RoundedToBf16(VU u) {
  const hn::DFromV<VU> du;
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
  const auto nearest = hn::ShiftRight<16>(hn::Add(u, hn::Add(odd, hn::Set(du, 0x7fffu))));
  const auto quiet = hn::Or(hn::ShiftRight<16>(u), hn::Set(du, 0x40u));
  const auto nan = hn::Gt(hn::And(u, hn::Set(du, 0x7fffffffu)), hn::Set(du, 0x7f800000u));
  return hn::IfThenElse(nan, quiet, nearest);
}

// Stores `count` floats to a row of the caller's, each rounded once.
HWY_INLINE void StoreRow(DType type, void* base, std::int64_t at, std::int64_t step, std::int64_t count,
                         const float* HWY_RESTRICT from) {
  const DF d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  if (type == DType::kF32) {
    float* to = static_cast<float*>(base) + at;
    if (step == 1) {
      for (; i + lanes <= count; i += lanes) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
    }
    for (; i < count; ++i) to[i * step] = from[i];
  } else if (type == DType::kBF16) {
    bfloat16* to = static_cast<bfloat16*>(base) + at;
    if (step == 1) {
      const hn::RebindToUnsigned<DF> du;
      const hn::Rebind<std::uint16_t, DF> dh;
      std::uint16_t* bits = reinterpret_cast<std::uint16_t*>(to);
      for (; i + lanes <= count; i += lanes) {
        const auto half = RoundedToBf16(hn::BitCast(du, hn::LoadU(d, from + i)));
        hn::StoreU(hn::DemoteTo(dh, hn::BitCast(hn::RebindToSigned<DF>(), half)), dh, bits + i);
      }
    }
    for (; i < count; ++i) to[i * step] = bfloat16(from[i]);
  } else {
    float16* to = static_cast<float16*>(base) + at;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
    if (step == 1) {
      const hn::Rebind<hwy::float16_t, DF> dh;
      hwy::float16_t* halves = reinterpret_cast<hwy::float16_t*>(to);
      for (; i + lanes <= count; i += lanes) hn::StoreU(hn::DemoteTo(dh, hn::LoadU(d, from + i)), dh, halves + i);
    }
#endif
    for (; i < count; ++i) to[i * step] = float16(from[i]);
  }
}

// Rows of words, `stride` words apart.
struct StridedRows {
  const float* data;
  std::size_t stride;
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
