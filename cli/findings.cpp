#include "findings.hpp"

#include "base/format.hpp"
#include "cli.hpp"

namespace manyheads::cli {

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
