#define MANYHEADS_LINK link_avx512_attention_bf16
#include "kernels/units/target_avx512.hpp"
#include "kernels/units/attention_bf16-inl.hpp"
