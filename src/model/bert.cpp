#include "model/bert.hpp"

#include <algorithm>
#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <map>
#include <string>
#include <utility>

#include "base/file.hpp"
#include "kernels/dispatch.hpp"
#include "layer/convert.hpp"
#include "layer/heads.hpp"
#include "layer/linear.hpp"
#include "layer/rows.hpp"
#include "model/safetensors.hpp"

namespace manyheads::model {
namespace {

using layer::Linear;

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "BertEncoder::run: " + what);
}

// Finds an encoder's tensors under the names that checkpoints give them.
class Checkpoint {
 public:
  Checkpoint(const StateDict& tensors, const std::map<std::string, std::string>& unsupported, std::string place)
      : tensors_(tensors), unsupported_(unsupported), place_(std::move(place)) {}

  Tensor take(const std::string& name, const Dims& shape) const {
    for (const std::string& known : names(name)) {
      if (const auto found = unsupported_.find(known); found != unsupported_.end()) {
        refuse(base::in_quotes(known) + " is " + found->second + ", expected F32, BF16 or F16 " + shape.to_string());
      }
      const auto found = tensors_.find(known);
      if (found == tensors_.end()) continue;
      const Tensor& tensor = found->second;
      if (!(tensor.shape() == shape)) {
        refuse(base::in_quotes(known) + " is " + tensor.shape().to_string() + ", expected " + shape.to_string());
      }
      if (!layer::is_float(tensor.dtype())) {
        refuse(base::in_quotes(known) + " is " + name_of(tensor.dtype()) + ", expected F32, BF16 or F16");
      }
      return tensor;
    }
    refuse(base::in_quotes(name) + " " + shape.to_string() +
           " is missing (looked for with and without the prefix bert.)");
  }

  // F32: the tensor itself where it is of this type already.
  Tensor take_f32(const std::string& name, const Dims& shape) const {
    const Tensor tensor = take(name, shape);
    return tensor.dtype() == DType::kF32 ? tensor : layer::converted(tensor.cview(), DType::kF32);
  }

  Linear linear(const std::string& name, std::int64_t in, std::int64_t out) const {
    return Linear(take(name + ".weight", {out, in}).cview(), take(name + ".bias", {out}).cview());
  }

 private:
  // Checkpoints turned over from the first BERT call a norm's tensors gamma and beta.
  static std::vector<std::string> names(const std::string& name) {
    std::vector<std::string> all{name, "bert." + name};
    for (const auto& [now, once] :
         {std::pair{"LayerNorm.weight", "LayerNorm.gamma"}, std::pair{"LayerNorm.bias", "LayerNorm.beta"}}) {
      const std::size_t at = name.rfind(now);
      if (at == std::string::npos) continue;
      all.push_back(name.substr(0, at) + once);
      all.push_back("bert." + all.back());
    }
    return all;
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::kMalformedFile, place_ + ": tensor " + what);
  }

  const StateDict& tensors_;
  const std::map<std::string, std::string>& unsupported_;
  std::string place_;
};

struct Norm {
  Tensor gamma, beta;  // [E] F32

  Norm() = default;
  Norm(const Checkpoint& from, const std::string& name, std::int64_t size)
      : gamma(from.take_f32(name + ".weight", {size})), beta(from.take_f32(name + ".bias", {size})) {}

  // y = norm(x + residual) for dense rows; residual may be null.
  void run(const float* x, const float* residual, float* y, std::int64_t rows, double epsilon,
           const BertOptions& options) const {
    const std::int64_t size = gamma.size(0);
    kernels::LayerNormCall call;
    call.x = x;
    call.residual = residual;
    call.gamma = gamma.as<float>();
    call.beta = beta.as<float>();
    call.y = y;
    call.x_stride = call.residual_stride = call.y_stride = call.size = size;
    call.epsilon = static_cast<float>(epsilon);
    const kernels::KernelTable& table = kernels::active_table();
    layer::for_row_blocks(rows, size, options.num_threads, options.executor,
                          [&](std::int64_t begin, std::int64_t end) { table.layer_norm(call, begin, end); });
  }
};

