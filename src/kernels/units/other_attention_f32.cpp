#define MANYHEADS_LINK link_other_attention_f32
#include "kernels/units/target_other.hpp"
#include "kernels/units/attention_f32-inl.hpp"
