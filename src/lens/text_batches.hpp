#pragma once

#include <cstddef>
#include <functional>
#include <manyheads/lens/trace.hpp>
#include <manyheads/model/text_model.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace manyheads::lens {

struct BatchOptions {
  Threads threads{};
  std::string_view bits{};
};

// A text of a batch, and which it is of all.
struct BatchText {
  std::size_t index = 0;
  model::Encoding encoding;
  Trace trace;
};

// Runs the encoder over the encodings of texts and gives each its trace, whose text stays as it is.
void run_batch(const model::Encoder& encoder, std::vector<BatchText>& texts, const BatchOptions& options);

// Runs the encoder over texts in order, some at a time, and calls `batch` with the traces of each run. The traces'
// q, k and lse are views that live as long as the call. Memory grows with the longest text and not with their number.
// - next(i) gives text i, or none behind the last.
// - A text of more tokens than the model takes, or of none, is left out. Returns how many were.
std::size_t for_each_batch(const model::TextModel& model,
                           const std::function<std::optional<std::string>(std::size_t)>& next,
                           const BatchOptions& options, const std::function<void(std::span<const BatchText>)>& batch);

}  // namespace manyheads::lens