struct Block {
  Linear qkv, attention_output, intermediate, output;
  Norm attention_norm, output_norm;
};

Block load_block(const Checkpoint& from, const BertConfig& config, std::int64_t number) {
  const std::string name = "encoder.layer." + std::to_string(number) + ".";
  const std::int64_t e = config.hidden_size;
  std::vector<Tensor> weights, biases;
  for (const char* part : {"query", "key", "value"}) {
    weights.push_back(from.take(name + "attention.self." + part + ".weight", {e, e}));
    biases.push_back(from.take(name + "attention.self." + part + ".bias", {e}));
  }
  Block block;
  block.qkv = Linear(layer::stacked(weights, DType::kF32).cview(), layer::stacked(biases, DType::kF32).cview());
  block.attention_output = from.linear(name + "attention.output.dense", e, e);
  block.attention_norm = Norm(from, name + "attention.output.LayerNorm", e);
  block.intermediate = from.linear(name + "intermediate.dense", e, config.intermediate_size);
  block.output = from.linear(name + "output.dense", config.intermediate_size, e);
  block.output_norm = Norm(from, name + "output.LayerNorm", e);
  return block;
}

// The tokens that count, one after another without padding.
struct Packing {
  std::vector<std::int64_t> row_starts;  // [B + 1]
  std::int64_t batch = 0, tokens = 0;

  std::int64_t rows() const { return row_starts.back(); }
  bool padded() const { return rows() != batch * tokens; }
  std::int64_t length(std::int64_t b) const {
    return row_starts[static_cast<std::size_t>(b + 1)] - row_starts[static_cast<std::size_t>(b)];
  }
  // Rows of hidden states: their final shape where there is no padding.
  Dims shape(std::int64_t width) const { return padded() ? Dims{rows(), width} : Dims{batch, tokens, width}; }
  Tensor unpack(const Tensor& packed, std::int64_t width) const {
    if (!padded()) return packed;
    Tensor dense(DType::kF32, {batch, tokens, width});
    for (std::int64_t b = 0; b < batch; ++b) {
      std::copy_n(packed.as<float>() + row_starts[static_cast<std::size_t>(b)] * width, length(b) * width,
                  dense.as<float>() + b * tokens * width);
    }
    return dense;
  }
};

Packing check(const BertInput& input, const BertConfig& config) {
  const std::string shape = Dims{input.batch, input.tokens}.to_string();
  const std::int64_t count = element_count({input.batch, input.tokens});
  const auto size_of_list = [](const std::vector<std::int64_t>& list) {
    return static_cast<std::int64_t>(list.size());
  };
  if (size_of_list(input.ids) != count) {
    fail(std::to_string(input.ids.size()) + " ids for [B,T] = " + shape);
  }
  if (!input.type_ids.empty() && size_of_list(input.type_ids) != count) {
    fail(std::to_string(input.type_ids.size()) + " type_ids for [B,T] = " + shape);
  }
  if (!input.lengths.empty() && size_of_list(input.lengths) != input.batch) {
    fail(std::to_string(input.lengths.size()) + " lengths for [B,T] = " + shape);
  }
  Packing packing{{0}, input.batch, input.tokens};
  for (std::int64_t b = 0; b < input.batch; ++b) {
    const std::int64_t length = input.lengths.empty() ? input.tokens : input.lengths[static_cast<std::size_t>(b)];
    const std::string entry = " of batch entry " + std::to_string(b);
    if (length < 0 || length > input.tokens) {
      fail("length " + std::to_string(length) + entry + ", expected 0 to " + std::to_string(input.tokens));
    }
    if (length > config.max_position_embeddings) {
      fail(std::to_string(length) + " tokens, more than the " + std::to_string(config.max_position_embeddings) +
           " that the model takes");
    }
    for (std::int64_t t = 0; t < length; ++t) {
      const auto at = static_cast<std::size_t>(b * input.tokens + t);
      const std::int64_t type = input.type_ids.empty() ? 0 : input.type_ids[at];
      if (input.ids[at] < 0 || input.ids[at] >= config.vocab_size) {
        fail("token id " + std::to_string(input.ids[at]) + entry + ", the vocabulary has " +
             std::to_string(config.vocab_size));
      }
      if (type < 0 || type >= config.type_vocab_size) {
        fail("type id " + std::to_string(type) + entry + ", the model has " + std::to_string(config.type_vocab_size));
      }
    }
    packing.row_starts.push_back(packing.rows() + length);
  }
  return packing;
}

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
  Tensor words, positions, types;  // F32
  Norm embedding_norm;
  std::vector<Block> blocks;

  Impl(const BertConfig& given, const Checkpoint& from) : config(given) {
    const std::int64_t e = config.hidden_size;
    words = from.take_f32("embeddings.word_embeddings.weight", {config.vocab_size, e});
    positions = from.take_f32("embeddings.position_embeddings.weight", {config.max_position_embeddings, e});
    types = from.take_f32("embeddings.token_type_embeddings.weight", {config.type_vocab_size, e});
    embedding_norm = Norm(from, "embeddings.LayerNorm", e);
    for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) blocks.push_back(load_block(from, config, i));
  }

  void embed(const BertInput& input, const Packing& packing, float* sums, float* x, const BertOptions& options) const;
  void attend(const Packing& packing, float* qkv, float* heads, Tensor* lse, Workspace& workspace,
              const BertOptions& options) const;
  void check_options(const BertOptions& options) const;
};

