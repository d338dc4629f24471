#include "torch_backward.hpp"

#include <algorithm>
#include <manyheads/attention_backward.hpp>
#include <manyheads/error.hpp>
#include <string>
#include <vector>

#include "torch_ops.hpp"

namespace manyheads::python {
namespace {

using torch::Arguments;
using torch::Call;
using torch::IValue;
using torch::Owned;

Owned nothing() { return torch::empty(DType::kF32, {0}, {1}); }

// The gradient of an input that the call reads as `read`: repeated along axes of 1.
class GradientOf {
 public:
  // Where it is not needed, of no elements.
  GradientOf(bool needed, const ConstTensorView& input, const ConstTensorView& read) {
    if (!needed) {
      result_ = nothing();
      return;
    }
    result_ = torch::empty(input.dtype(), input.shape(), like_strides(input, input.shape()));
    if (read.shape() == input.shape()) {
      view_ = torch::mutable_view_of(result_.get());
      return;
    }
    wide_ = torch::empty(DType::kF32, read.shape(), contiguous_strides(read.shape()));
    view_ = torch::mutable_view_of(wide_.get());
    for (int axis = 0; axis < 2; ++axis) summed_[axis] = read.size(axis) != input.size(axis);
  }
  const TensorView& view() const { return view_; }
  IValue finish() {
    for (int axis = 0; wide_ && axis < 2; ++axis) {
      if (!summed_[axis]) continue;
      wide_ = Call().tensor(wide_).optional_integers({axis}).flag(true).none().run("aten::sum", "dim_IntList");
    }
    if (wide_) result_ = Call().tensor(result_).tensor(wide_).flag(false).run("aten::copy_");
    return reinterpret_cast<IValue>(result_.release());
  }

 private:
  Owned result_, wide_;
  TensorView view_;
  bool summed_[2] = {};
};

// Where autograd has no gradient of the output there is none of the inputs: three undefined tensors.
bool has_none(const Owned& grad_out, IValue* stack) {
  bool is_defined = false;
  torch::check(torch::api().is_defined(grad_out.get(), &is_defined));
  for (int i = 0; !is_defined && i < 3; ++i) stack[i] = reinterpret_cast<IValue>(torch::undefined().release());
  return !is_defined;
}

// [B,H,T,D] that lies as [B,T,H,D].
Dims rows_first(const Dims& shape) { return {shape[2] * shape[1] * shape[3], shape[3], shape[1] * shape[3], 1}; }

}  // namespace

const char* const kBackwardSchema =
    "attention_backward(Tensor grad_out, Tensor? grad_lse, Tensor query, Tensor key, Tensor value, Tensor out, Tensor "
    "lse, Tensor? attn_mask=None, Tensor? sinks=None, Tensor? key_lengths=None, Tensor? key_starts=None, Tensor? "
    "alibi_slopes=None, Tensor? cu_seqlens_q=None, Tensor? cu_seqlens_k=None, bool causal=False, int alignment=0, int "
    "window_left=-1, int window_right=-1, float? scale=None, float softcap=0., Tensor? q_documents=None, Tensor? "
    "k_documents=None, int needs=7, float dropout_p=0., Tensor? dropout_seed=None) -> (Tensor, Tensor, Tensor, Tensor, "
    "Tensor, Tensor)";

void attention_backward_op(IValue* stack, std::uint64_t, std::uint64_t) {
  const Arguments given(stack, "TtTTTTTtttttttbiiiDdttidt");
  const AttentionOptions options = options_of(given, {7, 12, 0, 14, 20, 23}, "attention_backward");
  const ConstTensorView inputs[] = {torch::view_of(given.tensor(2).get(), "query"),
                                    torch::view_of(given.tensor(3).get(), "key"),
                                    torch::view_of(given.tensor(4).get(), "value"),
                                    options.mask.bias,
                                    options.sinks,
                                    options.mask.alibi_slopes};
  ConstTensorView q = inputs[0], k = inputs[1], v = inputs[2];
  if (q.rank() == 4 && k.rank() == 4 && v.rank() == 4) expand_alike(q, k, v);
  const ConstTensorView read[] = {q, k, v, inputs[3], inputs[4], inputs[5]};
  const auto made = [&](int i) {
    const bool needed = (given.integer(22) >> i & 1) != 0;
    if (needed && !inputs[i].defined()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "attention_backward: needs is " + std::to_string(given.integer(22)) + ", bit " + std::to_string(i) +
                      " wants the gradient of a float attn_mask, sinks or alibi_slopes that is not given");
    }
    return GradientOf(needed, inputs[i], read[i]);
  };
  GradientOf results[] = {made(0), made(1), made(2), made(3), made(4), made(5)};
  AttentionGradients gradients;
  if (given.tensor(1)) gradients.dlse = torch::view_of(given.tensor(1).get(), "grad_lse");
  TensorView AttentionGradients::* const members[] = {&AttentionGradients::dq,     &AttentionGradients::dk,
                                                      &AttentionGradients::dv,     &AttentionGradients::dbias,
                                                      &AttentionGradients::dsinks, &AttentionGradients::dalibi_slopes};
  for (int i = 0; i < 6; ++i) gradients.*members[i] = results[i].view();
  attention_backward(q, k, v, torch::view_of(given.tensor(5).get(), "out"),
                     torch::view_of(given.tensor(0).get(), "grad_out"), torch::view_of(given.tensor(6).get(), "lse"),
                     gradients, options);
  count(kTakenBackward);
  for (int i = 0; i < 6; ++i) stack[i] = results[i].finish();
}

