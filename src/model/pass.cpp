#include "model/pass.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/parallel.hpp"
#include "base/workspace_layout.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/tuning.hpp"
#include "layer/heads.hpp"

namespace manyheads::model {
namespace {

std::int64_t count_rows(const PassTokens& tokens) {
  std::int64_t rows = 0;
  for (std::int64_t b = 0; b < tokens.entries(); ++b) rows += tokens.length(b);
  return rows;
}

bool one_length(const PassTokens& tokens) {
  for (std::int64_t b = 1; b < tokens.entries(); ++b) {
    if (tokens.length(b) != tokens.length(0)) return false;
  }
  return true;
}

// Whether all entries are one packed call of attention. Entries of more tokens are faster in calls of one length, which
// pack a head's keys and values.
bool packs(const PassTokens& tokens) {
  for (std::int64_t b = 0; b < tokens.entries(); ++b) {
    if (tokens.length(b) > kernels::tuning().encoder_packed_tokens) return false;
  }
  return !one_length(tokens);
}

}  // namespace

Pass::Pass(const char* function, const PassSteps& steps, const PassTokens& tokens, DType qkv_type,
           const EncoderOptions& options, Workspace& workspace)
    : function_(function),
      steps_(steps),
      config_(steps.config()),
      tokens_(tokens),
      options_(options),
      workspace_(workspace),
      table_(kernels::active_table()),
      qkv_type_(qkv_type),
      packed_(packs(tokens)),
      rows_(count_rows(tokens)),
      threads_(base::worker_count(std::numeric_limits<std::int64_t>::max(), options.threads)),
      wide_floats_(steps.wide_floats()),
      middle_floats_(steps.middle_floats()),
      kept_floats_(steps.kept_floats()) {
  plan_blocks();
  for (const layer::Linear* linear : steps.linears()) {
    linear_floats_ = std::max(linear_floats_, linear->workspace_floats(most_, inner()));
  }
  place();
  if (tokens_.cache() != nullptr) {
    for (std::int64_t b = 0; b < tokens_.entries(); ++b) sequences_.push_back(tokens_.sequence(b));
    cache_workspace_.emplace();
    return;
  }
  for_each_call([&](std::int64_t first, std::int64_t entries, std::int64_t length) {
    prepared_.emplace(prepare(first, entries, length));
    attention_floats_ = std::max(attention_floats_, prepared_->workspace_floats());
    ++calls_;
  });
  place();
}

// Between two calls of attention no row needs another: a worker takes a block of rows through all steps while they are
// in its cache. Few rows are one block, whose projections the workers share.
void Pass::plan_blocks() {
  // A multiple of every microkernel's rows.
  const kernels::Tuning& tuning = kernels::tuning();
  blocks_ = std::max<std::int64_t>(1, (rows_ + tuning.encoder_block_rows - 1) / tuning.encoder_block_rows);
  if (threads_ > 1 && rows_ >= threads_ * tuning.encoder_least_rows) {
    blocks_ = (blocks_ + threads_ - 1) / threads_ * threads_;
  }
  if (blocks_ == 1) inner_ = threads_;
  workers_ = static_cast<int>(std::min<std::int64_t>(blocks_, threads_));
  most_ = (rows_ + blocks_ - 1) / blocks_;
}

// Lays the arrays out in the workspace, attention's own behind them.
void Pass::place() {
  const auto workers = static_cast<std::int64_t>(workers_);
  const std::int64_t entries = tokens_.entries();
  base::WorkspaceLayout layout(function_);
  const std::size_t starts = layout.take({entries + 1}, sizeof(std::int64_t));
  const std::size_t first = layout.take({entries}, sizeof(std::int64_t));
  const std::size_t x = layout.take({rows_, hidden()}, sizeof(float));
  const std::size_t qkv = layout.take({rows_, qkv_width()}, size_of(qkv_type_));
  const std::size_t heads = layout.take({rows_, q_width()}, sizeof(float));
  const std::size_t kept = layout.take({rows_, kept_floats_}, sizeof(float));
  const std::size_t middle = layout.take({workers, most_, middle_floats_}, sizeof(float));
  const std::size_t wide = layout.take({workers, most_, wide_floats_}, sizeof(float));
  const std::size_t linear = layout.take({workers, static_cast<std::int64_t>(linear_floats_)}, sizeof(float));
  const std::size_t attention = layout.take({static_cast<std::int64_t>(attention_floats_)}, sizeof(float));
  auto* memory = static_cast<std::byte*>(workspace_.reserve(layout.used()));
  const auto floats = [&](std::size_t at) { return reinterpret_cast<float*>(memory + at); };
  row_starts_ = reinterpret_cast<std::int64_t*>(memory + starts);
  first_ = reinterpret_cast<std::int64_t*>(memory + first);
  x_ = floats(x);
  qkv_ = memory + qkv;
  heads_ = floats(heads);
  kept_ = floats(kept);
  middle_ = floats(middle);
  wide_ = floats(wide);
  linear_ = floats(linear);
  attention_ = floats(attention);
  row_starts_[0] = 0;
  for (std::int64_t b = 0; b < entries; ++b) {
    row_starts_[b + 1] = row_starts_[b] + tokens_.length(b);
    first_[b] = tokens_.cache() != nullptr ? tokens_.cache()->length(tokens_.sequence(b)) : 0;
  }
}

float* Pass::qkv(std::int64_t layer, const PassRows& rows) const {
  float* const kept = kept_of(layer).qkv;
  return (kept != nullptr ? kept : static_cast<float*>(qkv_)) + rows.begin * qkv_width();
}

void* Pass::rounded_qkv(const PassRows& rows) const {
  return static_cast<std::byte*>(qkv_) + static_cast<std::size_t>(rows.begin * qkv_width()) * size_of(qkv_type_);
}

void Pass::keep_rounded(std::int64_t layer, const PassRows& rows) const {
  float* const kept = kept_of(layer).qkv;
  if (kept == nullptr) return;
  float* const to = kept + rows.begin * qkv_width();
  const std::int64_t count = rows.count * qkv_width();
  const auto widen = [&](const auto* from) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
  };
  if (qkv_type_ == DType::kBF16) widen(static_cast<const bfloat16*>(rounded_qkv(rows)));
  if (qkv_type_ == DType::kF16) widen(static_cast<const float16*>(rounded_qkv(rows)));
}

