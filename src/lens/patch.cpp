#include <algorithm>
#include <cmath>
#include <manyheads/lens/patch.hpp>

#include "base/aligned_buffer.hpp"
#include "base/format.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"
#include "lens/head_rows.hpp"
#include "lens/trace_check.hpp"

namespace manyheads::lens {
namespace {

constexpr std::int64_t kTaskKeys = 2048;

void check_patch(const Trace& trace, Range rows, Range keys, const TensorView& weights, const PatchOptions& options) {
  const auto fail = [](const std::string& what) { throw Error(ErrorCode::kInvalidArgument, "patch: " + what); };
  check_ranges("patch", trace, rows, keys);
  const Dims needed{rows.size(), keys.size()};
  if (!weights.defined() || weights.dtype() != DType::kF32 || weights.shape() != needed) {
    fail("weights is " + weights.shape().to_string() + ", F32 [rows,keys] is " + needed.to_string());
  }
  const ConstTensorView& sums = options.row_sum;
  if (sums.defined() && (sums.dtype() != DType::kF32 || sums.shape() != Dims({trace.num_queries()}))) {
    fail("row_sum is " + sums.shape().to_string() + ", F32 [queries] is " + Dims({trace.num_queries()}).to_string());
  }
}

// Lets a foreign lse show: no share of a row is above 1.
void check_shares(const Trace& trace, std::size_t layer, std::int64_t head, Range rows, Range keys,
                  const TensorView& weights) {
  for (std::int64_t r = 0; r < rows.size(); ++r) {
    const float* row = static_cast<const float*>(weights.data()) + r * weights.stride(0);
    for (std::int64_t j = 0; j < keys.size(); ++j) {
      const float weight = row[j * weights.stride(1)];
      if (!(weight > 1.001f)) continue;
      throw Error(trace.place.empty() ? ErrorCode::kInvalidArgument : ErrorCode::kMalformedFile,
                  base::format("{}: {} of head {}, row {} is {:.9g}, which would give key {} the weight {:.9g}",
                               trace.place.empty() ? "patch" : trace.place, tensor_name(layer, "lse"), head,
                               rows.begin + r, static_cast<double>(lse_of(trace, layer, head, rows.begin + r)),
                               keys.begin + j, static_cast<double>(weight)));
    }
  }
}

}  // namespace

PatchInfo patch(const Trace& trace, std::size_t layer, std::int64_t head, Range rows, Range keys, TensorView weights,
                const PatchOptions& options) {
  check_head("patch", trace, layer, head);
  check_patch(trace, rows, keys, weights, options);
  const ConstTensorView sums = options.row_sum.defined() ? options.row_sum : row_sum_of(trace, layer, head);
  const RowScales scales(trace, layer, head);
  std::vector<float> shifts(static_cast<std::size_t>(rows.size())), factors(shifts.size());
  std::vector<std::int64_t> whole;
  double largest_lse = 0;
  for (std::int64_t r = 0; r < rows.size(); ++r) {
    const std::int64_t i = rows.begin + r;
    const float* sum = sums.defined() ? static_cast<const float*>(sums.data()) + i * sums.stride(0) : nullptr;
    const RowScale scale = scales.of(i, sum);
    shifts[static_cast<std::size_t>(r)] = scale.shift;
    factors[static_cast<std::size_t>(r)] = scale.factor;
    if (scale.whole) {
      whole.push_back(r);
    } else if (scale.factor != 0.0f) {
      largest_lse = std::max(largest_lse, std::fabs(static_cast<double>(lse_of(trace, layer, head, i))));
    }
  }

  float* const to = static_cast<float*>(weights.data());
  const kernels::HeadPassKernels& pass = kernels::active_table().head_pass;
  const std::int64_t row_tasks = (rows.size() + kernels::kPassRows - 1) / kernels::kPassRows;
  const std::int64_t key_tasks = (keys.size() + kTaskKeys - 1) / kTaskKeys;
  const int workers = base::worker_count(row_tasks * key_tasks, options.threads);
  const std::size_t floats = pass.workspace_floats(head_pass_params(trace, layer, head, rows, keys));
  base::AlignedBuffer<float> workspace(floats * static_cast<std::size_t>(workers));
  base::parallel_for(row_tasks * key_tasks, workers, options.threads.executor, [&](std::int64_t task, int worker) {
    const Range at{task / key_tasks * kernels::kPassRows,
                   std::min((task / key_tasks + 1) * kernels::kPassRows, rows.size())};
    const Range by{task % key_tasks * kTaskKeys, std::min((task % key_tasks + 1) * kTaskKeys, keys.size())};
    float* const corner = to + at.begin * weights.stride(0) + by.begin * weights.stride(1);
    for (std::int64_t r = 0; r < at.size(); ++r) {
      for (std::int64_t j = 0; j < by.size(); ++j) corner[r * weights.stride(0) + j * weights.stride(1)] = 0.0f;
    }
    kernels::HeadPassParams params = head_pass_params(trace, layer, head, {rows.begin + at.begin, rows.begin + at.end},
                                                      {keys.begin + by.begin, keys.begin + by.end});
    params.shift = shifts.data() + at.begin;
    params.factor = factors.data() + at.begin;
    kernels::HeadPassOutputs out;
    out.weights = corner;
    out.weights_stride[0] = weights.stride(0);
    out.weights_stride[1] = weights.stride(1);
    pass.run(params, 0, at.size(), out, workspace.data() + static_cast<std::size_t>(worker) * floats);
  });
  for (const std::int64_t r : whole) {
    Tensor row(DType::kF32, {1, trace.num_keys()});
    trace_rows(trace, layer, head, rows.begin + r, row.view(), options.threads);
    for (std::int64_t j = 0; j < keys.size(); ++j) {
      to[r * weights.stride(0) + j * weights.stride(1)] = row.as<float>()[keys.begin + j];
    }
  }
  check_shares(trace, layer, head, rows, keys, weights);
  // Half a unit in the last place of lse, and three more of what made it.
  const double bound = std::max(1e-5, 0x1p-24 * (8 + 4 * largest_lse));
  return sums.defined() ? PatchInfo{.exact = true, .bound = 0} : PatchInfo{.exact = false, .bound = bound};
}

}  // namespace manyheads::lens
