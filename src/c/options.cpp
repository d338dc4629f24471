#include "c/options.hpp"

namespace manyheads::c {

Mask mask_of(const char* function, const mh_mask* from) {
  if (from == nullptr) return {};
  const mh_mask given = read(function, "mask", from);
  if (given.alignment < MH_UNSPECIFIED || given.alignment > MH_BOTTOM_RIGHT) {
    base::fail(function, base::format("mask->alignment is {}, expected an mh_alignment, {} to {}", given.alignment,
                                      static_cast<int>(MH_UNSPECIFIED), static_cast<int>(MH_BOTTOM_RIGHT)));
  }
  Mask mask;
  mask.causal = given.causal != 0;
  mask.alignment = given.alignment == MH_TOP_LEFT       ? Alignment::kTopLeft
                   : given.alignment == MH_BOTTOM_RIGHT ? Alignment::kBottomRight
                                                        : Alignment::kUnspecified;
  if (given.window != nullptr) {
    mask.window_left = given.window[0];
    mask.window_right = given.window[1];
  }
  mask.offsets = input(function, "offsets", given.offsets);
  mask.key_lengths = input(function, "key_lengths", given.key_lengths);
  mask.key_starts = input(function, "key_starts", given.key_starts);
  mask.q_documents = input(function, "q_documents", given.q_documents);
  mask.k_documents = input(function, "k_documents", given.k_documents);
  mask.allowed = input(function, "allowed", given.allowed);
  mask.ignored = input(function, "ignored", given.ignored);
  mask.bias = input(function, "bias", given.bias);
  mask.alibi_slopes = input(function, "alibi_slopes", given.alibi_slopes);
  return mask;
}

namespace {

mh_attention_options read_or_default(const char* function, const mh_attention_options* options) {
  return options == nullptr ? mh_attention_options{} : read(function, "options", options);
}

}  // namespace

CallersOptions::CallersOptions(const char* function, const mh_attention_options* options)
    : given_(read_or_default(function, options)), threads_(function, given_.num_threads, given_.executor) {
  options_.mask = mask_of(function, given_.mask);
  if (given_.scale != nullptr) options_.scale = *given_.scale;
  options_.softcap = given_.softcap;
  options_.sinks = input(function, "sinks", given_.sinks);
  options_.lse = output(function, "lse", given_.lse);
  if (given_.row_states != nullptr) options_.row_states = &given_.row_states->states;
  options_.threads = *threads_;
  if (given_.workspace != nullptr) options_.workspace = &given_.workspace->memory;
  options_.cu_seqlens_q = input(function, "cu_seqlens_q", given_.cu_seqlens_q);
  options_.cu_seqlens_k = input(function, "cu_seqlens_k", given_.cu_seqlens_k);
  options_.page_table = input(function, "page_table", given_.page_table);
  options_.k_scales = input(function, "k_scales", given_.k_scales);
  options_.v_scales = input(function, "v_scales", given_.v_scales);
  options_.int8_products = given_.int8_products != 0;
  if (given_.bits != nullptr) options_.bits = given_.bits;
}

}  // namespace manyheads::c
