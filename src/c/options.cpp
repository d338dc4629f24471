#include "c/options.hpp"

namespace manyheads::c {
namespace {

mh_attention_options read_or_default(const char* function, const mh_attention_options* options) {
  return options == nullptr ? mh_attention_options{} : read(function, "options", options);
}

// Most are not given: their views are undefined as they are.
void take(const char* function, ConstTensorView& to, const char* name, const mh_tensor* from) {
  if (from != nullptr) to = input(function, name, from);
}

}  // namespace

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
  take(function, mask.offsets, "offsets", given.offsets);
  take(function, mask.key_lengths, "key_lengths", given.key_lengths);
  take(function, mask.key_starts, "key_starts", given.key_starts);
  take(function, mask.q_documents, "q_documents", given.q_documents);
  take(function, mask.k_documents, "k_documents", given.k_documents);
  take(function, mask.allowed, "allowed", given.allowed);
  take(function, mask.ignored, "ignored", given.ignored);
  take(function, mask.bias, "bias", given.bias);
  take(function, mask.alibi_slopes, "alibi_slopes", given.alibi_slopes);
  return mask;
}

Dropout dropout_of(const char* function, const mh_dropout* from) {
  if (from == nullptr) return {};
  const mh_dropout given = read(function, "dropout", from);
  return {.p = given.p,
          .seed = given.seed,
          .first_query = given.first_query,
          .first_head = given.first_head,
          .first_entry = given.first_entry};
}

CallersOptions::CallersOptions(const char* function, const mh_attention_options* options)
    : given_(read_or_default(function, options)), threads_(function, given_.num_threads, given_.executor) {
  options_.mask = mask_of(function, given_.mask);
  if (given_.scale != nullptr) options_.scale = *given_.scale;
  options_.softcap = given_.softcap;
  take(function, options_.sinks, "sinks", given_.sinks);
  if (given_.lse != nullptr) options_.lse = output(function, "lse", given_.lse);
  if (given_.row_states != nullptr) options_.row_states = &given_.row_states->states;
  options_.threads = *threads_;
  if (given_.workspace != nullptr) options_.workspace = &given_.workspace->memory;
  take(function, options_.cu_seqlens_q, "cu_seqlens_q", given_.cu_seqlens_q);
  take(function, options_.cu_seqlens_k, "cu_seqlens_k", given_.cu_seqlens_k);
  take(function, options_.page_table, "page_table", given_.page_table);
  take(function, options_.k_scales, "k_scales", given_.k_scales);
  take(function, options_.v_scales, "v_scales", given_.v_scales);
  options_.int8_products = given_.int8_products != 0;
  if (given_.bits != nullptr) options_.bits = given_.bits;
  options_.dropout = dropout_of(function, given_.dropout);
}

}  // namespace manyheads::c
