#pragma once

#include <cstddef>
#include <manyheads/model/encoding.hpp>

namespace manyheads::lens {

// Cuts an encoding to `max_tokens`, as the reference tokenizers do by default ("longest first"): from the end of the
// text, or of the longer text of a pair. Special tokens stay. Throws Error when there are more special tokens than
// that.
model::Encoding truncate(const model::Encoding& encoding, std::size_t max_tokens);

}  // namespace manyheads::lens
