#define MANYHEADS_LINK link_other_head_pass
#include "kernels/units/target_other.hpp"
#include "kernels/units/head_pass-inl.hpp"