BertEncoder::BertEncoder(const BertConfig& config, const StateDict& tensors)
    : impl_(std::make_unique<const Impl>(config, Checkpoint(tensors, {}, "BertEncoder"))) {}

BertEncoder BertEncoder::load(const std::filesystem::path& folder) {
  const BertConfig config = load_bert_config(folder);
  const SafetensorsFile file = load_checkpoint(folder);
  return BertEncoder(std::make_unique<const Impl>(
      config, Checkpoint(file.tensors, file.unsupported, base::path_in_quotes(file.path))));
}

BertEncoder::BertEncoder(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
BertEncoder::~BertEncoder() = default;
BertEncoder::BertEncoder(BertEncoder&&) noexcept = default;
BertEncoder& BertEncoder::operator=(BertEncoder&&) noexcept = default;

const BertConfig& BertEncoder::config() const noexcept { return impl_->config; }

void BertEncoder::Impl::embed(const BertInput& input, const Packing& packing, float* sums, float* x,
                              const BertOptions& options) const {
  const std::int64_t e = config.hidden_size;
  for (std::int64_t b = 0; b < packing.batch; ++b) {
    float* rows = sums + packing.row_starts[static_cast<std::size_t>(b)] * e;
    layer::for_row_blocks(
        packing.length(b), e, options.num_threads, options.executor, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t t = begin; t < end; ++t) {
            const auto at = static_cast<std::size_t>(b * packing.tokens + t);
            const float* word = words.as<float>() + input.ids[at] * e;
            const float* type = types.as<float>() + (input.type_ids.empty() ? 0 : input.type_ids[at]) * e;
            const float* position = positions.as<float>() + t * e;
            for (std::int64_t i = 0; i < e; ++i) rows[t * e + i] = word[i] + type[i] + position[i];
          }
        });
  }
  embedding_norm.run(sums, nullptr, x, packing.rows(), config.layer_norm_eps, options);
}

