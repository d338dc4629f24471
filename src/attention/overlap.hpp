#pragma once

#include <manyheads/tensor.hpp>

// Outputs share no memory with what is still to be read. Errors name the function and both tensors.
namespace manyheads::attention_detail {

// Checks that no two elements of an output share memory.
void check_itself(const char* function, const char* name, const ConstTensorView& output);

// Checks that an output shares no element with an input or another output.
void check_overlap(const char* function, const char* name, const ConstTensorView& output, const char* other_name,
                   const ConstTensorView& other);

}  // namespace manyheads::attention_detail
