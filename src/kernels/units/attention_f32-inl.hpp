// Attention by multiply-adds of F32, its probabilities and the combination of row states, for each of Highway's targets
// in MANYHEADS_TARGETS. This file is read once for each of them.
#include "kernels/dispatch.hpp"
#include "kernels/isa/processor.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/units/attention_f32-inl.hpp"
#include "hwy/foreach_target.h"
// After it, so that the headers below are read for each target.
#include "hwy/highway.h"
#if (HWY_TARGET & (MANYHEADS_TARGETS)) != 0
#include "kernels/algorithm/forward-inl.hpp"
#include "kernels/algorithm/probs-inl.hpp"
#include "kernels/algorithm/row_states-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {

[[maybe_unused]] const UnitRegistration kRegistration{HWY_TARGET, [](TargetKernels& kernels) {
                                                        kernels.f32 = ForwardKernels<MmaF32>();
                                                        kernels.probs = Probs;
                                                        kernels.states = {CombineStatesFloats, CombineStates};
                                                      }};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MANYHEADS_TARGETS

#if HWY_ONCE
namespace manyheads::kernels {
void MANYHEADS_LINK() {}
}  // namespace manyheads::kernels
#endif
