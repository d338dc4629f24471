#pragma once

#include <fmt/core.h>

#include <string>

// Formatting by {fmt}: a format string is checked when it is compiled.
namespace manyheads::base {

// All of the work in one place, so that not every source file compiles it.
std::string format_all(fmt::string_view pattern, fmt::format_args values);

template <class... Values>
std::string format(fmt::format_string<Values...> pattern, const Values&... values) {
  return format_all(pattern, fmt::make_format_args(values...));
}

}  // namespace manyheads::base
