#define MANYHEADS_LINK link_avx512_attention_amx
#include "kernels/units/target_avx512.hpp"
#include "kernels/units/attention_amx-inl.hpp"
