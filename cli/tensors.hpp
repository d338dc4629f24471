#pragma once

#include <manyheads/tensor.hpp>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

namespace manyheads::cli {

// The tensors of a verb's safetensors file. Throws Error for a name that is not among `known`.
StateDict load_named(const std::string& path, std::span<const std::string_view> known);

// The tensor of that name. Throws Error when there is none.
const Tensor& need(const std::string& path, const StateDict& tensors, const std::string& name);

// Its view, or an undefined one.
ConstTensorView view_of(const StateDict& tensors, const std::string& name);

// "f32", "bf16" or "f16", already checked by the option.
DType parse_dtype(const std::string& name);

// {"dtype": "F32", "shape": [1, 8, 7, 64]}
nlohmann::ordered_json describe(const Tensor& tensor);
std::string describe_text(const StateDict& tensors);  // "lse F32 [1,8,7], out F32 [1,8,7,64]"

}  // namespace manyheads::cli
