#include "model/bert_weights.hpp"

#include <string>
#include <vector>

#include "kernels/dispatch.hpp"
#include "layer/convert.hpp"
#include "model/checkpoint_tensors.hpp"

namespace manyheads::model {
namespace {

using layer::Linear;

BertNorm load_norm(const CheckpointTensors& from, const std::string& name, std::int64_t size) {
  return {from.take_f32(name + ".weight", {size}), from.take_f32(name + ".bias", {size})};
}

BertBlock load_block(const CheckpointTensors& from, const BertConfig& config, std::int64_t number, DType weights) {
  const BertNames& parts = *config.names;
  const std::string name = parts.layers + std::to_string(number) + ".";
  const std::int64_t e = config.hidden_size, wide = config.intermediate_size;
  struct Dense {
    Tensor weight, bias;
  };
  const auto take = [&](const std::string& part, std::int64_t in, std::int64_t out) {
    return Dense{from.take(name + part + ".weight", {out, in}), from.take(name + part + ".bias", {out})};
  };
  std::vector<Tensor> qkv_weights, qkv_biases;
  for (const char* part : {parts.query, parts.key, parts.value}) {
    const Dense one = take(part, e, e);
    qkv_weights.push_back(one.weight);
    qkv_biases.push_back(one.bias);
  }
  const Dense attention_output = take(parts.attention_output, e, e);
  const Dense intermediate = take(parts.intermediate, e, wide);
  const Dense output = take(parts.output, wide, e);
  const Dense qkv{layer::stacked(qkv_weights, DType::kF32), layer::stacked(qkv_biases, DType::kF32)};

  layer::PackedMemory memory(Linear::words(3 * e, e, weights) + Linear::words(e, e, weights) +
                             Linear::words(wide, e, weights) + Linear::words(e, wide, weights));
  const auto pack = [&](const Dense& dense) {
    return Linear(dense.weight.cview(), dense.bias.cview(), weights, &memory);
  };
  BertBlock block;
  block.qkv = pack(qkv);
  block.attention_output = pack(attention_output);
  block.intermediate = pack(intermediate);
  block.output = pack(output);
  block.attention_norm = load_norm(from, name + parts.attention_norm, e);
  block.output_norm = load_norm(from, name + parts.output_norm, e);
  return block;
}

}  // namespace

void BertNorm::run(const float* x, const float* residual, float* y, std::int64_t rows, double epsilon) const {
  const std::int64_t size = gamma.size(0);
  kernels::NormParams call;
  call.x = x;
  call.residual = residual;
  call.gamma = gamma.as<float>();
  call.beta = beta.as<float>();
  call.y = y;
  call.x_stride = call.residual_stride = call.y_stride = call.size = size;
  call.epsilon = static_cast<float>(epsilon);
  kernels::active_table().layer_norm(call, 0, rows);
}

BertWeights::BertWeights(const BertConfig& config, const StateDict& tensors,
                         const std::map<std::string, std::string>& unsupported, const std::string& place, DType kept) {
  // Checkpoints converted from the first BERT call a norm's tensors gamma and beta.
  const CheckpointTensors from(tensors, unsupported, place, config.names->prefix,
                               {{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}});
  const std::int64_t e = config.hidden_size;
  words = from.take_f32("embeddings.word_embeddings.weight", {config.vocab_size, e});
  positions = from.take_f32("embeddings.position_embeddings.weight", {config.max_position_embeddings, e});
  if (config.type_vocab_size > 0) {
    types = from.take_f32("embeddings.token_type_embeddings.weight", {config.type_vocab_size, e});
  }
  embedding_norm = load_norm(from, "embeddings.LayerNorm", e);
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) blocks.push_back(load_block(from, config, i, kept));
}

}  // namespace manyheads::model
