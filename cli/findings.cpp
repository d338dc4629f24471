#include "findings.hpp"

#include <charconv>

#include "base/format.hpp"
#include "cli.hpp"

namespace manyheads::cli {

HeadName parse_head(const std::string& text, const char* option) {
  HeadName name;
  const std::size_t dot = text.find('.');
  const char* const end = text.data() + text.size();
  if (dot != std::string::npos) {
    const auto [layer_end, layer_problem] = std::from_chars(text.data(), text.data() + dot, name.layer);
    const auto [head_end, head_problem] = std::from_chars(text.data() + dot + 1, end, name.head);
    if (layer_problem == std::errc() && head_problem == std::errc() && layer_end == text.data() + dot &&
        head_end == end && name.head >= 0) {
      return name;
    }
  }
  throw UsageError(std::string(option) + " takes LAYER.HEAD, both counted from 0, such as 2.7; got \"" + text + "\"");
}

const lens::HeadReading& find_head(const Findings& found, const HeadName& name) {
  for (const lens::HeadReading& reading : found.heads) {
    if (reading.layer == name.layer && reading.head == name.head) return reading;
  }
  throw UsageError(base::format("--head {}.{}: there are {} layers of {} heads, both counted from 0", name.layer,
                                name.head, found.trace.layers.size(), found.trace.num_heads(0)));
}

Tensor weights_of(const Findings& found, const HeadName& name, std::int64_t rows, int threads) {
  Tensor weights(DType::kF32, Dims{rows, found.trace.num_keys()});
  lens::trace_rows(found.trace, name.layer, name.head, 0, weights.view(), {.num_threads = threads});
  return weights;
}

}  // namespace manyheads::cli
