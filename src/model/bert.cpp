#include "model/bert.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <manyheads/attention.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "attention/forward.hpp"
#include "base/file.hpp"
#include "base/parallel.hpp"
#include "base/workspace_layout.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/tuning.hpp"
#include "layer/heads.hpp"
#include "model/bert_weights.hpp"
#include "model/checkpoint.hpp"

namespace manyheads::model {
namespace {

// How workers share the rows of a run. Between two calls of attention no row needs another: a worker takes a block of
// rows through all steps while they are in its cache. Few rows are one block, whose projections the workers share.
struct Blocks {
  std::int64_t rows = 0, count = 1;
  int workers = 1;  // each takes blocks
  int inner = 1;    // threads of a projection within a block

  Blocks(std::int64_t all_rows, int threads) : rows(all_rows) {
    // A multiple of every microkernel's rows.
    const kernels::Tuning& tuning = kernels::tuning();
    count = std::max<std::int64_t>(1, (rows + tuning.encoder_block_rows - 1) / tuning.encoder_block_rows);
    if (threads > 1 && rows >= threads * tuning.encoder_least_rows) count = (count + threads - 1) / threads * threads;
    if (count == 1) inner = threads;
    workers = static_cast<int>(std::min<std::int64_t>(count, threads));
  }
  std::int64_t begin(std::int64_t i) const { return rows * i / count; }
  std::int64_t most() const { return (rows + count - 1) / count; }
};

}  // namespace

struct BertEncoder::Impl {
  Impl(const BertConfig& c, BertWeights w, DType kept) : config(c), weights(std::move(w)) {
    encoder_config = {.hidden_size = c.hidden_size,
                      .num_layers = c.num_hidden_layers,
                      .num_heads = c.num_attention_heads,
                      .num_kv_heads = c.num_attention_heads,
                      .head_dim = c.head_dim(),
                      .scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim())),
                      .vocab_size = c.vocab_size,
                      .type_vocab_size = c.type_vocab_size,
                      .max_position_embeddings = c.max_position_embeddings,
                      .weights = kept};
  }

  BertConfig config;
  BertWeights weights;
  EncoderConfig encoder_config;
};

namespace {

std::int64_t count_rows(const TokenBatch& input) {
  std::int64_t rows = 0;
  for (std::int64_t b = 0; b < input.batch; ++b) rows += input.length(b);
  return rows;
}

// Whether all entries are one packed call of attention. Entries of more tokens are faster in calls of one length, which
// pack a head's keys and values.
bool packs(const TokenBatch& input) {
  const std::int64_t longest = kernels::tuning().encoder_packed_tokens;
  bool one_length = true, all_short = true;
  for (std::int64_t b = 0; b < input.batch; ++b) {
    one_length = one_length && input.length(b) == input.length(0);
    all_short = all_short && input.length(b) <= longest;
  }
  return all_short && !one_length;
}

// Where the caller wants a layer's heads; null: nowhere.
struct Kept {
  float* qkv = nullptr;  // [rows,3 E]
  float* lse = nullptr;  // [H,rows]
};

// One forward pass: its memory in the workspace, and its steps.
class Pass {
 public:
  // `block` is any of the model's, which are alike; null where it has none.
  Pass(const BertConfig& config, const TokenBatch& input, const EncoderOptions& options, Workspace& workspace,
       const BertBlock* block)
      : config_(config),
        input_(input),
        options_(options),
        workspace_(workspace),
        table_(kernels::active_table()),
        rounds_(block != nullptr && block->qkv.rounds_rows()),
        packed_(packs(input)),
        rows_(count_rows(input)),
        threads_(base::worker_count(std::numeric_limits<std::int64_t>::max(), options.threads)),
        blocks_(rows_, threads_) {
    if (rounds_) {
      for (const layer::Linear* linear :
           {&block->qkv, &block->attention_output, &block->intermediate, &block->output}) {
        linear_floats_ = std::max(linear_floats_, linear->workspace_floats(blocks_.most(), inner()));
      }
    }
    place();
    for_each_call([&](std::int64_t first, std::int64_t entries, std::int64_t length) {
      prepared_.emplace(prepare(first, entries, length));
      attention_floats_ = std::max(attention_floats_, prepared_->workspace_floats());
      ++calls_;
    });
    place();
  }

