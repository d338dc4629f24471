#define MANYHEADS_LINK link_avx2_score_pass
#include "kernels/units/target_avx2.hpp"
#include "kernels/units/score_pass-inl.hpp"
