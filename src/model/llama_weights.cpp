#include "model/llama_weights.hpp"

#include "layer/convert.hpp"
#include "model/checkpoint_tensors.hpp"

namespace manyheads::model {
namespace {

using layer::Linear;

// Projections of one input, side by side.
struct Dense {
  Tensor weight, bias;  // bias undefined: none
};

Dense take(const CheckpointTensors& from, const std::vector<std::pair<std::string, std::int64_t>>& parts,
           std::int64_t in, bool bias) {
  std::vector<Tensor> weights, biases;
  for (const auto& [name, out] : parts) {
    weights.push_back(from.take(name + ".weight", {out, in}));
    if (bias) biases.push_back(from.take(name + ".bias", {out}));
  }
  if (parts.size() == 1) return {weights[0], bias ? biases[0] : Tensor()};
  return {layer::stacked(weights, DType::kF32), bias ? layer::stacked(biases, DType::kF32) : Tensor()};
}

LlamaBlock load_block(const CheckpointTensors& from, const LlamaConfig& c, std::int64_t number, DType kept) {
  const std::string name = "layers." + std::to_string(number) + ".";
  const std::int64_t e = c.hidden_size, q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  const std::int64_t wide = c.intermediate_size;
  const std::string attention = name + "self_attn.", mlp = name + "mlp.";
  const Dense qkv = take(from, {{attention + "q_proj", q}, {attention + "k_proj", kv}, {attention + "v_proj", kv}}, e,
                         c.attention_bias);
  const Dense output = take(from, {{attention + "o_proj", e}}, q, c.attention_bias);
  const Dense gate_up = take(from, {{mlp + "gate_proj", wide}, {mlp + "up_proj", wide}}, e, c.mlp_bias);
  const Dense down = take(from, {{mlp + "down_proj", e}}, wide, c.mlp_bias);

  layer::PackedMemory memory(Linear::words(q + 2 * kv, e, kept) + Linear::words(e, q, kept) +
                             Linear::words(2 * wide, e, kept) + Linear::words(e, wide, kept));
  const auto pack = [&](const Dense& dense) {
    return Linear(dense.weight.cview(), dense.bias.defined() ? dense.bias.cview() : ConstTensorView{}, kept, &memory);
  };
  LlamaBlock block;
  block.qkv = pack(qkv);
  block.attention_output = pack(output);
  block.gate_up = pack(gate_up);
  block.down = pack(down);
  block.attention_norm = from.take_f32(name + "input_layernorm.weight", {e});
  block.mlp_norm = from.take_f32(name + "post_attention_layernorm.weight", {e});
  return block;
}

}  // namespace

LlamaWeights::LlamaWeights(const LlamaConfig& config, const StateDict& tensors,
                           const std::map<std::string, std::string>& unsupported, const std::string& place,
                           DType kept) {
  const CheckpointTensors from(tensors, unsupported, place, "model.");
  const Dims table{config.vocab_size, config.hidden_size};
  embeddings = from.take("embed_tokens.weight", table);
  norm = from.take_f32("norm.weight", {config.hidden_size});
  // First, so that a file without it is refused before the long work.
  const Tensor head = config.tie_word_embeddings ? embeddings : from.take("lm_head.weight", table);
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) blocks.push_back(load_block(from, config, i, kept));
  logits = Linear(head.cview(), {}, kept);
}

}  // namespace manyheads::model
