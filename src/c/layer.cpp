#include <manyheads/multi_head_attention.hpp>

#include <memory>
#include <string>

#include "c/options.hpp"

using namespace manyheads;
using c::guarded;
using c::input;
using c::output;
using c::required;

struct mh_layer {
  MultiHeadAttention layer;
};

struct mh_layer_activations {
  MultiHeadAttentionActivations kept;
};

namespace {

MultiHeadAttentionConfig config_of(const char* f, const mh_layer_config* config) {
  const mh_layer_config given = c::read(f, "config", &required(f, "config", config));
  MultiHeadAttentionConfig all;
  all.d_model = given.d_model;
  all.num_heads = given.num_heads;
  all.num_kv_heads = given.num_kv_heads;
  all.kdim = given.kdim;
  all.vdim = given.vdim;
  all.bias = given.no_bias == 0;
  all.add_bias_kv = given.add_bias_kv != 0;
  all.add_zero_attn = given.add_zero_attn != 0;
  all.dtype = c::dtype_of(f, "dtype", given.dtype);
  return all;
}

// Tensors on the caller's memory, for one call: the layer copies them.
StateDict state_dict_of(const char* f, const char* const* names, const mh_tensor* tensors, std::size_t count) {
  c::check_count(f, "names", names, count);
  c::check_count(f, "tensors", tensors, count);
  StateDict all;
  for (std::size_t i = 0; i < count; ++i) {
    const char* name = &required(f, base::format("names[{}]", i).c_str(), names[i]);
    const ConstTensorView view = input(f, name, &tensors[i]);
    if (!view.contiguous()) {
      base::fail(f, base::format("{} {} with strides {} is not dense", name, base::describe(view),
                                 view.strides().to_string()));
    }
    const std::shared_ptr<const void> not_owned(view.data(), [](const void*) {});
    if (!all.emplace(name, Tensor(not_owned, view.data(), view.dtype(), view.shape())).second) {
      base::fail(f, base::format("{} is given twice", name));
    }
  }
  return all;
}

// The options of a call of the layer as C++ takes them. They point to the threads that they hold.
class LayerOptions {
 public:
  LayerOptions(const char* f, const mh_layer_options* options)
      : given_(options == nullptr ? mh_layer_options{} : c::read(f, "options", options)),
        threads_(f, given_.num_threads, given_.executor) {
    if (given_.reserved != 0) base::fail(f, base::format("reserved is {}, expected 0", given_.reserved));
    options_.key_padding_mask = input(f, "key_padding_mask", given_.key_padding_mask);
    options_.attn_mask = input(f, "attn_mask", given_.attn_mask);
    options_.mask = c::mask_of(f, given_.mask);
    options_.weights = output(f, "weights", given_.weights);
    options_.head_scale = input(f, "head_scale", given_.head_scale);
    options_.threads = *threads_;
    if (given_.workspace != nullptr) options_.workspace = &given_.workspace->memory;
    if (given_.bits != nullptr) options_.bits = given_.bits;
    if (given_.activations != nullptr) options_.activations = &given_.activations->kept;
    options_.dropout = c::dropout_of(f, given_.dropout);
  }
  const MultiHeadAttentionOptions& operator*() const noexcept { return options_; }

 private:
  mh_layer_options given_;
  c::CallersThreads threads_;
  MultiHeadAttentionOptions options_;
};

MultiHeadAttentionGradients gradients_of(const char* f, const mh_layer_gradients* gradients) {
  const mh_layer_gradients given = c::read(f, "gradients", &required(f, "gradients", gradients));
  if (given.reserved != 0) base::fail(f, base::format("gradients->reserved is {}, expected 0", given.reserved));
  c::check_count(f, "gradients->names", given.names, given.count);
  c::check_count(f, "gradients->parameters", given.parameters, given.count);
  MultiHeadAttentionGradients all;
  all.dquery = output(f, "dquery", given.dquery);
  all.dkey = output(f, "dkey", given.dkey);
  all.dvalue = output(f, "dvalue", given.dvalue);
  all.dhead_scale = output(f, "dhead_scale", given.dhead_scale);
  all.accumulate = given.accumulate != 0;
  for (std::size_t i = 0; i < given.count; ++i) {
    const char* name = &required(f, base::format("gradients->names[{}]", i).c_str(), given.names[i]);
    if (!all.parameters.emplace(name, output(f, name, &given.parameters[i])).second) {
      base::fail(f, base::format("{} is given twice", name));
    }
  }
  return all;
}

}  // namespace

int mh_layer_create(const mh_layer_config* config, mh_layer** layer) noexcept {
  return guarded("mh_layer_create", [&](const char* f) {
    mh_layer*& made = required(f, "layer", layer);
    made = new mh_layer{MultiHeadAttention(config_of(f, config))};
  });
}

int mh_layer_create_from(const mh_layer_config* config, const char* const* names, const mh_tensor* tensors,
                         size_t count, mh_layer** layer) noexcept {
  return guarded("mh_layer_create_from", [&](const char* f) {
    mh_layer*& made = required(f, "layer", layer);
    made = new mh_layer{MultiHeadAttention(config_of(f, config), state_dict_of(f, names, tensors, count))};
  });
}