  std::int64_t rows() const { return rows_; }
  const std::int64_t* row_starts() const { return row_starts_; }

  // Runs body(first row, rows, worker) for each block.
  template <class Body>
  void for_each_block(Body&& body) const {
    if (rows_ == 0) return;
    base::parallel_for(blocks_.count, blocks_.workers, options_.threads.executor, [&](std::int64_t i, int worker) {
      const kernels::TableScope scope(table_);  // the caller's, which is another thread
      body(blocks_.begin(i), blocks_.begin(i + 1) - blocks_.begin(i), worker);
    });
  }

  void embed(const BertWeights& from, std::int64_t begin, std::int64_t count) const {
    const std::int64_t e = config_.hidden_size;
    for_each_row(begin, count, [&](std::int64_t row, std::int64_t b, std::int64_t t) {
      const auto at = static_cast<std::size_t>(b * input_.tokens + t);
      const float* word = from.words.as<float>() + input_.ids[at] * e;
      const float* type = from.types.as<float>() + (input_.type_ids.empty() ? 0 : input_.type_ids[at]) * e;
      const float* position = from.positions.as<float>() + t * e;
      for (std::int64_t i = 0; i < e; ++i) x_[row * e + i] = word[i] + type[i] + position[i];
    });
    from.embedding_norm.run(x_ + begin * e, nullptr, x_ + begin * e, count, config_.layer_norm_eps);
  }

  // Projects queries, keys and values to where attention reads them: the caller's tensor, or the pass's own memory.
  // Rounded rows are attention's alone; the caller gets a copy of them.
  void project(const BertBlock& block, const Kept& kept, std::int64_t begin, std::int64_t count, int worker) const {
    const std::int64_t e = config_.hidden_size, width = 3 * e;
    if (!rounds_) return linear(block.qkv, x_ + begin * e, count, qkv(kept) + begin * width, worker);
    bfloat16* const to = rounded_qkv_ + begin * width;
    block.qkv.run_rounded(x_ + begin * e, count, e, wide_of(worker), width, to, width, inner(), linear_of(worker));
    for (std::int64_t i = 0; kept.qkv != nullptr && i < count * width; ++i) {
      kept.qkv[begin * width + i] = static_cast<float>(to[i]);
    }
  }

  void attend(const Kept& kept) const {
    for_each_call([&](std::int64_t first, std::int64_t entries, std::int64_t length) {
      const Operands at = operands(kept, first, entries, length);
      const attention_detail::Operands memory{.q = at.q.data(),
                                              .k = at.k.data(),
                                              .v = at.v.data(),
                                              .out = at.out.data(),
                                              .lse = at.lse,
                                              .cu_seqlens_q = length < 0 ? row_starts_ : nullptr,
                                              .cu_seqlens_k = length < 0 ? row_starts_ : nullptr};
      // Almost always one call, prepared once for all layers.
      (calls_ == 1 ? *prepared_ : prepare(first, entries, length)).on(memory).run(attention_);
    });
  }

  // The rest of a layer: output projection, norms and the feed-forward part.
  void finish(const BertBlock& block, ConstTensorView head_scale, std::int64_t begin, std::int64_t count,
              int worker) const {
    const std::int64_t e = config_.hidden_size;
    float* const heads = heads_ + begin * e;
    float* const x = x_ + begin * e;
    float* const middle = middle_ + worker * blocks_.most() * e;
    float* const wide = wide_of(worker);
    if (head_scale.defined()) {
      layer::scale_heads(heads, count, config_.num_attention_heads, config_.head_dim(), head_scale, {.num_threads = 1});
    }
    linear(block.attention_output, heads, count, middle, worker);
    block.attention_norm.run(middle, x, middle, count, config_.layer_norm_eps);
    linear(block.intermediate, middle, count, wide, worker, config_.hidden_act);
    linear(block.output, wide, count, x, worker);
    block.output_norm.run(x, middle, x, count, config_.layer_norm_eps);
  }

