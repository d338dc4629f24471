#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/error.hpp>
#include <manyheads/lens/patch.hpp>
#include <manyheads/lens/trace.hpp>
#include <string>
#include <utility>
#include <vector>

namespace manyheads::lens {

// A row's sum of exp(score - lse) is 1 but for what sums in F32 round. One farther off is that of another lse.
constexpr float kLeastRowSum = 0.25f, kMostRowSum = 4.0f;

// The name of a layer's tensor in a trace file.
std::string tensor_name(std::size_t layer, const char* part);

// Throws Error that begins with the place: "save_trace", or the file.
class Checker {
 public:
  Checker(std::string place, ErrorCode code) : place_(std::move(place)), code_(code) {}

  [[noreturn]] void fail(const std::string& what) const { throw Error(code_, place_ + ": " + what); }
  void require(bool holds, const std::string& what) const {
    if (!holds) fail(what);
  }

 private:
  std::string place_;
  ErrorCode code_;
};

// Throws where there is no such head; `function` names the caller.
void check_head(const char* function, const Trace& trace, std::size_t layer, std::int64_t head);

// Throws where the ranges are no part of the trace's queries and keys.
void check_ranges(const char* function, const Trace& trace, Range rows, Range keys);

// Throws where the lse of a head's rows from `first_query` on is not `own`, the one that q and k give, by more than
// sums in F32 may round.
void check_lse(const Trace& trace, std::size_t layer, std::int64_t head, std::int64_t first_query,
               const std::vector<float>& own);

// Throws where the fields and tensors of a trace do not fit each other.
void check_trace(const Trace& trace, const Checker& check);

}  // namespace manyheads::lens
