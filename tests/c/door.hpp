#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <string>

#include <manyheads/attention.hpp>
#include <manyheads/attention_backward.hpp>
#include <manyheads/manyheads.h>

// C++ calls in the structs of C.
namespace manyheads::test {

// A struct of C with everything it points to. It stays where it is.
class Door {
 public:
  Door() = default;
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;

  // Null for an undefined view.
  const mh_tensor* tensor(const ConstTensorView& view) {
    if (!view.defined()) return nullptr;
    mh_tensor& made = tensors_.emplace_back();
    made.data = const_cast<void*>(view.data());
    made.dtype = static_cast<std::int32_t>(view.dtype());
    made.rank = view.rank();
    std::copy(view.shape().begin(), view.shape().end(), made.shape);
    if (!view.contiguous()) {
      std::array<std::int64_t, MH_MAX_RANK>& strides = strides_.emplace_back();
      std::copy(view.strides().begin(), view.strides().end(), strides.begin());
      made.strides = strides.data();
    }
    return &made;
  }
  // One that a test goes on to change.
  mh_tensor* changed(const ConstTensorView& view) { return const_cast<mh_tensor*>(tensor(view)); }

  const mh_mask* mask(const Mask& of) {
    mask_ = MH_DEFAULT(mh_mask);
    mask_.causal = of.causal ? 1 : 0;
    mask_.alignment = static_cast<std::int32_t>(of.alignment);
    window_ = {of.window_left, of.window_right};
    if (of.window_left != -1 || of.window_right != -1) mask_.window = window_.data();
    mask_.offsets = tensor(of.offsets);
    mask_.key_lengths = tensor(of.key_lengths);
    mask_.key_starts = tensor(of.key_starts);
    mask_.q_documents = tensor(of.q_documents);
    mask_.k_documents = tensor(of.k_documents);
    mask_.allowed = tensor(of.allowed);
    mask_.ignored = tensor(of.ignored);
    mask_.bias = tensor(of.bias);
    mask_.alibi_slopes = tensor(of.alibi_slopes);
    return &mask_;
  }

  // Without row states, workspace and executor, which are handles.
  mh_attention_options* options(const AttentionOptions& of) {
    options_ = MH_DEFAULT(mh_attention_options);
    options_.mask = mask(of.mask);
    scale_ = of.scale.value_or(0);
    if (of.scale) options_.scale = &scale_;
    options_.softcap = of.softcap;
    options_.sinks = tensor(of.sinks);
    options_.lse = tensor(of.lse);
    options_.num_threads = of.threads.num_threads;
    options_.int8_products = of.int8_products ? 1 : 0;
    options_.cu_seqlens_q = tensor(of.cu_seqlens_q);
    options_.cu_seqlens_k = tensor(of.cu_seqlens_k);
    options_.page_table = tensor(of.page_table);
    options_.k_scales = tensor(of.k_scales);
    options_.v_scales = tensor(of.v_scales);
    bits_ = of.bits;
    if (!bits_.empty()) options_.bits = bits_.c_str();
    dropout_ = MH_DEFAULT(mh_dropout);
    dropout_.p = of.dropout.p;
    dropout_.seed = of.dropout.seed;
    dropout_.first_query = of.dropout.first_query;
    dropout_.first_head = of.dropout.first_head;
    dropout_.first_entry = of.dropout.first_entry;
    if (of.dropout.p != 0) options_.dropout = &dropout_;
    return &options_;
  }

  const mh_attention_gradients* gradients(const AttentionGradients& of) {
    gradients_ = MH_DEFAULT(mh_attention_gradients);
    gradients_.dlse = tensor(of.dlse);
    gradients_.dq = tensor(of.dq);
    gradients_.dk = tensor(of.dk);
    gradients_.dv = tensor(of.dv);
    gradients_.dbias = tensor(of.dbias);
    gradients_.dsinks = tensor(of.dsinks);
    gradients_.dalibi_slopes = tensor(of.dalibi_slopes);
    gradients_.accumulate = of.accumulate ? 1 : 0;
    return &gradients_;
  }

 private:
  std::deque<mh_tensor> tensors_;
  std::deque<std::array<std::int64_t, MH_MAX_RANK>> strides_;
  mh_mask mask_{};
  std::array<std::int64_t, 2> window_{};
  double scale_ = 0;
  std::string bits_;
  mh_dropout dropout_{};
  mh_attention_options options_{};
  mh_attention_gradients gradients_{};
};

}  // namespace manyheads::test
