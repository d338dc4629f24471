#pragma once

#include <cstdint>
#include <manyheads/lens/trace.hpp>
#include <manyheads/model/encoder.hpp>
#include <manyheads/model/encoding.hpp>
#include <span>

namespace manyheads::lens {

// Adds what an encoder's pass over a text gives: tokens, scale, mask, and q, k and lse of one entry of the batch.
// Copies no tensor.
void add_pass(const model::Encoder& encoder, const model::Encoding& encoding, std::span<const model::LayerHeads> layers,
              std::int64_t entry, Trace& trace);

}  // namespace manyheads::lens
