#pragma once

#include <filesystem>
#include <manyheads/model/encoder.hpp>
#include <memory>

#include "model/bert_config.hpp"

namespace manyheads::model {

// An encoder of BERT's architecture: one of kBertNames.
class BertEncoder final : public Encoder {
 public:
  // From a folder's config.json and checkpoint. Tensors are named with or without their prefix (`bert.`); those that an
  // encoder does not need are passed over. Throws Error naming the tensor that is missing or has another shape than
  // config.json says. `weights` as in load_encoder; layer::Linear says how they multiply.
  static BertEncoder load(const std::filesystem::path& folder, DType weights = DType::kF32);
  BertEncoder(const BertConfig& config, const StateDict& tensors, DType weights = DType::kF32);
  ~BertEncoder() override;
  BertEncoder(BertEncoder&&) noexcept;
  BertEncoder& operator=(BertEncoder&&) noexcept;

  const EncoderConfig& config() const noexcept override;

 private:
  struct Impl;
  explicit BertEncoder(std::unique_ptr<const Impl> impl);
  Tensor forward(const TokenBatch& batch, const EncoderOptions& options) const override;

  std::unique_ptr<const Impl> impl_;
};

std::unique_ptr<const Encoder> load_bert(const std::filesystem::path& folder, DType weights);

}  // namespace manyheads::model
