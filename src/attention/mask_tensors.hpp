#pragma once

#include <manyheads/mask.hpp>

namespace manyheads::attention_detail {

// The tensors of a mask by their names: what an output may not overlap, and what two masks may not both have.
struct MaskTensor {
  const char* name;
  ConstTensorView Mask::* view;
};
constexpr MaskTensor kMaskTensors[] = {
    {"offsets", &Mask::offsets},         {"key_lengths", &Mask::key_lengths}, {"key_starts", &Mask::key_starts},
    {"q_documents", &Mask::q_documents}, {"k_documents", &Mask::k_documents}, {"allowed", &Mask::allowed},
    {"ignored", &Mask::ignored},         {"bias", &Mask::bias},               {"alibi_slopes", &Mask::alibi_slopes},
};

}  // namespace manyheads::attention_detail
