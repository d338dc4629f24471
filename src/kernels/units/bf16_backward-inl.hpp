// The backward of attention by dot products of BF16 pairs, for each of Highway's targets in MANYHEADS_TARGETS. This
// file is read once for each of them.
#include "kernels/backward.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/units/bf16_backward-inl.hpp"
#include "hwy/foreach_target.h"
// After it, so that the headers below are read for each target.
#include "hwy/highway.h"
#if (HWY_TARGET & (MANYHEADS_TARGETS)) != 0
#include "kernels/algorithm/backward-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {

[[maybe_unused]] const BackwardRegistration kRegistration{HWY_TARGET, Products::kBF16, kBackwardKernels<MmaBf16>};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MANYHEADS_TARGETS

#if HWY_ONCE
namespace manyheads::kernels {
void MANYHEADS_LINK() {}
}  // namespace manyheads::kernels
#endif
