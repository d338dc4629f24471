// Thrown errors reach the page as text. The C++ library of this target unwinds nothing: what the call had allocated
// stays, and the caller's frame is gone.
#include <cstddef>
#include <cstdio>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <typeinfo>

#include "base/wasm/host.hpp"

extern "C" {

__attribute__((import_module("env"), import_name("error"))) void host_error(const char* text, std::size_t size);

void* __cxa_allocate_exception(std::size_t size) throw() {
  if (void* const memory = std::malloc(size)) return memory;
  manyheads::base::stop("out of memory");
}

// All that the library and what it is built on throw are std::exceptions, whose base stands first.
void __cxa_throw(void* thrown, std::type_info*, void (*)(void*)) {
  manyheads::base::stop(static_cast<const std::exception*>(thrown)->what());
}

}  // extern "C"

namespace manyheads::base {

void stop(const char* text) {
  host_error(text, std::strlen(text));
  __builtin_trap();
}

}  // namespace manyheads::base

void* operator new(std::size_t size) {
  if (void* const memory = std::malloc(size > 0 ? size : 1)) return memory;
  manyheads::base::stop("out of memory");
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// Where the C++ library would throw and cannot.
_LIBCPP_BEGIN_NAMESPACE_STD
void __libcpp_verbose_abort(const char* format, ...) {
  char text[512];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  manyheads::base::stop(text);
}
_LIBCPP_END_NAMESPACE_STD
