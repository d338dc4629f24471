#define MANYHEADS_LINK link_avx512_bf16_backward
#include "kernels/units/target_avx512.hpp"
#include "kernels/units/bf16_backward-inl.hpp"
