#include "model/tokenizer.hpp"

#include <cstddef>
#include <manyheads/error.hpp>

#include "base/file.hpp"
#include "model/json.hpp"

// The C door of tokenizers/src/lib.rs.
extern "C" {
struct manyheads_encoding_view {
  std::size_t size;
  const std::int64_t* ids;
  const std::int64_t* type_ids;
  const std::int64_t (*offsets)[2];
  const std::int64_t* words;
  const std::int32_t* sequences;
  const std::uint8_t* special;
  const char* tokens;
  const std::size_t* token_ends;
  void* owner;
};
int manyheads_tokenizer_load(const char* json, std::size_t size, void** out);
void manyheads_tokenizer_free(void* tokenizer);
int manyheads_tokenizer_encode(const void* tokenizer, const char* text, std::size_t text_size, const char* pair,
                               std::size_t pair_size, int add_special, manyheads_encoding_view* out);
void manyheads_encoding_free(void* owner);
const char* manyheads_tokenizer_error(std::size_t* size);
}

namespace manyheads::model {
namespace {

constexpr int kNotUtf8 = 1;

// One line: the library's texts may hold pieces of the file.
std::string last_error() {
  std::size_t size = 0;
  const char* text = manyheads_tokenizer_error(&size);
  const std::string line = base::in_quotes(std::string_view(text, size), 300);
  return line.substr(1, line.size() - 2);
}

void check_tokenizer(const JsonDocument& tokenizer) {
  const JsonDocument model = require_object(tokenizer, "model");
  if (has(model, "type")) require_string(model, "type");
  if (has(model, "vocab") && !model.value["vocab"].is_array()) require_object(model, "vocab");
  if (has(tokenizer, "added_tokens")) require_array(tokenizer, "added_tokens");
}

}  // namespace

struct Tokenizer::Handle {
  explicit Handle(void* handle) : tokenizer(handle) {}
  ~Handle() { manyheads_tokenizer_free(tokenizer); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  void* tokenizer;
};

Tokenizer::Tokenizer(const std::filesystem::path& path) : place_(base::path_in_quotes(path)) {
  const base::MappedFile file = base::map_file(path);
  // Our own reading comes first: it names the byte, where the library may only say that nothing matched.
  check_tokenizer(parse_json(file.text(), place_));
  void* tokenizer = nullptr;
  if (manyheads_tokenizer_load(file.text().data(), file.size, &tokenizer) != 0) {
    throw Error(ErrorCode::kMalformedFile, place_ + ": not a tokenizer: " + last_error());
  }
  handle_ = std::make_shared<const Handle>(tokenizer);
}

Encoding Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return run(text, nullptr, add_special_tokens);
}

Encoding Tokenizer::encode_pair(std::string_view first, std::string_view second, bool add_special_tokens) const {
  return run(first, &second, add_special_tokens);
}

Encoding Tokenizer::run(std::string_view text, const std::string_view* pair, bool add_special_tokens) const {
  manyheads_encoding_view view{};
  // An empty view may have no address, which to the library would mean that there is no second text.
  const char* pair_data = pair == nullptr ? nullptr : pair->empty() ? "" : pair->data();
  const int status = manyheads_tokenizer_encode(handle_->tokenizer, text.data(), text.size(), pair_data,
                                                pair == nullptr ? 0 : pair->size(), add_special_tokens ? 1 : 0, &view);
  if (status == kNotUtf8) throw Error(ErrorCode::kInvalidArgument, "tokenizer: " + last_error());
  if (status != 0) throw Error(ErrorCode::kInvalidArgument, place_ + ": cannot encode the text: " + last_error());
  const std::unique_ptr<void, void (*)(void*)> owner(view.owner, manyheads_encoding_free);

  Encoding encoding;
  const std::size_t size = view.size;
  encoding.ids.assign(view.ids, view.ids + size);
  encoding.type_ids.assign(view.type_ids, view.type_ids + size);
  encoding.words.assign(view.words, view.words + size);
  encoding.sequences.assign(view.sequences, view.sequences + size);
  encoding.special.assign(view.special, view.special + size);
  std::size_t begin = 0;
  for (std::size_t i = 0; i < size; ++i) {
    encoding.offsets.push_back({view.offsets[i][0], view.offsets[i][1]});
    encoding.tokens.emplace_back(view.tokens + begin, view.token_ends[i] - begin);
    begin = view.token_ends[i];
  }
  return encoding;
}

}  // namespace manyheads::model
