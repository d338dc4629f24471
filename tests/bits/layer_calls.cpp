#include <limits>
#include <sstream>

#include "draw.hpp"

namespace bits {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Kind {
  const char* name;
  int groups;
};
constexpr Kind kKinds[] = {{"self-f32", 4}, {"self-bf16", 3}, {"self-f16", 2}, {"cross", 3}, {"added-keys", 3}};

Array values(Draw& draw, Array array, double size) {
  return filled(std::move(array), [&](const Shape&) { return draw.value() * size; });
}

Array ignored(Draw& draw, const Shape& shape) {
  if (draw.chance(50)) {
    return filled(in_some_layout(draw, Type::kBool, shape), [&](const Shape&) { return draw.chance(30) ? 1.0 : 0.0; });
  }
  return filled(in_some_layout(draw, Type::kF32, shape),
                [&](const Shape&) { return draw.chance(20) ? -kInf : draw.value(); });
}

void add_weights(Draw& draw, LayerCall& call) {
  const std::int64_t kv_width = call.d_model / call.num_heads * call.num_kv_heads;
  const auto add = [&](const char* name, const Shape& shape, double size) {
    call.state_dict.emplace_back(name, values(draw, dense(Type::kF32, shape), size));
  };
  const double size = 1.0 / static_cast<double>(1 + call.d_model / 16);
  const bool joined = call.num_kv_heads == call.num_heads && call.kdim == call.d_model && call.vdim == call.d_model;
  if (joined) {
    add("in_proj_weight", {3 * call.d_model, call.d_model}, size);
  } else {
    add("q_proj_weight", {call.d_model, call.d_model}, size);
    add("k_proj_weight", {kv_width, call.kdim}, size);
    add("v_proj_weight", {kv_width, call.vdim}, size);
  }
  add("out_proj.weight", {call.d_model, call.d_model}, size);
  if (call.bias) {
    add("in_proj_bias", {call.d_model + 2 * kv_width}, 1);
    add("out_proj.bias", {call.d_model}, 1);
  }
  if (call.add_bias_kv) {
    add("bias_k", {1, 1, kv_width}, 1);
    add("bias_v", {1, 1, kv_width}, 1);
  }
}

}  // namespace

LayerCall layer_call(int number) {
  Draw draw(1'000'000 + static_cast<std::uint64_t>(number));
  LayerCall call;
  int group = number / kCallsPerGroup;
  std::string kind;
  for (const Kind& of : kKinds) {
    if (group < of.groups) {
      kind = of.name;
      break;
    }
    group -= of.groups;
  }
  call.group = "layer/" + kind + "/" + std::to_string(group);
  const bool cross = kind == "cross" || (kind == "added-keys" && draw.chance(50));
  call.type = kind == "self-f32"    ? Type::kF32
              : kind == "self-bf16" ? Type::kBF16
              : kind == "self-f16"  ? Type::kF16
                                    : draw.of({Type::kF32, Type::kBF16, Type::kF16});

  call.num_kv_heads = draw.of({1, 1, 2, 3});
  call.num_heads = call.num_kv_heads * draw.of({1, 1, 2, 4});
  call.d_model = call.num_heads * draw.of({5, 8, 12, 16, 32, 64});
  if (call.d_model > 400) call.d_model = call.num_heads * 16;
  call.kdim = cross && draw.chance(50) ? draw.between(1, 150) : call.d_model;
  call.vdim = cross && draw.chance(50) ? draw.between(1, 150) : call.d_model;
  call.bias = draw.chance(70);
  if (kind == "added-keys") {
    const std::int64_t which = draw.between(1, 3);
    call.add_bias_kv = (which & 1) != 0;
    call.add_zero_attn = (which & 2) != 0;
  }
  add_weights(draw, call);

  const std::int64_t batch = draw.of({1, 1, 2, 3});
  const auto length = [&] {
    return draw.chance(5) ? draw.between(200, 700) : draw.chance(30) ? draw.between(1, 8) : draw.between(1, 70);
  };
  const std::int64_t queries = length(), keys = cross ? length() : queries;
  const Type in = draw.chance(50) ? call.type : draw.of({Type::kF32, Type::kBF16, Type::kF16});
  const Type out = draw.chance(70) ? in : draw.of({Type::kF32, Type::kBF16, Type::kF16});
  call.query = values(draw, in_some_layout(draw, in, {batch, queries, call.d_model}), 1);
  if (cross) {
    call.key = values(draw, in_some_layout(draw, in, {batch, keys, call.kdim}), 1);
    call.value = values(draw, in_some_layout(draw, in, {batch, keys, call.vdim}), 1);
  }
  call.y = in_some_layout(draw, out, {batch, queries, call.d_model});

  if (draw.chance(25)) call.key_padding_mask = ignored(draw, {batch, keys});
  if (draw.chance(25)) {
    call.attn_mask =
        draw.chance(50) ? ignored(draw, {queries, keys}) : ignored(draw, {batch * call.num_heads, queries, keys});
  }
  Mask& mask = call.mask;
  if (draw.chance(25)) {
    mask.causal = true;
    mask.alignment = draw.of({Alignment::kTopLeft, Alignment::kBottomRight});
  }
  if (draw.chance(15)) mask.window_left = draw.between(0, 40);
  if (draw.chance(10)) {
    mask.allowed = filled(in_some_layout(draw, Type::kBool, {queries, keys}),
                          [&](const Shape&) { return draw.chance(70) ? 1.0 : 0.0; });
  }
  if (draw.chance(10)) mask.bias = values(draw, in_some_layout(draw, Type::kF32, {call.num_heads, queries, keys}), 1);
  if (draw.chance(10)) {
    mask.alibi_slopes = filled(dense(Type::kF32, {call.num_heads}),
                               [&](const Shape& at) { return 1.0 / static_cast<double>(2 + at[0]); });
  }
  if (draw.chance(15)) call.head_scale = values(draw, dense(Type::kF32, {call.num_heads}), 1);
  if (draw.chance(40)) {
    const std::int64_t added = (call.add_bias_kv ? 1 : 0) + (call.add_zero_attn ? 1 : 0);
    call.weights = in_some_layout(draw, Type::kF32, {batch, call.num_heads, queries, keys + added});
  }
  return call;
}

std::vector<const Array*> LayerCall::inputs() const {
  std::vector<const Array*> list{&query, &key, &value, &key_padding_mask, &attn_mask, &head_scale};
  for (const auto& [name, array] : state_dict) list.push_back(&array);
  mask.add_to(list);
  return list;
}

std::string LayerCall::to_string() const {
  std::ostringstream text;
  text << group << " d_model " << d_model << " heads " << num_heads << "/" << num_kv_heads << " kdim " << kdim
       << " vdim " << vdim << (bias ? " bias" : "") << (add_bias_kv ? " bias_kv" : "")
       << (add_zero_attn ? " zero_attn" : "") << " weights of " << name_of(type) << " query" << ::bits::to_string(query)
       << " key" << ::bits::to_string(key) << " y" << ::bits::to_string(y) << ::bits::to_string(mask);
  if (key_padding_mask.given()) text << " key_padding_mask" << ::bits::to_string(key_padding_mask);
  if (attn_mask.given()) text << " attn_mask" << ::bits::to_string(attn_mask);
  if (head_scale.given()) text << " head_scale";
  if (weights.given()) text << " weights out";
  return text.str();
}

}  // namespace bits
