#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <manyheads/half.hpp>
#include <manyheads/tensor.hpp>

#include "kernels/canonical_order.hpp"
#include "kernels/dropout.hpp"

// What crosses the seam between meaning and machine: plain pointers, strides in elements, and sizes, all checked
// before.
namespace manyheads::kernels {

// What a call multiplies: F32 (and what is read as F32), BF16, or integers (int8_products).
enum class Products { kF32, kBF16, kInt8 };

// The caller's integers, of 32 or 64 bits.
struct IntegerView {
  const void* data = nullptr;
  bool wide = false;
  std::int64_t stride[2] = {0, 0};
  bool defined() const noexcept { return data != nullptr; }
  std::int64_t at(std::int64_t i, std::int64_t j) const noexcept {
    const std::int64_t at = i * stride[0] + j * stride[1];
    return wide ? static_cast<const std::int64_t*>(data)[at] : static_cast<const std::int32_t*>(data)[at];
  }
};

// Queries, keys, values and mask, for every direction. Strides are of batch, head, row, element.
struct QkvMask {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  DType type = DType::kF32;     // of q
  DType kv_type = DType::kF32;  // of k and v: q's, or I8 with one scale for each key and head
  std::int64_t batch = 0, q_heads = 0, kv_heads = 0, tq = 0, tk = 0, d = 0, dv = 0;
  std::int64_t q_stride[4] = {}, k_stride[4] = {}, v_stride[4] = {};
  std::int64_t first_chunk = 0;  // chunks of the sequence before key 0: where this part stands in the tree
  // Packed V of BF16 pairs: [keys / 2][Dv], a word for the values of each two keys; for AMX in tiles (PackKv). v is then
  // not read.
  const float* packed_v = nullptr;
  const float* k_scales = nullptr;  // for I8
  const float* v_scales = nullptr;
  std::int64_t k_scales_stride[3] = {}, v_scales_stride[3] = {};  // batch, head, key
  bool int8_products = false;                                     // with I8: queries and probabilities become bytes too

  // Packed sequences: entry b is [starts[b], starts[b + 1]) of its tensors' row axis. tq and tk are those of the
  // longest entry.
  IntegerView q_starts, k_starts;  // [B+1]
  // Paged keys and values: key j of entry b is row j % page_size of page pages[b, j / page_size]. Pages take the place
  // of the batch axis.
  IntegerView pages;
  std::int64_t page_size = 0;

  double scale = 1;
  double softcap = 0;

  bool causal = false;
  std::int64_t window_left = -1, window_right = -1;
  std::int64_t offset = 0;          // of the diagonal where `offsets` is null
  IntegerView offsets;              // [B]
  bool offset_from_length = false;  // the diagonal's offset is the entry's key length less Tq
  // [B], both in storage places: keys [key_starts[b], key_lengths[b]) exist. Kernels count key j from the first of
  // them; bias, bool mask, documents and the diagonal keep storage places.
  IntegerView key_starts, key_lengths;
  IntegerView q_documents, k_documents;  // [B,T]
  // The lowest and the highest document of each run of keys, [B][runs][2]. Null: ids are read each time.
  const std::int64_t* run_documents = nullptr;
  // The bool mask: a query attends where its value is allowed_where.
  const std::uint8_t* allowed = nullptr;
  bool allowed_where = true;
  std::int64_t allowed_stride[4] = {};
  const void* bias = nullptr;
  DType bias_type = DType::kF32;
  std::int64_t bias_stride[4] = {};
  const float* alibi = nullptr;
  std::int64_t alibi_stride = 0;
  const float* sinks = nullptr;
  std::int64_t sinks_stride = 0;
  Dropout dropout;  // of the weights, behind the softmax

  // Query heads of one key/value head.
  std::int64_t group() const noexcept { return q_heads / kv_heads; }
  bool documents() const noexcept { return q_documents.defined(); }
  // Whether the products may take BF16 pairs. Every I8 is a BF16 too.
  bool bf16_pairs() const noexcept {
    return type == DType::kBF16 && !int8_products && (kv_type == DType::kBF16 || kv_type == DType::kI8);
  }
  Products products() const noexcept {
    return int8_products ? Products::kInt8 : bf16_pairs() ? Products::kBF16 : Products::kF32;
  }