void Pass::linear(const layer::Linear& with, const float* from, float* to, const PassRows& rows,
                  layer::Activation activation) const {
  with.run(from, rows.count, with.in_features(), to, with.out_features(), activation, inner(), linear_of(rows.worker));
}

void Pass::linear(const layer::Linear& with, const float* from, std::int64_t from_stride, float* to,
                  const PassRows& rows) const {
  with.run(from, rows.count, from_stride, to, with.out_features(), layer::Activation::kNone, inner(),
           linear_of(rows.worker));
}

void Pass::linear_rounded(const layer::Linear& with, const float* from, float* sums, void* to,
                          const PassRows& rows) const {
  const std::int64_t width = with.out_features();
  with.run_rounded(from, rows.count, with.in_features(), sums, width, static_cast<bfloat16*>(to), width, inner(),
                   linear_of(rows.worker));
}

Pass::Kept Pass::kept_of(std::int64_t layer) const {
  if (options_.layers == nullptr) return {};
  std::vector<Tensor>& storage = (*options_.layers)[static_cast<std::size_t>(layer)].storage;
  return {storage[0].as<float>(), storage[1].as<float>()};
}

void Pass::make_layers() const {
  const std::int64_t h = config_.num_heads, hkv = config_.num_kv_heads, d = config_.head_dim, width = qkv_width();
  options_.layers->assign(static_cast<std::size_t>(config_.num_layers), {});
  for (LayerHeads& layer : *options_.layers) {
    const Tensor qkv(DType::kF32, {rows_, width}), lse(DType::kF32, {h, rows_});
    const auto part = [&](std::int64_t head, std::int64_t heads) {
      return ConstTensorView(qkv.as<float>() + head * d, {rows_, heads, d}, {width, d, 1});
    };
    layer = {
        part(0, h), part(h, hkv), part(h + hkv, hkv), lse.cview(), {row_starts_, row_starts_ + tokens_.entries() + 1},
        {qkv, lse}};
  }
}

