#include "model/encoder.hpp"

#include <algorithm>
#include <manyheads/error.hpp>
#include <string>

#include "base/fail.hpp"

namespace manyheads::model {
namespace {

[[noreturn]] void fail(const std::string& what) { throw Error(ErrorCode::kInvalidArgument, "Encoder::run: " + what); }

void check_batch(const TokenBatch& batch, const EncoderConfig& config) {
  const auto shape = [&] { return Dims{batch.batch, batch.tokens}.to_string(); };
  const std::int64_t count = element_count({batch.batch, batch.tokens});
  const auto size_of_list = [](const std::vector<std::int64_t>& list) {
    return static_cast<std::int64_t>(list.size());
  };
  if (size_of_list(batch.ids) != count) fail(std::to_string(batch.ids.size()) + " ids for [B,T] = " + shape());
  if (!batch.type_ids.empty() && size_of_list(batch.type_ids) != count) {
    fail(std::to_string(batch.type_ids.size()) + " type_ids for [B,T] = " + shape());
  }
  if (!batch.lengths.empty() && size_of_list(batch.lengths) != batch.batch) {
    fail(std::to_string(batch.lengths.size()) + " lengths for [B,T] = " + shape());
  }
  for (std::int64_t b = 0; b < batch.batch; ++b) {
    const std::int64_t length = batch.length(b);
    const auto entry = [&] { return " of batch entry " + std::to_string(b); };
    if (length < 0 || length > batch.tokens) {
      fail("length " + std::to_string(length) + entry() + ", expected 0 to " + std::to_string(batch.tokens));
    }
    if (length > config.max_position_embeddings) {
      fail(std::to_string(length) + " tokens, more than the " + std::to_string(config.max_position_embeddings) +
           " that the model takes");
    }
    for (std::int64_t t = 0; t < length; ++t) {
      const auto at = static_cast<std::size_t>(b * batch.tokens + t);
      const std::int64_t type = batch.type_ids.empty() ? 0 : batch.type_ids[at];
      if (batch.ids[at] < 0 || batch.ids[at] >= config.vocab_size) {
        fail("token id " + std::to_string(batch.ids[at]) + entry() + ", the vocabulary has " +
             std::to_string(config.vocab_size));
      }
      if (config.type_vocab_size > 0 && (type < 0 || type >= config.type_vocab_size)) {
        fail("type id " + std::to_string(type) + entry() + ", the model has " + std::to_string(config.type_vocab_size));
      }
    }
  }
}

// Rows [begin, begin + tokens) of heads [N,H,D] as [H,T,D].
ConstTensorView rows_of(const ConstTensorView& heads, std::int64_t begin, std::int64_t tokens) {
  return ConstTensorView(static_cast<const float*>(heads.data()) + begin * heads.stride(0),
                         {heads.size(1), tokens, heads.size(2)}, {heads.stride(1), heads.stride(0), heads.stride(2)});
}

}  // namespace

TokenBatch TokenBatch::from_rows(const std::vector<std::vector<std::int64_t>>& ids,
                                 const std::vector<std::vector<std::int64_t>>& type_ids) {
  TokenBatch batch;
  batch.batch = static_cast<std::int64_t>(ids.size());
  if (!type_ids.empty() && type_ids.size() != ids.size()) {
    throw Error(ErrorCode::kInvalidArgument, "TokenBatch::from_rows: " + std::to_string(ids.size()) + " rows of ids, " +
                                                 std::to_string(type_ids.size()) + " of type_ids");
  }
  std::size_t tokens = 0;
  for (const auto& row : ids) tokens = std::max(tokens, row.size());
  batch.tokens = static_cast<std::int64_t>(tokens);
  batch.ids.resize(ids.size() * tokens);
  if (!type_ids.empty()) batch.type_ids.resize(batch.ids.size());
  for (std::size_t b = 0; b < ids.size(); ++b) {
    batch.lengths.push_back(static_cast<std::int64_t>(ids[b].size()));
    std::copy(ids[b].begin(), ids[b].end(), batch.ids.begin() + static_cast<std::ptrdiff_t>(b * tokens));
    if (type_ids.empty()) continue;
    if (type_ids[b].size() != ids[b].size()) {
      throw Error(ErrorCode::kInvalidArgument, "TokenBatch::from_rows: row " + std::to_string(b) + " has " +
                                                   std::to_string(ids[b].size()) + " ids and " +
                                                   std::to_string(type_ids[b].size()) + " type_ids");
    }
    std::copy(type_ids[b].begin(), type_ids[b].end(), batch.type_ids.begin() + static_cast<std::ptrdiff_t>(b * tokens));
  }
  return batch;
}

EntryHeads LayerHeads::entry(std::int64_t b) const {
  const std::int64_t begin = row_starts.at(static_cast<std::size_t>(b));
  const std::int64_t tokens = row_starts.at(static_cast<std::size_t>(b) + 1) - begin;
  const ConstTensorView rows(static_cast<const float*>(lse.data()) + begin * lse.stride(1), {lse.size(0), tokens},
                             lse.strides());
  return {rows_of(q, begin, tokens), rows_of(k, begin, tokens), rows_of(v, begin, tokens), rows};
}

Tensor Encoder::run(const TokenBatch& batch, const EncoderOptions& options) const {
  check_batch(batch, config());
  check_options("Encoder::run", options, config());
  const kernels::TableScope scope(encoder_table("Encoder::run", options.bits, config()));
  return forward(batch, options);
}

void check_threads(const char* function, const Threads& threads) {
  if (threads.num_threads >= 0) return;
  base::fail(function, base::format("num_threads is {}, expected 0 or more", threads.num_threads));
}

void check_options(const char* function, const EncoderOptions& options, const EncoderConfig& config) {
  check_threads(function, options.threads);
  const ConstTensorView& scale = options.head_scale;
  const Dims expected{config.num_layers, config.num_heads};
  if (scale.defined() && (scale.dtype() != DType::kF32 || !(scale.shape() == expected))) {
    base::fail(function, base::format("head_scale is {}, expected F32 [layers,heads] = {}", base::describe(scale),
                                      expected.to_string()));
  }
}

const kernels::KernelTable& encoder_table(const char* function, std::string_view bits, const EncoderConfig& config) {
  return kernels::table_with(function, bits,
                             config.weights == DType::kBF16 ? kernels::Products::kBF16 : kernels::Products::kF32);
}

}  // namespace manyheads::model
