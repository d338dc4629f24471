#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "attention/call.hpp"
#include "support.hpp"

// The node tests of ONNX's operator Attention (opsets 23 to 25), run through our attention. tests/golden/README.md says
// how the operator's words read here.
namespace manyheads::test {
namespace {

using nlohmann::json;

struct Case {
  std::string name;
  json about;
  const SafetensorsFile* file = nullptr;

  bool has_input(const char* input) const { return find("input", input) != nullptr; }
  bool has_output(const char* output) const { return find("output", output) != nullptr; }
  ConstTensorView input(const char* what) const { return find("input", what)->cview(); }
  ConstTensorView output(const char* what) const { return find("output", what)->cview(); }
  template <class T>
  T attribute(const char* key, T otherwise) const {
    return about.at("attributes").value(key, otherwise);
  }

 private:
  const Tensor* find(const char* kind, const char* what) const {
    const auto at = file->tensors.find("case/" + name + "/" + kind + "/" + what);
    return at == file->tensors.end() ? nullptr : &at->second;
  }
};

// [B,T,heads D] as [B,heads,T,D]; rank 4 as it is.
ConstTensorView by_heads(const ConstTensorView& x, std::int64_t heads) {
  if (x.rank() == 4) return x;
  const std::int64_t d = x.size(2) / heads;
  return ConstTensorView(x.data(), x.dtype(), Dims{x.size(0), heads, x.size(1), d},
                         Dims{x.size(1) * x.size(2), d, x.size(2), 1});
}

// The past and the new keys (or values) one behind the other.
Strided joined(const ConstTensorView& past, const ConstTensorView& fresh) {
  const std::int64_t before = past.defined() ? past.size(2) : 0;
  Dims shape = fresh.shape();
  shape[2] += before;
  return filled(fresh.dtype(), shape, [&](const Index& at) {
    return at[2] < before ? element(past, {at[0], at[1], at[2], at[3]})
                          : element(fresh, {at[0], at[1], at[2] - before, at[3]});
  });
}

// How one case reads here; it owns what the views lie on.
struct Translated {
  explicit Translated(const Case& c) {
    const ConstTensorView q_in = by_heads(c.input("Q"), c.attribute<std::int64_t>("q_num_heads", 1));
    const std::int64_t kv_heads = c.attribute<std::int64_t>("kv_num_heads", 1);
    const bool cached = c.has_input("past_key");
    q = joined({}, q_in);
    k = joined(cached ? c.input("past_key") : ConstTensorView{}, by_heads(c.input("K"), kv_heads));
    v = joined(cached ? c.input("past_value") : ConstTensorView{}, by_heads(c.input("V"), kv_heads));
    const std::int64_t batch = q.shape[0], tq = q.shape[2], tk = k.shape[2];
    if (c.about.at("attributes").contains("scale")) options.scale = c.attribute<double>("scale", 0);
    options.softcap = c.attribute<double>("softcap", 0);

    Mask& mask = options.mask;
    mask.causal = c.attribute<int>("is_causal", 0) != 0;
    mask.window_left = c.attribute<std::int64_t>("left_window_size", -1);
    mask.window_right = c.attribute<std::int64_t>("right_window_size", -1);
    const std::int64_t past = cached ? c.input("past_key").size(2) : 0;
    const bool lengths = c.has_input("nonpad_kv_seqlen");
    places = filled(DType::kI64, {batch}, [&](const Index& at) {
      return lengths ? element(c.input("nonpad_kv_seqlen"), {at[0]}) - static_cast<double>(tq)
                     : static_cast<double>(past);
    });
    mask.offsets = places.view();
    if (lengths) mask.key_lengths = c.input("nonpad_kv_seqlen");
    if (c.has_input("attn_mask")) {
      const ConstTensorView given = c.input("attn_mask");
      Dims shape = given.shape();
      const int last = shape.rank() - 1;
      const std::int64_t width = shape[last];
      if (width != 1 || tk == 1) shape[last] = tk;
      const bool is_bool = given.dtype() == DType::kBool;
      // A short mask forbids the keys past it.
      attn_mask = filled(given.dtype(), shape, [&](const Index& at) {
        if (at[static_cast<std::size_t>(last)] >= width) return is_bool ? 0.0 : -kInf;
        std::int64_t offset = 0;
        for (int axis = 0; axis <= last; ++axis) offset += at[static_cast<std::size_t>(axis)] * given.stride(axis);
        return element(ConstTensorView(static_cast<const char*>(given.data()) +
                                           offset * static_cast<std::int64_t>(size_of(given.dtype())),
                                       given.dtype(), Dims{1}),
                       {0});
      });
      (is_bool ? mask.allowed : mask.bias) = attn_mask.view();
    }
  }
  Strided q, k, v, places, attn_mask;
  AttentionOptions options;
};

// |got - expected| <= atol + rtol |expected| for each element, NaN and infinities equal.
std::string differs(const Case& c, const ConstTensorView& got, const ConstTensorView& expected) {
  const double rtol = c.about.at("rtol").get<double>(), atol = c.about.at("atol").get<double>();
  std::string where;
  std::int64_t at = 0;
  const std::int64_t count = element_count(expected.shape());
  const ConstTensorView flat(expected.data(), expected.dtype(), Dims{count});
  const ConstTensorView dense_got(got.data(), got.dtype(), Dims{element_count(got.shape())});
  if (element_count(got.shape()) != count) return "shape " + got.shape().to_string();
  for (; at < count; ++at) {
    const double a = element(dense_got, {at}), b = element(flat, {at});
    const bool equal = a == b || (std::isnan(a) && std::isnan(b)) || std::fabs(a - b) <= atol + rtol * std::fabs(b);
    if (!equal) return "element " + std::to_string(at) + " is " + std::to_string(a) + ", expected " + std::to_string(b);
  }
  return "";
}

// [B,heads,T,D] back to [B,T,heads D] where the expected output is of rank 3.
Strided as_given(const Strided& y, int rank) {
  if (rank == 4) return y;
  const std::int64_t d = y.shape[3];
  return filled(y.type, {y.shape[0], y.shape[2], y.shape[1] * d},
                [&](const Index& at) { return element(y.view(), {at[0], at[2] / d, at[1], at[2] % d}); });
}

// The matrix that qk_matmul_output_mode asks for: 0 scaled scores, 1 behind the softcap, 2 behind bias and mask, 3
// weights. Modes 0 to 2 are products that the fused path never holds: each row's scores are log(weights) + lse of the
// definition, under a call without what comes later.
Strided matrix(const Case& c, const Translated& t, const Strided& lse) {
  const std::int64_t batch = t.q.shape[0], heads = t.q.shape[1], tq = t.q.shape[2], tk = t.k.shape[2];
  const int mode = c.attribute<int>("qk_matmul_output_mode", 0);
  Strided result = dense(DType::kF32, {batch, heads, tq, tk});
  if (mode == 3) {
    attention_weights(t.q.view(), t.k.view(), lse.view(), result.mutable_view(), t.options);
    return result;
  }
  AttentionOptions options;
  options.scale = t.options.scale;
  if (mode >= 1) options.softcap = t.options.softcap;
  if (mode == 2) options.mask = t.options.mask;
  Strided out = dense(DType::kF32, {batch, heads, tq, t.v.shape[3]});
  Strided row_lse = dense(DType::kF32, {batch, heads, tq});
  const TensorView lse_view = row_lse.mutable_view();
  options.lse = lse_view;
  attention_reference(t.q.view(), t.k.view(), t.v.view(), out.mutable_view(), options, result.mutable_view());
  const Strided weights = result;
  result.fill([&](const Index& at) {
    const double weight = element(weights.view(), {at[0], at[1], at[2], at[3]});
    return weight == 0 ? -kInf : std::log(weight) + element(row_lse.view(), {at[0], at[1], at[2]});
  });
  return result;
}

class Onnx : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Onnx);

TEST_P(Onnx, EveryNodeTestOfAttention) {
  const SafetensorsFile file =
      load_safetensors((source_dir() / "tests/golden/onnx/attention.safetensors").string());
  int cases = 0, y_passed = 0, caches = 0, caches_passed = 0, matrices = 0, matrices_passed = 0;
  for (const auto& [name, text] : file.metadata) {
    if (name == "onnx_version") continue;
    const Case c{name, json::parse(text), &file};
    const Translated t(c);
    ++cases;
    const ConstTensorView expected = c.output("Y");
    Strided y = dense(expected.dtype(), {t.q.shape[0], t.q.shape[1], t.q.shape[2], t.v.shape[3]});
    Strided lse = dense(DType::kF32, {t.q.shape[0], t.q.shape[1], t.q.shape[2]});
    AttentionOptions options = t.options;
    const TensorView lse_view = lse.mutable_view();
    options.lse = lse_view;
    attention(t.q.view(), t.k.view(), t.v.view(), y.mutable_view(), options);
    const std::string wrong = differs(c, as_given(y, expected.rank()).view(), expected);
    EXPECT_EQ(wrong, "") << name << " Y";
    y_passed += wrong.empty() ? 1 : 0;
    for (const auto& [present, tensor] : {std::pair{"present_key", &t.k}, std::pair{"present_value", &t.v}}) {
      if (!c.has_output(present)) continue;
      ++caches;
      const std::string cache = differs(c, tensor->view(), c.output(present));
      EXPECT_EQ(cache, "") << name << " " << present;
      caches_passed += cache.empty() ? 1 : 0;
    }
    if (c.has_output("qk_matmul_output")) {
      ++matrices;
      const std::string scores = differs(c, matrix(c, t, lse).view(), c.output("qk_matmul_output"));
      EXPECT_EQ(scores, "") << name << " qk_matmul_output, mode " << c.attribute<int>("qk_matmul_output_mode", 0);
      matrices_passed += scores.empty() ? 1 : 0;
    }
  }
  EXPECT_EQ(cases, 93);
  EXPECT_EQ(matrices, 18);
  std::cout << "onnx on " << GetParam() << ": Y " << y_passed << " of " << cases << ", present keys and values "
            << caches_passed << " of " << caches << ", matrices " << matrices_passed << " of " << matrices << "\n";
}

}  // namespace
}  // namespace manyheads::test
