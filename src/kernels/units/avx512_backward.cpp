#define MANYHEADS_LINK link_avx512_backward
#include "kernels/units/target_avx512.hpp"
#include "kernels/units/backward-inl.hpp"
