#define MANYHEADS_LINK link_avx512_linear
#include "kernels/units/target_avx512.hpp"
#include "kernels/units/linear-inl.hpp"
