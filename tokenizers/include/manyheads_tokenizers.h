// Written by cbindgen from tokenizers/src/lib.rs: change that, and run scripts/tokenizers-header.

#pragma once

#include <stddef.h>
#include <stdint.h>

// What a call answers.
#define MANYHEADS_OK 0

#define MANYHEADS_NOT_UTF8 1

#define MANYHEADS_FAILED 2

// No token has the id.
#define MANYHEADS_NO_TOKEN 3

typedef struct manyheads_encoding manyheads_encoding;

// A tokenizer and what is known of its cost.
typedef struct manyheads_tokenizer manyheads_tokenizer;

typedef struct manyheads_text manyheads_text;

// One entry a token. The arrays belong to `owner` and live until `manyheads_encoding_free(owner)`.
typedef struct {
  size_t size;
  const int64_t *ids;
  const int64_t *type_ids;
  const int64_t (*offsets)[2];
  // Counted through both texts; -1 for a token that stands in no text.
  const int64_t *words;
  // The text that a token stands in, 0 or 1; -1 for none.
  const int32_t *sequences;
  // 1 for a token that the tokenizer added.
  const uint8_t *special;
  // The tokens' strings, one after the other, and where each ends.
  const char *tokens;
  const size_t *token_ends;
  manyheads_encoding *owner;
} manyheads_encoding_view;

// UTF-8, not terminated. It belongs to `owner` and lives until `manyheads_text_free(owner)`.
typedef struct {
  size_t size;
  const char *data;
  // Of a single token: 1 for a special one, which decoding may skip.
  uint8_t special;
  manyheads_text *owner;
} manyheads_text_view;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Reads the text of a tokenizer.json. The tokenizer is safe to use from many threads.
//
// # Safety
// `json` points to `size` bytes; `out` can be written.
int manyheads_tokenizer_load(const char *json, size_t size, manyheads_tokenizer **out);

// # Safety
// `tokenizer` came from `manyheads_tokenizer_load` and is not used again.
void manyheads_tokenizer_free(manyheads_tokenizer *tokenizer);

// Encodes one text, or two when `pair` is not null.
//
// # Safety
// `tokenizer` is a live tokenizer; the texts have their sizes; `out` can be written.
int manyheads_tokenizer_encode(const manyheads_tokenizer *tokenizer,
                               const char *text,
                               size_t text_size,
                               const char *pair,
                               size_t pair_size,
                               int add_special,
                               manyheads_encoding_view *out);

// # Safety
// `owner` came with a `manyheads_encoding_view` and is not used again.
void manyheads_encoding_free(manyheads_encoding *owner);

// The token of an id, as the vocabulary spells it.
//
// # Safety
// `tokenizer` is a live tokenizer; `out` can be written.
int manyheads_tokenizer_token(const manyheads_tokenizer *tokenizer, int64_t id, manyheads_text_view *out);

// The text of tokens. Bytes of theirs that are no UTF-8 become U+FFFD.
//
// # Safety
// `tokenizer` is a live tokenizer; `ids` points to `size` of them; `out` can be written.
int manyheads_tokenizer_decode(const manyheads_tokenizer *tokenizer,
                               const int64_t *ids,
                               size_t size,
                               int skip_special,
                               manyheads_text_view *out);

// # Safety
// `owner` came with a `manyheads_text_view` and is not used again.
void manyheads_text_free(manyheads_text *owner);

// What the last call of this thread that failed says, until the next one fails. UTF-8, not terminated.
//
// # Safety
// `size` can be written.
const char *manyheads_tokenizer_error(size_t *size);

#ifdef __cplusplus
} // extern "C"
#endif // __cplusplus
