#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/kv_cache.hpp>
#include <manyheads/model/encoder.hpp>
#include <manyheads/tensor.hpp>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace manyheads::model {

struct DecoderCacheOptions {
  DType dtype = DType::kF32;    // of keys and values: F32, BF16, F16 or I8 (KVCacheOptions)
  std::int64_t page_size = 64;  // tokens in a page, a multiple of 16; 0: each sequence lies in one piece
  std::int64_t max_tokens = 0;  // bound on the tokens that memory is taken for; 0: none
};

// Keys and values of growing sequences in every layer of a decoder: a KVCache for each layer, whose sequences have the
// same ids and lengths. Not thread-safe while it changes.
class DecoderCache {
 public:
  using Sequence = KVCache::Sequence;

  // Throws Error as KVCache does.
  explicit DecoderCache(const EncoderConfig& config, const DecoderCacheOptions& options = {});

  const DecoderCacheOptions& options() const noexcept { return options_; }
  Sequence add();                    // an empty sequence; an id is never used again
  Sequence fork(Sequence sequence);  // a sequence that begins with the tokens of another, and shares its pages
  void remove(Sequence sequence);
  std::int64_t length(Sequence sequence) const;
  void truncate(Sequence sequence, std::int64_t length);  // keeps the first tokens
  std::size_t bytes() const noexcept;                     // of all layers' pages

  KVCache& layer(std::int64_t i) { return layers_[static_cast<std::size_t>(i)]; }
  const KVCache& layer(std::int64_t i) const { return layers_[static_cast<std::size_t>(i)]; }
  std::int64_t num_layers() const noexcept { return static_cast<std::int64_t>(layers_.size()); }

 private:
  DecoderCacheOptions options_;
  std::vector<KVCache> layers_;
};

// Tokens to append to a sequence of a cache.
struct DecoderChunk {
  DecoderCache::Sequence sequence = 0;
  std::span<const std::int64_t> ids;  // at least one
};

// An encoder whose tokens see no later ones, and that says which token comes next. run() is a forward over whole
// sequences; extend() goes on from what a cache holds.
//   auto decoder = manyheads::model::load_decoder("models/SmolLM2-135M-Instruct");
//   manyheads::model::DecoderCache cache(decoder->config());
//   const auto sequence = cache.add();
//   manyheads::Tensor hidden = decoder->extend(cache, {{{sequence, ids}}});
//   manyheads::Tensor logits = decoder->logits(hidden.cview());
class Decoder : public Encoder {
 public:
  // Appends each chunk to its sequence and gives the last hidden states [N,E] F32 of the N new tokens, chunk after
  // chunk. One call decodes a token of each of many sequences, reads prompts in chunks, or both.
  // - The bits of a token's hidden state depend on the tokens of its sequence and on the cache's type only: not on
  //   chunks, pages, the other sequences or the threads. They are those of run() where the cache's type is the one that
  //   run() attends in: F32, and BF16 where BF16 weights round rows (EncoderConfig::weights).
  // - Queries take the cache's type; over an I8 cache they take run()'s.
  // - options.layers receives q, k, v and lse of the new tokens; options.hidden_states [1,N,E].
  // Throws Error where there is no chunk, and Error that names the chunk: an unknown sequence, one given twice, an id
  // outside the vocabulary, more tokens than the model takes, memory that does not reach. The cache is then as it was.
  Tensor extend(DecoderCache& cache, std::span<const DecoderChunk> chunks, const EncoderOptions& options = {}) const;

  // The logits [N,V] F32 of last hidden states [N,E] F32, dense. The bits of a row do not depend on the other rows.
  Tensor logits(const ConstTensorView& hidden, const Threads& threads = {}, std::string_view bits = {}) const;

 private:
  // The same for what extend and logits have checked.
  virtual Tensor forward_in_cache(DecoderCache& cache, std::span<const DecoderChunk> chunks,
                                  const EncoderOptions& options) const = 0;
  virtual Tensor project_to_vocabulary(const ConstTensorView& hidden, const Threads& threads) const = 0;
};

// Opens a folder as load_encoder does, where its "model_type" is a decoder's: llama. Throws Error that names the file
// and what does not fit.
std::unique_ptr<const Decoder> load_decoder(const std::filesystem::path& folder, DType weights = DType::kF32);

}  // namespace manyheads::model
