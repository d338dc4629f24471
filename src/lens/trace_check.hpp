#pragma once

#include <manyheads/error.hpp>
#include <manyheads/lens/trace.hpp>
#include <string>
#include <utility>

namespace manyheads::lens {

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

// Throws where the fields and tensors of a trace do not fit each other.
void check_trace(const Trace& trace, const Checker& check);

}  // namespace manyheads::lens
