#define MANYHEADS_LINK link_avx512_head_pass
#include "kernels/units/target_avx512.hpp"
#include "kernels/units/head_pass-inl.hpp"
