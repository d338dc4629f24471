#include "lens/windows.hpp"

#include <algorithm>
#include <manyheads/error.hpp>

#include "base/format.hpp"

namespace manyheads::lens {
namespace {

// Appends token i; `first` is the first text token of the window, where it has one.
void append(const model::Encoding& from, std::size_t i, std::size_t first, model::Encoding& to) {
  const bool special = from.sequences[i] < 0;
  to.ids.push_back(from.ids[i]);
  to.type_ids.push_back(from.type_ids[i]);
  to.tokens.push_back(from.tokens[i]);
  const std::int64_t begin = from.offsets[first][0];
  to.offsets.push_back(special ? from.offsets[i]
                               : std::array<std::int64_t, 2>{from.offsets[i][0] - begin, from.offsets[i][1] - begin});
  to.words.push_back(special ? from.words[i] : from.words[i] - from.words[first]);
  to.sequences.push_back(from.sequences[i]);
  to.special.push_back(from.special[i]);
}

}  // namespace

std::vector<Window> windows_of(const model::Encoding& encoding, std::size_t max_tokens) {
  // Text tokens are [before, after).
  std::size_t before = 0, after = encoding.size();
  while (before < after && encoding.sequences[before] < 0) ++before;
  while (after > before && encoding.sequences[after - 1] < 0) --after;
  std::vector<Window> windows;
  if (before == after) return windows;
  const std::size_t special = encoding.size() - (after - before);
  if (special >= max_tokens) {
    throw Error(ErrorCode::kInvalidArgument,
                base::format("windows_of: {} special tokens leave no room in {}", special, max_tokens));
  }
  const std::size_t room = max_tokens - special;
  for (std::size_t begin = before; begin < after;) {
    std::size_t end = std::min(after, begin + room);
    if (end < after) {
      while (end > begin && encoding.words[end] == encoding.words[end - 1]) --end;
      if (end == begin) end = begin + room;
    }
    Window window;
    for (std::size_t i = 0; i < before; ++i) append(encoding, i, begin, window.encoding);
    for (std::size_t i = begin; i < end; ++i) append(encoding, i, begin, window.encoding);
    for (std::size_t i = after; i < encoding.size(); ++i) append(encoding, i, begin, window.encoding);
    window.bytes = {encoding.offsets[begin][0], encoding.offsets[end - 1][1]};
    windows.push_back(std::move(window));
    begin = end;
  }
  return windows;
}

}  // namespace manyheads::lens
