#define MANYHEADS_LINK link_other_attention_amx
#include "kernels/units/target_other.hpp"
#include "kernels/units/attention_amx-inl.hpp"
