// Packs the weights of a projection in the form that LinearParams says, columns in the lanes.
//
// Contract: packing to F32 is exact; to BF16 each weight is rounded once, to nearest even.
// Cost: each weight is read and written once.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_PACK_WEIGHTS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_PACK_WEIGHTS_INL_HPP
#undef MANYHEADS_ALGORITHM_PACK_WEIGHTS_INL_HPP
#else
#define MANYHEADS_ALGORITHM_PACK_WEIGHTS_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/lane_rows-inl.hpp"
#include "kernels/isa/mma_amx-inl.hpp"
#include "kernels/isa/register_shape-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Packs one vector of columns, [first, first + count).
HWY_INLINE void PackColumns(const PackWeightsParams& params, std::int64_t first, std::int64_t count, std::size_t panel,
                            float* to) {
  const auto unchanged = [](VF word) HWY_ATTR { return word; };
  LaneRows rows;
  rows.count = static_cast<std::size_t>(count);
  if (params.kept != DType::kBF16 || params.type == DType::kBF16) {
    for (std::int64_t c = 0; c < count; ++c) rows.at[c] = (first + c) * params.stride[0];
    rows.find_stride();
    if (params.kept != DType::kBF16) {
      PackLanes<MmaF32>(params.type, params.weight, rows, params.stride[1], params.in, panel, to, unchanged);
    } else {
      PackLanes<MmaAmxBase>(DType::kBF16, params.weight, rows, params.stride[1], params.in, panel, to, unchanged);
    }
    return;
  }
  // Rounds a piece of each row at a time.
  constexpr std::int64_t kPiece = 256;
  HWY_ALIGN float values[kPiece];
  HWY_ALIGN std::uint16_t rounded[kMaxLanes * kPiece];
  for (std::int64_t c = 0; c < count; ++c) rows.at[c] = c * kPiece;
  rows.find_stride();
  for (std::int64_t from = 0; from < params.in; from += kPiece) {
    const std::int64_t width = std::min(kPiece, params.in - from);
    for (std::int64_t c = 0; c < count; ++c) {
      CopyRow(params.type, params.weight, (first + c) * params.stride[0] + from * params.stride[1], params.stride[1],
              width, values);
      StoreRow(DType::kBF16, rounded, c * kPiece, 1, width, values);
    }
    PackLanes<MmaAmxBase>(DType::kBF16, rounded, rows, 1, width, panel, to + static_cast<std::size_t>(from / 2) * panel,
                          unchanged);
  }
}

void PackWeights(const PackWeightsParams& params, std::int64_t panel_begin, std::int64_t panel_end) {
  const std::int64_t n = static_cast<std::int64_t>(LaneCount());
  const std::int64_t panel = kPanelVectors * n;
  const std::int64_t words = params.kept == DType::kBF16 ? (params.in + 1) / 2 : params.in;
  for (std::int64_t p = panel_begin; p < panel_end; ++p) {
    for (std::int64_t v = 0; v < kPanelVectors; ++v) {
      const std::int64_t first = p * panel + v * n;
      PackColumns(params, first, std::clamp<std::int64_t>(params.out - first, 0, n), static_cast<std::size_t>(panel),
                  params.packed + p * words * panel + v * n);
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
