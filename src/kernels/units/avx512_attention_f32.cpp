#define MANYHEADS_LINK link_avx512_attention_f32
#include "kernels/units/target_avx512.hpp"
#include "kernels/units/attention_f32-inl.hpp"
