#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/mask.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <vector>

#include "kernels/params.hpp"

namespace manyheads::layer {

// The sizes of the scores [batch, heads, queries, keys], and the keys that the layer adds behind them.
struct ScoreShape {
  std::int64_t batch = 0, heads = 0, queries = 0, keys = 0, added_keys = 0;
};

// The masks of a layer's call as one mask of attention. PyTorch's key_padding_mask and attn_mask (true = ignore, floats
// add) and options.mask hold together. Every query attends to the added keys. A mask that can be read where it lies is
// not copied.
//
// Float masks add up in F32. A row whose sums leave its range (two of the lowest float, say) is shifted, which softmax
// does not see: its largest visible sum m becomes -|m| 2^-29, where F32 is as fine as float64 is at m. So keys differ,
// and scores vanish beside the masks, as in float64.
class MergedMask {
 public:
  // Checks types, shapes and values. Throws Error. Keeps the views of `options`.
  MergedMask(const MultiHeadAttentionOptions& options, const ScoreShape& shape);

  // The queries of one mask() and fill(). All of them, unless positions are written out: then so few that the buffers
  // stay small, whatever the number of queries.
  std::int64_t queries_at_once() const;

  // What fill writes for so many queries: a byte an element of `allowed`, a float an element of `bias`.
  std::int64_t allowed_elements() const;
  std::int64_t bias_elements() const;

  // The mask of queries [first, first + count). It reads the two buffers, which must outlive it; fill writes them.
  Mask mask(const bool* allowed, const float* bias, std::int64_t count) const;
  void fill(bool* allowed, float* bias, std::int64_t first, std::int64_t count, const Threads& threads) const;

 private:
  struct BoolPart {
    ConstTensorView view;  // [B|1, H|1, T|1, keys|1]
    bool true_is_ignore;
  };

  void take(ConstTensorView mask, const char* name, const Dims& four);
  bool leaves_range() const;
  // The storage place of the key on the diagonal of query 0.
  std::int64_t diagonal_of(std::int64_t b) const { return params_.key_start(b) + params_.diagonal(b); }
  void keep_within(std::int64_t b, std::int64_t i, bool* allowed) const;
  void keep_allowed(std::int64_t b, std::int64_t h, std::int64_t i, bool* allowed) const;
  void shift_row(std::int64_t b, std::int64_t h, std::int64_t i, float* bias) const;
  double added(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const;

  ScoreShape shape_;
  Mask positions_;           // the parts that count positions: causal, window, lengths, documents, ALiBi
  kernels::QkvMask params_;  // the same, checked
  bool expanded_;            // positions are written out: attention would apply them to the added keys too
  std::vector<BoolPart> bools_;
  std::vector<ConstTensorView> floats_;
  Dims allowed_shape_{1, 1, 1, 1};
  Dims bias_shape_{1, 1, 1, 1};
  bool allowed_copied_ = false;
  bool bias_copied_ = false;
};

}  // namespace manyheads::layer
