#include <manyheads/model/decoder.hpp>

#include "base/fail.hpp"

namespace manyheads::model {

DecoderCache::DecoderCache(const EncoderConfig& config, const DecoderCacheOptions& options) : options_(options) {
  KVCacheOptions of_layer;
  of_layer.num_kv_heads = config.num_kv_heads;
  of_layer.head_dim = config.head_dim;
  of_layer.dtype = options.dtype;
  of_layer.page_size = options.page_size;
  of_layer.max_tokens = options.max_tokens;
  if (config.num_layers < 1) base::fail("DecoderCache", "the config has no layers");
  for (std::int64_t i = 0; i < config.num_layers; ++i) layers_.emplace_back(of_layer);
}

// All layers go through the same calls, so their ids and lengths are the same.
DecoderCache::Sequence DecoderCache::add() {
  Sequence id = 0;
  for (KVCache& layer : layers_) id = layer.add();
  return id;
}

DecoderCache::Sequence DecoderCache::fork(Sequence sequence) {
  Sequence id = 0;
  for (KVCache& layer : layers_) id = layer.fork(sequence);
  return id;
}

void DecoderCache::remove(Sequence sequence) {
  for (KVCache& layer : layers_) layer.remove(sequence);
}

std::int64_t DecoderCache::length(Sequence sequence) const { return layers_.front().length(sequence); }

void DecoderCache::truncate(Sequence sequence, std::int64_t length) {
  for (KVCache& layer : layers_) layer.truncate(sequence, length);
}

std::size_t DecoderCache::bytes() const noexcept {
  std::size_t bytes = 0;
  for (const KVCache& layer : layers_) bytes += layer.bytes();
  return bytes;
}

}  // namespace manyheads::model
