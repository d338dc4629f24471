#pragma once

#include <string>

#include <manyheads/error.hpp>
#include <manyheads/tensor.hpp>

#include "base/format.hpp"

// The words of an error: who refuses what.
namespace manyheads::base {

// Throws Error "function: what".
[[noreturn]] void fail(const char* function, const std::string& what, ErrorCode code = ErrorCode::kInvalidArgument);

// "F32 [1,8,7,64]", or "undefined".
std::string describe(const ConstTensorView& view);

// The types that attention and layers compute on.
constexpr bool is_float(DType type) noexcept {
  return type == DType::kF32 || type == DType::kBF16 || type == DType::kF16;
}
constexpr bool is_index(DType type) noexcept { return type == DType::kI32 || type == DType::kI64; }

}  // namespace manyheads::base
