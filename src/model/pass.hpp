#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <manyheads/model/decoder.hpp>
#include <manyheads/model/encoder.hpp>
#include <manyheads/tensor.hpp>
#include <optional>
#include <span>
#include <vector>

#include "attention/forward.hpp"
#include "kernels/kernel_table.hpp"
#include "layer/linear.hpp"

// One forward pass of any architecture: its memory, its workers, its calls of attention.
namespace manyheads::model {

// The tokens of a pass: the rows of a batch, or the chunks that go on from a cache's sequences.
class PassTokens {
 public:
  explicit PassTokens(const TokenBatch& batch) : batch_(&batch) {}
  PassTokens(DecoderCache& cache, std::span<const DecoderChunk> chunks) : cache_(&cache), chunks_(chunks) {}

  std::int64_t entries() const { return batch_ != nullptr ? batch_->batch : static_cast<std::int64_t>(chunks_.size()); }
  std::int64_t length(std::int64_t b) const {
    return batch_ != nullptr ? batch_->length(b) : static_cast<std::int64_t>(chunk(b).ids.size());
  }
  std::int64_t id(std::int64_t b, std::int64_t t) const {
    return batch_ != nullptr ? batch_->ids[place(b, t)] : chunk(b).ids[static_cast<std::size_t>(t)];
  }
  std::int64_t type_id(std::int64_t b, std::int64_t t) const {
    return batch_ == nullptr || batch_->type_ids.empty() ? 0 : batch_->type_ids[place(b, t)];
  }
  // Null where the pass goes on from nothing.
  DecoderCache* cache() const { return cache_; }
  DecoderCache::Sequence sequence(std::int64_t b) const { return chunk(b).sequence; }

 private:
  std::size_t place(std::int64_t b, std::int64_t t) const { return static_cast<std::size_t>(b * batch_->tokens + t); }
  const DecoderChunk& chunk(std::int64_t b) const { return chunks_[static_cast<std::size_t>(b)]; }

  const TokenBatch* batch_ = nullptr;
  DecoderCache* cache_ = nullptr;
  std::span<const DecoderChunk> chunks_;
};

// Rows [begin, begin + count) of a pass, and the worker that has them.
struct PassRows {
  std::int64_t begin = 0, count = 0;
  int worker = 0;
};

class Pass;

// What an architecture does with rows between two calls of attention. const calls run side by side on disjoint rows.
class PassSteps {
 public:
  virtual ~PassSteps() = default;
  virtual const EncoderConfig& config() const = 0;
  // The projections that a block of rows goes through.
  virtual std::span<const layer::Linear* const> linears() const = 0;
  // Floats of a row at its widest, of a row between two projections, and that the steps keep for each row.
  virtual std::int64_t wide_floats() const = 0;
  virtual std::int64_t middle_floats() const = 0;
  virtual std::int64_t kept_floats() const { return 0; }

  virtual void embed(const Pass& pass, const PassRows& rows) const = 0;
  // From the residual stream to queries, keys and values: Pass::qkv, and Pass::keep_rounded where they are rounded.
  virtual void project(const Pass& pass, std::int64_t layer, const PassRows& rows) const = 0;
  // From the outputs of the heads to the layer's end.
  virtual void finish(const Pass& pass, std::int64_t layer, const PassRows& rows) const = 0;
  // From the last layer's end to the last hidden states.
  virtual void end(const Pass&, const PassRows&) const {}
};

class Pass {
 public:
  // `qkv_type` is what attention reads: F32, BF16 or F16.
  Pass(const char* function, const PassSteps& steps, const PassTokens& tokens, DType qkv_type,
       const EncoderOptions& options, Workspace& workspace);

  // Runs all layers. `last` [.., E] F32 receives the last hidden states, as unpack() places rows; options.layers and
  // options.hidden_states what they ask for, the latter in tensors of last's shape.
  void run(Tensor& last);

  std::int64_t rows() const { return rows_; }
  DType qkv_type() const { return qkv_type_; }

  // Calls body(row, entry, token of the entry in this pass).
  template <class Body>
  void for_each_row(const PassRows& rows, Body&& body) const;
  std::int64_t id(std::int64_t b, std::int64_t t) const { return tokens_.id(b, t); }
  std::int64_t type_id(std::int64_t b, std::int64_t t) const { return tokens_.type_id(b, t); }
  // The place of an entry's token in its sequence.
  std::int64_t position(std::int64_t b, std::int64_t t) const { return first_[b] + t; }

