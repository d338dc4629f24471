#include "base/fail.hpp"

namespace manyheads::base {

void fail(const char* function, const std::string& what, ErrorCode code) {
  throw Error(code, std::string(function) + ": " + what);
}

std::string describe(const ConstTensorView& view) {
  return view.defined() ? format("{} {}", name_of(view.dtype()), view.shape().to_string()) : "undefined";
}

}  // namespace manyheads::base
