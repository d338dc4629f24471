#define MANYHEADS_LINK link_avx512_score_pass
#include "kernels/units/target_avx512.hpp"
#include "kernels/units/score_pass-inl.hpp"
