#include "attention/backward.hpp"

#include "attention/backward_run.hpp"
#include "attention/check.hpp"
#include "base/aligned_buffer.hpp"
#include "base/format.hpp"
#include "kernels/mask.hpp"
#include "kernels/tuning.hpp"

namespace manyheads::attention_detail {

using kernels::BackwardParams;
using kernels::kChunkKeys;
using kernels::kGradRows;
using kernels::QueryBlock;

PreparedBackward::PreparedBackward(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                                   const ConstTensorView& v, const ConstTensorView& out, const ConstTensorView& dout,
                                   const ConstTensorView& lse, const AttentionGradients& gradients,
                                   const AttentionOptions& options)
    : params_(check_backward(function, q, k, v, &out, dout, &lse, gradients, options)),
      products_(kernels::backward_products(params_, options.bits)),
      table_(&kernels::backward_table(function, options.bits, products_)),
      plan_(plan_backward(function, params_, kernels::backward_kernels(*table_, products_), options.threads)),
      threads_(options.threads) {}

Explanation explain(const PreparedBackward& prepared) {
  const BackwardParams& params = prepared.params();
  const BackwardPlan& plan = prepared.plan();
  Explanation e;
  e.isa = prepared.table().name;
  e.bits = prepared.table().bits_of(prepared.products());
  e.path = prepared.products() == kernels::Products::kBF16 ? "fused backward, BF16 pairs"
           : params.type == DType::kF32                    ? "fused backward, F32"
                                        : base::format("fused backward, {} read as F32", name_of(params.type));
  if (params.q_starts.defined() || params.k_starts.defined()) e.path += ", packed sequences";
  e.threads = plan.workers;
  e.query_block_rows = kGradRows;
  e.run_keys = kernels::kRunKeys;
  e.chunk_keys = kChunkKeys;
  e.tasks = plan.tasks;
  e.tuning = kernels::tuning().to_string();
  e.workspace_bytes = plan.bytes;
  const kernels::AttentionMask mask(params);
  double q_rows = 0, kv_rows = 0;
  for (std::int64_t b = 0; b < params.batch; ++b) {
    q_rows += static_cast<double>(params.q_heads * params.queries(b));
    kv_rows += static_cast<double>(params.kv_heads * params.key_length(b));
    for (std::int64_t h = 0; h < params.q_heads; ++h) {
      for (std::int64_t i = 0; i < params.queries(b); i += kGradRows) {
        const QueryBlock q_block{b, h / params.group(), h % params.group() * params.queries(b) + i,
                                 std::min(kGradRows, params.queries(b) - i)};
        std::int64_t keys = 0;
        const std::int64_t read = mask.each_run(
            q_block, mask.keys_of(q_block), [&](std::int64_t begin, std::int64_t end, bool) { keys += end - begin; });
        const std::int64_t runs = kernels::runs_of(params.key_length(b));
        e.runs += runs;
        e.skipped_runs += runs - read;
        e.flop += 2.0 * static_cast<double>(3 * params.d + 2 * params.dv) * static_cast<double>(q_block.rows) *
                  static_cast<double>(keys);
      }
    }
  }
  const auto size = [](DType type) { return static_cast<double>(size_of(type)); };
  const double d = static_cast<double>(params.d), dv = static_cast<double>(params.dv);
  e.bytes = kv_rows * 2 * (d + dv) * size(params.kv_type) + q_rows * 2 * d * size(params.type) +
            q_rows * dv * (size(params.out_type) + size(params.dout_type));
  return e;
}

void PreparedBackward::run(std::byte* workspace) const {
  run_backward(params_, kernels::backward_kernels(*table_, products_), plan_, threads_, workspace);
}

void PreparedBackward::run(Workspace* workspace) const {
  if (workspace != nullptr) return run(static_cast<std::byte*>(workspace->reserve(plan_.bytes)));
  base::AlignedBuffer<std::byte> own(plan_.bytes);
  run(own.data());
}

}  // namespace manyheads::attention_detail

namespace manyheads {

using attention_detail::PreparedBackward;

void attention_backward(ConstTensorView q, ConstTensorView k, ConstTensorView v, ConstTensorView out,
                        ConstTensorView dout, ConstTensorView lse, const AttentionGradients& gradients,
                        const AttentionOptions& options) {
  PreparedBackward("attention_backward", q, k, v, out, dout, lse, gradients, options).run(options.workspace);
}

void attention_backward_reference(ConstTensorView q, ConstTensorView k, ConstTensorView v, ConstTensorView dout,
                                  const AttentionGradients& gradients, const AttentionOptions& options) {
  kernels::reference_backward(attention_detail::check_backward("attention_backward_reference", q, k, v, nullptr, dout,
                                                               nullptr, gradients, options));
}

std::size_t attention_backward_workspace_size(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                                              ConstTensorView out, ConstTensorView dout, ConstTensorView lse,
                                              const AttentionGradients& gradients, const AttentionOptions& options) {
  return PreparedBackward("attention_backward_workspace_size", q, k, v, out, dout, lse, gradients, options)
      .workspace_bytes();
}

Explanation explain_backward(ConstTensorView q, ConstTensorView k, ConstTensorView v, ConstTensorView out,
                             ConstTensorView dout, ConstTensorView lse, const AttentionGradients& gradients,
                             const AttentionOptions& options) {
  const PreparedBackward prepared("explain_backward", q, k, v, out, dout, lse, gradients, options);
  return attention_detail::explain(prepared);
}

}  // namespace manyheads
