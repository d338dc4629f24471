// Attention by AMX tiles, of BF16 and of F32 in pieces, and F32 projections, or their emulation
// (MANYHEADS_AMX_EMULATED), for each of Highway's targets in MANYHEADS_TARGETS. This file is read once for each of
// them.
#include "kernels/dispatch.hpp"
#include "kernels/isa/processor.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/units/attention_amx-inl.hpp"
#include "hwy/foreach_target.h"
// After it, so that the headers below are read for each target.
#include "hwy/highway.h"
#if (HWY_TARGET & (MANYHEADS_TARGETS)) != 0
#include "kernels/algorithm/forward-inl.hpp"
#include "kernels/algorithm/linear_tiles-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
[[maybe_unused]] const UnitRegistration kRegistration{
    HWY_TARGET, [](TargetKernels& kernels) {
#ifdef MANYHEADS_AMX_EMULATED
      kernels.amx_emulated = ForwardKernels<MmaAmxEmulated>();
      kernels.f32_amx_emulated = ForwardKernels<MmaF32Tiles<MmaAmxEmulated>>();
      kernels.linear_amx_emulated = TileLinearKernels<MmaAmxEmulated>();
#else
      kernels.amx = ForwardKernels<MmaAmx>();
      kernels.f32_amx = ForwardKernels<MmaF32Tiles<MmaAmx>>();
      kernels.linear_amx = TileLinearKernels<MmaAmx>();
#endif
    }};
#endif

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MANYHEADS_TARGETS

#if HWY_ONCE
namespace manyheads::kernels {
void MANYHEADS_LINK() {}
}  // namespace manyheads::kernels
#endif
