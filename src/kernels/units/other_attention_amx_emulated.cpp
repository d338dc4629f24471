#define MANYHEADS_LINK link_other_attention_amx_emulated
#define MANYHEADS_AMX_EMULATED
#include "kernels/units/target_other.hpp"
#include "kernels/units/attention_amx-inl.hpp"
