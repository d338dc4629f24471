#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/mask.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <vector>

namespace manyheads::layer {

// The sizes of the scores: [batch, heads, queries, keys], and the keys that the layer adds behind these.
struct ScoreShape {
  std::int64_t batch = 0, heads = 0, queries = 0, keys = 0, added_keys = 0;
};

// The masks of a layer's call as the one mask of attention: PyTorch's key_padding_mask and attn_mask (true = ignore,
// floats add) and options.mask hold together. No mask speaks of the added keys: every query attends to them.
// A mask that can be read as it lies is not copied.
class MergedMask {
 public:
  // Checks types and shapes of what it merges; attention checks the parts of positions(). Throws Error. Keeps the views
  // of `options`.
  MergedMask(const MultiHeadAttentionOptions& options, const ScoreShape& shape);

  // The parts of options.mask that speak of places: causal, window, lengths, documents, ALiBi.
  const Mask& positions() const noexcept { return positions_; }

  // What fill writes: one byte for each element of `allowed`, one float for each of `bias`.
  std::int64_t allowed_elements() const noexcept { return allowed_copied_ ? element_count(allowed_shape_) : 0; }
  std::int64_t bias_elements() const noexcept { return bias_copied_ ? element_count(bias_shape_) : 0; }

  // The mask. It reads the two buffers, which must outlive it; fill writes them.
  Mask mask(const bool* allowed, const float* bias) const;
  void fill(bool* allowed, float* bias, int num_threads, Executor* executor) const;

 private:
  struct BoolPart {
    ConstTensorView view;  // [B|1, H|1, T|1, keys|1]
    bool true_is_ignore;
  };

  void take(ConstTensorView mask, const char* name, const Dims& four);
  bool within(std::int64_t b, std::int64_t i, std::int64_t j) const;
  std::int64_t diagonal(std::int64_t b) const;

  ScoreShape shape_;
  Mask positions_;
  bool expanded_;  // positions are written out: attention would apply them to the added keys too
  std::vector<BoolPart> bools_;
  std::vector<ConstTensorView> floats_;
  Dims allowed_shape_{1, 1, 1, 1};
  Dims bias_shape_{1, 1, 1, 1};
  bool allowed_copied_ = false;
  bool bias_copied_ = false;
};

}  // namespace manyheads::layer
