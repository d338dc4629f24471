// The backward of attention against gradients in float64 that share no code with it. The input: the instruction set (a
// byte), the seed of a random call with its gradients (eight bytes), and what is then changed in that call (two bytes
// each): a tensor or an option, and how. A changed call is an Error and writes nothing, or runs.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <manyheads/cpu.hpp>

#include "attention/gradient_case.hpp"
#include "harness.hpp"

using namespace manyheads;

namespace {

// The arguments of a call.
struct Arguments {
  explicit Arguments(test::GradientCase& c)
      : q(c.call.q.view()),
        k(c.call.k.view()),
        v(c.call.v.view()),
        out(c.call.out.view()),
        dout(c.dout.view()),
        lse(c.call.lse.view()),
        gradients(c.gradients()),
        options(c.call.options) {}
  ConstTensorView q, k, v, out, dout, lse;
  AttentionGradients gradients;
  AttentionOptions options;
};

// Another view on no more memory than the one it is made of, or on that of `other`.
template <class View>
View changed(const View& view, const View& other, unsigned how) {
  const auto rank = static_cast<unsigned>(view.rank());
  if (!view.defined() || rank == 0) return other;
  const int axis = static_cast<int>(how / 6 % rank);
  Dims shape = view.shape(), strides = view.strides();
  switch (how % 6) {
    case 0:
      return {};
    case 1:
      return View(view.data(), view.dtype(), Dims(std::span(shape.begin() + 1, shape.end())),
                  Dims(std::span(strides.begin() + 1, strides.end())));
    case 2:
      shape[axis] = std::max<std::int64_t>(0, shape[axis] - 1);
      return View(view.data(), view.dtype(), shape, strides);
    case 3: {
      const auto type = static_cast<DType>(how / 6 % 9);
      const bool fits = size_of(type) <= size_of(view.dtype()) && type != DType::kBool;  // whose bytes are 0 or 1
      return fits ? View(view.data(), type, shape, strides) : view;
    }
    case 4:
      strides[axis] = 0;
      return View(view.data(), view.dtype(), shape, strides);
    default:
      return other;
  }
}

// `ids` has memory of [9], of small numbers.
void change(Arguments& call, const ConstTensorView& ids, unsigned what, unsigned how) {
  ConstTensorView* const inputs[] = {&call.q,
                                     &call.k,
                                     &call.v,
                                     &call.out,
                                     &call.dout,
                                     &call.lse,
                                     &call.gradients.dlse,
                                     &call.options.mask.bias,
                                     &call.options.mask.allowed,
                                     &call.options.mask.alibi_slopes,
                                     &call.options.mask.key_lengths,
                                     &call.options.mask.q_documents,
                                     &call.options.sinks};
  TensorView* const outputs[] = {&call.gradients.dq,    &call.gradients.dk,     &call.gradients.dv,
                                 &call.gradients.dbias, &call.gradients.dsinks, &call.gradients.dalibi_slopes};
  constexpr std::size_t kTensors = std::size(inputs) + std::size(outputs);
  const std::size_t at = what % (kTensors + 8);
  if (at < std::size(inputs)) {
    *inputs[at] = changed(*inputs[at], *inputs[how % std::size(inputs)], how);
    return;
  }
  if (at < kTensors) {
    TensorView& output = *outputs[at - std::size(inputs)];
    output = changed(output, *outputs[how % std::size(outputs)], how);
    return;
  }
  const std::int64_t side = static_cast<std::int64_t>(how) - 8;
  switch (at - kTensors) {
    case 0:
      call.options.scale = how == 0 ? std::nan("") : std::ldexp(1.0, static_cast<int>(side));
      return;
    case 1:
      call.options.softcap = static_cast<double>(side);
      return;
    case 2:
      call.options.threads.num_threads = static_cast<int>(side);
      return;
    case 3:
      call.options.mask.window_left = side;
      return;
    case 4:
      call.options.mask.causal = how % 2 == 0;
      call.options.mask.alignment = static_cast<Alignment>(how / 2 % 3);
      return;
    case 5:
      (how % 2 == 0 ? call.options.cu_seqlens_q : call.options.cu_seqlens_k) = ids;
      return;
    case 6:
      call.options.page_table = ids;
      return;
    default:
      call.gradients.accumulate = true;
  }
}

bool runs(const Arguments& call) {
  return fuzz::taken(
      [&] { attention_backward(call.q, call.k, call.v, call.out, call.dout, call.lse, call.gradients, call.options); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const std::vector<std::string> isas = available_isas();
  if (size < 9 || size > 17 || size % 2 == 0) return -1;
  set_isa(isas[bytes[0] % isas.size()]);
  std::uint64_t seed = 0;
  std::memcpy(&seed, bytes + 1, sizeof seed);
  test::GradientCase c(seed);
  c.call.run();
  c.fill(777.0);
  if (size == 9) {
    c.run_backward();
    const std::string wrong = c.compare(c.expected(c.oracle()));
    if (!wrong.empty()) fuzz::fail(wrong + ", " + c.call.describe());
    return 0;
  }

  const std::int64_t ids[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  Arguments call(c);
  for (std::size_t i = 9; i < size; i += 2) change(call, ConstTensorView(ids, Dims{9}), bytes[i], bytes[i + 1]);
  const auto gradients = [&] {
    return std::vector{c.dq.memory, c.dk.memory, c.dv.memory, c.dbias.memory, c.dsinks.memory, c.dalibi.memory};
  };
  const auto before = gradients();
  const bool explained = fuzz::taken(
      [&] { explain_backward(call.q, call.k, call.v, call.out, call.dout, call.lse, call.gradients, call.options); });
  fuzz::require(gradients() == before, "an explanation that writes gradients");
  fuzz::require(runs(call) == explained, "a call and its explanation of which one is refused");
  if (!explained) fuzz::require(gradients() == before, "a refused call that writes gradients");
  return 0;
}
