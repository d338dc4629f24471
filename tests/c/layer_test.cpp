#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <vector>

#include <manyheads/multi_head_attention.hpp>

#include "c/door.hpp"
#include "attention/call.hpp"
#include "attention/draw.hpp"
#include "layer/random_tensor.hpp"

namespace manyheads::test {
namespace {

#define EXPECT_OK(call) EXPECT_EQ(call, MH_OK) << mh_last_error()

// No gap that a later field could fill: it would hold an older caller's garbage.
static_assert(offsetof(mh_layer_options, dropout) + sizeof(void*) == sizeof(mh_layer_options));
static_assert(sizeof(mh_layer_gradients) == 2 * sizeof(std::size_t) + 6 * sizeof(void*) + 2 * sizeof(std::int32_t));

using layer_test::random_tensor;

std::vector<unsigned char> bytes_of(const ConstTensorView& dense) {
  const auto* begin = static_cast<const unsigned char*>(dense.data());
  return {begin, begin + static_cast<std::size_t>(element_count(dense.shape())) * size_of(dense.dtype())};
}

// A layer of each config, its random tensors by name through C, and calls with every option.
TEST(CDoorLayer, HasTheBitsOfCpp) {
  for (std::uint64_t seed = 1; seed <= 80; ++seed) {
    Draw draw(seed);
    MultiHeadAttentionConfig config;
    config.num_kv_heads = draw.between(1, 2);
    config.num_heads = config.num_kv_heads * draw.between(1, 3);
    config.d_model = config.num_heads * draw.between(1, 12);
    const bool cross = draw.chance(0.5);
    if (cross && draw.chance(0.5)) config.kdim = draw.between(1, 20);
    if (cross && draw.chance(0.5)) config.vdim = draw.between(1, 20);
    config.bias = draw.chance(0.7);
    config.add_bias_kv = draw.chance(0.3);
    config.add_zero_attn = draw.chance(0.3);
    config.dtype = random_type(draw);
    StateDict state = MultiHeadAttention(config).state_dict();
    for (auto& [name, tensor] : state) tensor = random_tensor(draw.engine, tensor.shape(), 0.3);
    const MultiHeadAttention cpp(config, state);

    mh_layer_config sizes = MH_DEFAULT(mh_layer_config);
    sizes.d_model = config.d_model;
    sizes.num_heads = config.num_heads;
    sizes.num_kv_heads = config.num_kv_heads;
    sizes.kdim = config.kdim;
    sizes.vdim = config.vdim;
    sizes.no_bias = config.bias ? 0 : 1;
    sizes.add_bias_kv = config.add_bias_kv ? 1 : 0;
    sizes.add_zero_attn = config.add_zero_attn ? 1 : 0;
    sizes.dtype = static_cast<std::int32_t>(config.dtype);
    Door door;
    mh_layer* c = nullptr;
    {
      // Gone before the call: the layer keeps copies.
      StateDict passing;
      std::vector<const char*> names;
      std::vector<mh_tensor> tensors;
      for (const auto& [name, tensor] : state) {
        passing[name] = layer::converted(tensor.cview(), DType::kF32);
        names.push_back(name.c_str());
        tensors.push_back(*door.tensor(passing[name].cview()));
      }
      ASSERT_EQ(mh_layer_create_from(&sizes, names.data(), tensors.data(), names.size(), &c), MH_OK) << mh_last_error();
    }
    // Its tensors come back as those of C++, in the config's type.
    std::size_t count = 0, index = 0;
    EXPECT_OK(mh_layer_tensor_count(c, &count));
    const StateDict kept = cpp.state_dict();
    EXPECT_EQ(count, kept.size());
    for (const auto& [name, tensor] : kept) {
      const char* named = nullptr;
      mh_tensor back{};
      EXPECT_OK(mh_layer_tensor_name(c, index++, &named));
      EXPECT_EQ(named, name);
      EXPECT_OK(mh_layer_tensor(c, named, &back));
      const ConstTensorView view(back.data, static_cast<DType>(back.dtype),
                                 Dims(std::span<const std::int64_t>(back.shape, static_cast<std::size_t>(back.rank))));
      EXPECT_EQ(view.dtype(), tensor.dtype());
      EXPECT_EQ(view.shape(), tensor.shape());
      EXPECT_EQ(bytes_of(view), bytes_of(tensor.cview()));
    }
    mh_layer_config back = MH_DEFAULT(mh_layer_config);
    std::int64_t parameters = 0;
    EXPECT_OK(mh_layer_get_config(c, &back));
    EXPECT_OK(mh_layer_parameter_count(c, &parameters));
    EXPECT_EQ(parameters, cpp.parameter_count());
    EXPECT_EQ(back.kdim, cpp.config().kdim);
    EXPECT_EQ(back.num_kv_heads, config.num_kv_heads);
    EXPECT_EQ(back.add_zero_attn, sizes.add_zero_attn);
    EXPECT_EQ(back.dtype, sizes.dtype);

    const std::int64_t batch = draw.between(1, 3), t = draw.between(1, 30), s = cross ? draw.between(1, 40) : t;
    const DType type = random_type(draw);
    const Tensor x = random_tensor(draw.engine, {batch, t, config.d_model}, 1, type);
    const Tensor key = random_tensor(draw.engine, {batch, s, cpp.config().kdim}, 1, type);
    const Tensor value = random_tensor(draw.engine, {batch, s, cpp.config().vdim}, 1, type);
    const Tensor padding = random_tensor(draw.engine, {batch, s}), attn = random_tensor(draw.engine, {t, s});
    const Tensor scale = random_tensor(draw.engine, {config.num_heads});
    const std::int64_t all_keys = s + (config.add_bias_kv ? 1 : 0) + (config.add_zero_attn ? 1 : 0);
    Tensor weights(DType::kF32, {batch, config.num_heads, t, all_keys}), y(type, x.shape());
    Tensor weights_c(DType::kF32, weights.shape()), y_c(type, x.shape());
    MultiHeadAttentionOptions options;
    mh_layer_options c_options = MH_DEFAULT(mh_layer_options);
    if (draw.chance(0.5)) options.key_padding_mask = padding.cview();
    if (draw.chance(0.5)) options.attn_mask = attn.cview();
    if (draw.chance(0.5)) options.head_scale = scale.cview();
    if (draw.chance(0.5)) {
      options.mask = mask::causal(Alignment::kTopLeft) | mask::window(draw.between(0, 9), -1);
      c_options.mask = door.mask(options.mask);
    }
    c_options.key_padding_mask = door.tensor(options.key_padding_mask);
    c_options.attn_mask = door.tensor(options.attn_mask);
    c_options.head_scale = door.tensor(options.head_scale);
    const bool with_weights = draw.chance(0.5);
    if (with_weights) {
      const TensorView to = weights.view(), to_c = weights_c.view();
      options.weights = to;
      c_options.weights = door.tensor(to_c);
    }
    MultiHeadAttentionActivations kept_cpp;
    options.activations = &kept_cpp;
    mh_layer_activations* activations = nullptr;
    EXPECT_OK(mh_layer_activations_create(&activations));
    c_options.activations = activations;
    mh_workspace* workspace = nullptr;
    EXPECT_OK(mh_workspace_create(&workspace));
    c_options.workspace = workspace;
    c_options.num_threads = 2;
    if (cross) {
      cpp.forward(x.cview(), key.cview(), value.cview(), y.view(), options);
      EXPECT_OK(mh_layer_forward(c, door.tensor(x.cview()), door.tensor(key.cview()), door.tensor(value.cview()),
                                 door.tensor(y_c.view()), &c_options));
    } else {
      cpp.forward(x.cview(), y.view(), options);
      EXPECT_OK(mh_layer_forward(c, door.tensor(x.cview()), nullptr, nullptr, door.tensor(y_c.view()), &c_options));
    }
    EXPECT_EQ(bytes_of(y.cview()), bytes_of(y_c.cview())) << "seed " << seed;
    EXPECT_EQ(bytes_of(weights.cview()), bytes_of(weights_c.cview())) << "seed " << seed;

    // The gradients of the loss sum(y y) / 2, of all but the first tensor.
    StateDict gradients, gradients_c;
    const auto make = [&](const std::string& name, const Dims& shape) {
      for (StateDict* all : {&gradients, &gradients_c}) {
        Tensor& to = all->emplace(name, Tensor(DType::kF32, shape)).first->second;
        std::fill_n(to.as<float>(), to.elements(), 0.25f);
      }
      return gradients[name].view();
    };
    MultiHeadAttentionGradients to;
    mh_layer_gradients to_c = MH_DEFAULT(mh_layer_gradients);
    to.accumulate = draw.chance(0.5);
    to_c.accumulate = to.accumulate ? 1 : 0;
    to.dquery = make("dquery", x.shape());
    to_c.dquery = door.tensor(gradients_c["dquery"].view());
    if (cross) {
      to.dkey = make("dkey", key.shape());
      to_c.dkey = door.tensor(gradients_c["dkey"].view());
      to.dvalue = make("dvalue", value.shape());
      to_c.dvalue = door.tensor(gradients_c["dvalue"].view());
    }
    if (options.head_scale.defined()) {
      to.dhead_scale = make("dhead_scale", scale.shape());
      to_c.dhead_scale = door.tensor(gradients_c["dhead_scale"].view());
    }
    std::vector<const char*> names;
    std::vector<mh_tensor> of_weights;
    for (auto at = std::next(kept.begin()); at != kept.end(); ++at) {
      to.parameters[at->first] = make(at->first, at->second.shape());
      names.push_back(at->first.c_str());
      of_weights.push_back(*door.tensor(gradients_c[at->first].view()));
    }
    to_c.names = names.data();
    to_c.parameters = of_weights.data();
    to_c.count = names.size();
    if (cross) {
      cpp.backward(x.cview(), key.cview(), value.cview(), kept_cpp, y.cview(), to, options);
      EXPECT_OK(mh_layer_backward(c, door.tensor(x.cview()), door.tensor(key.cview()), door.tensor(value.cview()),
                                  activations, door.tensor(y.cview()), &to_c, &c_options));
    } else {
      cpp.backward(x.cview(), kept_cpp, y.cview(), to, options);
      EXPECT_OK(mh_layer_backward(c, door.tensor(x.cview()), nullptr, nullptr, activations, door.tensor(y.cview()),
                                  &to_c, &c_options));
    }
    for (const auto& [name, tensor] : gradients) {
      EXPECT_EQ(bytes_of(tensor.cview()), bytes_of(gradients_c.at(name).cview())) << name << ", seed " << seed;
    }
    mh_layer_activations_destroy(activations);
    mh_workspace_destroy(workspace);
    mh_layer_destroy(c);
  }
}

TEST(CDoorLayer, ARefusedLoadLeavesItsTensors) {
  mh_layer_config sizes = MH_DEFAULT(mh_layer_config);
  sizes.d_model = 8;
  sizes.num_heads = 2;
  mh_layer* layer = nullptr;
  ASSERT_EQ(mh_layer_create(&sizes, &layer), MH_OK);
  mh_tensor before{}, after{};
  EXPECT_OK(mh_layer_tensor(layer, "out_proj.weight", &before));
  const char* names[] = {"out_proj.weight"};
  EXPECT_EQ(mh_layer_load_state_dict(layer, names, &before, 1), MH_INVALID_ARGUMENT);
  EXPECT_OK(mh_layer_tensor(layer, "out_proj.weight", &after));
  EXPECT_EQ(before.data, after.data);
  mh_layer_destroy(layer);
}

TEST(CDoorLayer, F32ThroughTilesHasTheBitsOfCpp) {
  for (const std::string& isa : isas_with_tiles()) {
    set_isa(isa);
    const MultiHeadAttention cpp({.d_model = 64, .num_heads = 4});
    mh_layer_config sizes = MH_DEFAULT(mh_layer_config);
    sizes.d_model = 64;
    sizes.num_heads = 4;
    mh_layer* c = nullptr;
    ASSERT_EQ(mh_layer_create(&sizes, &c), MH_OK) << mh_last_error();
    Draw draw(7);
    const Tensor x = random_tensor(draw.engine, {2, 20, 64});
    Tensor plain(DType::kF32, x.shape()), y(DType::kF32, x.shape()), y_c(DType::kF32, x.shape());
    cpp.forward(x.cview(), plain.view());
    cpp.forward(x.cview(), y.view(), {.bits = "f32-tiles-1"});
    Door door;
    mh_layer_options options = MH_DEFAULT(mh_layer_options);
    options.bits = "f32-tiles-1";
    EXPECT_OK(mh_layer_forward(c, door.tensor(x.cview()), nullptr, nullptr, door.tensor(y_c.view()), &options));
    EXPECT_EQ(bytes_of(y_c.cview()), bytes_of(y.cview())) << isa;
    EXPECT_NE(bytes_of(y_c.cview()), bytes_of(plain.cview())) << isa;
    mh_layer_destroy(c);
  }
  set_isa("");
}

}  // namespace
}  // namespace manyheads::test
