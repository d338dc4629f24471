#include "model/llama.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "kernels/dispatch.hpp"
#include "layer/convert.hpp"
#include "model/checkpoint.hpp"
#include "model/llama_weights.hpp"
#include "model/pass.hpp"

namespace manyheads::model {

struct LlamaDecoder::Impl final : PassSteps {
  Impl(const LlamaConfig& c, LlamaWeights w, DType kept) : llama(c), weights(std::move(w)) {
    encoder_config = {.hidden_size = c.hidden_size,
                      .num_layers = c.num_hidden_layers,
                      .num_heads = c.num_attention_heads,
                      .num_kv_heads = c.num_key_value_heads,
                      .head_dim = c.head_dim,
                      .scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim)),
                      .causal = true,
                      .vocab_size = c.vocab_size,
                      .max_position_embeddings = c.max_position_embeddings,
                      .weights = kept};
    // The blocks are alike.
    const LlamaBlock& block = weights.blocks.front();
    projections = {&block.qkv, &block.attention_output, &block.gate_up, &block.down};
  }

  const EncoderConfig& config() const override { return encoder_config; }
  std::span<const layer::Linear* const> linears() const override { return projections; }
  // What attention reads where no cache says otherwise: projections that round rows round those too.
  DType qkv_type() const { return weights.blocks.front().qkv.rounds_rows() ? DType::kBF16 : DType::kF32; }
  std::int64_t qkv_width() const {
    return (llama.num_attention_heads + 2 * llama.num_key_value_heads) * llama.head_dim;
  }

  std::int64_t wide_floats() const override { return std::max(2 * llama.intermediate_size, qkv_width()); }
  // A part's output, and what the norm makes of the stream.
  std::int64_t middle_floats() const override { return 2 * llama.hidden_size; }
  float* normed(const Pass& pass, const PassRows& rows) const {
    return pass.middle(rows) + rows.count * llama.hidden_size;
  }
  // Cosines and sines of a row's position.
  std::int64_t kept_floats() const override { return llama.head_dim; }

  void embed(const Pass& pass, const PassRows& rows) const override {
    const std::int64_t e = llama.hidden_size, half = llama.head_dim / 2;
    float* const x = pass.x(rows);
    float *const cos = pass.kept(rows), *const sin = cos + rows.count * half;
    pass.for_each_row(rows, [&](std::int64_t row, std::int64_t b, std::int64_t t) {
      const std::int64_t at = row - rows.begin;
      const auto* token = static_cast<const std::byte*>(weights.embeddings.bytes()) +
                          static_cast<std::size_t>(pass.id(b, t) * e) * size_of(weights.embeddings.dtype());
      layer::copy_to_f32(ConstTensorView(token, weights.embeddings.dtype(), {e}), x + at * e, {.num_threads = 1});
      // The angle in F32, as models of the hub are trained with.
      const auto position = static_cast<float>(pass.position(b, t));
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position * llama.rope_frequencies[static_cast<std::size_t>(i)]);
        cos[at * half + i] = static_cast<float>(std::cos(angle));
        sin[at * half + i] = static_cast<float>(std::sin(angle));
      }
    });
  }

  void project(const Pass& pass, std::int64_t layer, const PassRows& rows) const override {
    const LlamaBlock& m = block(layer);
    const std::int64_t d = llama.head_dim;
    norm(m.attention_norm, pass.x(rows), nullptr, normed(pass, rows), rows.count);
    const bool rounded = pass.qkv_type() != DType::kF32;
    float* const sums = rounded ? pass.wide(rows) : pass.qkv(layer, rows);
    pass.linear(m.qkv, normed(pass, rows), sums, rows);
    kernels::RotaryParams call;
    call.x = sums;
    call.x_stride = call.y_stride = qkv_width();
    call.cos = pass.kept(rows);
    call.sin = call.cos + rows.count * d / 2;
    call.y = rounded ? pass.rounded_qkv(rows) : sums;
    call.y_type = pass.qkv_type();
    call.heads = llama.num_attention_heads + 2 * llama.num_key_value_heads;
    call.rotated_heads = llama.num_attention_heads + llama.num_key_value_heads;
    call.head_dim = d;
    kernels::active_table().rotary(call, 0, rows.count);
    if (rounded) pass.keep_rounded(layer, rows);
  }

  void finish(const Pass& pass, std::int64_t layer, const PassRows& rows) const override {
    const LlamaBlock& m = block(layer);
    const std::int64_t e = llama.hidden_size, inner = llama.intermediate_size;
    float *const x = pass.x(rows), *const middle = pass.middle(rows), *const wide = pass.wide(rows);
    pass.linear(m.attention_output, pass.heads(rows), middle, rows);
    norm(m.mlp_norm, x, middle, normed(pass, rows), rows.count);
    pass.linear(m.gate_up, normed(pass, rows), wide, rows);
    kernels::SwiGluParams call;
    call.gate = wide;
    call.up = wide + inner;
    call.x_stride = call.y_stride = 2 * inner;
    call.y = wide;
    call.size = inner;
    kernels::active_table().swiglu(call, 0, rows.count);
    pass.linear(m.down, wide, 2 * inner, middle, rows);
    for (std::int64_t i = 0; i < rows.count * e; ++i) x[i] += middle[i];
  }

  void end(const Pass& pass, const PassRows& rows) const override {
    norm(weights.norm, pass.x(rows), nullptr, normed(pass, rows), rows.count);
    std::copy_n(normed(pass, rows), rows.count * llama.hidden_size, pass.x(rows));
  }

  // y = norm(x), or where there is a residual: x += residual, y = norm(x).
  void norm(const Tensor& gamma, float* x, const float* residual, float* y, std::int64_t rows) const {
    const std::int64_t e = llama.hidden_size;
    kernels::RmsNormParams call;
    call.x = x;
    call.residual = residual;
    call.sum = residual != nullptr ? x : nullptr;
    call.gamma = gamma.as<float>();
    call.y = y;
    call.x_stride = call.residual_stride = call.sum_stride = call.y_stride = call.size = e;
    call.epsilon = static_cast<float>(llama.rms_norm_eps);
    kernels::active_table().rms_norm(call, 0, rows);
  }

  const LlamaBlock& block(std::int64_t layer) const { return weights.blocks[static_cast<std::size_t>(layer)]; }

  LlamaConfig llama;
  LlamaWeights weights;
  EncoderConfig encoder_config;
  std::vector<const layer::Linear*> projections;
};

