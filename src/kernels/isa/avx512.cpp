// The kernels with AVX-512: F32, pairs of BF16, AMX tiles.
#define MANYHEADS_TARGETS HWY_AVX3
#define MANYHEADS_LINK link_avx512
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX2 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | MANYHEADS_DISABLED_TARGETS)
#include "kernels/isa/highway-inl.hpp"
