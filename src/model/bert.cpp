#include "model/bert.hpp"

#include <algorithm>
#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <optional>
#include <string>
#include <utility>

#include "base/aligned_buffer.hpp"
#include "base/file.hpp"
#include "base/parallel.hpp"
#include "layer/carver.hpp"
#include "layer/heads.hpp"
#include "model/bert_weights.hpp"
#include "model/checkpoint.hpp"

namespace manyheads::model {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "BertEncoder::run: " + what);
}

std::int64_t length_of(const BertInput& input, std::int64_t b) {
  return input.lengths.empty() ? input.tokens : input.lengths[static_cast<std::size_t>(b)];
}

// Returns the number of tokens that count.
std::int64_t check(const BertInput& input, const BertConfig& config) {
  const auto shape = [&] { return Dims{input.batch, input.tokens}.to_string(); };
  const std::int64_t count = element_count({input.batch, input.tokens});
  const auto size_of_list = [](const std::vector<std::int64_t>& list) {
    return static_cast<std::int64_t>(list.size());
  };
  if (size_of_list(input.ids) != count) {
    fail(std::to_string(input.ids.size()) + " ids for [B,T] = " + shape());
  }
  if (!input.type_ids.empty() && size_of_list(input.type_ids) != count) {
    fail(std::to_string(input.type_ids.size()) + " type_ids for [B,T] = " + shape());
  }
  if (!input.lengths.empty() && size_of_list(input.lengths) != input.batch) {
    fail(std::to_string(input.lengths.size()) + " lengths for [B,T] = " + shape());
  }
  std::int64_t rows = 0;
  for (std::int64_t b = 0; b < input.batch; ++b) {
    const std::int64_t length = length_of(input, b);
    const auto entry = [&] { return " of batch entry " + std::to_string(b); };
    if (length < 0 || length > input.tokens) {
      fail("length " + std::to_string(length) + entry() + ", expected 0 to " + std::to_string(input.tokens));
    }
    if (length > config.max_position_embeddings) {
      fail(std::to_string(length) + " tokens, more than the " + std::to_string(config.max_position_embeddings) +
           " that the model takes");
    }
    for (std::int64_t t = 0; t < length; ++t) {
      const auto at = static_cast<std::size_t>(b * input.tokens + t);
      const std::int64_t type = input.type_ids.empty() ? 0 : input.type_ids[at];
      if (input.ids[at] < 0 || input.ids[at] >= config.vocab_size) {
        fail("token id " + std::to_string(input.ids[at]) + entry() + ", the vocabulary has " +
             std::to_string(config.vocab_size));
      }
      if (type < 0 || type >= config.type_vocab_size) {
        fail("type id " + std::to_string(type) + entry() + ", the model has " + std::to_string(config.type_vocab_size));
      }
    }
    rows += length;
  }
  return rows;
}

// How the rows of a run are shared out. Between two products over all tokens (attention) a row needs no other: a worker
// takes a block of rows through all that lies between, while they are in its cache. Few rows are one block, whose
// projections the workers share.
struct Blocks {
  std::int64_t rows = 0, count = 1;
  int workers = 1;  // that take blocks
  int inner = 1;    // threads of a projection within a block

  Blocks(std::int64_t all_rows, int threads) : rows(all_rows) {
    constexpr std::int64_t kMostRows =
        144;  // whole register tiles of every kernel, in the second cache with their wide form
    constexpr std::int64_t kLeastRows = 36;
    count = std::max<std::int64_t>(1, (rows + kMostRows - 1) / kMostRows);
    if (threads > 1 && rows >= threads * kLeastRows) count = (count + threads - 1) / threads * threads;
    if (count == 1) inner = threads;
    workers = base::worker_count(count, threads);
  }
  std::int64_t begin(std::int64_t i) const { return rows * i / count; }
  std::int64_t most() const { return (rows + count - 1) / count; }
};

}  // namespace

BertInput BertInput::from_rows(const std::vector<std::vector<std::int64_t>>& ids,
                               const std::vector<std::vector<std::int64_t>>& type_ids) {
  BertInput input;
  input.batch = static_cast<std::int64_t>(ids.size());
  if (!type_ids.empty() && type_ids.size() != ids.size()) {
    throw Error(ErrorCode::kInvalidArgument, "BertInput::from_rows: " + std::to_string(ids.size()) + " rows of ids, " +
                                                 std::to_string(type_ids.size()) + " of type_ids");
  }
  std::size_t tokens = 0;
  for (const auto& row : ids) tokens = std::max(tokens, row.size());
  input.tokens = static_cast<std::int64_t>(tokens);
  input.ids.resize(ids.size() * tokens);
  if (!type_ids.empty()) input.type_ids.resize(input.ids.size());
  for (std::size_t b = 0; b < ids.size(); ++b) {
    input.lengths.push_back(static_cast<std::int64_t>(ids[b].size()));
    std::copy(ids[b].begin(), ids[b].end(), input.ids.begin() + static_cast<std::ptrdiff_t>(b * tokens));
    if (type_ids.empty()) continue;
    if (type_ids[b].size() != ids[b].size()) {
      throw Error(ErrorCode::kInvalidArgument, "BertInput::from_rows: row " + std::to_string(b) + " has " +
                                                   std::to_string(ids[b].size()) + " ids and " +
                                                   std::to_string(type_ids[b].size()) + " type_ids");
    }
    std::copy(type_ids[b].begin(), type_ids[b].end(), input.type_ids.begin() + static_cast<std::ptrdiff_t>(b * tokens));
  }
  return input;
}

