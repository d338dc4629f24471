#include "model/bert.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "model/bert_weights.hpp"
#include "model/checkpoint.hpp"
#include "model/pass.hpp"

namespace manyheads::model {

struct BertEncoder::Impl final : PassSteps {
  Impl(const BertConfig& c, BertWeights w, DType kept) : bert(c), weights(std::move(w)) {
    encoder_config = {.hidden_size = c.hidden_size,
                      .num_layers = c.num_hidden_layers,
                      .num_heads = c.num_attention_heads,
                      .num_kv_heads = c.num_attention_heads,
                      .head_dim = c.head_dim(),
                      .scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim())),
                      .vocab_size = c.vocab_size,
                      .type_vocab_size = c.type_vocab_size,
                      .max_position_embeddings = c.max_tokens(),
                      .weights = kept};
    // The blocks are alike.
    if (!weights.blocks.empty()) {
      const BertBlock& block = weights.blocks.front();
      projections = {&block.qkv, &block.attention_output, &block.intermediate, &block.output};
    }
  }

  const EncoderConfig& config() const override { return encoder_config; }
  std::span<const layer::Linear* const> linears() const override { return projections; }
  bool rounds() const { return !weights.blocks.empty() && weights.blocks.front().qkv.rounds_rows(); }
  // A rounded row's projections lie there before they are rounded.
  std::int64_t wide_floats() const override {
    return std::max(bert.intermediate_size, rounds() ? 3 * bert.hidden_size : 0);
  }
  std::int64_t middle_floats() const override { return bert.hidden_size; }

  void embed(const Pass& pass, const PassRows& rows) const override {
    const std::int64_t e = bert.hidden_size;
    float* const x = pass.x(rows);
    // RoBERTa's positions begin behind that of padding, which its token has in a text too and does not count.
    const std::int64_t padding = bert.first_position - 1;
    std::int64_t entry = -1, next = 0;
    const auto position_of = [&](std::int64_t b, std::int64_t t) {
      if (padding < 0) return t;
      if (b != entry) {
        entry = b;
        next = bert.first_position;
        for (std::int64_t i = 0; i < t; ++i) next += pass.id(b, i) != padding ? 1 : 0;
      }
      return pass.id(b, t) == padding ? padding : next++;
    };
    pass.for_each_row(rows, [&](std::int64_t row, std::int64_t b, std::int64_t t) {
      const float* word = weights.words.as<float>() + pass.id(b, t) * e;
      const float* position = weights.positions.as<float>() + position_of(b, t) * e;
      float* const to = x + (row - rows.begin) * e;
      if (weights.types.defined()) {
        const float* type = weights.types.as<float>() + pass.type_id(b, t) * e;
        for (std::int64_t i = 0; i < e; ++i) to[i] = word[i] + type[i] + position[i];
      } else {
        for (std::int64_t i = 0; i < e; ++i) to[i] = word[i] + position[i];
      }
    });
    weights.embedding_norm.run(x, nullptr, x, rows.count, bert.layer_norm_eps);
  }

  void project(const Pass& pass, std::int64_t layer, const PassRows& rows) const override {
    const layer::Linear& qkv = block(layer).qkv;
    if (pass.qkv_type() == DType::kF32) return pass.linear(qkv, pass.x(rows), pass.qkv(layer, rows), rows);
    pass.linear_rounded(qkv, pass.x(rows), pass.wide(rows), pass.rounded_qkv(rows), rows);
    pass.keep_rounded(layer, rows);
  }

  void finish(const Pass& pass, std::int64_t layer, const PassRows& rows) const override {
    const BertBlock& m = block(layer);
    float *const x = pass.x(rows), *const middle = pass.middle(rows), *const wide = pass.wide(rows);
    pass.linear(m.attention_output, pass.heads(rows), middle, rows);
    m.attention_norm.run(middle, x, middle, rows.count, bert.layer_norm_eps);
    pass.linear(m.intermediate, middle, wide, rows, bert.hidden_act);
    pass.linear(m.output, wide, x, rows);
    m.output_norm.run(x, middle, x, rows.count, bert.layer_norm_eps);
  }

  const BertBlock& block(std::int64_t layer) const { return weights.blocks[static_cast<std::size_t>(layer)]; }

  BertConfig bert;
  BertWeights weights;
  EncoderConfig encoder_config;
  std::vector<const layer::Linear*> projections;
};

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
  std::optional<Workspace> own;
  const PassTokens tokens(input);
  Pass pass("BertEncoder::run", *impl_, tokens, impl_->rounds() ? DType::kBF16 : DType::kF32, options,
            options.workspace != nullptr ? *options.workspace : own.emplace());
  Tensor last(DType::kF32, {input.batch, input.tokens, impl_->bert.hidden_size});
  pass.run(last);
  return last;
}

}  // namespace manyheads::model
