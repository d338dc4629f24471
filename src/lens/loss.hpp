#pragma once

#include <cstdint>
#include <manyheads/model/decoder.hpp>
#include <manyheads/tensor.hpp>
#include <string_view>
#include <vector>

namespace manyheads::lens {

// The loss in nats of each token but the first, -log p(token | those before it), from the last hidden states [B,T,E] of
// entry b of a run. Allocates the logits of 64 tokens.
std::vector<double> token_losses(const model::Decoder& decoder, const Tensor& hidden, std::int64_t b,
                                 const std::vector<std::int64_t>& ids, const Threads& threads, std::string_view bits);

}  // namespace manyheads::lens