ConstTensorView BertLayerTap::part(int which, std::int64_t batch) const {
  const std::int64_t begin = row_starts.at(static_cast<std::size_t>(batch));
  const std::int64_t tokens = row_starts.at(static_cast<std::size_t>(batch) + 1) - begin;
  const std::int64_t width = qkv.size(1), hidden = width / 3, head_size = hidden / num_heads;
  return ConstTensorView(qkv.as<float>() + begin * width + which * hidden, {num_heads, tokens, head_size},
                         {head_size, width, 1});
}

ConstTensorView BertLayerTap::row_lse(std::int64_t batch) const {
  const std::int64_t begin = row_starts.at(static_cast<std::size_t>(batch));
  const std::int64_t tokens = row_starts.at(static_cast<std::size_t>(batch) + 1) - begin;
  return ConstTensorView(lse.as<float>() + begin, {num_heads, tokens}, {lse.size(1), 1});
}

struct BertEncoder::Impl {
  BertConfig config;
  BertWeights weights;

  void check_options(const BertOptions& options) const;
};

namespace {

// One call of run: its memory, carved from the workspace, and its steps.
class Pass {
 public:
  // `block`: any of the model's, which are alike; null where it has none.
  Pass(const BertConfig& config, const BertInput& input, const BertOptions& options, Workspace& workspace,
       const BertBlock* block)
      : config_(config),
        input_(input),
        options_(options),
        workspace_(workspace),
        rounds_(block != nullptr && block->qkv.rounds_rows()),
        rows_(check(input, config)),
        threads_(options.num_threads > 0 ? options.num_threads : default_num_threads()),
        blocks_(rows_, threads_) {
    if (rounds_) {
      for (const layer::Linear* linear : {&block->qkv, &block->attention_output, &block->intermediate, &block->output}) {
        scratch_floats_ = std::max(scratch_floats_, linear->scratch_floats(blocks_.most(), blocks_.inner));
      }
    }
    place(0);
    std::size_t attention = 0;
    for_each_length([&](std::int64_t b, std::int64_t count) {
      const AttentionViews views = heads_of(b, count, nullptr);
      attention =
          std::max(attention, attention_workspace_size(views.q, views.k, views.v, views.out, attention_options()));
    });
    // attention asks for the workspace's beginning.
    place((attention + base::kAlignment - 1) / base::kAlignment * base::kAlignment);
  }

  std::int64_t rows() const { return rows_; }
  const std::int64_t* row_starts() const { return row_starts_; }

