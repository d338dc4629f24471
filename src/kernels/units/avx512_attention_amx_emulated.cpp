#define MANYHEADS_LINK link_avx512_attention_amx_emulated
#define MANYHEADS_AMX_EMULATED
#include "kernels/units/target_avx512.hpp"
#include "kernels/units/attention_amx-inl.hpp"