  // The offset of query i of entry b and head h.
  std::int64_t q_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(q_stride, q_starts, b, h, i);
  }
  std::int64_t key_start(std::int64_t b) const noexcept { return key_starts.defined() ? key_starts.at(b, 0) : 0; }
  // The offsets of key j of entry b and key/value head h, of its value and of its scales.
  std::int64_t k_at(std::int64_t b, std::int64_t h, std::int64_t j) const noexcept { return key_at(k_stride, b, h, j); }
  std::int64_t v_at(std::int64_t b, std::int64_t h, std::int64_t j) const noexcept { return key_at(v_stride, b, h, j); }
  std::int64_t key_at(const std::int64_t* stride, std::int64_t b, std::int64_t h, std::int64_t j) const noexcept {
    if (key_starts.defined()) j += key_starts.at(b, 0);
    if (page_size == 0) return row_at(stride, k_starts, b, h, j);
    return pages.at(b, j / page_size) * stride[0] + h * stride[1] + j % page_size * stride[2];
  }
  // Copies the scales of keys [begin, end). A chain lies in one page, since pages hold whole chains.
  void copy_k_scales(std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t end, float* to) const noexcept {
    copy_scales(k_scales, k_scales_stride, b, h, begin, end, to);
  }
  void copy_v_scales(std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t end, float* to) const noexcept {
    copy_scales(v_scales, v_scales_stride, b, h, begin, end, to);
  }
  std::int64_t bias_at(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const noexcept {
    return b * bias_stride[0] + h * bias_stride[1] + i * bias_stride[2] + (j + key_start(b)) * bias_stride[3];
  }
  std::int64_t allowed_at(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const noexcept {
    return b * allowed_stride[0] + h * allowed_stride[1] + i * allowed_stride[2] +
           (j + key_start(b)) * allowed_stride[3];
  }
  bool allows(std::uint8_t value) const noexcept { return (value != 0) == allowed_where; }
  std::int64_t key_document(std::int64_t b, std::int64_t j) const noexcept {
    return k_documents.at(b, j + key_start(b));
  }
  // How many of keys [begin, end) lie one row stride apart, from the first on: those of its page. With pages, key
  // starts are whole chains, so that a chain lies in one page.
  std::int64_t adjacent(std::int64_t b, std::int64_t begin, std::int64_t end) const noexcept {
    return page_size == 0 ? end - begin : std::min(end - begin, page_size - (key_start(b) + begin) % page_size);
  }
  bool all_adjacent(std::int64_t b, std::int64_t begin, std::int64_t end) const noexcept {
    return adjacent(b, begin, end) == end - begin;
  }
  std::int64_t queries(std::int64_t b) const noexcept {
    return q_starts.defined() ? q_starts.at(b + 1, 0) - q_starts.at(b, 0) : tq;
  }
  // The number of keys that exist.
  std::int64_t key_length(std::int64_t b) const noexcept { return key_end(b) - key_start(b); }
  // The storage place behind the last key.
  std::int64_t key_end(std::int64_t b) const noexcept {
    if (k_starts.defined()) return k_starts.at(b + 1, 0) - k_starts.at(b, 0);
    return key_lengths.defined() ? key_lengths.at(b, 0) : tk;
  }
  // The key on the diagonal of query 0.
  std::int64_t diagonal(std::int64_t b) const noexcept {
    const std::int64_t stored = offsets.defined()    ? offsets.at(b, 0)
                                : offset_from_length ? key_end(b) - queries(b)
                                                     : offset;
    return stored - key_start(b);
  }

 protected:
  static std::int64_t row_at(const std::int64_t* stride, const IntegerView& starts, std::int64_t b, std::int64_t h,
                             std::int64_t i) noexcept {
    const std::int64_t entry = starts.defined() ? starts.at(b, 0) * stride[2] : b * stride[0];
    return entry + h * stride[1] + i * stride[2];
  }

 private:
  void copy_scales(const float* scales, const std::int64_t* stride, std::int64_t b, std::int64_t h, std::int64_t begin,
                   std::int64_t end, float* to) const noexcept {
    for (std::int64_t j = begin; j < end;) {
      const std::int64_t stop = std::min(end, (j / kChainKeys + 1) * kChainKeys);
      const float* from = scales + key_at(stride, b, h, j);
      if (stride[2] == 1) {
        std::memcpy(to, from, static_cast<std::size_t>(stop - j) * sizeof(float));
        to += stop - j;
      } else {
        for (std::int64_t i = 0; i < stop - j; ++i) *to++ = from[i * stride[2]];
      }
      j = stop;
    }
  }
};

// A forward call: the fused path and its outputs.
struct ForwardParams : QkvMask {
  void* out = nullptr;
  DType out_type = DType::kF32;
  std::int64_t out_stride[4] = {};
  float* lse = nullptr;  // may be null
  std::int64_t lse_stride[3] = {};
  // Row states, dense: max and sum [S,B,Hq,Tq], output [S,B,Hq,Tq,Dv]. Null where nobody asks for them.
  float* row_max = nullptr;
  float* row_sum = nullptr;
  float* row_output = nullptr;
  const ForwardParams* unpacked = nullptr;  // the caller's own call, where this one reads packed K and V

  // The offsets of the output of query i of entry b and head h, and of its lse.
  std::int64_t out_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(out_stride, q_starts, b, h, i);
  }
  std::int64_t lse_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(lse_stride, q_starts, b, h, i);
  }
};

