#include "view/layer_file.hpp"

#include <manyheads/error.hpp>
#include <utility>

namespace manyheads::view {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::kInvalidArgument, what); }

const Tensor& need(const std::string& place, const StateDict& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) refuse(place + " has no tensor \"" + name + "\"");
  return found->second;
}

ConstTensorView view_of(const StateDict& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? ConstTensorView{} : found->second.cview();
}

std::int64_t columns(const StateDict& state, const std::string& place, const std::string& name) {
  const Tensor& weight = need(place, state, name);
  const bool square = name == "out_proj.weight";  // a file must not have us allocate sizes that it does not hold
  if (weight.rank() != 2 || weight.size(0) < 1 || (square && weight.size(0) != weight.size(1))) {
    refuse(name + " in " + place + " needs the axes " + (square ? "[d_model,d_model]" : "[out,in]") + ", has " +
           weight.shape().to_string());
  }
  return weight.size(1);
}

// The state_dict says everything but the head counts and add_zero_attn.
MultiHeadAttentionConfig infer_config(const StateDict& state, const LayerCall& call) {
  const std::string& place = call.state_place;
  MultiHeadAttentionConfig config;
  config.d_model = columns(state, place, "out_proj.weight");
  config.num_heads = call.heads;
  config.num_kv_heads = call.kv_heads;
  if (state.count("in_proj_weight") == 0) {
    if (state.count("q_proj_weight") == 0) refuse(place + " has neither in_proj_weight nor q_proj_weight");
    config.kdim = columns(state, place, "k_proj_weight");
    config.vdim = columns(state, place, "v_proj_weight");
  }
  config.bias = state.count("in_proj_bias") != 0;
  config.add_bias_kv = state.count("bias_k") != 0;
  config.add_zero_attn = call.add_zero_attn;
  config.dtype = need(place, state, "out_proj.weight").dtype();
  return config;
}

ConstTensorView sequence(const StateDict& inputs, const std::string& place, const std::string& name) {
  const ConstTensorView view = need(place, inputs, name).cview();
  if (view.rank() != 3) {
    refuse(name + " in " + place + " needs the axes [B,T,E], has " + view.shape().to_string());
  }
  return view;
}

}  // namespace

LayerResult run_layer(const StateDict& state, const StateDict& inputs, const LayerCall& call) {
  MultiHeadAttention layer(infer_config(state, call));
  layer.load_state_dict(state);

  const std::string& place = call.input_place;
  const ConstTensorView query = sequence(inputs, place, "query");
  const bool has_key = inputs.count("key") != 0;
  if (inputs.count("value") != 0 && !has_key) refuse(place + " has a value and no key");
  const ConstTensorView key = has_key ? sequence(inputs, place, "key") : query;
  const ConstTensorView value = inputs.count("value") != 0 ? sequence(inputs, place, "value") : key;
  if (call.gradients != nullptr) {
    const ConstTensorView dy = sequence(inputs, place, "dy");
    if (!(dy.shape() == query.shape())) {
      refuse("dy in " + place + " has the shape " + dy.shape().to_string() + ", expected that of query, " +
             query.shape().to_string());
    }
  }

  MultiHeadAttentionOptions options;
  options.key_padding_mask = view_of(inputs, "key_padding_mask");
  options.attn_mask = view_of(inputs, "attn_mask");
  if (call.causal) options.mask = mask::causal(Alignment::kTopLeft);
  options.head_scale = view_of(inputs, "head_scale");
  options.dropout = call.dropout;
  options.threads = call.threads;
  options.bits = call.bits;

  LayerResult result;
  Tensor output(query.dtype(), query.shape());
  result.tensors.emplace("output", output);
  if (call.weights) {
    const std::int64_t added = (layer.config().add_bias_kv ? 1 : 0) + (layer.config().add_zero_attn ? 1 : 0);
    Tensor weights(DType::kF32, {query.size(0), call.heads, query.size(1), key.size(1) + added});
    options.weights = weights.view();
    result.tensors.emplace("weights", weights);
  }
  MultiHeadAttentionActivations kept;
  if (call.gradients != nullptr) options.activations = &kept;
  layer.forward(query, key, value, output.view(), options);
  if (call.gradients != nullptr) result.tensors.merge(call.gradients({layer, inputs, query, key, value, options}));
  result.config = layer.config();
  result.d_k = layer.d_k();
  result.parameters = layer.parameter_count();
  return result;
}

}  // namespace manyheads::view
