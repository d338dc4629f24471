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

namespace mask {

Mask causal(Alignment alignment) { return {.causal = true, .alignment = alignment}; }
Mask window(std::int64_t left, std::int64_t right, Alignment alignment) {
  return {.alignment = alignment, .window_left = left, .window_right = right};
}
Mask align(Alignment alignment) { return {.alignment = alignment}; }
Mask offsets(ConstTensorView per_batch) { return {.offsets = per_batch}; }
Mask key_lengths(ConstTensorView per_batch) { return {.key_lengths = per_batch}; }
Mask key_starts(ConstTensorView per_batch) { return {.key_starts = per_batch}; }
Mask documents(ConstTensorView query_ids, ConstTensorView key_ids) {
  return {.q_documents = query_ids, .k_documents = key_ids};
}
Mask allowed(ConstTensorView mask) { return {.allowed = mask}; }
Mask ignored(ConstTensorView mask) { return {.ignored = mask}; }
Mask bias(ConstTensorView added) { return {.bias = added}; }
Mask alibi(ConstTensorView slopes) { return {.alibi_slopes = slopes}; }

}  // namespace mask

}  // namespace manyheads