  // Copies rows to their places in [B,T,E].
  void unpack(float* to, std::int64_t begin, std::int64_t count) const {
    const std::int64_t e = config_.hidden_size;
    for_each_row(begin, count, [&](std::int64_t row, std::int64_t b, std::int64_t t) {
      std::copy_n(x_ + row * e, e, to + (b * input_.tokens + t) * e);
    });
  }

 private:
  // The tensors of a call of attention: all rows as one packed call (length -1), or `entries` neighbours of one length.
  struct Operands {
    TensorView q, k, v, out, lse;
  };

  // Lays the arrays out in the workspace, attention's own behind them.
  void place() {
    const auto workers = static_cast<std::int64_t>(blocks_.workers);
    const std::int64_t e = config_.hidden_size;
    base::WorkspaceLayout layout("BertEncoder::run");
    const std::size_t starts = layout.take({input_.batch + 1}, sizeof(std::int64_t));
    const std::size_t x = layout.take({rows_, e}, sizeof(float));
    const std::size_t qkv = layout.take({rows_, 3 * e}, rounds_ ? sizeof(bfloat16) : sizeof(float));
    const std::size_t heads = layout.take({rows_, e}, sizeof(float));
    const std::size_t middle = layout.take({workers, blocks_.most(), e}, sizeof(float));
    const std::size_t wide = layout.take({workers, blocks_.most(), widest()}, sizeof(float));
    const std::size_t linear = layout.take({workers, static_cast<std::int64_t>(linear_floats_)}, sizeof(float));
    const std::size_t attention = layout.take({static_cast<std::int64_t>(attention_floats_)}, sizeof(float));
    auto* memory = static_cast<std::byte*>(workspace_.reserve(layout.used()));
    const auto floats = [&](std::size_t at) { return reinterpret_cast<float*>(memory + at); };
    row_starts_ = reinterpret_cast<std::int64_t*>(memory + starts);
    x_ = floats(x);
    qkv_ = floats(qkv);
    rounded_qkv_ = reinterpret_cast<bfloat16*>(memory + qkv);
    heads_ = floats(heads);
    middle_ = floats(middle);
    wide_ = floats(wide);
    linear_ = floats(linear);
    attention_ = floats(attention);
    row_starts_[0] = 0;
    for (std::int64_t b = 0; b < input_.batch; ++b) row_starts_[b + 1] = row_starts_[b] + input_.length(b);
  }

  float* qkv(const Kept& kept) const { return kept.qkv != nullptr ? kept.qkv : qkv_; }

  // Floats of a row at its widest; of a rounded row, its projections before they are rounded too.
  std::int64_t widest() const { return std::max(config_.intermediate_size, rounds_ ? 3 * config_.hidden_size : 0); }
  float* wide_of(int worker) const { return wide_ + worker * blocks_.most() * widest(); }
  // The threads of each of a block's projections.
  Threads inner() const { return {blocks_.inner, options_.threads.executor}; }
  // The workspace of a block's projections.
  float* linear_of(int worker) const { return linear_ + static_cast<std::size_t>(worker) * linear_floats_; }

  // Calls body(first row, entries, length) for each call of attention: one packed call, or one for each group of
  // neighbours of one length. None has padding, so none needs a mask.
  template <class Body>
  void for_each_call(Body&& body) const {
    if (packed_) return body(0, input_.batch, -1);
    for (std::int64_t b = 0, end = 0; b < input_.batch; b = end) {
      const std::int64_t length = input_.length(b);
      end = b + 1;
      while (end < input_.batch && input_.length(end) == length) ++end;
      if (length > 0) body(row_starts_[b], end - b, length);
    }
  }

