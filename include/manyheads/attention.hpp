#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <manyheads/mask.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <manyheads/export.hpp>

namespace manyheads {

// What attention over a part of the keys leaves for the rest: the row states before the division.
//
//   out = output / sum,  lse = max * log 2 + log sum,  max a whole number
//
// - States of parts, computed on any machines, combine to the bits of one call over all keys (merge_attention). A
//   rounded lse cannot give those.
// - A part begins at a multiple of 512 keys. Every part but the last has whole 512s.
// - Each row has one state for each of S branches of the fixed tree that combines sums.
struct MANYHEADS_API RowStates {
  std::int64_t keys_before = 0;  // keys of the sequence before this part, a multiple of 512
  std::int64_t keys = 0;         // keys of this part: Tk
  Tensor max, sum;               // [S,B,Hq,Tq] F32
  Tensor output;                 // [S,B,Hq,Tq,Dv] F32

  RowStates() = default;
  // S = branches(keys_before, keys). Throws Error (kOutOfMemory).
  RowStates(std::int64_t keys_before, std::int64_t keys, std::int64_t batch, std::int64_t q_heads, std::int64_t tq,
            std::int64_t dv);
  // The branches of a part: at most 2 log2(keys / 512) + 1. Throws Error where keys_before is no multiple of 512.
  static std::int64_t branches(std::int64_t keys_before, std::int64_t keys);
};

// Dropout of the weights, behind the softmax: a weight becomes 0 with probability p, else weight / (1 - p). lse is that
// of all of them.
//
//   word = Philox4x32-10(key = seed, counter = (first_query + i, j / 4, first_head + h, first_entry + b))[j mod 4],
//   dropped: word / 2^32 < p
//
// - i is the query, j the key counted from the entry's first (after mask.key_starts; for a part with row_states from
//   that of the whole), h the query head, b the entry. p counts in steps of 2^-24, rounded up, and so do the words.
// - Forward, backward and attention_weights() with one seed drop the same weights, at any instruction set, for any
//   threads and strides. Another step or layer wants another seed.
// - p = 0 costs nothing. p = 1 gives 0. A dropped weight still multiplies its value: 0 times infinity is NaN.
// Sources: Srivastava et al. 2014; Salmon et al. 2011 (Philox).
struct Dropout {
  double p = 0;            // 0 to 1
  std::uint64_t seed = 0;  // its lower half is the key's first word
  // Where a call is a part of a larger one: its first query, query head and entry there.
  std::int64_t first_query = 0, first_head = 0, first_entry = 0;
};

struct AttentionOptions {
  Mask mask{};
  std::optional<double> scale{};    // default 1/sqrt(D); any finite value
  double softcap = 0;               // > 0: scores become softcap * tanh(score / softcap), before bias and mask
  ConstTensorView sinks{};          // [Hq] F32: a logit for each head that adds mass to the softmax and no value
  Dropout dropout{};                // not with paged or I8 keys
  TensorView lse{};                 // [B,Hq,Tq] F32, out: natural log of the sum of exp of each row's scores
  RowStates* row_states = nullptr;  // out: of this call, a part of a longer one; not with cu_seqlens
  Threads threads{};
  Workspace* workspace = nullptr;  // see attention_workspace_size
  // Packed sequences, paged and I8 keys: see attention().
  ConstTensorView cu_seqlens_q{};
  ConstTensorView cu_seqlens_k{};
  ConstTensorView page_table{};
  ConstTensorView k_scales{};
  ConstTensorView v_scales{};
  bool int8_products = false;
  // The family of bits that the call must have (active_bits()), empty: the fastest's. An error where it cannot be had.
  std::string_view bits{};
};

// Fused attention for each head; it never takes Tq x Tk memory.
//
//   out = softmax(scale * q k^T + bias) v
//
// Shapes: q [B,Hq,Tq,D], k [B,Hkv,Tk,D], v [B,Hkv,Tk,Dv], out [B,Hq,Tq,Dv].
// - Types: q, k and v share one of F32, BF16 and F16; out has any of these.
// - Heads: Hq is a multiple of Hkv; query head h reads key/value head h / (Hq / Hkv).
// - Strides: any; unit stride in the last axis is fast. out and lse overlap no input and not each other.
// - Rounding: sums are F32 and rounded once. Probabilities below 2^-96 of the largest count as 0.
//
// Packed sequences: cu_seqlens_q, cu_seqlens_k [B+1] I32 or I64, ascending from 0 to the number of rows.
// - Entry b is rows cu_seqlens[b] to cu_seqlens[b+1] of q [Tq,Hq,D], out [Tq,Hq,Dv], lse [Hq,Tq] and of k [Tk,Hkv,D], v
//   [Tk,Hkv,Dv].
// - Queries or keys may be packed alone.
// - Bool masks, biases and documents are errors then: they need one Tq and Tk.
//
// Paged keys and values: page_table [B,N] I32 or I64, k [pages,Hkv,size,D], v [pages,Hkv,size,Dv].
// - Key j of entry b is row j % size of page page_table[b, j / size]; size is a multiple of 16.
// - mask.key_lengths gives the keys of each entry, else N * size. The table is read only that far.
//
// I8 keys and values: k_scales, v_scales are F32, of the shape of k and v less the last axis; key * scale takes part.
// - int8_products multiplies integers instead, for I8 alone and D up to 131072: faster and coarser.
// - Each query is then rounded to 127 steps of its largest element.
// - Each probability times its value's scale is rounded to 255 steps of the largest in its run of 64 keys.
//
// Special rows:
// - Every key forbidden: out 0, lse -inf (the sink's logit where there is a sink).
// - Scores or sums beyond F32's range on the way (biases of the largest float, scores of 1e40, values that add up to
//   more than 3.4e38), NaN or infinity in the inputs: the row is computed again in float64. That is tens of times
//   slower, for this row alone, and allocates O(Tk + D + Dv). Its lse stays within F32's finite range.
// - An infinite score is a number and no mask: a row of nothing but -inf scores is NaN.
//
// Bits: those of a row depend on its query, keys, values and mask and on the family of bits (cpu.hpp), and not on
// threads, batch, strides or alignment. BF16 with bits = "f32-fma-1" is multiplied as F32, where sameness between
// machines matters more than speed.
//
// Allocates a workspace unless given one, per thread:
// - O(D * log(Tk)), up to eight times that where a head's keys and values come to more than 2 MB;
// - where many queries read keys and values that are not dense F32, packed K and V of one head, at most 8 MB.
//
// Thread-safe for disjoint outputs and workspaces. Throws Error with the argument and the shapes before anything is
// written.
// Sources: online softmax, Milakov and Gimelshein 2018; tiling, Dao et al. 2022 (FlashAttention).
MANYHEADS_API void attention(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                             const AttentionOptions& options = {});

// Attention probabilities of each head, [B,Hq,Tq,Tk] F32.
//
//   weights = exp(score - lse)
//
// - Scores are recomputed from q, k and the lse that attention() gave for the same options: one more product.
//   options.lse is not used.
// - Each row is divided by its own sum, the sink's mass included. That takes out the rounding of lse: any lse, even one
//   of another row, gives the probabilities over these keys.
// - A row whose keys are all forbidden is 0.
// - With dropout they are those left, over 1 - p: a row no longer sums to 1.
// - Packed and paged calls are errors: they have no one Tq and Tk.
MANYHEADS_API void attention_weights(ConstTensorView q, ConstTensorView k, ConstTensorView lse, TensorView weights,
                                     const AttentionOptions& options = {});

// Combines attention over two sets of keys, say a shared prefix and the rest.
//
//   out = (exp(lse_a) out_a + exp(lse_b) out_b) / (exp(lse_a) + exp(lse_b)),  lse = the log of the denominator
//
// - out_a, out_b, out [...,Dv] of any float types and one shape; lse_a, lse_b, lse [...] F32. lse may be undefined.
// - out and lse may be those of a.
// - A row with keys in one set alone takes that set's; without any it is 0 and -inf.
// - Exact but for the rounding of the inputs and one rounding of its own.
// Allocates nothing. Thread-safe for disjoint outputs.
MANYHEADS_API void merge_attention(ConstTensorView out_a, ConstTensorView lse_a, ConstTensorView out_b,
                                   ConstTensorView lse_b, TensorView out, TensorView lse = {},
                                   const Threads& threads = {});

// Combines the row states of any number of parts, ascending and without a gap.
//
// - out [B,Hq,Tq,Dv] of any float type; lse [B,Hq,Tq] F32 and sinks [Hq] F32, each may be undefined.
// - The bits are those of one call over all keys at the instruction set in use, as long as no score or sum leaves F32's
//   range. Rows beyond it come out as their states say.
// - Row states hold no sinks: give them here.
MANYHEADS_API void merge_attention(std::span<const RowStates> parts, TensorView out, TensorView lse = {},
                                   ConstTensorView sinks = {}, const Threads& threads = {});

// The definition that attention() is tested against: float64, plain loops, no blocks. `weights` may be undefined.
MANYHEADS_API void attention_reference(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                                       const AttentionOptions& options = {}, TensorView weights = {});

// Bytes that a call with these arguments takes from options.workspace.
MANYHEADS_API std::size_t attention_workspace_size(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                                                   TensorView out, const AttentionOptions& options = {});

// What attention() would do for a call.
struct MANYHEADS_API Explanation {
  std::string isa;                         // instruction set, as in cpu.hpp
  std::string bits;                        // the family of bits, as in cpu.hpp
  std::string path;                        // "fused forward, F32" ...
  int threads = 0;                         // threads asked of the executor or the pool
  std::int64_t query_block_rows = 0;       // most queries that pass over the keys together
  std::int64_t run_keys = 0;               // keys summed in one run; fixed, as the bits follow from it
  std::int64_t chunk_keys = 0;             // keys summed in one chunk; fixed likewise
  std::int64_t tasks = 0;                  // pieces of work for the threads
  std::int64_t query_blocks_together = 1;  // query blocks of one task that share each part of the keys
  std::int64_t keys_together = 0;          // keys of such a part where L2 cannot hold all of them; else 0
  std::int64_t kv_splits = 1;              // splits of a query block's keys, where blocks are few
  std::int64_t runs = 0;                   // runs of keys over all query blocks
  std::int64_t skipped_runs = 0;           // runs that the mask rules out and nobody reads
  double flop = 0;                         // 2 (D + Dv) for each query and key of the runs that are read
  double bytes = 0;                        // inputs read and outputs written, once
  std::size_t workspace_bytes = 0;
  std::string tuning;  // figures of this machine, as MANYHEADS_TUNING takes them: "l1_bytes=49152,l2_bytes=..."
  std::string to_string() const;
};
MANYHEADS_API Explanation explain(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                                  const AttentionOptions& options = {});

}  // namespace manyheads
