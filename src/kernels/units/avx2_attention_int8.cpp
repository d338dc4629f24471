#define MANYHEADS_LINK link_avx2_attention_int8
#include "kernels/units/target_avx2.hpp"
#include "kernels/units/attention_int8-inl.hpp"
