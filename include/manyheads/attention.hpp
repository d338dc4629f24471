#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <manyheads/mask.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <manyheads/export.hpp>

namespace manyheads {

// What attention over some of the keys leaves behind for the rest: the state of each row before the division,
//   out = output / sum,  lse = max * log 2 + log sum,
// with max a whole number. States of parts that lie on any machines combine to the bits of one call over all the keys
// (merge_attention), which a rounded lse cannot give. A part begins at a multiple of 512 keys, and every part but the last
// has whole 512s. Each row has a state for each of S branches of the fixed tree that sums are combined in.
struct MANYHEADS_API RowStates {
  std::int64_t keys_before = 0;  // keys of the sequence that lie before this part, a multiple of 512
  std::int64_t keys = 0;         // of this part: Tk
  Tensor max, sum;               // [S,B,Hq,Tq] F32
  Tensor output;                 // [S,B,Hq,Tq,Dv] F32

  RowStates() = default;
  // States of S = branches(keys_before, keys) branches. Throws Error (kOutOfMemory).
  RowStates(std::int64_t keys_before, std::int64_t keys, std::int64_t batch, std::int64_t q_heads, std::int64_t tq,
            std::int64_t dv);
  // At most 2 log2(keys / 512) + 1. Throws Error where keys_before is no multiple of 512.
  static std::int64_t branches(std::int64_t keys_before, std::int64_t keys);
};

struct AttentionOptions {
  Mask mask{};
  std::optional<double> scale{};  // default 1/sqrt(D); any finite value
  double softcap = 0;             // > 0: scores become softcap * tanh(score / softcap), before bias and mask
  ConstTensorView sinks{};        // [Hq] F32: a logit for each head that adds mass to the softmax and no value
  TensorView lse{};               // [B,Hq,Tq] F32, out: log of the sum of exp of each row's scores (natural log)
  RowStates* row_states = nullptr;  // out: of this call, which is a part of a longer one. Not with cu_seqlens
  Threads threads{};
  Workspace* workspace = nullptr;  // see attention_workspace_size
  ConstTensorView cu_seqlens_q{};  // } see below
  ConstTensorView cu_seqlens_k{};  // }
  ConstTensorView page_table{};    // }
  ConstTensorView k_scales{};      // }
  ConstTensorView v_scales{};      // }
  bool int8_products = false;      // }
};

// out = softmax(scale * q k^T + bias) v for each head, fused: no Tq x Tk memory.
//
//   q [B,Hq,Tq,D]  k [B,Hkv,Tk,D]  v [B,Hkv,Tk,Dv]  out [B,Hq,Tq,Dv]
//
// q, k and v share a type of F32, BF16 or F16; out has any of these. Sums are kept in F32 and rounded once; weights
// below 2^-96 of the largest count as 0. Hq is a multiple of Hkv; query head h reads key/value head h / (Hq / Hkv). Any
// strides; unit stride in the last axis is fast. out and lse must not overlap an input or each other.
//
// Sequences of different lengths, packed one after the other (cu_seqlens_q, cu_seqlens_k; [B+1] I32 or I64, from 0 to
// the number of rows, ascending): entry b is rows cu_seqlens[b] to cu_seqlens[b+1] of
//   q [Tq,Hq,D], out [Tq,Hq,Dv], lse [Hq,Tq]    and    k [Tk,Hkv,D], v [Tk,Hkv,Dv].
// Either side may be packed alone. Bool masks, biases and documents, which speak of one Tq and Tk, are then errors.
// Paged keys and values (page_table [B,N] I32 or I64): key j of entry b is row j % size of page page_table[b, j / size]
// of
//   k [pages,Hkv,size,D], v [pages,Hkv,size,Dv],    size a multiple of 16.
// mask.key_lengths gives each entry's keys (else N * size); the table is read only as far as they reach.
// I8 keys and values, with F32 scales of k's and v's shape less the last axis: key * scale is what takes part. With
// int8_products, for I8 alone and D up to 131072, they are multiplied as integers: faster and coarser. Each query is
// rounded to 127 steps of its largest element, each weight times its value's scale to 255 of the largest in its run of
// 64 keys.
//
// Rows whose keys are all forbidden give out 0 and lse -inf (the sink's logit where there is one).
// A row whose scores or sums of values leave F32's range on the way (biases of the largest float, scores of 1e40,
// values that add up to more than 3.4e38) is computed again in float64. That is tens of times slower, for this row
// alone, and allocates O(Tk + D + Dv). Its lse stays within F32's finite range. A row with NaN or infinity in its
// inputs takes the same way. An infinite score is a number and no mask: a row of nothing but -inf scores is NaN. The
// bits of a row depend on that row's query, its keys, values and mask and on the instruction set; not on threads,
// batch, strides or alignment.
// Allocates a workspace unless given one: O(D * log(Tk)) a thread, up to eight times that where a head's keys and
// values come to more than 2 MB, and where many queries read keys and values that are not dense F32, a copy of one
// head, at most 8 MB. Thread-safe for disjoint outputs and workspaces. Throws Error with the argument and the shapes,
// before anything is written. Online softmax: Milakov and Gimelshein 2018; tiling: Dao et al. 2022 (FlashAttention).
MANYHEADS_API void attention(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
               const AttentionOptions& options = {});

// weights[B,Hq,Tq,Tk] (F32) = exp(score - lse), recomputed from q, k and the lse that attention() gave for the same
// options. Each row is divided by its own sum with the sink's mass, which takes out the rounding of lse; so an lse that
// is not the row's own, whatever it holds, gives the weights over these keys all the same. Forbidden rows are 0. Costs
// one product more; options.lse is not used. Packed and paged calls are not taken: they have no one Tq and Tk.
MANYHEADS_API void attention_weights(ConstTensorView q, ConstTensorView k, ConstTensorView lse, TensorView weights,
                       const AttentionOptions& options = {});

// Attention over the union of two sets of keys from attention over each, say a shared prefix and the rest:
//   out = (exp(lse_a) out_a + exp(lse_b) out_b) / (exp(lse_a) + exp(lse_b)), lse the log of the denominator.
// out_a, out_b, out [...,Dv] of any float types and one shape; lse_a, lse_b, lse [...] F32 (lse may be undefined). out
// and lse may be those of a. A row without keys on one side takes the other's; without any it is 0 and -inf. Exact but
// for the rounding of its inputs and one of its own. Allocates nothing; thread-safe for disjoint outputs.
MANYHEADS_API void merge_attention(ConstTensorView out_a, ConstTensorView lse_a, ConstTensorView out_b, ConstTensorView lse_b,
                     TensorView out, TensorView lse = {}, const Threads& threads = {});

// The same from the row states of any number of parts, in ascending order and without a gap: out [B,Hq,Tq,Dv] of any float
// type, lse [B,Hq,Tq] F32 or undefined, sinks [Hq] F32 or undefined. The bits are those of one call over all the keys at
// the instruction set in use, as long as no score or sum leaves F32's range: such rows come out as their states say. The
// parts' own sinks are not in their states.
MANYHEADS_API void merge_attention(std::span<const RowStates> parts, TensorView out, TensorView lse = {}, ConstTensorView sinks = {},
                     const Threads& threads = {});

// The definition: float64, plain loops, no blocks. What attention() is tested against. `weights` may be undefined.
MANYHEADS_API void attention_reference(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                         const AttentionOptions& options = {}, TensorView weights = {});

// Bytes that a call with these arguments wants from options.workspace.
MANYHEADS_API std::size_t attention_workspace_size(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                                     const AttentionOptions& options = {});

// What attention() would do for a call.
struct MANYHEADS_API Explanation {
  std::string isa;                         // instruction set, as in cpu.hpp
  std::string path;                        // "fused forward, F32" ...
  int threads = 0;                         // threads asked of the executor or the pool
  std::int64_t query_block_rows = 0;       // most queries that share one pass over the keys
  std::int64_t run_keys = 0;               // keys summed in one run, and
  std::int64_t chunk_keys = 0;             // in one chunk: fixed, so that the bits are
  std::int64_t tasks = 0;                  // pieces of work that threads take
  std::int64_t query_blocks_together = 1;  // query blocks in a task that take the keys part by part, together
  std::int64_t keys_together = 0;          // keys in such a part, where all of them are too many for L2; else 0
  std::int64_t kv_splits = 1;              // parts of the keys of a query block, where blocks are few
  std::int64_t runs = 0;                   // runs of keys over all query blocks
  std::int64_t skipped_runs = 0;           // runs that the mask rules out; they are never read
  double flop = 0;                         // 2 (D + Dv) for each query and key of the runs that are read
  double bytes = 0;                        // inputs read and outputs written, once
  std::size_t workspace_bytes = 0;
  std::string tuning;  // figures of this machine, as MANYHEADS_TUNING takes them: "l1_bytes=49152,l2_bytes=..."
  std::string to_string() const;
};
MANYHEADS_API Explanation explain(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                    const AttentionOptions& options = {});

}  // namespace manyheads
