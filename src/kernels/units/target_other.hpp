// Of Highway's targets, the including unit compiles those of every other machine: SSE4, NEON, and what the compiler may
// use everywhere. SSSE3 would add nothing to SSE4 but build time. Vectors of SVE cannot be kept in arrays.
#ifdef MANYHEADS_WITHOUT_OTHERS  // MANYHEADS_THIS_MACHINE has better, MANYHEADS_WITHOUT_PORTABLE wants none
#define MANYHEADS_TARGETS 0
#else
#define MANYHEADS_TARGETS ~(HWY_AVX3 | HWY_AVX2)
#endif
#define HWY_DISABLED_TARGETS                                                                         \
  (HWY_SSSE3 | HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | \
   MANYHEADS_DISABLED_TARGETS)
