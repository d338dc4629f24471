#define MANYHEADS_LINK link_avx2_attention_f32
#include "kernels/units/target_avx2.hpp"
#include "kernels/units/attention_f32-inl.hpp"
