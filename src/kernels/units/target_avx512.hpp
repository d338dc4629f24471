// Of Highway's targets, the including unit compiles AVX-512 alone.
#define MANYHEADS_TARGETS HWY_AVX3
#define HWY_DISABLED_TARGETS                                                                         \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX2 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | \
   MANYHEADS_DISABLED_TARGETS)