void BertEncoder::Impl::attend(const Packing& packing, float* qkv, float* heads, Tensor* lse, Workspace& workspace,
                               const BertOptions& options) const {
  const std::int64_t e = config.hidden_size, d = config.head_size(), h = config.num_attention_heads;
  const std::int64_t rows = packing.rows();
  for (std::int64_t b = 0; b < packing.batch;) {
    // Neighbours of one length are one call: none of them has padding, so none needs a mask.
    const std::int64_t length = packing.length(b);
    std::int64_t end = b + 1;
    while (end < packing.batch && packing.length(end) == length) ++end;
    const std::int64_t n = end - b, start = packing.row_starts[static_cast<std::size_t>(b)];
    b = end;
    if (length == 0) continue;
    const auto part = [&](int which) {
      return layer::heads_view(qkv + start * 3 * e + which * e, n, h, length, d, length * 3 * e, 3 * e);
    };
    AttentionOptions how;
    how.num_threads = options.num_threads;
    how.executor = options.executor;
    how.workspace = &workspace;
    TensorView lse_rows;
    if (lse != nullptr) {
      lse_rows = TensorView(lse->as<float>() + start, {n, h, length}, {length, rows, 1});
      how.lse = &lse_rows;
    }
    attention(part(0), part(1), part(2), layer::heads_view(heads + start * e, n, h, length, d, length * e, e), how);
  }
}

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
  const Impl& m = *impl_;
  const BertConfig& config = m.config;
  const Packing packing = check(input, config);
  m.check_options(options);
  const std::int64_t rows = packing.rows(), e = config.hidden_size, h = config.num_attention_heads;

  // The wide rows between the two last projections are made a block at a time: they stay in the cache.
  constexpr std::int64_t kBlockRows = 480;  // whole register tiles of every kernel
  Tensor x(DType::kF32, packing.shape(e));
  Tensor own_qkv;
  if (options.taps == nullptr) own_qkv = Tensor(DType::kF32, {rows, 3 * e});
  Tensor heads(DType::kF32, {rows, e}), projected(DType::kF32, {rows, e}), middle(DType::kF32, {rows, e});
  Tensor wide(DType::kF32, {std::min(rows, kBlockRows), config.intermediate_size});
  Workspace workspace;

  m.embed(input, packing, projected.as<float>(), x.as<float>(), options);
  if (options.hidden_states != nullptr) options.hidden_states->assign(1, packing.unpack(x, e));
  if (options.taps != nullptr) options.taps->layers.assign(m.blocks.size(), {});

  for (std::size_t i = 0; i < m.blocks.size(); ++i) {
    const Block& block = m.blocks[i];
    Tensor qkv = own_qkv;
    Tensor* lse = nullptr;
    if (options.taps != nullptr) {
      BertLayerTap& tap = options.taps->layers[i];
      tap.qkv = qkv = Tensor(DType::kF32, {rows, 3 * e});
      tap.lse = Tensor(DType::kF32, {h, rows});
      tap.row_starts = packing.row_starts;
      tap.num_heads = h;
      lse = &tap.lse;
    }
    const auto linear = [&](const Linear& with, const float* from, std::int64_t count, float* to,
                            layer::Activation activation = layer::Activation::kNone) {
      with.run(from, count, with.in_features(), to, with.out_features(), activation, options.num_threads,
               options.executor);
    };
    linear(block.qkv, x.as<float>(), rows, qkv.as<float>());
    m.attend(packing, qkv.as<float>(), heads.as<float>(), lse, workspace, options);
    if (const ConstTensorView& scale = options.head_scale; scale.defined()) {
      const auto* data = static_cast<const float*>(scale.data()) + static_cast<std::int64_t>(i) * scale.stride(0);
      layer::scale_heads(heads.as<float>(), rows, h, config.head_size(), ConstTensorView(data, {h}, {scale.stride(1)}),
                         options.num_threads, options.executor);
    }
    linear(block.attention_output, heads.as<float>(), rows, projected.as<float>());
    block.attention_norm.run(projected.as<float>(), x.as<float>(), middle.as<float>(), rows, config.layer_norm_eps,
                             options);
    for (std::int64_t begin = 0; begin < rows; begin += kBlockRows) {
      const std::int64_t count = std::min(kBlockRows, rows - begin);
      linear(block.intermediate, middle.as<float>() + begin * e, count, wide.as<float>(), config.hidden_act);
      linear(block.output, wide.as<float>(), count, projected.as<float>() + begin * e);
    }
    // A hidden state that was handed out is the caller's: the next one gets memory of its own.
    if (options.hidden_states != nullptr && !packing.padded()) x = Tensor(DType::kF32, packing.shape(e));
    block.output_norm.run(projected.as<float>(), middle.as<float>(), x.as<float>(), rows, config.layer_norm_eps,
                          options);
    if (options.hidden_states != nullptr) options.hidden_states->push_back(packing.unpack(x, e));
  }
  return packing.unpack(x, e);
}

}  // namespace manyheads::model
