#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <manyheads/mask.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>

namespace manyheads {

struct AttentionOptions {
  Mask mask{};
  std::optional<double> scale{};    // default 1/sqrt(D); any finite value
  double softcap = 0;               // > 0: scores become softcap * tanh(score / softcap), before bias and mask
  ConstTensorView sinks{};          // [Hq] F32: a logit for each head that adds mass to the softmax and no value
  const TensorView* lse = nullptr;  // [B,Hq,Tq] F32, out: log of the sum of exp of each row's scores (natural log)
  int num_threads = 0;              // 0: default_num_threads(). Fewer than asked for is never an error
  Executor* executor = nullptr;     // the caller's threads instead of the library's pool
  Workspace* workspace = nullptr;   // see attention_workspace_size
  ConstTensorView cu_seqlens_q{};   // } see below
  ConstTensorView cu_seqlens_k{};   // }
  ConstTensorView page_table{};     // }
  ConstTensorView k_scales{};       // }
  ConstTensorView v_scales{};       // }
  bool int8_products = false;       // }
};

// out = softmax(scale * q k^T + bias) v for each head, fused: no Tq x Tk memory.
//
//   q [B,Hq,Tq,D]  k [B,Hkv,Tk,D]  v [B,Hkv,Tk,Dv]  out [B,Hq,Tq,Dv]
//
// q, k and v share a type of F32, BF16 or F16; out has any of these. Sums are kept in F32 and rounded once; weights below
// 2^-96 of the largest count as 0. Hq is a multiple of Hkv; query head h reads key/value head h / (Hq / Hkv). Any strides;
// unit stride in the last axis is fast. out and lse must not overlap an input or each other.
//
// Sequences of different lengths, packed one after the other (cu_seqlens_q, cu_seqlens_k; [B+1] I32 or I64, from 0 to the
// number of rows, ascending): entry b is rows cu_seqlens[b] to cu_seqlens[b+1] of
//   q [Tq,Hq,D], out [Tq,Hq,Dv], lse [Hq,Tq]    and    k [Tk,Hkv,D], v [Tk,Hkv,Dv].
// Either side may be packed alone. Bool masks, biases and documents, which speak of one Tq and Tk, are then errors.
// Paged keys and values (page_table [B,N] I32 or I64): key j of entry b is row j % size of page page_table[b, j / size] of
//   k [pages,Hkv,size,D], v [pages,Hkv,size,Dv],    size a multiple of 16.
// mask.key_lengths gives each entry's keys (else N * size); the table is read only as far as they reach.
// I8 keys and values, with F32 scales of k's and v's shape less the last axis: key * scale is what takes part. With
// int8_products, for I8 alone and D up to 131072, they are multiplied as integers: faster and coarser. Each query is rounded
// to 127 steps of its largest element, each weight times its value's scale to 255 of the largest in its run of 64 keys.
//
// Rows whose keys are all forbidden give out 0 and lse -inf (the sink's logit where there is one).
// A row whose scores or sums of values leave F32's range on the way (biases of the largest float, scores of 1e40, values
// that add up to more than 3.4e38) is computed again in float64. That is tens of times slower, for this row alone, and
// allocates O(Tk + D + Dv). Its lse stays within F32's finite range. A row with NaN or infinity in its inputs takes the same
// way. An infinite score is a number and no mask: a row of nothing but -inf scores is NaN.
// The bits of a row depend on that row's query, its keys, values and mask and on the instruction set; not on threads,
// batch, strides or alignment.
// Allocates a workspace unless given one: O(D * log(Tk)) a thread, up to eight times that where a head's keys and values
// come to more than 2 MB, and where many queries read keys and values that are not dense F32, a copy of one head, at most
// 8 MB. Thread-safe for disjoint outputs and workspaces.
// Throws Error with the argument and the shapes, before anything is written.
// Online softmax: Milakov and Gimelshein 2018; tiling: Dao et al. 2022 (FlashAttention).
void attention(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
               const AttentionOptions& options = {});

// weights[B,Hq,Tq,Tk] (F32) = exp(score - lse), recomputed from q, k and the lse that attention() gave for the same
// options. Each row is divided by its own sum with the sink's mass, which takes out the rounding of lse; so an lse that is
// not the row's own, whatever it holds, gives the weights over these keys all the same. Forbidden rows are 0. Costs one
// product more; options.lse is not used. Packed and paged calls are not taken: they have no one Tq and Tk.
void attention_weights(ConstTensorView q, ConstTensorView k, ConstTensorView lse, TensorView weights,
                       const AttentionOptions& options = {});

// Attention over the union of two sets of keys from attention over each, say a shared prefix and the rest:
//   out = (exp(lse_a) out_a + exp(lse_b) out_b) / (exp(lse_a) + exp(lse_b)), lse the log of the denominator.
// out_a, out_b, out [...,Dv] of any float types and one shape; lse_a, lse_b, lse [...] F32 (lse may be undefined). out and
// lse may be those of a. A row without keys on one side takes the other's; without any it is 0 and -inf. Exact but for the
// rounding of its inputs and one of its own. Allocates nothing; thread-safe for disjoint outputs.
void merge_attention(ConstTensorView out_a, ConstTensorView lse_a, ConstTensorView out_b, ConstTensorView lse_b,
                     TensorView out, TensorView lse = {});

// The definition: float64, plain loops, no blocks. What attention() is tested against. `weights` may be undefined.
void attention_reference(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                         const AttentionOptions& options = {}, TensorView weights = {});

// Bytes that a call with these arguments wants from options.workspace.
std::size_t attention_workspace_size(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                                     const AttentionOptions& options = {});

// What attention() would do for a call.
struct Explanation {
  std::string isa;                  // instruction set, as in cpu.hpp
  std::string path;                 // "fused forward, fp32" ...
  int threads = 0;                  // threads asked of the executor or the pool
  std::int64_t tile_queries = 0;    // queries that share one pass over the keys
  std::int64_t run_keys = 0;        // keys summed in one run, and
  std::int64_t chunk_keys = 0;      // in one chunk: fixed, so that the bits are
  std::int64_t tasks = 0;           // pieces of work that threads take: query tiles over all heads, or groups of
  std::int64_t tiles_together = 1;  // so many, which take the keys part by part together, each part of
  std::int64_t part_keys = 0;       // so many keys, where all of them are too many for the second cache; times
  std::int64_t key_blocks = 1;      // parts that the keys of each tile are cut into, where tiles are few
  std::int64_t blocks = 0;          // key blocks (runs) over all tiles, and
  std::int64_t skipped_blocks = 0;  // those that the mask rules out, never read
  double flop = 0;                  // 2 (D + Dv) for each query and key of the blocks that are read
  double bytes = 0;                 // inputs read and outputs written, once
  std::size_t workspace_bytes = 0;
  std::string to_string() const;
};
Explanation explain(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                    const AttentionOptions& options = {});

}  // namespace manyheads
