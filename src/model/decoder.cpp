#include <algorithm>
#include <manyheads/error.hpp>
#include <manyheads/model/decoder.hpp>
#include <string>
#include <utility>

#include "base/fail.hpp"
#include "model/encoder.hpp"

namespace manyheads::model {
namespace {

[[noreturn]] void fail(const std::string& what) { base::fail("Decoder::extend", what); }

void check_chunks(const DecoderCache& cache, std::span<const DecoderChunk> chunks, const EncoderConfig& config) {
  if (cache.num_layers() != config.num_layers || cache.layer(0).options().num_kv_heads != config.num_kv_heads ||
      cache.layer(0).options().head_dim != config.head_dim) {
    const KVCacheOptions& is = cache.layer(0).options();
    fail(base::format("the cache has {} layers of {} key/value heads of {}, the decoder {} of {} of {}",
                      cache.num_layers(), is.num_kv_heads, is.head_dim, config.num_layers, config.num_kv_heads,
                      config.head_dim));
  }
  if (chunks.empty()) fail("there are no chunks");
  std::vector<DecoderCache::Sequence> seen;
  for (std::size_t c = 0; c < chunks.size(); ++c) {
    const DecoderChunk& chunk = chunks[c];
    if (chunk.ids.empty()) fail(base::format("chunk {} has no tokens", c));
    const std::int64_t before = cache.length(chunk.sequence), after = before + std::ssize(chunk.ids);
    if (after > config.max_position_embeddings) {
      fail(base::format("chunk {} makes sequence {} {} tokens long, more than the {} that the model takes", c,
                        chunk.sequence, after, config.max_position_embeddings));
    }
    for (const std::int64_t id : chunk.ids) {
      if (id < 0 || id >= config.vocab_size) {
        fail(base::format("token id {} of chunk {}, the vocabulary has {}", id, c, config.vocab_size));
      }
    }
    seen.push_back(chunk.sequence);
  }
  std::sort(seen.begin(), seen.end());
  if (const auto twice = std::adjacent_find(seen.begin(), seen.end()); twice != seen.end()) {
    fail(base::format("sequence {} is in two chunks", *twice));
  }
}

// Puts the sequences back to their lengths unless all layers have taken the tokens.
class Rollback {
 public:
  Rollback(DecoderCache& cache, std::span<const DecoderChunk> chunks) : cache_(cache), chunks_(chunks) {
    for (const DecoderChunk& chunk : chunks) before_.push_back(cache.length(chunk.sequence));
  }
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;
  ~Rollback() {
    if (done_) return;
    for (std::size_t c = 0; c < chunks_.size(); ++c) {
      for (std::int64_t i = 0; i < cache_.num_layers(); ++i) {
        cache_.layer(i).truncate(chunks_[c].sequence, before_[c]);
      }
    }
  }
  void keep() { done_ = true; }

 private:
  DecoderCache& cache_;
  std::span<const DecoderChunk> chunks_;
  std::vector<std::int64_t> before_;
  bool done_ = false;
};

}  // namespace

Tensor Decoder::extend(DecoderCache& cache, std::span<const DecoderChunk> chunks, const EncoderOptions& options) const {
  check_chunks(cache, chunks, config());
  check_options("Decoder::extend", options, config());
  const kernels::TableScope scope(encoder_table("Decoder::extend", options.bits, config()));
  Rollback rollback(cache, chunks);
  Tensor hidden = forward_in_cache(cache, chunks, options);
  rollback.keep();
  return hidden;
}

Tensor Decoder::logits(const ConstTensorView& hidden, const Threads& threads, std::string_view bits) const {
  static constexpr const char* kName = "Decoder::logits";
  const Dims expected{hidden.rank() == 2 ? hidden.size(0) : 0, config().hidden_size};
  if (!hidden.defined() || hidden.dtype() != DType::kF32 || !(hidden.shape() == expected) ||
      !(hidden.strides() == contiguous_strides(hidden.shape()))) {
    base::fail(kName, base::format("hidden is {}, expected dense F32 [N,E] with E = {}", base::describe(hidden),
                                   config().hidden_size));
  }
  check_threads(kName, threads);
  const kernels::TableScope scope(encoder_table(kName, bits, config()));
  return project_to_vocabulary(hidden, threads);
}

}  // namespace manyheads::model
