#define MANYHEADS_LINK link_other_attention_int8
#include "kernels/units/target_other.hpp"
#include "kernels/units/attention_int8-inl.hpp"
