#pragma once

#include <cstddef>
#include <manyheads/model/encoding.hpp>

namespace manyheads::lens {

// Leaves out tokens until `max_tokens` remain, as the reference tokenizers do by default ("longest first"): from the
// end of the text, of a pair from the end of the longer text; special tokens stay. Throws Error when the special tokens
// alone are more than that.
model::Encoding truncate(const model::Encoding& encoding, std::size_t max_tokens);

}  // namespace manyheads::lens
