#define MANYHEADS_LINK link_avx2_backward
#include "kernels/units/target_avx2.hpp"
#include "kernels/units/backward-inl.hpp"
