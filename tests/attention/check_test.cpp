#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attention/call.hpp"

// Every error of a call: its text names the function, the argument and the shapes, and nothing was written before it.
namespace manyheads::test {
namespace {

const Sizes kSizes{.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 3, .tk = 5, .d = 8, .dv = 6};

std::vector<unsigned char> bytes_of(const Strided& tensor) { return tensor.memory; }

// Runs the call with parts of it replaced, and checks that outputs kept their bytes.
struct Attempt {
  Attempt() : call(kSizes) {
    q = call.q.view();
    k = call.k.view();
    v = call.v.view();
    out = call.out.mutable_view();
    lse = call.lse.mutable_view();
  }
  std::string error() {
    call.options.lse = lse;
    const std::vector<unsigned char> before = bytes_of(call.out), lse_before = bytes_of(call.lse);
    const std::string text = error_of([&] { attention(q, k, v, out, call.options); });
    const bool untouched = bytes_of(call.out) == before && bytes_of(call.lse) == lse_before;
    EXPECT_TRUE(untouched || text == "no error") << text;
    return text;
  }
  Call call;
  ConstTensorView q, k, v;
  TensorView out, lse;
};

ConstTensorView with_shape(const Strided& tensor, const Dims& shape) {
  // A stride of 0 lets any shape lie in the memory.
  Dims strides = shape;
  for (std::int64_t& stride : std::span(&strides[0], static_cast<std::size_t>(shape.rank()))) stride = 0;
  return ConstTensorView(tensor.view().data(), tensor.type, shape, strides);
}

void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_TRUE(contains(text, part)) << "\"" << part << "\" is not in: " << text;
}

const std::string kShapes = "(q F32 [2,4,3,8], k F32 [2,2,5,8], v F32 [2,2,5,6])";

TEST(AttentionCheck, AGoodCallPasses) { EXPECT_EQ(Attempt().error(), "no error"); }

TEST(AttentionCheck, UndefinedTensors) {
  for (const char* name : {"q", "k", "v"}) {
    Attempt a;
    (*name == 'q' ? a.q : *name == 'k' ? a.k : a.v) = {};
    expect_parts(a.error(), {"attention: " + std::string(name) + " is undefined, expected [B,H"});
  }
  Attempt a;
  a.out = {};
  expect_parts(a.error(), {"attention: out is undefined, expected [B,Hq,Tq,Dv]"});
}

TEST(AttentionCheck, RankAndType) {
  Attempt a;
  a.q = with_shape(a.call.q, {4, 3, 8});
  expect_parts(a.error(), {"attention: q is F32 [4,3,8], expected [B,Hq,Tq,D]"});
  Attempt b;
  b.v = with_shape(b.call.v, {1, 2, 2, 5, 6});
  expect_parts(b.error(), {"attention: v is F32 [1,2,2,5,6], expected [B,Hkv,Tk,Dv]"});
  for (const DType type : {DType::kF64, DType::kI32, DType::kBool, DType::kU8}) {
    Attempt c;
    const Strided wrong = dense(type, c.call.q.shape);
    c.q = wrong.view();
    expect_parts(c.error(), {"attention: q is", name_of(type), "[2,4,3,8], expected F32, BF16 or F16"});
  }
  Attempt d;
  const Strided half = dense(DType::kF16, d.call.k.shape);
  d.k = half.view();
  expect_parts(d.error(), {"attention: k must have q's type", "q F32 [2,4,3,8], k F16 [2,2,5,8]"});
  Attempt e;
  const Strided values = dense(DType::kBF16, e.call.v.shape);
  e.v = values.view();
  expect_parts(e.error(), {"attention: v must have q's type", "v BF16 [2,2,5,6]"});
}

TEST(AttentionCheck, ShapesThatDoNotFit) {
  struct Wrong {
    char which;
    Dims shape;
    std::string text;
  };
  for (const Wrong& w : {Wrong{'k', {3, 2, 5, 8}, "k has batch 3, q has 2 "},
                         {'k', {2, 2, 5, 7}, "k has head size 7, q has 8 "},
                         {'k', {2, 3, 5, 8}, "q has 4 heads, not a multiple of k's 3 "},
                         {'k', {2, 0, 5, 8}, "q has 4 heads, not a multiple of k's 0 "},
                         {'v', {1, 2, 5, 6}, "v has 1 batch, k has 2 "},
                         {'v', {2, 4, 5, 6}, "v has 4 heads, k has 2 "},
                         {'v', {2, 2, 6, 6}, "v has 6 keys, k has 5 "}}) {
    Attempt a;
    (w.which == 'k' ? a.k : a.v) = with_shape(w.which == 'k' ? a.call.k : a.call.v, w.shape);
    expect_parts(a.error(), {"attention: " + w.text, "(q F32 [2,4,3,8], k F32 ", w.shape.to_string()});
  }
  Attempt zero;
  zero.q = with_shape(zero.call.q, {2, 4, 3, 0});
  zero.k = with_shape(zero.call.k, {2, 2, 5, 0});
  expect_parts(zero.error(), {"attention: head size D is 0 (q F32 [2,4,3,0]"});
}

TEST(AttentionCheck, Out) {
  Attempt a;
  Strided wide = dense(DType::kF32, {2, 4, 3, 8});
  a.out = wide.mutable_view();
  expect_parts(a.error(), {"attention: out is F32 [2,4,3,8], expected [B,Hq,Tq,Dv] = [2,4,3,6] " + kShapes});
  Attempt b;
  Strided wrong = dense(DType::kF64, b.call.out.shape);
  b.out = wrong.mutable_view();
  expect_parts(b.error(), {"attention: out is F64 [2,4,3,6], expected F32, BF16 or F16"});
  Attempt c;
  c.out = TensorView(c.call.out.mutable_view().data(), DType::kF32, c.call.out.shape, Dims{72, 18, 0, 1});
  expect_parts(c.error(), {"attention: out F32 [2,4,3,6] with strides [72,18,0,1] overlaps itself"});
  Attempt d;
  d.out = TensorView(d.call.out.mutable_view().data(), DType::kF32, d.call.out.shape, Dims{72, 18, 5, 1});
  expect_parts(d.error(), {"overlaps itself"});
}

TEST(AttentionCheck, Lse) {
  Attempt a;
  Strided wrong = dense(DType::kF32, {2, 4, 5});
  a.lse = wrong.mutable_view();
  expect_parts(a.error(), {"attention: lse is F32 [2,4,5], expected F32 [B,Hq,Tq] = [2,4,3]"});
  Attempt b;
  Strided half = dense(DType::kBF16, {2, 4, 3});
  b.lse = half.mutable_view();
  expect_parts(b.error(), {"attention: lse is BF16 [2,4,3]"});
  Attempt c;
  c.lse = TensorView(c.call.lse.mutable_view().data(), DType::kF32, c.call.lse.shape, Dims{12, 0, 1});
  expect_parts(c.error(), {"attention: lse F32 [2,4,3] with strides [12,0,1] overlaps itself"});
}

TEST(AttentionCheck, Numbers) {
  for (const double scale : {kNaN, kInf, -kInf}) {
    Attempt a;
    a.call.options.scale = scale;
    expect_parts(a.error(), {"attention: scale is ", "expected a finite number"});
  }
  for (const double softcap : {-1.0, kNaN, kInf, -1e-300}) {
    Attempt a;
    a.call.options.softcap = softcap;
    expect_parts(a.error(), {"attention: softcap is ", "expected 0 (none) or a finite positive number"});
  }
  Attempt threads;
  threads.call.options.threads.num_threads = -1;
  expect_parts(threads.error(), {"attention: num_threads is -1, expected 0 or more"});
}

TEST(AttentionCheck, CausalAndWindow) {
  Attempt a;
  a.call.options.mask = mask::causal();
  expect_parts(a.error(), {"attention: causal with 3 queries and 5 keys: say top_left or bottom_right " + kShapes});
  for (const std::int64_t side : {std::int64_t{-2}, std::numeric_limits<std::int64_t>::min()}) {
    Attempt l;
    l.call.options.mask = mask::window(side, 0);
    expect_parts(l.error(),
                 {"attention: window left is " + std::to_string(side) + ", expected -1 (unbounded) or more"});
    Attempt r;
    r.call.options.mask = mask::window(0, side);
    expect_parts(r.error(), {"attention: window right is " + std::to_string(side)});
  }
}

TEST(AttentionCheck, LengthsAndOffsets) {
  for (const DType type : {DType::kI32, DType::kI64}) {
    Attempt a;
    const Strided lengths = integers({5, 6}, type);
    a.call.options.mask = mask::key_lengths(lengths.view());
    expect_parts(a.error(), {"attention: key_lengths[1] is 6, expected 0 to Tk = 5"});
    Attempt b;
    const Strided negative = integers({-1, 2}, type);
    b.call.options.mask = mask::key_lengths(negative.view());
    expect_parts(b.error(), {"attention: key_lengths[0] is -1, expected 0 to Tk = 5"});
    Attempt c;
    const Strided three = integers({1, 2, 3}, type);
    c.call.options.mask = mask::key_lengths(three.view());
    expect_parts(c.error(), {"attention: key_lengths is ", "[3], expected I32 or I64 [2]"});
  }
  Attempt f;
  const Strided floats = dense(DType::kF32, {2});
  f.call.options.mask = mask::key_lengths(floats.view());
  expect_parts(f.error(), {"attention: key_lengths is F32 [2], expected I32 or I64 [2]"});
  for (const std::int64_t far : {std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min(),
                                 (std::int64_t{1} << 60) + 256}) {
    Attempt a;
    Strided places = integers({0, 0});
    reinterpret_cast<std::int64_t*>(places.mutable_view().data())[1] = far;
    a.call.options.mask = mask::causal() | mask::offsets(places.view());
    expect_parts(a.error(), {"attention: offsets[1] is " + std::to_string(far) + ", expected -2^60 to 2^60"});
  }
  Attempt o;
  const Strided one = integers({0});
  o.call.options.mask = mask::offsets(one.view());
  expect_parts(o.error(), {"attention: offsets is I64 [1], expected I32 or I64 [2]"});
}

TEST(AttentionCheck, Documents) {
  const Strided q_ids = ids(2, {0, 0, 0});
  const Strided k_ids = ids(2, {0, 0, 0, 0, 0});
  Attempt a;
  a.call.options.mask.q_documents = q_ids.view();
  expect_parts(a.error(), {"attention: q_documents without k_documents"});
  Attempt b;
  b.call.options.mask.k_documents = k_ids.view();
  expect_parts(b.error(), {"attention: k_documents without q_documents"});
  Attempt c;
  c.call.options.mask = mask::documents(k_ids.view(), k_ids.view());
  expect_parts(c.error(), {"attention: q_documents is I32 [2,5], expected I32 or I64 [2,3]"});
  Attempt d;
  d.call.options.mask = mask::documents(q_ids.view(), q_ids.view());
  expect_parts(d.error(), {"attention: k_documents is I32 [2,3], expected I32 or I64 [2,5]"});
}

TEST(AttentionCheck, MaskAndBias) {
  for (const Dims& shape : {Dims{3}, Dims{2, 5}, Dims{3, 4}, Dims{2, 1, 3, 5, 1}, Dims{3, 4, 3, 5}, Dims{0, 5}}) {
    Attempt a;
    const Strided mask = dense(DType::kBool, shape);
    a.call.options.mask = mask::allowed(mask.view());
    expect_parts(a.error(),
                 {"attention: allowed is BOOL " + shape.to_string(), "does not broadcast to [B,Hq,Tq,Tk] = [2,4,3,5]"});
    Attempt b;
    const Strided added = dense(DType::kF32, shape);
    b.call.options.mask = mask::bias(added.view());
    expect_parts(b.error(),
                 {"attention: bias is F32 " + shape.to_string(), "does not broadcast to [B,Hq,Tq,Tk] = [2,4,3,5]"});
  }
  Attempt c;
  const Strided bytes = dense(DType::kU8, {3, 5});
  c.call.options.mask = mask::allowed(bytes.view());
  expect_parts(c.error(), {"attention: allowed is U8 [3,5], expected BOOL (a float mask is a bias)"});
  Attempt d;
  const Strided half = dense(DType::kF16, {3, 5});
  d.call.options.mask = mask::bias(half.view());
  expect_parts(d.error(), {"attention: bias is F16 [3,5], expected F32 or q's type F32"});
}

TEST(AttentionCheck, PerHead) {
  const Strided short_list = dense(DType::kF32, {2});
  const Strided half = dense(DType::kF16, {4});
  Attempt a;
  a.call.options.mask = mask::alibi(short_list.view());
  expect_parts(a.error(), {"attention: alibi_slopes is F32 [2], expected F32 [4]"});
  Attempt b;
  b.call.options.mask = mask::alibi(half.view());
  expect_parts(b.error(), {"attention: alibi_slopes is F16 [4], expected F32 [4]"});
  Attempt c;
  c.call.options.sinks = short_list.view();
  expect_parts(c.error(), {"attention: sinks is F32 [2], expected F32 [4]"});
}

TEST(AttentionCheck, OutputsThatOverlapInputs) {
  // Each input in turn lies on the output's first element.
  const auto on = [](const TensorView& output, DType type, const Dims& shape) {
    Dims strides = shape;
    for (int i = 0; i < shape.rank(); ++i) strides[i] = 0;
    return ConstTensorView(output.data(), type, shape, strides);
  };
  for (const bool over_lse : {false, true}) {
    const std::string output = over_lse ? "lse F32 [2,4,3] overlaps " : "out F32 [2,4,3,6] overlaps ";
    const auto attempt = [&](const std::string& name, const std::function<void(Attempt&, const TensorView&)>& place) {
      Attempt a;
      place(a, over_lse ? a.lse : a.out);
      expect_parts(a.error(), {"attention: " + output + name});
    };
    attempt("q F32 [2,4,3,8]", [&](Attempt& a, const TensorView& o) { a.q = on(o, DType::kF32, a.call.q.shape); });
    attempt("k F32 [2,2,5,8]", [&](Attempt& a, const TensorView& o) { a.k = on(o, DType::kF32, a.call.k.shape); });
    attempt("v F32 [2,2,5,6]", [&](Attempt& a, const TensorView& o) { a.v = on(o, DType::kF32, a.call.v.shape); });
    attempt("allowed BOOL [5]",
            [&](Attempt& a, const TensorView& o) { a.call.options.mask = mask::allowed(on(o, DType::kBool, {5})); });
    attempt("bias F32 [3,1]",
            [&](Attempt& a, const TensorView& o) { a.call.options.mask = mask::bias(on(o, DType::kF32, {3, 1})); });
    // Integers and slopes are read first: zero bytes are good values for them.
    const auto zeroed = [&](const std::string& name, const std::function<void(Attempt&, const TensorView&)>& place) {
      attempt(name, [&](Attempt& a, const TensorView& o) {
        for (Strided* tensor : {&a.call.out, &a.call.lse}) tensor->fill([](const Index&) { return 0.0; });
        place(a, o);
      });
    };
    zeroed("key_lengths I32 [2]",
           [&](Attempt& a, const TensorView& o) { a.call.options.mask = mask::key_lengths(on(o, DType::kI32, {2})); });
    zeroed("offsets I64 [2]",
           [&](Attempt& a, const TensorView& o) { a.call.options.mask = mask::offsets(on(o, DType::kI64, {2})); });
    zeroed("q_documents I32 [2,3]", [&](Attempt& a, const TensorView& o) {
      a.call.options.mask = mask::documents(on(o, DType::kI32, {2, 3}), with_shape(a.call.k, {2, 5}));
      const static Strided k_ids = ids(2, {0, 0, 0, 0, 0});
      a.call.options.mask.k_documents = k_ids.view();
    });
    zeroed("k_documents I64 [2,5]", [&](Attempt& a, const TensorView& o) {
      const static Strided q_ids = ids(2, {0, 0, 0});
      a.call.options.mask = mask::documents(q_ids.view(), on(o, DType::kI64, {2, 5}));
    });
    zeroed("alibi_slopes F32 [4]",
           [&](Attempt& a, const TensorView& o) { a.call.options.mask = mask::alibi(on(o, DType::kF32, {4})); });
    zeroed("sinks F32 [4]", [&](Attempt& a, const TensorView& o) { a.call.options.sinks = on(o, DType::kF32, {4}); });
  }
  Attempt a;
  a.lse = TensorView(a.out.data(), DType::kF32, a.call.lse.shape);
  expect_parts(a.error(), {"attention: out F32 [2,4,3,6] overlaps lse F32 [2,4,3]"});
}

TEST(AttentionCheck, OverlapsByOneElementAreFoundFromEitherSide) {
  std::vector<float> buffer(2 * 144 + 96);
  const Dims shape{2, 4, 3, 6};
  Attempt a;
  a.out = TensorView(buffer.data() + 191, DType::kF32, shape);
  a.q = ConstTensorView(buffer.data(), DType::kF32, Dims{2, 4, 3, 8});  // its last element is the output's first
  expect_parts(a.error(), {"out F32 [2,4,3,6] overlaps q"});
  a.out = TensorView(buffer.data() + 192, DType::kF32, shape);
  EXPECT_EQ(a.error(), "no error");
  // Backwards through memory.
  a.out = TensorView(buffer.data() + 192 + 143, DType::kF32, shape, Dims{-72, -18, -6, -1});
  EXPECT_EQ(a.error(), "no error");
  a.out = TensorView(buffer.data() + 191 + 143, DType::kF32, shape, Dims{-72, -18, -6, -1});
  expect_parts(a.error(), {"overlaps q"});
}

TEST(AttentionCheck, EachFunctionNamesItself) {
  Attempt a;
  a.k = with_shape(a.call.k, {2, 2, 5, 7});
  Strided weights = dense(DType::kF32, {2, 4, 3, 5});
  expect_parts(error_of([&] { attention_reference(a.q, a.k, a.v, a.out, a.call.options); }),
               {"attention_reference: k has head size 7, q has 8"});
  expect_parts(error_of([&] { attention_workspace_size(a.q, a.k, a.v, a.out, a.call.options); }),
               {"attention_workspace_size: k has head size 7"});
  expect_parts(error_of([&] { explain(a.q, a.k, a.v, a.out, a.call.options); }), {"explain: k has head size 7"});
  expect_parts(error_of([&] { attention_weights(a.q, a.k, a.lse, weights.mutable_view(), a.call.options); }),
               {"attention_weights: k has head size 7, q has 8 (q F32 [2,4,3,8], k F32 [2,2,5,7])"});
}

TEST(AttentionCheck, Weights) {
  Attempt a;
  Strided weights = dense(DType::kF32, {2, 4, 3, 5});
  const auto error = [&](const ConstTensorView& lse, const TensorView& to) {
    return error_of([&] { attention_weights(a.q, a.k, lse, to, {}); });
  };
  expect_parts(error({}, weights.mutable_view()),
               {"attention_weights: lse is undefined, expected F32 [B,Hq,Tq] = [2,4,3]"});
  expect_parts(error(with_shape(a.call.lse, {2, 4, 4}), weights.mutable_view()),
               {"attention_weights: lse is F32 [2,4,4]"});
  expect_parts(error(a.lse, {}), {"attention_weights: weights is undefined, expected F32 [B,Hq,Tq,Tk] = [2,4,3,5]"});
  Strided narrow = dense(DType::kF32, {2, 4, 3, 4});
  expect_parts(error(a.lse, narrow.mutable_view()), {"attention_weights: weights is F32 [2,4,3,4]"});
  Strided half = dense(DType::kF16, {2, 4, 3, 5});
  expect_parts(error(a.lse, half.mutable_view()), {"attention_weights: weights is F16 [2,4,3,5], expected F32"});
  expect_parts(error(a.lse, TensorView(weights.mutable_view().data(), DType::kF32, weights.shape, Dims{0, 15, 5, 1})),
               {"attention_weights: weights F32 [2,4,3,5] with strides [0,15,5,1] overlaps itself"});
  Strided q = dense(DType::kF32, a.call.q.shape);
  a.q = q.view();
  expect_parts(error(a.lse, TensorView(q.mutable_view().data(), DType::kF32, weights.shape)),
               {"attention_weights: weights F32 [2,4,3,5] overlaps q F32 [2,4,3,8]"});
  expect_parts(error(ConstTensorView(weights.view().data(), DType::kF32, a.call.lse.shape), weights.mutable_view()),
               {"attention_weights: weights F32 [2,4,3,5] overlaps lse F32 [2,4,3]"});
  expect_parts(error_of([&] { attention_reference(a.q, a.k, a.v, a.out, {}, narrow.mutable_view()); }),
               {"attention_reference: weights is F32 [2,4,3,4], expected F32 [B,Hq,Tq,Tk] = [2,4,3,5]"});
}

TEST(AttentionCheck, AnUnwrittenAxisMayHaveAnyStride) {
  // Axes of one element and empty tensors are never stepped along.
  Call call({.tq = 1, .tk = 3, .d = 4, .dv = 4});
  const std::int64_t far = std::int64_t{1} << 40;
  const ConstTensorView q(call.q.view().data(), DType::kF32, call.q.shape, Dims{far, -far, 7, 1});
  const TensorView out(call.out.mutable_view().data(), DType::kF32, call.out.shape, Dims{0, 0, 0, 1});
  EXPECT_NO_THROW(attention(q, call.k.view(), call.v.view(), out));
  EXPECT_EQ(compare(call.oracle(), call.out.view(), {}, 4, DType::kF32, false), "");
}

}  // namespace
}  // namespace manyheads::test
