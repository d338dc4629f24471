#define MANYHEADS_LINK link_other_linear
#include "kernels/units/target_other.hpp"
#include "kernels/units/linear-inl.hpp"