  Operands operands(const Kept& kept, std::int64_t first, std::int64_t entries, std::int64_t length) const {
    const std::int64_t e = config_.hidden_size, h = config_.num_attention_heads, d = config_.head_dim();
    const auto view_of = [&](auto* rows, std::int64_t stride) {
      return length < 0 ? TensorView(rows, {rows_, h, d}, {stride, d, 1})
                        : layer::heads_view(rows, entries, h, length, d, length * stride, stride);
    };
    const auto part = [&](std::int64_t which) {
      const std::int64_t at = first * 3 * e + which * e;
      return rounds_ ? view_of(rounded_qkv_ + at, 3 * e) : view_of(qkv(kept) + at, 3 * e);
    };
    Operands operands{part(0), part(1), part(2), view_of(heads_ + first * e, e), {}};
    if (kept.lse == nullptr) return operands;
    operands.lse = length < 0 ? TensorView(kept.lse, {h, rows_})
                              : TensorView(kept.lse + first, {entries, h, length}, {length, rows_, 1});
    return operands;
  }

  attention_detail::PreparedForward prepare(std::int64_t first, std::int64_t entries, std::int64_t length) const {
    const Operands at = operands({}, first, entries, length);
    AttentionOptions how;
    how.threads = {threads_, options_.threads.executor};
    if (length < 0) how.cu_seqlens_q = how.cu_seqlens_k = ConstTensorView(row_starts_, {input_.batch + 1});
    return {"BertEncoder::forward", at.q, at.k, at.v, at.out, how};
  }

  // Calls body(row, entry, token).
  template <class Body>
  void for_each_row(std::int64_t begin, std::int64_t count, Body&& body) const {
    std::int64_t b = std::upper_bound(row_starts_, row_starts_ + input_.batch + 1, begin) - row_starts_ - 1;
    for (std::int64_t row = begin; row < begin + count; ++row) {
      while (row >= row_starts_[b + 1]) ++b;
      body(row, b, row - row_starts_[b]);
    }
  }

  void linear(const layer::Linear& with, const float* from, std::int64_t count, float* to, int worker,
              layer::Activation activation = layer::Activation::kNone) const {
    with.run(from, count, with.in_features(), to, with.out_features(), activation, inner(), linear_of(worker));
  }

  const BertConfig& config_;
  const TokenBatch& input_;
  const EncoderOptions& options_;
  Workspace& workspace_;
  const kernels::KernelTable& table_;
  bool rounds_;
  bool packed_;
  std::int64_t rows_;
  int threads_;
  Blocks blocks_;
  std::int64_t* row_starts_ = nullptr;         // [B+1]: entry b is rows row_starts_[b] to row_starts_[b+1]
  float *x_ = nullptr, *heads_ = nullptr;      // [rows,E]
  float* qkv_ = nullptr;                       // [rows,3 E]
  bfloat16* rounded_qkv_ = nullptr;            // the same memory where rows are rounded
  float *middle_ = nullptr, *wide_ = nullptr;  // a block of rows for each worker
  float* linear_ = nullptr;                    // linear_floats_ for each worker
  float* attention_ = nullptr;                 // attention_floats_
  std::optional<attention_detail::PreparedForward> prepared_;  // the last of a layer's calls
  int calls_ = 0;
  std::size_t attention_floats_ = 0;
  std::size_t linear_floats_ = 0;
};

}  // namespace

BertEncoder::BertEncoder(const BertConfig& config, const StateDict& tensors, DType weights)
    : impl_(std::make_unique<const Impl>(config, BertWeights(config, tensors, {}, "BertEncoder", weights), weights)) {}

