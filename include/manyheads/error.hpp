#pragma once

#include <stdexcept>
#include <string>

#include <manyheads/export.hpp>

namespace manyheads {

enum class ErrorCode {
  kInvalidArgument,  // a shape, type or value that the call cannot take
  kUnsupported,      // a request this build or this machine cannot serve
  kOutOfMemory,
  kIo,             // the operating system refused a file operation
  kMalformedFile,  // a file's content breaks its format
};

// The only exception the library throws, but for std::bad_alloc where not even a message's memory can be had. The
// message names the function, the argument and the shapes:
//   "attention: k has head size 32, q has 64 (q [1,8,7,64], k [1,8,7,32])"
class MANYHEADS_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace manyheads
