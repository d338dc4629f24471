#define MANYHEADS_LINK link_other_score_pass
#include "kernels/units/target_other.hpp"
#include "kernels/units/score_pass-inl.hpp"
