#include "lens/rollout.hpp"

#include <cstdint>

#include "base/parallel.hpp"
#include "lens/each_row.hpp"

namespace manyheads::lens {

std::vector<double> attention_rollout(const Trace& trace, const Threads& threads) {
  const auto n = static_cast<std::size_t>(trace.key_length);
  std::vector<double> from(n, trace.causal ? 0.0 : 1.0 / static_cast<double>(n));
  if (trace.causal && n > 0) from.back() = 1;
  for (std::size_t layer = trace.layers.size(); layer-- > 0;) {
    const std::int64_t heads = trace.num_heads(layer);
    std::vector<std::vector<double>> given(static_cast<std::size_t>(heads), std::vector<double>(n));
    base::parallel_for(heads, base::worker_count(heads, threads), threads.executor, [&](std::int64_t head, int) {
      std::vector<double>& to = given[static_cast<std::size_t>(head)];
      std::size_t q = 0;
      for_each_row(trace, layer, head, [&](const float* row) {
        const double share = from[q++];
        for (std::size_t k = 0; k < n && share != 0; ++k) to[k] += share * static_cast<double>(row[k]);
      });
    });
    for (std::size_t k = 0; k < n; ++k) {
      double sum = 0;
      for (const std::vector<double>& head : given) sum += head[k];
      from[k] = from[k] / 2 + sum / (2 * static_cast<double>(heads));
    }
  }
  return from;
}

}  // namespace manyheads::lens
