#define MANYHEADS_LINK link_avx2_linear
#include "kernels/units/target_avx2.hpp"
#include "kernels/units/linear-inl.hpp"
