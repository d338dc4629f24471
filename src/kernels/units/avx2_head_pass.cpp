#define MANYHEADS_LINK link_avx2_head_pass
#include "kernels/units/target_avx2.hpp"
#include "kernels/units/head_pass-inl.hpp"
