#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/model/decoder.hpp>
#include <manyheads/model/encoder.hpp>
#include <manyheads/model/encoding.hpp>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace manyheads::model {

// A model that reads text: an encoder and its tokenizer, from a folder as the hub lays it out (config.json, the
// checkpoint, tokenizer.json and, where they are there, tokenizer_config.json and the settings of
// sentence-transformers).
//   const manyheads::model::TextModel model("models/all-MiniLM-L6-v2");
//   const auto encoding = model.encode("The black cat sat on the mat.");
// Thread-safe: all calls are const.
class TextModel {
 public:
  // Throws Error that names the file and what is missing, malformed or not known. `weights` as in load_encoder.
  explicit TextModel(const std::filesystem::path& folder, DType weights = DType::kF32);
  ~TextModel();
  TextModel(TextModel&&) noexcept;
  TextModel& operator=(TextModel&&) noexcept;

  const Encoder& encoder() const noexcept;
  const Decoder* decoder() const noexcept;  // the same where it is a decoder, else null

  // The tokens of a text, or of a pair as two segments, with special tokens and uncut: the encoder takes
  // config().max_position_embeddings. Throws Error when a text is not UTF-8, or gives a token that the encoder has not.
  Encoding encode(std::string_view text) const;
  Encoding encode_pair(std::string_view first, std::string_view second) const;

  // The text of tokens, special ones left out or spelled. Throws Error where no token has one of the ids.
  std::string decode(std::span<const std::int64_t> ids, bool skip_special_tokens = true) const;

  // The tokens that end a text, as generation_config.json says, or else config.json; empty where neither does. Throws
  // Error where that is no token of the model.
  std::vector<std::int64_t> end_tokens() const;

  struct Parts;  // the library's own
  const Parts& parts() const noexcept;

 private:
  std::unique_ptr<const Parts> parts_;
};

}  // namespace manyheads::model
