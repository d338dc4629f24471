#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/utf8.hpp"

namespace manyheads::test {

// The character that stands for a byte in GPT-2's vocabulary: itself where it can be seen, else one from U+0100 on.
inline std::string byte_symbol(int byte) {
  const auto seen = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  int next = 256;
  for (int b = 0; b < byte; ++b) next += seen(b) ? 0 : 1;
  std::string out;
  base::append_utf8(out, static_cast<char32_t>(seen(byte) ? byte : next));
  return out;
}

// A byte-level BPE tokenizer.json as decoders have it, small enough for a vocabulary of 96: <|endoftext|>, <|im_start|>
// and <|im_end|> (0 to 2, special), the bytes of `bytes` from 3 on, then `merges` of two tokens each.
inline nlohmann::json byte_level_tokenizer(const std::string& bytes,
                                           const std::vector<std::pair<std::string, std::string>>& merges = {}) {
  using nlohmann::json;
  json vocabulary, added = json::array(), merged = json::array();
  int id = 0;
  for (const char* token : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    added.push_back({{"id", id},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocabulary[token] = id++;
  }
  for (const char byte : bytes) vocabulary[byte_symbol(static_cast<unsigned char>(byte))] = id++;
  for (const auto& [left, right] : merges) {
    merged.push_back({left, right});
    vocabulary[left + right] = id++;
  }
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merged}}}};
}

}  // namespace manyheads::test
