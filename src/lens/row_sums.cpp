#include <algorithm>
#include <cmath>
#include <manyheads/lens/patch.hpp>

#include "base/aligned_buffer.hpp"
#include "base/format.hpp"
#include "base/math.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"
#include "lens/head_rows.hpp"
#include "lens/trace_check.hpp"

namespace manyheads::lens {

std::vector<float> row_sums(const Trace& trace, std::size_t layer, std::int64_t head, Range rows,
                            const Threads& threads) {
  check_head("row_sums", trace, layer, head);
  check_ranges("row_sums", trace, rows, {0, trace.num_keys()});
  const kernels::HeadPassKernels& pass = kernels::active_table().head_pass;
  const RowScales scales(trace, layer, head);
  kernels::HeadPassParams params = head_pass_params(trace, layer, head, rows, {0, trace.num_keys()});
  std::vector<float> shifts(static_cast<std::size_t>(rows.size())), factors(shifts.size()), sums(shifts.size());
  std::vector<float> own(shifts.size());
  for (std::size_t r = 0; r < shifts.size(); ++r) {
    const RowScale scale = scales.of(rows.begin + static_cast<std::int64_t>(r), nullptr);
    shifts[r] = scale.shift;
    factors[r] = scale.factor;
  }
  params.shift = shifts.data();
  params.factor = factors.data();
  const std::int64_t blocks = (rows.size() + kernels::kPassRows - 1) / kernels::kPassRows;
  const int workers = base::worker_count(blocks, threads);
  const std::size_t floats = pass.workspace_floats(params);
  base::AlignedBuffer<float> workspace(floats * static_cast<std::size_t>(workers));
  base::parallel_for(blocks, workers, threads.executor, [&](std::int64_t block, int worker) {
    const std::int64_t first = block * kernels::kPassRows;
    const std::int64_t count = std::min(kernels::kPassRows, rows.size() - first);
    double sum[kernels::kPassRows];
    kernels::HeadPassOutputs out;
    out.sum = sum;
    pass.run(params, first, count, out, workspace.data() + static_cast<std::size_t>(worker) * floats);
    for (std::int64_t r = 0; r < count; ++r) {
      const std::size_t at = static_cast<std::size_t>(first + r);
      const std::int64_t i = rows.begin + first + r;
      const RowScale scale = scales.of(i, nullptr);
      const double all = factors[at] == 0.0f ? 0 : scales.row_sum(i, scale, scales.with_sink(scale, sum[r]));
      if (factors[at] != 0.0f && all >= static_cast<double>(kLeastRowSum) && all <= static_cast<double>(kMostRowSum)) {
        sums[at] = static_cast<float>(all);
        own[at] = static_cast<float>(static_cast<double>(lse_of(trace, layer, head, i)) + base::log(all));
        continue;
      }
      own[at] = lse_of(trace, layer, head, i);
      if (factors[at] == 0.0f && !scale.whole) continue;
      Tensor whole(DType::kF32, {1, trace.num_keys()});  // which checks lse
      trace_rows(trace, layer, head, i, whole.view(), {.num_threads = 1});
    }
  });
  // Rows that were computed whole are checked.
  check_lse(trace, layer, head, rows.begin, own);
  return sums;
}

void add_row_sums(Trace& trace, std::size_t layer_index, const Threads& threads) {
  check_head("add_row_sums", trace, layer_index, 0);
  TraceLayer& layer = trace.layers[layer_index];
  Tensor sums(DType::kF32, {layer.q.size(0), trace.num_queries()});
  for (std::int64_t head = 0; head < layer.q.size(0); ++head) {
    const std::vector<float> of_head = row_sums(trace, layer_index, head, {0, trace.num_queries()}, threads);
    std::copy(of_head.begin(), of_head.end(), sums.as<float>() + head * trace.num_queries());
  }
  layer.storage.push_back(sums);
  layer.row_sum = layer.storage.back().cview();
}

}  // namespace manyheads::lens
