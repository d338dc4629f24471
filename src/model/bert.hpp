#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <memory>
#include <vector>

#include "model/bert_config.hpp"

namespace manyheads::model {

// A batch of token ids: [B,T], row-major, rows padded to T with anything.
struct BertInput {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;
  std::vector<std::int64_t> ids{};       // [B,T]
  std::vector<std::int64_t> type_ids{};  // [B,T]: the segment of each token; empty: all 0
  std::vector<std::int64_t> lengths{};   // [B]: the tokens of each row that count; empty: all T

  // Pads the rows with id 0 to the longest. `type_ids` may be empty.
  static BertInput from_rows(const std::vector<std::vector<std::int64_t>>& ids,
                             const std::vector<std::vector<std::int64_t>>& type_ids = {});
};

// What one layer's heads saw. The projection writes here and attention reads here: nothing is copied. Padding is left
// out: the N tokens that count lie one after another, those of batch entry b at row_starts[b] to row_starts[b + 1].
struct BertLayerTap {
  Tensor qkv;  // [N,3 * hidden_size] F32: a token's queries, keys and values, each with the heads side by side
  Tensor lse;  // [H,N] F32
  std::vector<std::int64_t> row_starts;
  std::int64_t num_heads = 0;

  // Strided views [H,T,D] of one batch entry, and [H,T] of its lse, T being its length.
  ConstTensorView q(std::int64_t batch = 0) const { return part(0, batch); }
  ConstTensorView k(std::int64_t batch = 0) const { return part(1, batch); }
  ConstTensorView v(std::int64_t batch = 0) const { return part(2, batch); }
  ConstTensorView row_lse(std::int64_t batch = 0) const;

 private:
  ConstTensorView part(int which, std::int64_t batch) const;
};

struct BertTaps {
  std::vector<BertLayerTap> layers;
};

struct BertOptions {
  ConstTensorView head_scale{};  // [layers,heads] F32: each head's output is multiplied by it; 0 switches a head off
  BertTaps* taps = nullptr;      // out: q, k, v and lse of every head
  std::vector<Tensor>* hidden_states = nullptr;  // out: [B,T,E] after the embeddings and after each layer
  int num_threads = 0;
  Executor* executor = nullptr;
  Workspace* workspace = nullptr;  // with one, a run allocates its results only once it has grown; not for two at once
};

// A BERT encoder (Devlin et al. 2018) from a folder as the hub lays it out: config.json and model.safetensors.
// run is const and thread-safe for disjoint workspaces. The bits of a row depend on its own tokens only, not on the
// batch, the padding or the threads.
class BertEncoder {
 public:
  // Names with or without the prefix `bert.`; tensors that an encoder does not need are passed over. Throws Error
  // naming the tensor that is missing or has another shape than config.json says. `weights` is what the projections'
  // weights are kept as, of whatever type they are in the file: F32, or BF16, which takes half the memory and reading
  // (layer::Linear says how they multiply; where it rounds rows, queries, keys and values are rounded too).
  static BertEncoder load(const std::filesystem::path& folder, DType weights = DType::kF32);
  BertEncoder(const BertConfig& config, const StateDict& tensors, DType weights = DType::kF32);
  ~BertEncoder();
  BertEncoder(BertEncoder&&) noexcept;
  BertEncoder& operator=(BertEncoder&&) noexcept;

  const BertConfig& config() const noexcept;

  // The last hidden states [B,T,E] F32; rows at or past a length are 0.
  Tensor run(const BertInput& input, const BertOptions& options = {}) const;

 private:
  struct Impl;
  explicit BertEncoder(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace manyheads::model
