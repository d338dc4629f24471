#include "model/text_model.hpp"

#include <manyheads/error.hpp>
#include <utility>

#include "base/file.hpp"
#include "model/generation_config.hpp"

namespace manyheads::model {
namespace {

std::unique_ptr<const TextModel::Parts> open(const std::filesystem::path& folder, DType weights) {
  TransformerModule module = load_transformer_module(folder);
  ConfiguredTokenizer configured = load_tokenizer(module.folder, module.do_lower_case);
  std::unique_ptr<const Encoder> encoder = load_encoder(module.folder, weights);
  return std::make_unique<const TextModel::Parts>(
      TextModel::Parts{std::move(module), std::move(configured), std::move(encoder)});
}

Encoding checked(Encoding encoding, const TextModel& model) {
  check_ids("TextModel", encoding.ids, encoding.type_ids, model);
  return encoding;
}

}  // namespace

TextModel::TextModel(const std::filesystem::path& folder, DType weights) : parts_(open(folder, weights)) {}
TextModel::~TextModel() = default;
TextModel::TextModel(TextModel&&) noexcept = default;
TextModel& TextModel::operator=(TextModel&&) noexcept = default;

const Encoder& TextModel::encoder() const noexcept { return *parts_->encoder; }
const Decoder* TextModel::decoder() const noexcept { return dynamic_cast<const Decoder*>(parts_->encoder.get()); }
const TextModel::Parts& TextModel::parts() const noexcept { return *parts_; }

Encoding TextModel::encode(std::string_view text) const {
  return checked(parts_->configured.tokenizer.encode(text), *this);
}

Encoding TextModel::encode_pair(std::string_view first, std::string_view second) const {
  return checked(parts_->configured.tokenizer.encode_pair(first, second), *this);
}

std::string TextModel::decode(std::span<const std::int64_t> ids, bool skip_special_tokens) const {
  return parts_->configured.tokenizer.decode(ids, skip_special_tokens);
}

std::vector<std::int64_t> TextModel::end_tokens() const {
  return model::end_tokens(parts_->module.folder, encoder().config().vocab_size);
}

void check_ids(const std::string& subject, const std::vector<std::int64_t>& ids,
               const std::vector<std::int64_t>& type_ids, const TextModel& model) {
  const auto check = [&](const std::vector<std::int64_t>& values, const char* what, const char* key,
                         std::int64_t count) {
    for (const std::int64_t value : values) {
      if (value < count) continue;
      throw Error(ErrorCode::kMalformedFile, subject + ": tokenizer.json and config.json of " +
                                                 base::path_in_quotes(model.parts().module.folder) +
                                                 " do not fit: " + what + " " + std::to_string(value) + ", " + key +
                                                 " is " + std::to_string(count));
    }
  };
  check(ids, "token id", "vocab_size", model.encoder().config().vocab_size);
  const std::int64_t segments = model.encoder().config().type_vocab_size;
  if (segments > 0) check(type_ids, "segment", "type_vocab_size", segments);
}

}  // namespace manyheads::model
