#include "lens/tour.hpp"

// The file's bytes, between two symbols. C++20 has no #embed.
asm(".pushsection .rodata\n"
    "manyheads_tour:\n"
    ".incbin \"" MANYHEADS_TOUR_FILE
    "\"\n"
    "manyheads_tour_end:\n"
    ".byte 0\n"
    ".popsection\n");
extern "C" const char manyheads_tour[], manyheads_tour_end[];

namespace manyheads::lens {

std::vector<TreebankSentence> tour_treebank() {
  return parse_treebank({manyheads_tour, static_cast<std::size_t>(manyheads_tour_end - manyheads_tour)}, "tour.conllu");
}

}  // namespace manyheads::lens
