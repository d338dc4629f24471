#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <manyheads/model/encoding.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace manyheads::io {
struct JsonDocument;
}

namespace manyheads::model {

// A letter or digit of ASCII.
bool is_alnum(char c);

// Where a long text can be cut so that its parts, encoded one by one, give the tokens of the whole. Known for BERT's
// tokenizers alone: they end a word before a blank, a punctuation mark or a Chinese character, whatever follows. An
// added token that reaches across such a place rules it out.
struct TextBreaks {
  bool known = false;
  bool chinese = false;                  // before a Chinese character too
  std::array<bool, 128> before_ascii{};  // before this character
  // A word of so many ASCII letters and digits is unknown, however many more follow; 0: no such number. Up to a quarter
  // of them at either end may belong to an added token.
  std::size_t unknown_from = 0;

  // The last place in [first, last] where `text` can be cut, else the next one behind `last`, else the text's size.
  std::size_t find(std::string_view text, std::size_t first, std::size_t last) const;
};

// A tokenizer.json, run by Hugging Face's own library. Padding and truncation that the file asks for are off.
// const calls are safe from many threads.
//
// A file may come from anyone, so what it can cost is bounded; real ones stay far below:
//   the file        64 MiB; 2048 parts of normalizer, pre-tokenizer, post-processor and decoder, 64 patterns in them
//   a text          64 MiB
//   normalizer      256 steps; a text becomes at most 16 times as long (64 KiB are always taken), all added tokens
//                   64 MiB
//   pre-tokenizer   a text becomes at most 64 times as long
//   post-processor  64 pieces a template, 4 copies of a text, 1024 ids and 64 KiB of tokens in all
//   decoder         a text becomes at most 64 times as long as its tokens, which are 64 MiB at most
//   model           WordPiece's max_input_chars_per_word 512; unk_token, prefix and suffix 256 bytes
// Reading a file takes at most some hundred times its size, a text about 1 KB a token. encode and decode throw for a
// text beyond its bound (kInvalidArgument), the constructor for a file beyond one of the others.
class Tokenizer {
 public:
  // Throws Error: kIo, or kMalformedFile with the file and what is wrong.
  explicit Tokenizer(const std::filesystem::path& path);
  explicit Tokenizer(const io::JsonDocument& file);  // its content

  // Throws Error (kMalformedFile) where `file` lacks the parts of a tokenizer.json.
  static void check(const io::JsonDocument& file);

  // Throws Error (kInvalidArgument) when a text is not UTF-8, with the byte.
  Encoding encode(std::string_view text, bool add_special_tokens = true) const;
  Encoding encode_pair(std::string_view first, std::string_view second, bool add_special_tokens = true) const;

  // The text of tokens, special ones left out or as the vocabulary spells them. Bytes that are no UTF-8 become U+FFFD.
  // Throws Error (kInvalidArgument) where no token has one of the ids.
  std::string decode(std::span<const std::int64_t> ids, bool skip_special_tokens = true) const;

  // The token of an id, as the vocabulary spells it; none where there is no such token.
  struct Token {
    std::string text;
    bool special = false;
  };
  std::optional<Token> token(std::int64_t id) const;

  const TextBreaks& breaks() const noexcept { return breaks_; }

 private:
  struct Handle;
  void load(std::string_view json, const io::JsonDocument& file);
  Encoding run(std::string_view text, const std::string_view* pair, bool add_special_tokens) const;

  std::shared_ptr<const Handle> handle_;
  std::string place_;  // the file, for messages
  TextBreaks breaks_;
};

}  // namespace manyheads::model
