#include <manyheads/attention.hpp>
#include <manyheads/attention_backward.hpp>

#include <string>
#include <vector>

#include "c/options.hpp"

using namespace manyheads;
using c::CallersOptions;
using c::CallersThreads;
using c::guarded;
using c::input;
using c::output;
using c::required;

namespace {

// The tensors of a call of attention, in C++.
struct Operands {
  Operands(const char* f, const mh_tensor* of_q, const mh_tensor* of_k, const mh_tensor* of_v, const mh_tensor* of_out,
           const mh_attention_options* given)
      : q(input(f, "q", of_q)),
        k(input(f, "k", of_k)),
        v(input(f, "v", of_v)),
        out(output(f, "out", of_out)),
        options(f, given) {}
  ConstTensorView q, k, v;
  TensorView out;
  CallersOptions options;
};

// The tensors of its backward.
struct BackwardOperands {
  BackwardOperands(const char* f, const mh_tensor* of_q, const mh_tensor* of_k, const mh_tensor* of_v,
                   const mh_tensor* of_out, const mh_tensor* of_dout, const mh_tensor* of_lse,
                   const mh_attention_gradients* of_gradients, const mh_attention_options* given)
      : q(input(f, "q", of_q)),
        k(input(f, "k", of_k)),
        v(input(f, "v", of_v)),
        out(input(f, "out", of_out)),
        dout(input(f, "dout", of_dout)),
        lse(input(f, "lse", of_lse)),
        options(f, given) {
    const mh_attention_gradients all = c::read(f, "gradients", &required(f, "gradients", of_gradients));
    if (all.reserved != 0) base::fail(f, base::format("gradients->reserved is {}, expected 0", all.reserved));
    gradients.dlse = input(f, "dlse", all.dlse);
    gradients.dq = output(f, "dq", all.dq);
    gradients.dk = output(f, "dk", all.dk);
    gradients.dv = output(f, "dv", all.dv);
    gradients.dbias = output(f, "dbias", all.dbias);
    gradients.dsinks = output(f, "dsinks", all.dsinks);
    gradients.dalibi_slopes = output(f, "dalibi_slopes", all.dalibi_slopes);
    gradients.accumulate = all.accumulate != 0;
  }
  ConstTensorView q, k, v, out, dout, lse;
  AttentionGradients gradients;
  CallersOptions options;
};

// The explanation whose texts a caller reads: that of this thread's last call.
struct Explained {
  Explanation kept;
  std::string text;
};
thread_local Explained g_forward, g_backward;

void give(Explanation e, Explained& explained, std::size_t size, mh_explanation* to) {
  explained.text = e.to_string();
  explained.kept = std::move(e);
  const Explanation& kept = explained.kept;
  mh_explanation all{};
  all.text = explained.text.c_str();
  all.isa = kept.isa.c_str();
  all.bits = kept.bits.c_str();
  all.path = kept.path.c_str();
  all.tuning = kept.tuning.c_str();
  all.threads = kept.threads;
  all.query_block_rows = kept.query_block_rows;
  all.run_keys = kept.run_keys;
  all.chunk_keys = kept.chunk_keys;
  all.tasks = kept.tasks;
  all.query_blocks_together = kept.query_blocks_together;
  all.keys_together = kept.keys_together;
  all.kv_splits = kept.kv_splits;
  all.runs = kept.runs;
  all.skipped_runs = kept.skipped_runs;
  all.flop = kept.flop;
  all.bytes = kept.bytes;
  all.workspace_bytes = kept.workspace_bytes;
  c::write(all, size, to);
}

}  // namespace

int mh_attention(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                 const mh_attention_options* options) noexcept {
  return guarded("mh_attention", [&](const char* f) {
    const Operands call(f, q, k, v, out, options);
    attention(call.q, call.k, call.v, call.out, *call.options);
  });
}

int mh_attention_weights(const mh_tensor* q, const mh_tensor* k, const mh_tensor* lse, const mh_tensor* weights,
                         const mh_attention_options* options) noexcept {
  return guarded("mh_attention_weights", [&](const char* f) {
    const CallersOptions call(f, options);
    attention_weights(input(f, "q", q), input(f, "k", k), input(f, "lse", lse), output(f, "weights", weights), *call);
  });
}

int mh_attention_workspace_size(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                                const mh_attention_options* options, size_t* bytes) noexcept {
  return guarded("mh_attention_workspace_size", [&](const char* f) {
    const Operands call(f, q, k, v, out, options);
    required(f, "bytes", bytes) = attention_workspace_size(call.q, call.k, call.v, call.out, *call.options);
  });
}

int mh_explain(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
               const mh_attention_options* options, mh_explanation* explanation) noexcept {
  return guarded("mh_explain", [&](const char* f) {
    const std::size_t size = c::read(f, "explanation", &required(f, "explanation", explanation)).size;
    const Operands call(f, q, k, v, out, options);
    give(explain(call.q, call.k, call.v, call.out, *call.options), g_forward, size, explanation);
  });
}

