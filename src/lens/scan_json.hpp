#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "lens/scan_file.hpp"

namespace manyheads::lens {

// Which part of a scan is told: all heads, or with `head` (layer * heads + head) one with its tokens, distances and
// components; of all scores, or of one. Examples come with a head alone.
struct ScanPart {
  std::optional<std::int64_t> head, score;
};

// The text of a row of the table of passages; none where it cannot be opened.
using PassageText = std::function<std::optional<std::string>(std::int64_t row)>;

// Heads that have the score, by layer * heads + head: the largest mean first.
std::vector<std::int64_t> heads_by_mean(const ScanFile& scan, std::int64_t score);

// Shares of the variance along the first components of a head's queries or, of its group, keys ("query", "key").
std::vector<double> component_shares(const ScanFile& scan, const std::string& of, std::int64_t head);

// As docs/json.md lays it out.
nlohmann::ordered_json scan_json(const ScanFile& scan, const ScanPart& part, const PassageText& text_of);

}  // namespace manyheads::lens
