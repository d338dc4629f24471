#include "lens/truncate.hpp"

#include <algorithm>
#include <array>
#include <manyheads/error.hpp>
#include <string>

namespace manyheads::lens {

model::Encoding truncate(const model::Encoding& encoding, std::size_t max_tokens) {
  if (encoding.size() <= max_tokens) return encoding;
  std::array<std::size_t, 2> length{0, 0};
  for (const std::int32_t s : encoding.sequences) {
    if (s >= 0) ++length[static_cast<std::size_t>(s)];
  }
  const std::size_t special = encoding.size() - length[0] - length[1];
  if (special > max_tokens) {
    throw Error(ErrorCode::kInvalidArgument, "truncate: encoding has " + std::to_string(special) +
                                                 " special tokens, max_tokens is " + std::to_string(max_tokens));
  }
  const std::size_t room = max_tokens - special;
  const std::size_t shorter = length[0] <= length[1] ? 0 : 1;
  std::array<std::size_t, 2> keep{};
  keep[shorter] = std::min(length[shorter], room / 2);
  keep[1 - shorter] = std::min(length[1 - shorter], room - keep[shorter]);

  model::Encoding cut;
  std::array<std::size_t, 2> taken{0, 0};
  for (std::size_t i = 0; i < encoding.size(); ++i) {
    const std::int32_t s = encoding.sequences[i];
    if (s >= 0 && taken[static_cast<std::size_t>(s)]++ >= keep[static_cast<std::size_t>(s)]) continue;
    cut.ids.push_back(encoding.ids[i]);
    cut.type_ids.push_back(encoding.type_ids[i]);
    cut.tokens.push_back(encoding.tokens[i]);
    cut.offsets.push_back(encoding.offsets[i]);
    cut.words.push_back(encoding.words[i]);
    cut.sequences.push_back(s);
    cut.special.push_back(encoding.special[i]);
  }
  return cut;
}

}  // namespace manyheads::lens