// Runs body(rows) for each block.
template <class Body>
void Pass::for_each_block(Body&& body) const {
  if (rows_ == 0) return;
  base::parallel_for(blocks_, workers_, options_.threads.executor, [&](std::int64_t i, int worker) {
    const kernels::TableScope scope(table_);  // the caller's, which is another thread
    const std::int64_t begin = rows_ * i / blocks_;
    body(PassRows{begin, rows_ * (i + 1) / blocks_ - begin, worker});
  });
}

// Calls body(first entry's row, entries, length) for each call of attention: one packed call (length -1), or one for
// each group of neighbours of one length. None has padding, so none needs a mask for it.
template <class Body>
void Pass::for_each_call(Body&& body) const {
  if (packed_) return body(0, tokens_.entries(), -1);
  for (std::int64_t b = 0, end = 0; b < tokens_.entries(); b = end) {
    const std::int64_t length = tokens_.length(b);
    end = b + 1;
    while (end < tokens_.entries() && tokens_.length(end) == length) ++end;
    if (length > 0) body(row_starts_[b], end - b, length);
  }
}

// The tensors of a call of attention: all rows as one packed call (length -1), or `entries` neighbours of one length.
Pass::Operands Pass::operands(const Kept& kept, std::int64_t first, std::int64_t entries, std::int64_t length) const {
  const std::int64_t h = config_.num_heads, hkv = config_.num_kv_heads, d = config_.head_dim;
  const auto view_of = [&](auto* rows, std::int64_t heads, std::int64_t stride) {
    return length < 0 ? TensorView(rows, {rows_, heads, d}, {stride, d, 1})
                      : layer::heads_view(rows, entries, heads, length, d, length * stride, stride);
  };
  const auto part = [&](std::int64_t head, std::int64_t heads) {
    const std::int64_t at = first * qkv_width() + head * d;
    switch (qkv_type_) {
      case DType::kBF16:
        return view_of(static_cast<bfloat16*>(qkv_) + at, heads, qkv_width());
      case DType::kF16:
        return view_of(static_cast<float16*>(qkv_) + at, heads, qkv_width());
      default:
        return view_of((kept.qkv != nullptr ? kept.qkv : static_cast<float*>(qkv_)) + at, heads, qkv_width());
    }
  };
  Operands operands{
      part(0, h), part(h, hkv), part(h + hkv, hkv), view_of(heads_ + first * q_width(), h, q_width()), {}};
  if (kept.lse == nullptr) return operands;
  operands.lse = length < 0 ? TensorView(kept.lse, {h, rows_})
                            : TensorView(kept.lse + first, {entries, h, length}, {length, rows_, 1});
  return operands;
}

AttentionOptions Pass::attention_options() const {
  AttentionOptions how;
  how.threads = {threads_, options_.threads.executor};
  how.scale = config_.scale;
  how.mask.causal = config_.causal;
  return how;
}

attention_detail::PreparedForward Pass::prepare(std::int64_t first, std::int64_t entries, std::int64_t length) const {
  const Operands at = operands({}, first, entries, length);
  AttentionOptions how = attention_options();
  if (config_.causal) how.mask.alignment = Alignment::kTopLeft;  // the lengths are equal
  if (length < 0) how.cu_seqlens_q = how.cu_seqlens_k = ConstTensorView(row_starts_, {tokens_.entries() + 1});
  return {function_, at.q, at.k, at.v, at.out, how};
}

