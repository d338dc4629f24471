#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace manyheads::model {

// The tokens of a text, or of two. One entry a token in every list.
struct Encoding {
  std::vector<std::int64_t> ids;
  std::vector<std::int64_t> type_ids;                // segment, as the model takes it
  std::vector<std::string> tokens;                   // as the vocabulary spells them: "[CLS]", "cat", "##s"
  std::vector<std::array<std::int64_t, 2>> offsets;  // bytes [begin, end) of the token's own text
  std::vector<std::int64_t> words;  // index of the word; those of the second text go on from the first; -1 for special
  std::vector<std::int32_t> sequences;  // the text a token stands in: 0 or 1; -1 for special
  std::vector<bool> special;            // added by the tokenizer, not by the text

  std::size_t size() const noexcept { return ids.size(); }
};

// A tokenizer.json, run by Hugging Face's own library. Padding and truncation that the file asks for are off.
// const calls are safe from many threads.
class Tokenizer {
 public:
  // Throws Error: kIo, or kMalformedFile with the file and what is wrong.
  explicit Tokenizer(const std::filesystem::path& path);

  // Throws Error (kInvalidArgument) when a text is not UTF-8, with the byte.
  Encoding encode(std::string_view text, bool add_special_tokens = true) const;
  Encoding encode_pair(std::string_view first, std::string_view second, bool add_special_tokens = true) const;

 private:
  struct Handle;
  Encoding run(std::string_view text, const std::string_view* pair, bool add_special_tokens) const;

  std::shared_ptr<const Handle> handle_;
  std::string place_;  // the file, for messages
};

}  // namespace manyheads::model
