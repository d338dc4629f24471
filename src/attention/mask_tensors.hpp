#pragma once

#include <manyheads/mask.hpp>

namespace manyheads::attention_detail {

// The tensors of a mask by their names: what an output may not overlap, and what two masks may not both have.
struct MaskTensor {
  const char* name;
  const char* option;  // its name in the options of a call that has other masks too
  ConstTensorView Mask::* view;
};
constexpr MaskTensor kMaskTensors[] = {
    {"offsets", "mask.offsets", &Mask::offsets},
    {"key_lengths", "mask.key_lengths", &Mask::key_lengths},
    {"key_starts", "mask.key_starts", &Mask::key_starts},
    {"q_documents", "mask.q_documents", &Mask::q_documents},
    {"k_documents", "mask.k_documents", &Mask::k_documents},
    {"allowed", "mask.allowed", &Mask::allowed},
    {"ignored", "mask.ignored", &Mask::ignored},
    {"bias", "mask.bias", &Mask::bias},
    {"alibi_slopes", "mask.alibi_slopes", &Mask::alibi_slopes},
};

}  // namespace manyheads::attention_detail
