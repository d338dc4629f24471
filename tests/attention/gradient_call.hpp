#pragma once

#include <manyheads/attention_backward.hpp>

#include "attention/call.hpp"

namespace manyheads::test {

// A call of attention and its backward, all gradients of which are F32 and begin as garbage.
struct GradientCall : Call {
  explicit GradientCall(const Sizes& s, DType type = DType::kF32, std::uint64_t seed = 1)
      : Call(s, type, seed),
        dout(dense(type, out.shape)),
        dlse(dense(DType::kF32, lse.shape)),
        dq(dense(DType::kF32, q.shape)),
        dk(dense(DType::kF32, k.shape)),
        dv(dense(DType::kF32, v.shape)) {
    std::mt19937_64 engine(seed + 1);
    std::normal_distribution<double> normal;
    dout.fill([&](const Index&) { return normal(engine); });
    dlse.fill([&](const Index&) { return normal(engine); });
  }

  AttentionGradients gradients() {
    AttentionGradients all;
    all.dlse = dlse.view();
    all.dq = dq.mutable_view();
    all.dk = dk.mutable_view();
    all.dv = dv.mutable_view();
    if (dbias.memory.size() > 0) all.dbias = dbias.mutable_view();
    if (dsinks.memory.size() > 0) all.dsinks = dsinks.mutable_view();
    if (dalibi.memory.size() > 0) all.dalibi_slopes = dalibi.mutable_view();
    all.accumulate = accumulate;
    return all;
  }
  void run_backward() {
    run();
    for (Strided* tensor : {&dq, &dk, &dv, &dbias, &dsinks, &dalibi}) {
      if (!accumulate && !tensor->memory.empty()) tensor->fill([](const Index&) { return 777.0; });
    }
    attention_backward(q.view(), k.view(), v.view(), out.view(), dout.view(), lse.view(), gradients(), options);
  }
  Explanation backward_explanation() {
    return explain_backward(q.view(), k.view(), v.view(), out.view(), dout.view(), lse.view(), gradients(), options);
  }

  Strided dout, dlse, dq, dk, dv;
  Strided dbias, dsinks, dalibi;  // set where they are wanted
  bool accumulate = false;
};

// Whether two tensors of one shape hold the same bits.
inline bool same_tensor(const Strided& a, const Strided& b) {
  bool same = a.shape == b.shape;
  Strided walk = a;  // visits each index
  walk.fill([&](const Index& at) {
    const auto bits_of = [&](const Strided& tensor) {
      std::int64_t place = 0;
      for (std::size_t axis = 0; axis < at.size(); ++axis) place += at[axis] * tensor.strides[static_cast<int>(axis)];
      std::uint32_t value = 0;
      std::memcpy(
          &value,
          static_cast<const char*>(tensor.view().data()) + place * static_cast<std::int64_t>(size_of(tensor.type)),
          size_of(tensor.type));
      return value;
    };
    same = same && bits_of(a) == bits_of(b);
    return 0.0;
  });
  return same;
}
inline bool same_gradients(const GradientCall& a, const GradientCall& b) {
  return same_tensor(a.dq, b.dq) && same_tensor(a.dk, b.dk) && same_tensor(a.dv, b.dv) &&
         (a.dbias.memory.empty() || same_tensor(a.dbias, b.dbias)) &&
         (a.dalibi.memory.empty() || same_tensor(a.dalibi, b.dalibi)) &&
         (a.dsinks.memory.empty() || same_tensor(a.dsinks, b.dsinks));
}

}  // namespace manyheads::test