void Pass::attend(std::int64_t layer) {
  const Kept kept = kept_of(layer);
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

void Pass::attend_in_cache(std::int64_t layer) {
  KVCache& cache = tokens_.cache()->layer(layer);
  const Threads threads{threads_, options_.threads.executor};
  const std::int64_t entries = tokens_.entries(), length = one_length(tokens_) ? tokens_.length(0) : -1;
  const Kept kept = kept_of(layer);
  const Operands all = operands(kept, 0, entries, -1);
  for (std::int64_t b = 0; b < entries; ++b) {
    const auto of_entry = [&](const TensorView& packed) {
      const std::int64_t bytes = row_starts_[b] * packed.stride(0) * static_cast<std::int64_t>(size_of(packed.dtype()));
      return ConstTensorView(static_cast<const std::byte*>(packed.data()) + bytes, packed.dtype(),
                             {packed.size(1), tokens_.length(b), packed.size(2)},
                             {packed.stride(1), packed.stride(0), packed.stride(2)});
    };
    cache.append(sequences_[static_cast<std::size_t>(b)], of_entry(all.k), of_entry(all.v), threads);
  }
  cache.gather(sequences_, batch_);
  const Operands at = operands(kept, 0, entries, length);
  AttentionOptions how = attention_options();
  batch_.apply(how);
  how.mask.alignment = Alignment::kBottomRight;
  how.lse = at.lse;
  how.workspace = &*cache_workspace_;
  if (length < 0) how.cu_seqlens_q = ConstTensorView(row_starts_, {entries + 1});
  attention(at.q, batch_.k, batch_.v, at.out, how);
}

void Pass::scale_heads(std::int64_t layer, const PassRows& rows) const {
  const ConstTensorView& all = options_.head_scale;
  if (!all.defined()) return;
  const ConstTensorView of_layer(static_cast<const float*>(all.data()) + layer * all.stride(0), {config_.num_heads},
                                 {all.stride(1)});
  layer::scale_heads(heads(rows), rows.count, config_.num_heads, config_.head_dim, of_layer, {.num_threads = 1});
}

// Copies rows to their places in [B,T,E], or where there is a cache in [N,E].
void Pass::unpack(float* to, const PassRows& rows) const {
  const std::int64_t e = hidden();
  for_each_row(rows, [&](std::int64_t row, std::int64_t b, std::int64_t t) {
    std::copy_n(x_ + row * e, e, to + (last_tokens_ < 0 ? row : b * last_tokens_ + t) * e);
  });
}

// Hands on rows that have passed `layers` layers.
void Pass::go_on(std::int64_t layers, const PassRows& rows, Tensor& last) const {
  if (layers == config_.num_layers) {
    steps_.end(*this, rows);
    return unpack(last.as<float>(), rows);
  }
  if (options_.hidden_states != nullptr) {
    unpack((*options_.hidden_states)[static_cast<std::size_t>(layers)].as<float>(), rows);
  }
  steps_.project(*this, layers, rows);
}

void Pass::run(Tensor& last) {
  last_tokens_ = tokens_.cache() != nullptr ? -1 : last.size(1);
  if (std::vector<Tensor>* hidden = options_.hidden_states; hidden != nullptr) {
    hidden->clear();
    for (std::int64_t i = 0; i < config_.num_layers; ++i) hidden->emplace_back(DType::kF32, last.shape());
    hidden->push_back(last);
  }
  if (options_.layers != nullptr) make_layers();
  for_each_block([&](const PassRows& rows) {
    steps_.embed(*this, rows);
    go_on(0, rows, last);
  });
  for (std::int64_t i = 0; i < config_.num_layers; ++i) {
    tokens_.cache() != nullptr ? attend_in_cache(i) : attend(i);
    for_each_block([&](const PassRows& rows) {
      scale_heads(i, rows);
      steps_.finish(*this, i, rows);
      go_on(i + 1, rows, last);
    });
  }
}

}  // namespace manyheads::model
