// Projections, norms, rotary embedding, SwiGLU, rows of a cache and the roofline probes, for each of Highway's targets
// in MANYHEADS_TARGETS. This file is read once for each of them.
#include "kernels/dispatch.hpp"
#include "kernels/isa/processor.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/units/linear-inl.hpp"
#include "hwy/foreach_target.h"
// After it, so that the headers below are read for each target.
#include "hwy/highway.h"
#if (HWY_TARGET & (MANYHEADS_TARGETS)) != 0
#include "kernels/algorithm/cache_rows-inl.hpp"
#include "kernels/algorithm/linear-inl.hpp"
#include "kernels/algorithm/norm-inl.hpp"
#include "kernels/algorithm/pack_weights-inl.hpp"
#include "kernels/algorithm/roofline_probe-inl.hpp"
#include "kernels/algorithm/rotary-inl.hpp"
#include "kernels/algorithm/swiglu-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {

[[maybe_unused]] const UnitRegistration kRegistration{
    HWY_TARGET, [](TargetKernels& kernels) {
      kernels.linear = {kPanelVectors * static_cast<std::int64_t>(LaneCount()), kLinearRows, false, 0, Linear};
#if HWY_TARGET == HWY_AVX3
      kernels.linear_bf16 = kernels.linear;
      kernels.linear_bf16.rounds_rows_to_bf16 = true;
      kernels.linear_bf16.workspace_floats = LinearBf16Words();
      kernels.linear_bf16.linear = LinearBf16<MmaBf16>;
#endif
      kernels.pack_weights = PackWeights;
      kernels.cache_row = StoreCacheRow;
      kernels.layer_norm = LayerNorm;
      kernels.rms_norm = RmsNorm;
      kernels.rotary = Rotary;
      kernels.swiglu = SwiGlu;
      kernels.probes = {FmaProbe, ReadProbe};
    }};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MANYHEADS_TARGETS

#if HWY_ONCE
namespace manyheads::kernels {
void MANYHEADS_LINK() {}
}  // namespace manyheads::kernels
#endif
