#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

// The links that the tour follows, as viewer/src/tour/pairs.ts chooses them. `trace` is the answer to the question of
// that name.
namespace manyheads::cli {

using Pair = std::pair<std::int64_t, std::int64_t>;  // numbers of words: the one that looks, the one that is looked at

// Those that the link names ("2-3,3-4"), as far as they are words of the text; else those of the chapter's sentence, or
// up to three between words that tell something.
std::vector<Pair> pairs_of(const nlohmann::json& trace, const std::string& named);

// Whether the text has the chapter's words, in their order, and each sees the other.
bool is_chapters(const nlohmann::json& trace);

}  // namespace manyheads::cli