void flash_attention_for_cpu_backward(IValue* stack, std::uint64_t, std::uint64_t) {
  const Arguments given(stack, "TTTTTTdbtD");
  if (has_none(given.tensor(0), stack)) return;
  const ConstTensorView q = torch::view_of(given.tensor(1).get(), "query"),
                        k = torch::view_of(given.tensor(2).get(), "key"),
                        v = torch::view_of(given.tensor(3).get(), "value");
  if (given.number(6) != 0) {
    throw Error(ErrorCode::kUnsupported,
                "scaled_dot_product_flash_attention_backward: dropout is not supported on the CPU");
  }
  if (q.rank() != 4 || k.rank() != 4 || v.rank() != 4) {
    throw Error(ErrorCode::kInvalidArgument, "scaled_dot_product_flash_attention_backward: expected 4 axes, query " +
                                                 q.shape().to_string() + ", key " + k.shape().to_string() + ", value " +
                                                 v.shape().to_string());
  }
  if (q.dtype() == DType::kF64) {
    count(kFloat64);
    Call own;
    for (int i = 0; i < 6; ++i) own.tensor(given.tensor(i));
    own.optional(given.tensor(8)).flag(given.flag(7)).optional_number(given.has(9), given.number(9));
    const std::vector<IValue> results = own.run("manyheads::pytorch_backward", "", 3);
    return static_cast<void>(std::copy_n(results.begin(), 3, stack));
  }
  AttentionOptions options;
  options.mask = mask_of(given.tensor(8), given.flag(7));
  if (given.has(9)) options.scale = given.number(9);
  use_pool(options);
  // The layout that PyTorch's fake kernel announces.
  const auto made = [](const ConstTensorView& view) {
    return torch::empty(view.dtype(), view.shape(), rows_first(view.shape()));
  };
  Owned results[] = {made(q), made(k), made(v)};
  AttentionGradients gradients;
  gradients.dq = torch::mutable_view_of(results[0].get());
  gradients.dk = torch::mutable_view_of(results[1].get());
  gradients.dv = torch::mutable_view_of(results[2].get());
  attention_backward(q, k, v, torch::view_of(given.tensor(4).get(), "out"),
                     torch::view_of(given.tensor(0).get(), "grad_out"),
                     torch::view_of(given.tensor(5).get(), "logsumexp"), gradients, options);
  count(kTakenBackward);
  for (int i = 0; i < 3; ++i) stack[i] = reinterpret_cast<IValue>(results[i].release());
}

void flash_attention_backward(IValue* stack, std::uint64_t, std::uint64_t) {
  const Arguments given(stack, "TTTTTTTTiidbTTDII");
  if (has_none(given.tensor(0), stack)) return;
  if (given.number(10) != 0) {
    throw Error(ErrorCode::kUnsupported, "_flash_attention_backward: takes no dropout");
  }
  AttentionOptions options;
  options.cu_seqlens_q = torch::view_of(given.tensor(6).get(), "cum_seq_q");
  options.cu_seqlens_k = torch::view_of(given.tensor(7).get(), "cum_seq_k");
  options.mask.causal = given.flag(11);
  options.mask.alignment = Alignment::kBottomRight;
  const auto side = [&](int i) { return given.has(i) ? std::max<std::int64_t>(given.integer(i), -1) : -1; };
  options.mask.window_left = side(15);
  options.mask.window_right = side(16);
  if (given.has(14)) options.scale = given.number(14);
  use_pool(options);
  const ConstTensorView q = torch::view_of(given.tensor(1).get(), "query"),
                        k = torch::view_of(given.tensor(2).get(), "key"),
                        v = torch::view_of(given.tensor(3).get(), "value");
  GradientOf results[] = {GradientOf(true, q, q), GradientOf(true, k, k), GradientOf(true, v, v)};
  AttentionGradients gradients;
  gradients.dq = results[0].view();
  gradients.dk = results[1].view();
  gradients.dv = results[2].view();
  attention_backward(q, k, v, torch::view_of(given.tensor(4).get(), "out"),
                     torch::view_of(given.tensor(0).get(), "grad_out"),
                     torch::view_of(given.tensor(5).get(), "logsumexp"), gradients, options);
  count(kTakenBackward);
  for (int i = 0; i < 3; ++i) stack[i] = results[i].finish();
}

}  // namespace manyheads::python
