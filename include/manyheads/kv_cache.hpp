#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include <manyheads/attention.hpp>
#include <manyheads/tensor.hpp>
#include <manyheads/export.hpp>

namespace manyheads {

struct KVCacheOptions {
  std::int64_t num_kv_heads = 1;
  std::int64_t head_dim = 0;    // D of the keys
  std::int64_t value_dim = 0;   // Dv of the values; 0: head_dim
  DType dtype = DType::kF32;    // F32, BF16, F16; or I8: a token's head is scaled by its largest magnitude / 127
  std::int64_t page_size = 64;  // tokens in a page, a multiple of 16; 0: each sequence lies in one piece
  std::int64_t max_tokens = 0;  // bound on the tokens that memory is taken for; 0: none
};

// Some sequences of a cache, as attention() takes them. Valid until the cache changes.
struct MANYHEADS_API KVBatch {
  ConstTensorView k, v, k_scales, v_scales;
  Tensor page_table;   // [B,N] I64
  Tensor key_lengths;  // [B] I64

  // Sets page_table, scales and mask.key_lengths.
  void apply(AttentionOptions& options) const;
};

// Keys and values of many growing sequences, for decoding and chunked prefill. attention() gives the same bits in pages
// or in one piece, at any page size, and however the tokens came in.
//
// In pages:
// - A sequence takes memory page by page. A fork shares its pages until one of the two writes to them.
// - Pages double in number when they run out, up to max_tokens. Nothing is copied: the system moves the memory, and
//   takes it only for tokens that are there.
//
// In one piece:
// - Every sequence has room for the longest. A fork is a copy.
// - All tokens are copied when the room of the longest doubles: each about once in all. With max_tokens the room is
//   what that leaves to each sequence, in sixteens.
//
// Not thread-safe while it changes; const calls may run side by side.
class MANYHEADS_API KVCache {
 public:
  using Sequence = std::int64_t;

  // Throws Error on sizes and types that a cache cannot have.
  explicit KVCache(const KVCacheOptions& options);
  ~KVCache();
  KVCache(KVCache&&) noexcept;
  KVCache& operator=(KVCache&&) noexcept;

  const KVCacheOptions& options() const noexcept;
  Sequence add();                    // an empty sequence; an id is never used again
  Sequence fork(Sequence sequence);  // a sequence that begins with the tokens of another
  void remove(Sequence sequence);    // gives its pages back to the cache
  std::int64_t length(Sequence sequence) const;
  void truncate(Sequence sequence, std::int64_t length);  // keeps the first tokens

  // Appends T tokens, rounded once to the cache's type: k [Hkv,T,D], v [Hkv,T,Dv] of F32, BF16 or F16 and any strides.
  // They may be views of a KVBatch of this cache. Throws Error and changes nothing where shapes do not fit or memory
  // (max_tokens) does not reach.
  void append(Sequence sequence, ConstTensorView k, ConstTensorView v, const Threads& threads = {});

  // Fills `batch` with the sequences, in the order given. Reuses its tensors where they fit.
  void gather(std::span<const Sequence> sequences, KVBatch& batch) const;

  std::size_t bytes() const noexcept;          // of all pages, with or without tokens
  std::int64_t pages_in_use() const noexcept;  // each shared page once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// attention() of q [B,Hq,Tq,D] (or packed, with options.cu_seqlens_q) over the cache's sequences. Overwrites the
// options that KVBatch::apply sets. Allocates the batch: a caller that decodes in a loop keeps a KVBatch of its own.
MANYHEADS_API void attention(ConstTensorView q, const KVCache& cache, std::span<const KVCache::Sequence> sequences,
                             TensorView out, AttentionOptions options = {});

}  // namespace manyheads
