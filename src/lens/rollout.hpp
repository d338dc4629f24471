#pragma once

#include <manyheads/lens/trace.hpp>
#include <manyheads/parallel.hpp>
#include <vector>

namespace manyheads::lens {

// What each token of the input gets of the output by attention rollout (Abnar & Zuidema 2020): a row of
//   R = B(last) ... B(1) B(0), B = 1/2 mean over heads of A + 1/2 I
// For a decoder the row of the last token, which says what comes next; for an encoder the mean of all rows. One entry a
// token; they add up to 1. No matrix of all tokens is made.
std::vector<double> attention_rollout(const Trace& trace, const Threads& threads);

}  // namespace manyheads::lens
