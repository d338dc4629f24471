#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <manyheads/half.hpp>
#include <manyheads/tensor.hpp>

// The only seam between meaning and machine. Above it nothing knows a register; below it nothing knows a model, a file
// or an error message: plain pointers, strides in elements and sizes, all checked before.
namespace manyheads::kernels {

// Keys are summed in chains, the chains in runs and the runs in chunks, all counted from key 0: fixed, since the bits
// follow from them. Equal terms round alike at each step; chains of 16, 4 in a run and 8 runs in a chunk keep the
// relative error of any such sum below 6.8 * 2^-24, chains of 64 would let it reach 17.5.
constexpr std::int64_t kChainKeys = 16;
constexpr std::int64_t kRunKeys = 64;
constexpr std::int64_t kChunkKeys = 512;
// The running maximum moves when a run exceeds it by more than this many powers of two.
constexpr float kMaxSlack = 40.0f;

// 32- or 64-bit integers of the caller's.
struct IntegerView {
  const void* data = nullptr;
  bool wide = false;
  std::int64_t stride[2] = {0, 0};
  std::int64_t at(std::int64_t i, std::int64_t j) const noexcept {
    const std::int64_t at = i * stride[0] + j * stride[1];
    return wide ? static_cast<const std::int64_t*>(data)[at] : static_cast<const std::int32_t*>(data)[at];
  }
};

// One call of attention. Strides are of batch, head, row, element.
struct AttentionCall {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  void* out = nullptr;
  float* lse = nullptr;      // may be null; read by the weights kernel
  float* weights = nullptr;  // for the weights kernel, as is
  float* row_lse = nullptr;  // [B,Hq,Tq]: the lse that it finds; may be null
  DType type = DType::kF32;     // of q
  DType kv_type = DType::kF32;  // of k and v: q's, or I8 with a scale for each key and head
  DType out_type = DType::kF32;
  std::int64_t batch = 0, q_heads = 0, kv_heads = 0, tq = 0, tk = 0, d = 0, dv = 0;
  std::int64_t q_stride[4] = {}, k_stride[4] = {}, v_stride[4] = {}, out_stride[4] = {}, weights_stride[4] = {};
  std::int64_t lse_stride[3] = {};
  // Where a worker has joined values to words of BF16: [keys / 2][Dv], those of each two keys. v is not read then.
  const float* value_words = nullptr;
  const AttentionCall* source = nullptr;  // of a call on a copy of a head: the caller's own
  const float* k_scales = nullptr;  // for I8
  const float* v_scales = nullptr;
  bool int8_products = false;                                     // with I8: queries and weights become bytes too
  std::int64_t k_scales_stride[3] = {}, v_scales_stride[3] = {};  // batch, head, key

  // Packed sequences: entry b is [starts[b], starts[b + 1]) of its tensors' row axis. tq and tk are the longest entry's.
  IntegerView q_starts, k_starts;  // [B+1]
  // Paged keys and values: key j of entry b is row j % page_size of page pages[b, j / page_size], which takes the place
  // of the batch axis.
  IntegerView pages;
  std::int64_t page_size = 0;

  double scale = 1;
  double softcap = 0;

  bool causal = false;
  std::int64_t window_left = -1, window_right = -1;
  std::int64_t offset = 0;               // of the diagonal, where `offsets` is null
  IntegerView offsets;                   // [B]
  bool offset_from_length = false;       // the diagonal's offset is the entry's key length - Tq
  IntegerView key_lengths;               // [B]
  IntegerView q_documents, k_documents;  // [B,T]
  // The lowest and the highest document of each run of keys, [B][runs][2]; where null, ids are read each time.
  const std::int64_t* run_documents = nullptr;
  const std::uint8_t* allowed = nullptr;
  std::int64_t allowed_stride[4] = {};
  const void* bias = nullptr;
  DType bias_type = DType::kF32;
  std::int64_t bias_stride[4] = {};
  const float* alibi = nullptr;
  std::int64_t alibi_stride = 0;
  const float* sinks = nullptr;
  std::int64_t sinks_stride = 0;