// Attention probabilities from the lse of a forward call.
struct ProbsParams : QkvMask {
  const float* lse = nullptr;  // [B,Hq,Tq]
  std::int64_t lse_stride[3] = {};
  float* probs = nullptr;  // [B,Hq,Tq,Tk]
  std::int64_t probs_stride[4] = {};
  float* row_lse = nullptr;  // [B,Hq,Tq], dense, out: each row's own lse; may be null

  std::int64_t lse_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return b * lse_stride[0] + h * lse_stride[1] + i * lse_stride[2];
  }
  float* row_of_probs(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return probs + b * probs_stride[0] + h * probs_stride[1] + i * probs_stride[2];
  }
  float* row_lse_of(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_lse == nullptr ? nullptr : row_lse + (b * q_heads + h) * tq + i;
  }
};

// Queries that pass over the keys together: rows of one batch entry and one key/value head. Row r is query r % n of the
// group's head r / n, with n queries in the entry.
struct QueryBlock {
  std::int64_t batch = 0;
  std::int64_t kv_head = 0;
  std::int64_t row = 0;
  std::int64_t rows = 0;
};

// Part of a query block's keys, in whole runs.
// - A split of 2^n chunks that begins at a multiple of 2^n chunks is a whole branch of the combine tree.
// - Ascending splits may also continue each other. The block's workspace then holds the state between them, from the
//   one with `first` to the one with `last`.
struct KvSplit {
  std::int64_t begin = 0;
  std::int64_t end = -1;  // -1: all keys
  bool first = true, last = true;
};

// The splits of a query block's keys. Each is a branch of the combine tree.
struct KvSplits {
  std::int64_t count = 1;
  std::int64_t chunks = 0;  // in each split, a power of two; 0: as `branches` says
  Branches branches;
  // The first chunk of split i, counted from the sequence's first.
  std::int64_t chunk(std::int64_t i) const noexcept { return chunks > 0 ? i * chunks : branches.begin(i); }
};

// Row states of parts of the keys, to be combined to one output. Rows are [B,Hq,Tq].
struct StatesParams {
  struct Branch {
    const float* max = nullptr;     // [rows]
    const float* sum = nullptr;     // [rows]
    const float* output = nullptr;  // [rows,Dv]
    std::int64_t chunk = 0;         // the branch's first
  };
  const Branch* branches = nullptr;
  std::int64_t count = 0;
  std::int64_t q_heads = 0, tq = 0, dv = 0;
  const float* sinks = nullptr;
  std::int64_t sinks_stride = 0;
  void* out = nullptr;
  DType out_type = DType::kF32;
  std::int64_t out_stride[4] = {};
  float* lse = nullptr;  // may be null
  std::int64_t lse_stride[3] = {};
};