  // Runs body(first row, rows, worker) for each block.
  template <class Body>
  void for_each_block(Body&& body) const {
    if (rows_ == 0) return;
    base::parallel_for(blocks_.count, blocks_.workers, options_.executor, [&](std::int64_t i, int worker) {
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

  // Into the memory that attention reads: a layer's tap, or the pass's own. Where rows are rounded, what attention
  // reads is too, and a tap takes a copy.
  void project(const BertBlock& block, Tensor* tap, std::int64_t begin, std::int64_t count, int worker) const {
    const std::int64_t e = config_.hidden_size, width = 3 * e;
    if (!rounds_) return linear(block.qkv, x_ + begin * e, count, qkv(tap) + begin * width, worker);
    bfloat16* const to = rounded_qkv_ + begin * width;
    block.qkv.run_rounded(x_ + begin * e, count, e, wide_of(worker), width, to, width, blocks_.inner,
                          options_.executor, scratch_of(worker));
    for (std::int64_t i = 0; tap != nullptr && i < count * width; ++i) {
      tap->as<float>()[begin * width + i] = static_cast<float>(to[i]);
    }
  }

  void attend(Tensor* tap, Tensor* lse) const {
    for_each_length([&](std::int64_t b, std::int64_t count) {
      AttentionOptions how = attention_options();
      how.workspace = &workspace_;
      TensorView lse_rows;
      if (lse != nullptr) {
        lse_rows =
            TensorView(lse->as<float>() + row_starts_[b], {count, config_.num_attention_heads, length_of(input_, b)},
                       {length_of(input_, b), rows_, 1});
        how.lse = &lse_rows;
      }
      const AttentionViews views = heads_of(b, count, tap);
      attention(views.q, views.k, views.v, views.out, how);
    });
  }

  // All of a layer behind attention.
  void finish(const BertBlock& block, ConstTensorView head_scale, std::int64_t begin, std::int64_t count,
              int worker) const {
    const std::int64_t e = config_.hidden_size;
    float* const heads = heads_ + begin * e;
    float* const x = x_ + begin * e;
    float* const middle = middle_ + worker * blocks_.most() * e;
    float* const wide = wide_of(worker);
    if (head_scale.defined()) {
      layer::scale_heads(heads, count, config_.num_attention_heads, config_.head_size(), head_scale, 1, nullptr);
    }
    linear(block.attention_output, heads, count, middle, worker);
    block.attention_norm.run(middle, x, middle, count, config_.layer_norm_eps);
    linear(block.intermediate, middle, count, wide, worker, config_.hidden_act);
    linear(block.output, wide, count, x, worker);
    block.output_norm.run(x, middle, x, count, config_.layer_norm_eps);
  }

  // The rows to their places in [B,T,E].
  void unpack(float* to, std::int64_t begin, std::int64_t count) const {
    const std::int64_t e = config_.hidden_size;
    for_each_row(begin, count, [&](std::int64_t row, std::int64_t b, std::int64_t t) {
      std::copy_n(x_ + row * e, e, to + (b * input_.tokens + t) * e);
    });
  }

 private:
  struct AttentionViews {
    ConstTensorView q, k, v;
    TensorView out;
  };

  // Lays the arrays out behind the first `offset` bytes of the workspace.
  void place(std::size_t offset) {
    const auto workers = static_cast<std::int64_t>(blocks_.workers);
    const std::int64_t e = config_.hidden_size;
    layer::Carver carver("BertEncoder::run");
    const std::size_t starts = carver.take({input_.batch + 1}, sizeof(std::int64_t));
    const std::size_t x = carver.take({rows_, e}, sizeof(float));
    const std::size_t qkv = carver.take({rows_, 3 * e}, rounds_ ? sizeof(bfloat16) : sizeof(float));
    const std::size_t heads = carver.take({rows_, e}, sizeof(float));
    const std::size_t middle = carver.take({workers, blocks_.most(), e}, sizeof(float));
    const std::size_t wide = carver.take({workers, blocks_.most(), widest()}, sizeof(float));
    const std::size_t scratch = carver.take({workers, static_cast<std::int64_t>(scratch_floats_)}, sizeof(float));
    auto* memory = static_cast<std::byte*>(workspace_.reserve(offset + carver.used())) + offset;
    const auto floats = [&](std::size_t at) { return reinterpret_cast<float*>(memory + at); };
    row_starts_ = reinterpret_cast<std::int64_t*>(memory + starts);
    x_ = floats(x);
    qkv_ = floats(qkv);
    rounded_qkv_ = reinterpret_cast<bfloat16*>(memory + qkv);
    heads_ = floats(heads);
    middle_ = floats(middle);
    wide_ = floats(wide);
    scratch_ = floats(scratch);
    row_starts_[0] = 0;
    for (std::int64_t b = 0; b < input_.batch; ++b) row_starts_[b + 1] = row_starts_[b] + length_of(input_, b);
  }

  AttentionOptions attention_options() const {
    AttentionOptions how;
    how.num_threads = threads_;
    how.executor = options_.executor;
    return how;
  }

  float* qkv(Tensor* tap) const { return tap != nullptr ? tap->as<float>() : qkv_; }

  // A block's rows at their widest; where they are rounded, their projections under way too.
  std::int64_t widest() const { return std::max(config_.intermediate_size, rounds_ ? 3 * config_.hidden_size : 0); }
  float* wide_of(int worker) const { return wide_ + worker * blocks_.most() * widest(); }
  // What the projections of a block of rows work in.
  float* scratch_of(int worker) const { return scratch_ + static_cast<std::size_t>(worker) * scratch_floats_; }

  // The heads of `count` entries of one length from b on.
  AttentionViews heads_of(std::int64_t b, std::int64_t count, Tensor* tap) const {
    const std::int64_t e = config_.hidden_size, h = config_.num_attention_heads, d = config_.head_size();
    const std::int64_t length = length_of(input_, b), start = row_starts_[b];
    const auto part = [&](int which) {
      const auto view = [&](auto* rows) {
        return layer::heads_view(rows + start * 3 * e + which * e, count, h, length, d, length * 3 * e, 3 * e);
      };
      return rounds_ ? view(rounded_qkv_) : view(qkv(tap));
    };
    return {part(0), part(1), part(2), layer::heads_view(heads_ + start * e, count, h, length, d, length * e, e)};
  }

  // Calls body(first entry, entries): neighbours of one length are one call of attention. None of them has padding, so
  // none needs a mask.
  template <class Body>
  void for_each_length(Body&& body) const {
    for (std::int64_t b = 0, end = 0; b < input_.batch; b = end) {
      end = b + 1;
      while (end < input_.batch && length_of(input_, end) == length_of(input_, b)) ++end;
      if (length_of(input_, b) > 0) body(b, end - b);
    }
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
    with.run(from, count, with.in_features(), to, with.out_features(), activation, blocks_.inner, options_.executor,
             scratch_of(worker));
  }

  const BertConfig& config_;
  const BertInput& input_;
  const BertOptions& options_;
  Workspace& workspace_;
  bool rounds_;
  std::int64_t rows_;
  int threads_;
  Blocks blocks_;
  std::int64_t* row_starts_ = nullptr;         // [B + 1]: the tokens that count lie one after another
  float *x_ = nullptr, *heads_ = nullptr;      // [rows,E]
  float* qkv_ = nullptr;                       // [rows,3 E]
  bfloat16* rounded_qkv_ = nullptr;            // the same memory where rows are rounded
  float *middle_ = nullptr, *wide_ = nullptr;  // a block of rows for each worker
  float* scratch_ = nullptr;                   // scratch_floats_ for each worker
  std::size_t scratch_floats_ = 0;
};

}  // namespace

BertEncoder::BertEncoder(const BertConfig& config, const StateDict& tensors, DType weights)
    : impl_(std::make_unique<const Impl>(Impl{config, BertWeights(config, tensors, {}, "BertEncoder", weights)})) {}

BertEncoder BertEncoder::load(const std::filesystem::path& folder, DType weights) {
  const BertConfig config = load_bert_config(folder);
  const SafetensorsFile file = load_checkpoint(folder);
  return BertEncoder(std::make_unique<const Impl>(
      Impl{config, BertWeights(config, file.tensors, file.unsupported, base::path_in_quotes(file.path), weights)}));
}

BertEncoder::BertEncoder(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
BertEncoder::~BertEncoder() = default;
BertEncoder::BertEncoder(BertEncoder&&) noexcept = default;
BertEncoder& BertEncoder::operator=(BertEncoder&&) noexcept = default;

const BertConfig& BertEncoder::config() const noexcept { return impl_->config; }

void BertEncoder::Impl::check_options(const BertOptions& options) const {
  if (options.num_threads < 0) fail("num_threads is " + std::to_string(options.num_threads) + ", expected 0 or more");
  const ConstTensorView& scale = options.head_scale;
  const Dims expected{config.num_hidden_layers, config.num_attention_heads};
  if (scale.defined() && (scale.dtype() != DType::kF32 || !(scale.shape() == expected))) {
    fail(std::string("head_scale is ") + name_of(scale.dtype()) + " " + scale.shape().to_string() +
         ", expected F32 [layers,heads] = " + expected.to_string());
  }
}

Tensor BertEncoder::run(const BertInput& input, const BertOptions& options) const {
  const BertWeights& m = impl_->weights;
  const BertConfig& config = impl_->config;
  const std::int64_t e = config.hidden_size, h = config.num_attention_heads;
  impl_->check_options(options);
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
  std::vector<BertLayerTap>* taps = options.taps != nullptr ? &options.taps->layers : nullptr;
  if (taps != nullptr) {
    taps->assign(m.blocks.size(), {});
    for (BertLayerTap& tap : *taps) {
      tap.qkv = Tensor(DType::kF32, {pass.rows(), 3 * e});
      tap.lse = Tensor(DType::kF32, {h, pass.rows()});
      tap.row_starts.assign(pass.row_starts(), pass.row_starts() + input.batch + 1);
      tap.num_heads = h;
    }
  }
  const auto qkv_tap = [&](std::size_t i) { return taps != nullptr ? &(*taps)[i].qkv : nullptr; };
  const auto lse_tap = [&](std::size_t i) { return taps != nullptr ? &(*taps)[i].lse : nullptr; };
  // What becomes of rows that have passed `layers` layers.
  const auto go_on = [&](std::size_t layers, std::int64_t begin, std::int64_t count, int worker) {
    if (layers == m.blocks.size()) {
      pass.unpack(last.as<float>(), begin, count);
    } else {
      if (hidden != nullptr) pass.unpack((*hidden)[layers].as<float>(), begin, count);
      pass.project(m.blocks[layers], qkv_tap(layers), begin, count, worker);
    }
  };

  pass.for_each_block([&](std::int64_t begin, std::int64_t count, int worker) {
    pass.embed(m, begin, count);
    go_on(0, begin, count, worker);
  });
  for (std::size_t i = 0; i < m.blocks.size(); ++i) {
    pass.attend(qkv_tap(i), lse_tap(i));
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