  // Whether pairs of BF16 may be multiplied: every I8 is a BF16 too.
  bool pairs() const noexcept {
    return type == DType::kBF16 && !int8_products && (kv_type == DType::kBF16 || kv_type == DType::kI8);
  }

  // Where query i of entry b and head h begins, and its output and lse.
  std::int64_t q_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(q_stride, q_starts, b, h, i);
  }
  std::int64_t out_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(out_stride, q_starts, b, h, i);
  }
  std::int64_t lse_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(lse_stride, q_starts, b, h, i);
  }
  // Where key j of entry b and key/value head h begins, and its value and scales.
  std::int64_t k_at(std::int64_t b, std::int64_t h, std::int64_t j) const noexcept { return key_at(k_stride, b, h, j); }
  std::int64_t v_at(std::int64_t b, std::int64_t h, std::int64_t j) const noexcept { return key_at(v_stride, b, h, j); }
  std::int64_t key_at(const std::int64_t* stride, std::int64_t b, std::int64_t h, std::int64_t j) const noexcept {
    if (page_size == 0) return row_at(stride, k_starts, b, h, j);
    return pages.at(b, j / page_size) * stride[0] + h * stride[1] + j % page_size * stride[2];
  }
  // Those of keys [begin, end), to to[0] and on. A chain lies in one page, since pages hold whole chains.
  void copy_k_scales(std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t end, float* to) const noexcept {
    copy_scales(k_scales, k_scales_stride, b, h, begin, end, to);
  }
  void copy_v_scales(std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t end, float* to) const noexcept {
    copy_scales(v_scales, v_scales_stride, b, h, begin, end, to);
  }
  std::int64_t bias_at(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const noexcept {
    return b * bias_stride[0] + h * bias_stride[1] + i * bias_stride[2] + j * bias_stride[3];
  }
  std::int64_t allowed_at(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const noexcept {
    return b * allowed_stride[0] + h * allowed_stride[1] + i * allowed_stride[2] + j * allowed_stride[3];
  }
  // How many of keys [begin, end) lie one row stride apart, from the first on: those of its page.
  std::int64_t adjacent(std::int64_t begin, std::int64_t end) const noexcept {
    return page_size == 0 ? end - begin : std::min(end - begin, page_size - begin % page_size);
  }
  bool all_adjacent(std::int64_t begin, std::int64_t end) const noexcept {
    return adjacent(begin, end) == end - begin;
  }
  std::int64_t queries(std::int64_t b) const noexcept {
    return q_starts.data != nullptr ? q_starts.at(b + 1, 0) - q_starts.at(b, 0) : tq;
  }
  std::int64_t key_length(std::int64_t b) const noexcept {
    if (k_starts.data != nullptr) return k_starts.at(b + 1, 0) - k_starts.at(b, 0);
    return key_lengths.data != nullptr ? key_lengths.at(b, 0) : tk;
  }
  std::int64_t diagonal(std::int64_t b) const noexcept {
    if (offsets.data != nullptr) return offsets.at(b, 0);
    return offset_from_length ? key_length(b) - queries(b) : offset;
  }

 private:
  static std::int64_t row_at(const std::int64_t* stride, const IntegerView& starts, std::int64_t b, std::int64_t h,
                             std::int64_t i) noexcept {
    const std::int64_t entry = starts.data != nullptr ? starts.at(b, 0) * stride[2] : b * stride[0];
    return entry + h * stride[1] + i * stride[2];
  }
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

// Queries that pass over the keys together: rows of one batch entry and one key/value head. Row r is query r % n
// of the group's head r / n, with n queries in the entry.
struct Tile {
  std::int64_t batch = 0;
  std::int64_t kv_head = 0;
  std::int64_t row = 0;
  std::int64_t rows = 0;
};

// Part of a tile's keys, in whole runs. A block of 2^n chunks that begins at a multiple of 2^n of them is a whole
// branch of the merge tree. Parts in ascending order may also follow each other as one: the tile's scratch then holds
// what is between them, from the first, which begins it, to the last, which ends it.
struct KeyPart {
  std::int64_t begin = 0;
  std::int64_t end = -1;  // -1: all there are
  bool first = true, last = true;
};

enum class Epilogue { kNone, kRelu, kGelu, kGeluTanh };

// y = epilogue(x W^T + bias) for the rows and the panels given; W packed as [N / panel][K][panel], of BF16 with each two
// neighbours along K as one word, the first in its low half: [N / panel][(K + 1) / 2][panel][2], 0 behind the last.
struct LinearCall {
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  const float* packed = nullptr;
  DType type = DType::kF32;  // of packed: F32 or BF16
  const float* bias = nullptr;  // [N rounded up to panel]
  float* y = nullptr;
  std::int64_t y_stride = 0;
  // Where not null, the finished rows go here, rounded, and y holds sums under way: without an epilogue, with BF16
  // weights and KernelTable::bf16_rows.
  bfloat16* rounded = nullptr;
  std::int64_t rounded_stride = 0;
  std::int64_t in = 0, out = 0;
  Epilogue epilogue = Epilogue::kNone;
};

// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta over each row of x + residual (residual may be null, y may be
// x).
struct LayerNormCall {
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

// What one instruction set offers.
struct KernelTable {
  const char* name;
  std::int64_t target;        // Highway's bit for it
  std::int64_t panel;         // columns of a packed panel
  std::int64_t linear_rows;   // rows of its largest register tile
  bool bf16_products;         // attention multiplies pairs of BF16 where the call has them, without making them F32
  bool bf16_rows;             // projections with BF16 weights round their rows to BF16 and multiply pairs
  std::int64_t linear_floats;  // of scratch that such a projection takes for one worker

  std::int64_t (*tile_queries)(const AttentionCall&);                // rows of the largest tile
  std::size_t (*scratch_floats)(const AttentionCall&, const Tile&);  // for one worker
  // A tile's rows over a part of its keys: to the caller's output, or to `node` (node_floats) where it is not null; the
  // nodes of the blocks of a tile follow each other, and merge stores what they come to.
  // What `next`, the tile that the worker will likely take then, reads is fetched meanwhile; no rows: it is not known.
  void (*forward)(const AttentionCall&, const Tile&, const KeyPart&, const Tile& next, float* node, float* scratch);
  std::size_t (*node_floats)(const AttentionCall&, const Tile&);
  void (*merge)(const AttentionCall&, const Tile&, float* nodes, std::int64_t count);
  void (*weights)(const AttentionCall&, const Tile&, float* scratch);
  // Keys and values [0, keys) of a tile's head to `to` (head_floats), dense, as they are multiplied; and the call that
  // reads them there: for tiles of that head alone.
  std::size_t (*head_floats)(const AttentionCall&);
  void (*gather)(const AttentionCall&, const Tile&, std::int64_t keys, float* to);
  AttentionCall (*gathered)(const AttentionCall&, const float* from);
  // `scratch`: linear_floats of the worker's own, with bf16_rows and BF16 weights; else it is not looked at.
  void (*linear)(const LinearCall&, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
                 std::int64_t panel_end, float* scratch);
  void (*layer_norm)(const LayerNormCall&, std::int64_t row_begin, std::int64_t row_end);
  // Work that only the FMA units limit: returns the FLOP done; the value keeps the compiler from dropping it.
  double (*fma_work)(std::int64_t rounds, float* value);
  // Reads the floats once and returns their sum; each vector is multiplied and added so many times, a multiple of 8.
  // What lies from `ahead` on is fetched meanwhile, as many floats; null: nothing.
  float (*read_work)(const float* data, std::int64_t count, int multiplies, const float* ahead);
};

}  // namespace manyheads::kernels
