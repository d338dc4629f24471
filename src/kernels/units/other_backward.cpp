#define MANYHEADS_LINK link_other_backward
#include "kernels/units/target_other.hpp"
#include "kernels/units/backward-inl.hpp"