void mh_layer_destroy(mh_layer* layer) noexcept { delete layer; }

int mh_layer_load_state_dict(mh_layer* layer, const char* const* names, const mh_tensor* tensors,
                             size_t count) noexcept {
  return guarded("mh_layer_load_state_dict", [&](const char* f) {
    required(f, "layer", layer).layer.load_state_dict(state_dict_of(f, names, tensors, count));
  });
}

int mh_layer_tensor_count(const mh_layer* layer, size_t* count) noexcept {
  return guarded("mh_layer_tensor_count", [&](const char* f) {
    const std::size_t all = required(f, "layer", layer).layer.state_dict().size();
    required(f, "count", count) = all;
  });
}

int mh_layer_tensor_name(const mh_layer* layer, size_t index, const char** name) noexcept {
  return guarded("mh_layer_tensor_name", [&](const char* f) {
    const StateDict all = required(f, "layer", layer).layer.state_dict();
    const char*& to = required(f, "name", name);
    if (index >= all.size()) base::fail(f, base::format("index is {}, the layer has {} tensors", index, all.size()));
    thread_local std::string text;
    text = std::next(all.begin(), static_cast<std::ptrdiff_t>(index))->first;
    to = text.c_str();
  });
}

int mh_layer_tensor(const mh_layer* layer, const char* name, mh_tensor* tensor) noexcept {
  return guarded("mh_layer_tensor", [&](const char* f) {
    const StateDict all = required(f, "layer", layer).layer.state_dict();
    const auto found = all.find(&required(f, "name", name));
    mh_tensor& to = required(f, "tensor", tensor);
    if (found == all.end()) base::fail(f, base::format("the layer has no tensor \"{}\"", name));
    to = c::dense(found->second.cview());
  });
}

int mh_layer_get_config(const mh_layer* layer, mh_layer_config* config) noexcept {
  return guarded("mh_layer_get_config", [&](const char* f) {
    const MultiHeadAttentionConfig& of = required(f, "layer", layer).layer.config();
    const std::size_t size = c::read(f, "config", &required(f, "config", config)).size;
    mh_layer_config all{};
    all.d_model = of.d_model;
    all.num_heads = of.num_heads;
    all.num_kv_heads = of.num_kv_heads;
    all.kdim = of.kdim;
    all.vdim = of.vdim;
    all.no_bias = of.bias ? 0 : 1;
    all.add_bias_kv = of.add_bias_kv ? 1 : 0;
    all.add_zero_attn = of.add_zero_attn ? 1 : 0;
    all.dtype = static_cast<std::int32_t>(of.dtype);
    c::write(all, size, config);
  });
}

int mh_layer_parameter_count(const mh_layer* layer, int64_t* count) noexcept {
  return guarded("mh_layer_parameter_count", [&](const char* f) {
    const std::int64_t all = required(f, "layer", layer).layer.parameter_count();
    required(f, "count", count) = all;
  });
}

int mh_layer_forward(const mh_layer* layer, const mh_tensor* query, const mh_tensor* key, const mh_tensor* value,
                     const mh_tensor* y, const mh_layer_options* options) noexcept {
  return guarded("mh_layer_forward", [&](const char* f) {
    const MultiHeadAttention& of = required(f, "layer", layer).layer;
    const LayerOptions all(f, options);
    const ConstTensorView x = input(f, "query", query);
    if (key == nullptr && value == nullptr) {
      of.forward(x, output(f, "y", y), *all);
    } else {
      of.forward(x, input(f, "key", key), input(f, "value", value), output(f, "y", y), *all);
    }
  });
}

int mh_layer_activations_create(mh_layer_activations** activations) noexcept {
  return guarded("mh_layer_activations_create", [&](const char* f) {
    mh_layer_activations*& made = required(f, "activations", activations);
    made = new mh_layer_activations{};
  });
}

void mh_layer_activations_destroy(mh_layer_activations* activations) noexcept { delete activations; }

int mh_layer_backward(const mh_layer* layer, const mh_tensor* query, const mh_tensor* key, const mh_tensor* value,
                      const mh_layer_activations* activations, const mh_tensor* dy, const mh_layer_gradients* gradients,
                      const mh_layer_options* options) noexcept {
  return guarded("mh_layer_backward", [&](const char* f) {
    const MultiHeadAttention& of = required(f, "layer", layer).layer;
    const MultiHeadAttentionActivations& kept = required(f, "activations", activations).kept;
    const LayerOptions all(f, options);
    const MultiHeadAttentionGradients to = gradients_of(f, gradients);
    const ConstTensorView x = input(f, "query", query), of_y = input(f, "dy", dy);
    if (key == nullptr && value == nullptr) {
      of.backward(x, kept, of_y, to, *all);
    } else {
      of.backward(x, input(f, "key", key), input(f, "value", value), kept, of_y, to, *all);
    }
  });
}

int mh_head_count_problem(int64_t d_model, int64_t num_heads, const char** problem) noexcept {
  return guarded("mh_head_count_problem", [&](const char* f) {
    const char*& to = required(f, "problem", problem);
    thread_local std::string text;
    text = head_count_problem(d_model, num_heads);
    to = text.c_str();
  });
}