LlamaDecoder::LlamaDecoder(const LlamaConfig& config, const StateDict& tensors, DType weights)
    : impl_(std::make_unique<const Impl>(config, LlamaWeights(config, tensors, {}, "LlamaDecoder", weights), weights)) {
}

LlamaDecoder LlamaDecoder::load(const std::filesystem::path& folder, DType weights) {
  const LlamaConfig config = load_llama_config(folder);
  const SafetensorsFile file = load_checkpoint(folder);
  return LlamaDecoder(std::make_unique<const Impl>(
      config, LlamaWeights(config, file.tensors, file.unsupported, base::path_in_quotes(file.path), weights), weights));
}

LlamaDecoder::LlamaDecoder(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
LlamaDecoder::~LlamaDecoder() = default;
LlamaDecoder::LlamaDecoder(LlamaDecoder&&) noexcept = default;
LlamaDecoder& LlamaDecoder::operator=(LlamaDecoder&&) noexcept = default;

const EncoderConfig& LlamaDecoder::config() const noexcept { return impl_->encoder_config; }

std::unique_ptr<const Decoder> load_llama(const std::filesystem::path& folder, DType weights) {
  return std::make_unique<const LlamaDecoder>(LlamaDecoder::load(folder, weights));
}

Tensor LlamaDecoder::forward(const TokenBatch& input, const EncoderOptions& options) const {
  std::optional<Workspace> own;
  const PassTokens tokens(input);
  Pass pass("LlamaDecoder::run", *impl_, tokens, impl_->qkv_type(), options,
            options.workspace != nullptr ? *options.workspace : own.emplace());
  Tensor last(DType::kF32, {input.batch, input.tokens, impl_->llama.hidden_size});
  pass.run(last);
  return last;
}

Tensor LlamaDecoder::forward_in_cache(DecoderCache& cache, std::span<const DecoderChunk> chunks,
                                      const EncoderOptions& options) const {
  std::optional<Workspace> own;
  const PassTokens tokens(cache, chunks);
  const DType type = cache.options().dtype == DType::kI8 ? impl_->qkv_type() : cache.options().dtype;
  Pass pass("LlamaDecoder::extend", *impl_, tokens, type, options,
            options.workspace != nullptr ? *options.workspace : own.emplace());
  Tensor last(DType::kF32, {pass.rows(), impl_->llama.hidden_size});
  pass.run(last);
  return last;
}

Tensor LlamaDecoder::project_to_vocabulary(const ConstTensorView& hidden, const Threads& threads) const {
  const layer::Linear& to = impl_->weights.logits;
  Tensor logits(DType::kF32, {hidden.size(0), to.out_features()});
  to.run(static_cast<const float*>(hidden.data()), hidden.size(0), to.in_features(), logits.as<float>(),
         to.out_features(), layer::Activation::kNone, threads);
  return logits;
}

}  // namespace manyheads::model
