#define MANYHEADS_LINK link_avx512_attention_int8
#include "kernels/units/target_avx512.hpp"
#include "kernels/units/attention_int8-inl.hpp"