// What a projection applies after the bias.
enum class Activation { kNone, kRelu, kGelu, kGeluTanh };

// y = activation(x W^T + bias) for the given rows and panels. W is packed:
// - F32: [N / panel][K][panel];
// - BF16: [N / panel][(K + 1) / 2][panel][2], a word for two neighbours along K, the first in its low half, 0 behind
//   the last.
struct LinearParams {
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  const float* packed = nullptr;
  DType type = DType::kF32;      // of packed: F32 or BF16
  const float* split = nullptr;  // the same in pieces, where SplitLinearKernels reads them
  const float* bias = nullptr;   // [N rounded up to panel]
  float* y = nullptr;
  std::int64_t y_stride = 0;
  // Not null: the finished rows go here, rounded, and y holds partial sums. Only without an activation, with BF16
  // weights and LinearKernels::rounds_rows_to_bf16.
  bfloat16* rounded = nullptr;
  std::int64_t rounded_stride = 0;
  std::int64_t in = 0, out = 0;
  Activation activation = Activation::kNone;
};

// The weights [N,K] of a projection, to be packed as LinearParams says.
struct PackWeightsParams {
  const void* weight = nullptr;
  DType type = DType::kF32;  // of weight
  std::int64_t stride[2] = {};
  std::int64_t out = 0, in = 0;
  DType kept = DType::kF32;  // F32, or BF16 rounded to nearest even
  float* packed = nullptr;
};

// A row of keys or values to store in a cache: from F32, BF16 or F16 to any of them or to I8.
struct CacheRowParams {
  const void* from = nullptr;
  DType type = DType::kF32;
  std::int64_t from_at = 0, from_stride = 1;
  std::int64_t width = 0;
  void* to = nullptr;  // dense
  DType to_type = DType::kF32;
  float* scale = nullptr;  // of I8, out: value = byte * scale
};

// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta over each row of x + residual. residual may be null, y may
// be x.
struct NormParams {
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  const float* residual = nullptr;
  std::int64_t residual_stride = 0;
  const float* gamma = nullptr;
  const float* beta = nullptr;
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t size = 0;
  float epsilon = 0;
};

// y = z / sqrt(mean(z^2) + epsilon) * gamma over each row z of x + residual (Zhang and Sennrich 2019). residual may be
// null; else `sum` receives z and may be x. y is neither x nor residual nor sum.
struct RmsNormParams {
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  const float* residual = nullptr;
  std::int64_t residual_stride = 0;
  float* sum = nullptr;
  std::int64_t sum_stride = 0;
  const float* gamma = nullptr;
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t size = 0;
  float epsilon = 0;
};

// Rotary embedding (Su et al. 2021) of each row's heads, D = head_dim even, the pairs i and i + D/2:
//   y[i] = x[i] cos[i] - x[i + D/2] sin[i]
//   y[i + D/2] = x[i + D/2] cos[i] + x[i] sin[i]      i < D/2
// for the first rotated_heads heads of a row; the other heads are copied. y is rounded once to its type; it may be x
// where it is F32.
struct RotaryParams {
  const float* x = nullptr;  // [rows, heads * D]
  std::int64_t x_stride = 0;
  const float* cos = nullptr;  // [rows, D/2]
  const float* sin = nullptr;
  void* y = nullptr;
  DType y_type = DType::kF32;  // F32, BF16 or F16
  std::int64_t y_stride = 0;   // elements
  std::int64_t heads = 0, rotated_heads = 0, head_dim = 0;
};

// y = silu(gate) * up over each row, silu(z) = z / (1 + exp(-z)) (Shazeer 2020). y may be gate or up.
struct SwiGluParams {
  const float* gate = nullptr;
  const float* up = nullptr;
  std::int64_t x_stride = 0;  // of gate and up
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t size = 0;
};

}  // namespace manyheads::kernels
