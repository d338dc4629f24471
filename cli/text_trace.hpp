#pragma once

#include <cstddef>
#include <manyheads/lens/trace.hpp>
#include <optional>
#include <string>

#include "cli.hpp"

namespace manyheads::cli {

// A text and the model that reads it.
struct TextRequest {
  std::string text, model;
  std::optional<std::string> pair;
  bool truncate = false;
};

struct TextTrace {
  lens::Trace trace;
  std::size_t full_size = 0;  // tokens before truncation
};

// The trace of the text, in memory. Throws Error as check_text, check_model and encode_text do.
TextTrace trace_text(const TextRequest& request, const Common& common);

}  // namespace manyheads::cli
