#define MANYHEADS_LINK link_avx2_attention_amx_emulated
#define MANYHEADS_AMX_EMULATED
#include "kernels/units/target_avx2.hpp"
#include "kernels/units/attention_amx-inl.hpp"