  // The first of some rows, in memory of all rows.
  float* x(const PassRows& rows) const { return x_ + rows.begin * hidden(); }            // [rows,E]
  float* heads(const PassRows& rows) const { return heads_ + rows.begin * q_width(); }   // [rows,Hq D]
  float* kept(const PassRows& rows) const { return kept_ + rows.begin * kept_floats_; }  // [rows,kept_floats]
  float* qkv(std::int64_t layer, const PassRows& rows) const;                            // where qkv_type is F32
  void* rounded_qkv(const PassRows& rows) const;                                         // where it is not
  // In memory of a worker, for a block of rows.
  float* middle(const PassRows& rows) const { return middle_ + rows.worker * most_ * middle_floats_; }
  float* wide(const PassRows& rows) const { return wide_ + rows.worker * most_ * wide_floats_; }
  // A copy of the rounded rows for the caller, where he wants the heads.
  void keep_rounded(std::int64_t layer, const PassRows& rows) const;

  std::int64_t q_width() const { return config_.num_heads * config_.head_dim; }
  std::int64_t qkv_width() const { return (config_.num_heads + 2 * config_.num_kv_heads) * config_.head_dim; }

  // Dense rows of `from`, to dense rows.
  void linear(const layer::Linear& with, const float* from, float* to, const PassRows& rows,
              layer::Activation activation = layer::Activation::kNone) const;
  void linear(const layer::Linear& with, const float* from, std::int64_t from_stride, float* to,
              const PassRows& rows) const;
  void linear_rounded(const layer::Linear& with, const float* from, float* sums, void* to, const PassRows& rows) const;

 private:
  struct Operands {
    TensorView q, k, v, out, lse;
  };
  // Where the caller wants a layer's heads; null: nowhere.
  struct Kept {
    float* qkv = nullptr;  // [rows, (Hq + 2 Hkv) D]
    float* lse = nullptr;  // [Hq,rows]
  };

  void plan_blocks();
  void place();
  void make_layers() const;
  Kept kept_of(std::int64_t layer) const;
  void attend(std::int64_t layer);
  void attend_in_cache(std::int64_t layer);
  void scale_heads(std::int64_t layer, const PassRows& rows) const;
  void go_on(std::int64_t layers, const PassRows& rows, Tensor& last) const;
  void unpack(float* to, const PassRows& rows) const;
  template <class Body>
  void for_each_block(Body&& body) const;
  template <class Body>
  void for_each_call(Body&& body) const;
  Operands operands(const Kept& kept, std::int64_t first, std::int64_t entries, std::int64_t length) const;
  AttentionOptions attention_options() const;
  attention_detail::PreparedForward prepare(std::int64_t first, std::int64_t entries, std::int64_t length) const;
  std::int64_t hidden() const { return config_.hidden_size; }
  Threads inner() const { return {inner_, options_.threads.executor}; }
  float* linear_of(int worker) const { return linear_ + static_cast<std::size_t>(worker) * linear_floats_; }

  const char* function_;
  const PassSteps& steps_;
  const EncoderConfig& config_;
  const PassTokens& tokens_;
  const EncoderOptions& options_;
  Workspace& workspace_;
  const kernels::KernelTable& table_;
  DType qkv_type_;
  bool packed_;
  std::int64_t rows_;
  std::int64_t last_tokens_ = -1;  // rows of an entry in the last hidden states; -1: as many as it has
  int threads_;
  // Workers take blocks of rows; the threads of a projection within a block are `inner_`.
  std::int64_t blocks_ = 1, most_ = 0;
  int workers_ = 1, inner_ = 1;
  std::int64_t wide_floats_, middle_floats_, kept_floats_;

  std::int64_t* row_starts_ = nullptr;  // [B+1]: entry b is rows row_starts_[b] to row_starts_[b+1]
  std::int64_t* first_ = nullptr;       // [B]: tokens before the entry's
  float *x_ = nullptr, *heads_ = nullptr, *kept_ = nullptr;
  void* qkv_ = nullptr;  // [rows, (Hq + 2 Hkv) D] of qkv_type
  float *middle_ = nullptr, *wide_ = nullptr;
  float* linear_ = nullptr;                                    // linear_floats_ for each worker
  float* attention_ = nullptr;                                 // attention_floats_
  std::optional<attention_detail::PreparedForward> prepared_;  // the last of a layer's calls
  int calls_ = 0;
  std::size_t attention_floats_ = 0;
  std::size_t linear_floats_ = 0;
  // A cache's own.
  std::vector<KVCache::Sequence> sequences_;
  KVBatch batch_;
  std::optional<Workspace> cache_workspace_;
};

template <class Body>
void Pass::for_each_row(const PassRows& rows, Body&& body) const {
  std::int64_t b = std::upper_bound(row_starts_, row_starts_ + tokens_.entries() + 1, rows.begin) - row_starts_ - 1;
  for (std::int64_t row = rows.begin; row < rows.begin + rows.count; ++row) {
    while (row >= row_starts_[b + 1]) ++b;
    body(row, b, row - row_starts_[b]);
  }
}

}  // namespace manyheads::model