BertEncoder BertEncoder::load(const std::filesystem::path& folder, DType weights) {
  const BertConfig config = load_bert_config(folder);
  const SafetensorsFile file = load_checkpoint(folder);
  return BertEncoder(std::make_unique<const Impl>(
      config, BertWeights(config, file.tensors, file.unsupported, base::path_in_quotes(file.path), weights), weights));
}

BertEncoder::BertEncoder(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
BertEncoder::~BertEncoder() = default;
BertEncoder::BertEncoder(BertEncoder&&) noexcept = default;
BertEncoder& BertEncoder::operator=(BertEncoder&&) noexcept = default;

const EncoderConfig& BertEncoder::config() const noexcept { return impl_->encoder_config; }

std::unique_ptr<const Encoder> load_bert(const std::filesystem::path& folder, DType weights) {
  return std::make_unique<const BertEncoder>(BertEncoder::load(folder, weights));
}

Tensor BertEncoder::forward(const TokenBatch& input, const EncoderOptions& options) const {
  const BertWeights& m = impl_->weights;
  const BertConfig& config = impl_->config;
  const std::int64_t e = config.hidden_size, h = config.num_attention_heads, d = config.head_dim();
  std::optional<Workspace> own;
  const Pass pass(config, input, options, options.workspace != nullptr ? *options.workspace : own.emplace(),
                  m.blocks.empty() ? nullptr : &m.blocks.front());

  const Dims shape{input.batch, input.tokens, e};
  Tensor last(DType::kF32, shape);
  std::vector<Tensor>* hidden = options.hidden_states;
  if (hidden != nullptr) {
    hidden->clear();
    for (std::size_t i = 0; i < m.blocks.size(); ++i) hidden->emplace_back(DType::kF32, shape);
    hidden->push_back(last);
  }
  if (options.layers != nullptr) {
    options.layers->assign(m.blocks.size(), {});
    for (LayerHeads& layer : *options.layers) {
      const std::int64_t rows = pass.rows();
      const Tensor qkv(DType::kF32, {rows, 3 * e}), lse(DType::kF32, {h, rows});
      const auto part = [&](std::int64_t which) {
        return ConstTensorView(qkv.as<float>() + which * e, {rows, h, d}, {3 * e, d, 1});
      };
      layer = {part(0),   part(1), part(2), lse.cview(), {pass.row_starts(), pass.row_starts() + input.batch + 1},
               {qkv, lse}};
    }
  }
  const auto kept = [&](std::size_t i) {
    if (options.layers == nullptr) return Kept();
    std::vector<Tensor>& storage = (*options.layers)[i].storage;
    return Kept{storage[0].as<float>(), storage[1].as<float>()};
  };
  // Hands on rows that have passed `layers` layers.
  const auto go_on = [&](std::size_t layers, std::int64_t begin, std::int64_t count, int worker) {
    if (layers == m.blocks.size()) {
      pass.unpack(last.as<float>(), begin, count);
    } else {
      if (hidden != nullptr) pass.unpack((*hidden)[layers].as<float>(), begin, count);
      pass.project(m.blocks[layers], kept(layers), begin, count, worker);
    }
  };

  pass.for_each_block([&](std::int64_t begin, std::int64_t count, int worker) {
    pass.embed(m, begin, count);
    go_on(0, begin, count, worker);
  });
  for (std::size_t i = 0; i < m.blocks.size(); ++i) {
    pass.attend(kept(i));
    ConstTensorView scale;
    if (const ConstTensorView& all = options.head_scale; all.defined()) {
      scale = ConstTensorView(static_cast<const float*>(all.data()) + static_cast<std::int64_t>(i) * all.stride(0), {h},
                              {all.stride(1)});
    }
    pass.for_each_block([&](std::int64_t begin, std::int64_t count, int worker) {
      pass.finish(m.blocks[i], scale, begin, count, worker);
      go_on(i + 1, begin, count, worker);
    });
  }
  return last;
}

}  // namespace manyheads::model
