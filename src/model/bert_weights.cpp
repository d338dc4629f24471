#include "model/bert_weights.hpp"

#include <manyheads/error.hpp>
#include <utility>

#include "base/file.hpp"
#include "kernels/dispatch.hpp"
#include "layer/convert.hpp"

namespace manyheads::model {
namespace {

using layer::Linear;

// Finds an encoder's tensors under the names that checkpoints give them.
class Checkpoint {
 public:
  Checkpoint(const StateDict& tensors, const std::map<std::string, std::string>& unsupported, std::string place)
      : tensors_(tensors), unsupported_(unsupported), place_(std::move(place)) {}

  Tensor take(const std::string& name, const Dims& shape) const {
    for (const std::string& known : names(name)) {
      if (const auto found = unsupported_.find(known); found != unsupported_.end()) {
        refuse(base::in_quotes(known) + " is " + found->second + ", expected F32, BF16 or F16 " + shape.to_string());
      }
      const auto found = tensors_.find(known);
      if (found == tensors_.end()) continue;
      const Tensor& tensor = found->second;
      if (!(tensor.shape() == shape)) {
        refuse(base::in_quotes(known) + " is " + tensor.shape().to_string() + ", expected " + shape.to_string());
      }
      if (!layer::is_float(tensor.dtype())) {
        refuse(base::in_quotes(known) + " is " + name_of(tensor.dtype()) + ", expected F32, BF16 or F16");
      }
      return tensor;
    }
    refuse(base::in_quotes(name) + " " + shape.to_string() +
           " is missing (looked for with and without the prefix bert.)");
  }

  // The tensor itself where it is F32 already, else a copy.
  Tensor take_f32(const std::string& name, const Dims& shape) const {
    const Tensor tensor = take(name, shape);
    return tensor.dtype() == DType::kF32 ? tensor : layer::converted(tensor.cview(), DType::kF32);
  }

 private:
  // Checkpoints converted from the first BERT call a norm's tensors gamma and beta.
  static std::vector<std::string> names(const std::string& name) {
    std::vector<std::string> all{name, "bert." + name};
    for (const auto& [now, once] :
         {std::pair{"LayerNorm.weight", "LayerNorm.gamma"}, std::pair{"LayerNorm.bias", "LayerNorm.beta"}}) {
      const std::size_t at = name.rfind(now);
      if (at == std::string::npos) continue;
      all.push_back(name.substr(0, at) + once);
      all.push_back("bert." + all.back());
    }
    return all;
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::kMalformedFile, place_ + ": tensor " + what);
  }

  const StateDict& tensors_;
  const std::map<std::string, std::string>& unsupported_;
  std::string place_;
};

BertNorm load_norm(const Checkpoint& from, const std::string& name, std::int64_t size) {
  return {from.take_f32(name + ".weight", {size}), from.take_f32(name + ".bias", {size})};
}

BertBlock load_block(const Checkpoint& from, const BertConfig& config, std::int64_t number, DType weights) {
  const std::string name = "encoder.layer." + std::to_string(number) + ".";
  const std::int64_t e = config.hidden_size, wide = config.intermediate_size;
  struct Dense {
    Tensor weight, bias;
  };
  const auto take = [&](const std::string& part, std::int64_t in, std::int64_t out) {
    return Dense{from.take(name + part + ".weight", {out, in}), from.take(name + part + ".bias", {out})};
  };
  std::vector<Tensor> qkv_weights, qkv_biases;
  for (const char* part : {"query", "key", "value"}) {
    const Dense one = take(std::string("attention.self.") + part, e, e);
    qkv_weights.push_back(one.weight);
    qkv_biases.push_back(one.bias);
  }
  const Dense attention_output = take("attention.output.dense", e, e);
  const Dense intermediate = take("intermediate.dense", e, wide);
  const Dense output = take("output.dense", wide, e);
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
  block.attention_norm = load_norm(from, name + "attention.output.LayerNorm", e);
  block.output_norm = load_norm(from, name + "output.LayerNorm", e);
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
  const Checkpoint from(tensors, unsupported, place);
  const std::int64_t e = config.hidden_size;
  words = from.take_f32("embeddings.word_embeddings.weight", {config.vocab_size, e});
  positions = from.take_f32("embeddings.position_embeddings.weight", {config.max_position_embeddings, e});
  types = from.take_f32("embeddings.token_type_embeddings.weight", {config.type_vocab_size, e});
  embedding_norm = load_norm(from, "embeddings.LayerNorm", e);
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) blocks.push_back(load_block(from, config, i, kept));
}

}  // namespace manyheads::model
