#pragma once

#include <array>
#include <cstdint>

namespace manyheads::cli {

// Five columns of eight dots, the uppermost in the lowest bit; the last dot is for what reaches below the line.
using LetterDots = std::array<std::uint8_t, 5>;

// Of ASCII and of the further letters that the page's own texts have; of another one a box.
const LetterDots& dots_of(char32_t letter);

}  // namespace manyheads::cli
