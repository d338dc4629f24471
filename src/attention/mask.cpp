#include <manyheads/mask.hpp>

#include <string>

#include <manyheads/error.hpp>

#include "attention/mask_tensors.hpp"

namespace manyheads {
namespace {

[[noreturn]] void twice(const char* part) {
  throw Error(ErrorCode::kInvalidArgument, std::string("mask: ") + part + " is given twice");
}

void join(ConstTensorView& into, const ConstTensorView& from, const char* part) {
  if (!from.defined()) return;
  if (into.defined()) twice(part);
  into = from;
}

}  // namespace

Mask operator|(const Mask& a, const Mask& b) {
  Mask both = a;
  both.causal = a.causal || b.causal;
  if (b.alignment != Alignment::kUnspecified) {
    if (a.alignment != Alignment::kUnspecified && a.alignment != b.alignment) {
      throw Error(ErrorCode::kInvalidArgument, "mask: one part is aligned top-left, another bottom-right");
    }
    both.alignment = b.alignment;
  }
  const bool a_window = a.window_left != -1 || a.window_right != -1;
  const bool b_window = b.window_left != -1 || b.window_right != -1;
  if (a_window && b_window) twice("window");
  if (b_window) {
    both.window_left = b.window_left;
    both.window_right = b.window_right;
  }
  for (const auto& [name, option, view] : attention_detail::kMaskTensors) join(both.*view, b.*view, name);
  return both;
}

}  // namespace manyheads
