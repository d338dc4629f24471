#pragma once

#include <cstdint>

#include <manyheads/tensor.hpp>
#include <manyheads/export.hpp>

namespace manyheads {

// Where the diagonal j = i + o of the scores lies, for query i and key j. Causal, window and ALiBi count from it.
enum class Alignment {
  kUnspecified,  // as top_left; an error for causal with Tq != Tk, where the two readings differ
  kTopLeft,      // o = 0
  kBottomRight,  // o = Tk - Tq, or key_lengths[b] - Tq where key lengths are given
};

// Which keys a query may attend to, and what is added to its scores. Parts compose with `|`, and all of them hold at
// once. A part given twice is an error. The views are not copied: their memory must outlive the call.
struct Mask {
  bool causal = false;  // allows j <= i + o
  Alignment alignment = Alignment::kUnspecified;
  std::int64_t window_left = -1;   // allows i + o - left <= j; -1 is unbounded
  std::int64_t window_right = -1;  // allows j <= i + o + right; -1 is unbounded; causal caps it at 0
  ConstTensorView offsets{};       // [B] I32 or I64: o for each batch entry, instead of the alignment's
  ConstTensorView key_lengths{};   // [B] I32 or I64, 0 to Tk: only keys below it exist
  ConstTensorView key_starts{};    // [B] I32 or I64, 0 to key_lengths[b]: keys before it do not exist (left padding)
  ConstTensorView q_documents{};   // [B,Tq] I32 or I64: a query attends to keys of equal id
  ConstTensorView k_documents{};   // [B,Tk] I32 or I64
  ConstTensorView allowed{};       // BOOL, true = attend; broadcasts from the right to [B,Hq,Tq,Tk]
  ConstTensorView ignored{};       // BOOL, true = ignore; broadcasts the same. Not beside `allowed`
  ConstTensorView bias{};          // F32 or q's type, added to the scaled scores; broadcasts the same; -inf forbids
  ConstTensorView alibi_slopes{};  // [Hq] F32: adds -slope * |j - i - o|
};

MANYHEADS_API Mask operator|(const Mask& a, const Mask& b);

namespace mask {

inline Mask causal(Alignment alignment = Alignment::kUnspecified) { return {.causal = true, .alignment = alignment}; }
inline Mask window(std::int64_t left, std::int64_t right, Alignment alignment = Alignment::kUnspecified) {
  return {.alignment = alignment, .window_left = left, .window_right = right};
}
inline Mask align(Alignment alignment) { return {.alignment = alignment}; }
inline Mask offsets(ConstTensorView per_batch) { return {.offsets = per_batch}; }
inline Mask key_lengths(ConstTensorView per_batch) { return {.key_lengths = per_batch}; }
inline Mask key_starts(ConstTensorView per_batch) { return {.key_starts = per_batch}; }
inline Mask documents(ConstTensorView query_ids, ConstTensorView key_ids) {
  return {.q_documents = query_ids, .k_documents = key_ids};
}
inline Mask allowed(ConstTensorView mask) { return {.allowed = mask}; }
inline Mask ignored(ConstTensorView mask) { return {.ignored = mask}; }
inline Mask bias(ConstTensorView added) { return {.bias = added}; }
inline Mask alibi(ConstTensorView slopes) { return {.alibi_slopes = slopes}; }

}  // namespace mask

}  // namespace manyheads
