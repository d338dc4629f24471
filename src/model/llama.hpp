#pragma once

#include <filesystem>
#include <manyheads/model/decoder.hpp>
#include <memory>

#include "model/llama_config.hpp"

namespace manyheads::model {

// A decoder of the Llama family (Touvron et al. 2023): RMSNorm before each part, rotary embeddings, grouped heads,
// SwiGLU.
class LlamaDecoder final : public Decoder {
 public:
  // From a folder's config.json and checkpoint. Tensors are named with or without the prefix `model.`. Throws Error
  // naming the tensor that is missing or has another shape than config.json says. `weights` as in load_encoder.
  static LlamaDecoder load(const std::filesystem::path& folder, DType weights = DType::kF32);
  LlamaDecoder(const LlamaConfig& config, const StateDict& tensors, DType weights = DType::kF32);
  ~LlamaDecoder() override;
  LlamaDecoder(LlamaDecoder&&) noexcept;
  LlamaDecoder& operator=(LlamaDecoder&&) noexcept;

  const EncoderConfig& config() const noexcept override;

 private:
  struct Impl;
  explicit LlamaDecoder(std::unique_ptr<const Impl> impl);
  Tensor forward(const TokenBatch& batch, const EncoderOptions& options) const override;
  Tensor forward_in_cache(DecoderCache& cache, std::span<const DecoderChunk> chunks,
                          const EncoderOptions& options) const override;
  Tensor project_to_vocabulary(const ConstTensorView& hidden, const Threads& threads) const override;

  std::unique_ptr<const Impl> impl_;
};

std::unique_ptr<const Decoder> load_llama(const std::filesystem::path& folder, DType weights);

}  // namespace manyheads::model