int mh_attention_backward(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                          const mh_tensor* dout, const mh_tensor* lse, const mh_attention_gradients* gradients,
                          const mh_attention_options* options) noexcept {
  return guarded("mh_attention_backward", [&](const char* f) {
    const BackwardOperands call(f, q, k, v, out, dout, lse, gradients, options);
    attention_backward(call.q, call.k, call.v, call.out, call.dout, call.lse, call.gradients, *call.options);
  });
}

int mh_attention_backward_workspace_size(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v,
                                         const mh_tensor* out, const mh_tensor* dout, const mh_tensor* lse,
                                         const mh_attention_gradients* gradients, const mh_attention_options* options,
                                         size_t* bytes) noexcept {
  return guarded("mh_attention_backward_workspace_size", [&](const char* f) {
    const BackwardOperands call(f, q, k, v, out, dout, lse, gradients, options);
    required(f, "bytes", bytes) = attention_backward_workspace_size(call.q, call.k, call.v, call.out, call.dout,
                                                                    call.lse, call.gradients, *call.options);
  });
}

int mh_explain_backward(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                        const mh_tensor* dout, const mh_tensor* lse, const mh_attention_gradients* gradients,
                        const mh_attention_options* options, mh_explanation* explanation) noexcept {
  return guarded("mh_explain_backward", [&](const char* f) {
    const std::size_t size = c::read(f, "explanation", &required(f, "explanation", explanation)).size;
    const BackwardOperands call(f, q, k, v, out, dout, lse, gradients, options);
    give(explain_backward(call.q, call.k, call.v, call.out, call.dout, call.lse, call.gradients, *call.options),
         g_backward, size, explanation);
  });
}

int mh_merge_attention(const mh_tensor* out_a, const mh_tensor* lse_a, const mh_tensor* out_b, const mh_tensor* lse_b,
                       const mh_tensor* out, const mh_tensor* lse, int32_t num_threads,
                       const mh_executor* executor) noexcept {
  return guarded("mh_merge_attention", [&](const char* f) {
    const CallersThreads threads(f, num_threads, executor);
    merge_attention(input(f, "out_a", out_a), input(f, "lse_a", lse_a), input(f, "out_b", out_b),
                    input(f, "lse_b", lse_b), output(f, "out", out), output(f, "lse", lse), *threads);
  });
}

int mh_row_states_create(int64_t keys_before, int64_t keys, int64_t batch, int64_t q_heads, int64_t tq, int64_t dv,
                         mh_row_states** states) noexcept {
  return guarded("mh_row_states_create", [&](const char* f) {
    mh_row_states*& made = required(f, "states", states);
    made = new mh_row_states{RowStates(keys_before, keys, batch, q_heads, tq, dv)};
  });
}

void mh_row_states_destroy(mh_row_states* states) noexcept { delete states; }

int mh_row_states_tensors(mh_row_states* states, mh_tensor* max, mh_tensor* sum, mh_tensor* output) noexcept {
  return guarded("mh_row_states_tensors", [&](const char* f) {
    const RowStates& of = required(f, "states", states).states;
    mh_tensor& to_max = required(f, "max", max);
    mh_tensor& to_sum = required(f, "sum", sum);
    required(f, "output", output) = c::dense(of.output.cview());
    to_max = c::dense(of.max.cview());
    to_sum = c::dense(of.sum.cview());
  });
}

int mh_merge_row_states(const mh_row_states* const* parts, size_t count, const mh_tensor* out, const mh_tensor* lse,
                        const mh_tensor* sinks, int32_t num_threads, const mh_executor* executor) noexcept {
  return guarded("mh_merge_row_states", [&](const char* f) {
    const CallersThreads threads(f, num_threads, executor);
    c::check_count(f, "parts", parts, count);
    std::vector<RowStates> all;  // which share the memory of the caller's
    all.reserve(count);
    for (std::size_t p = 0; p < count; ++p)
      all.push_back(required(f, base::format("parts[{}]", p).c_str(), parts[p]).states);
    merge_attention(all, output(f, "out", out), output(f, "lse", lse), input(f, "sinks", sinks), *threads);
  });
}

int mh_workspace_create(mh_workspace** workspace) noexcept {
  return guarded("mh_workspace_create", [&](const char* f) {
    mh_workspace*& made = required(f, "workspace", workspace);
    made = new mh_workspace{};
  });
}

void mh_workspace_destroy(mh_workspace* workspace) noexcept { delete workspace; }

int mh_workspace_reserve(mh_workspace* workspace, size_t bytes) noexcept {
  return guarded("mh_workspace_reserve",
                 [&](const char* f) { required(f, "workspace", workspace).memory.reserve(bytes); });
}

int mh_workspace_bytes(const mh_workspace* workspace, size_t* bytes) noexcept {
  return guarded("mh_workspace_bytes", [&](const char* f) {
    const std::size_t capacity = required(f, "workspace", workspace).memory.capacity();
    required(f, "bytes", bytes) = capacity;
  });
}
