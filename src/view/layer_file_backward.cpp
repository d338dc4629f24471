#include <manyheads/cpu.hpp>
#include <utility>

#include "view/layer_file.hpp"

namespace manyheads::view {

StateDict layer_gradients(const LayerForward& forward) {
  StateDict results;
  const auto make = [&results](const std::string& name, const Dims& shape) {
    return results.emplace(name, Tensor(DType::kF32, shape)).first->second.view();
  };
  const StateDict& inputs = forward.inputs;
  MultiHeadAttentionGradients gradients;
  gradients.dquery = make("dquery", forward.query.shape());
  if (inputs.contains("key")) gradients.dkey = make("dkey", forward.key.shape());
  Tensor of_values;
  if (inputs.contains("value")) {
    gradients.dvalue = make("dvalue", forward.value.shape());
  } else if (inputs.contains("key")) {
    of_values = Tensor(DType::kF32, forward.value.shape());
    gradients.dvalue = of_values.view();
  }
  if (inputs.contains("head_scale")) gradients.dhead_scale = make("dhead_scale", inputs.at("head_scale").shape());
  for (const auto& [name, tensor] : forward.layer.state_dict()) {
    gradients.parameters[name] = make("grad." + name, tensor.shape());
  }

  MultiHeadAttentionOptions options = forward.options;
  if (options.bits != active_bits()) options.bits = {};  // of BF16's products: gradients have F32's
  forward.layer.backward(forward.query, forward.key, forward.value, *options.activations, inputs.at("dy").cview(),
                         gradients, options);
  if (of_values.defined()) {  // key stands for value
    float* const sum = results.at("dkey").as<float>();
    for (std::int64_t i = 0; i < of_values.elements(); ++i) sum[i] += of_values.as<float>()[i];
  }
  return results;
}

}  // namespace manyheads::view
