#include <manyheads/manyheads.hpp>

#include <span>

#include "adapter.hpp"

namespace mh = manyheads;

namespace bits {
namespace {

mh::DType type_of(Type type) {
  constexpr mh::DType kTypes[] = {mh::DType::kF32, mh::DType::kBF16, mh::DType::kF16, mh::DType::kBool,
                                  mh::DType::kI8,  mh::DType::kI32,  mh::DType::kI64};
  return kTypes[static_cast<int>(type)];
}

mh::TensorView view(const Array& array) {
  if (!array.given()) return {};
  return {array.data(), type_of(array.type), mh::Dims(std::span(array.shape)), mh::Dims(std::span(array.strides))};
}

mh::Tensor tensor(const Array& array) {
  return {array.memory, array.data(), type_of(array.type), mh::Dims(std::span(array.shape))};
}

mh::Mask mask_of(const Mask& mask) {
  return {.causal = mask.causal,
          .alignment = static_cast<mh::Alignment>(mask.alignment),
          .window_left = mask.window_left,
          .window_right = mask.window_right,
          .offsets = view(mask.offsets),
          .key_lengths = view(mask.key_lengths),
          .key_starts = view(mask.key_starts),
          .q_documents = view(mask.q_documents),
          .k_documents = view(mask.k_documents),
          .allowed = view(mask.allowed),
          .ignored = view(mask.ignored),
          .bias = view(mask.bias),
          .alibi_slopes = view(mask.alibi_slopes)};
}

std::string& asked_bits() {
  static std::string bits;
  return bits;
}

mh::AttentionOptions options_of(const AttentionCall& call) {
  return {.mask = mask_of(call.mask),
          .scale = call.scale,
          .softcap = call.softcap,
          .sinks = view(call.sinks),
          .cu_seqlens_q = view(call.cu_seqlens_q),
          .cu_seqlens_k = view(call.cu_seqlens_k),
          .page_table = view(call.page_table),
          .k_scales = view(call.k_scales),
          .v_scales = view(call.v_scales),
          .int8_products = call.int8_products,
          .bits = asked_bits()};
}

Results attend(const AttentionCall& call, const Array& k, const Array& v) {
  Results results = fresh(call);
  mh::AttentionOptions options = options_of(call);
  options.lse = view(results.lse[0]);
  mh::attention(view(call.q), view(k), view(v), view(results.out[0]), options);
  return results;
}

Results merge(const AttentionCall& call) {
  const std::int64_t cut = *call.cut, keys = call.k.shape[2];
  const Results a = attend(call, call.k.slice(2, 0, cut), call.v.slice(2, 0, cut));
  const Results b = attend(call, call.k.slice(2, cut, keys), call.v.slice(2, cut, keys));
  Results ab = fresh(call);
  mh::merge_attention(view(a.out[0]), view(a.lse[0]), view(b.out[0]), view(b.lse[0]), view(ab.out[0]), view(ab.lse[0]));
  return ab;
}

Results merge_states(const AttentionCall& call) {
  const std::int64_t cut = *call.cut, keys = call.k.shape[2];
  std::vector<mh::RowStates> parts;
  for (const auto& [begin, end] : {std::pair{std::int64_t{0}, cut}, {cut, keys}}) {
    parts.emplace_back(begin, end - begin, call.q.shape[0], call.q.shape[1], call.q.shape[2], call.v.shape[3]);
    mh::AttentionOptions options = options_of(call);
    options.sinks = {};
    options.row_states = &parts.back();
    const Results part = fresh(call);
    mh::attention(view(call.q), view(call.k.slice(2, begin, end)), view(call.v.slice(2, begin, end)), view(part.out[0]),
                  options);
  }
  Results whole = fresh(call);
  mh::merge_attention(parts, view(whole.out[0]), view(whole.lse[0]), view(call.sinks));
  return whole;
}

Results through_cache(const AttentionCall& call) {
  Results results;
  mh::KVCache cache({.num_kv_heads = call.k.shape[1],
                     .head_dim = call.k.shape[3],
                     .value_dim = call.v.shape[3],
                     .dtype = type_of(call.cache->type),
                     .page_size = call.cache->page_size});
  std::vector<mh::KVCache::Sequence> sequences;
  for (std::int64_t b = 0; b < call.k.shape[0]; ++b) sequences.push_back(cache.add());
  mh::AttentionOptions options = options_of(call);
  std::int64_t query = 0;
  for (const CacheStep& step : call.cache->steps) {
    for (std::size_t b = 0; b < sequences.size(); ++b) {
      const std::int64_t begin = cache.length(sequences[b]);
      const auto tokens = [&](const Array& of) { return view(of.entry(b).slice(1, begin, begin + step.tokens[b])); };
      cache.append(sequences[b], tokens(call.k), tokens(call.v));
    }
    const auto queries = [&](const Array& of) { return of.slice(2, query, query + step.queries); };
    results.out.push_back(queries(call.out.fresh()));
    results.lse.push_back(queries(call.lse.fresh()));
    options.lse = view(results.lse.back());
    mh::attention(view(queries(call.q)), cache, sequences, view(results.out.back()), options);
    query += step.queries;
  }
  return results;
}

}  // namespace

std::vector<Way> ways() {
  std::vector<Way> list;
  for (const std::string& isa : mh::available_isas()) list.push_back({isa, ""});
  for (const std::string& isa : mh::available_isas()) {
    if (isa.starts_with("amx")) list.push_back({isa, "f32-tiles-1"});
  }
  return list;
}
void use(const Way& way) {
  mh::set_isa(way.isa);
  asked_bits() = way.bits;
}
std::string family(const std::string& products) {
  if (!asked_bits().empty()) return products == "f32" ? asked_bits() : "";
  return mh::active_bits(products == "int8" ? mh::DType::kI8 : products == "bf16" ? mh::DType::kBF16 : mh::DType::kF32);
}

Results run(const AttentionCall& call) {
  Results results = call.cache        ? through_cache(call)
                    : call.row_states ? merge_states(call)
                    : call.cut        ? merge(call)
                                      : attend(call, call.k, call.v);
  if (call.weights.given()) {
    results.weights = {call.weights.fresh()};
    mh::attention_weights(view(call.q), view(call.k), view(results.lse[0]), view(results.weights[0]), options_of(call));
  }
  return results;
}

Results run(const LayerCall& call) {
  mh::StateDict state;
  for (const auto& [name, array] : call.state_dict) state[name] = tensor(array);
  const mh::MultiHeadAttention layer({.d_model = call.d_model,
                                      .num_heads = call.num_heads,
                                      .num_kv_heads = call.num_kv_heads,
                                      .kdim = call.kdim,
                                      .vdim = call.vdim,
                                      .bias = call.bias,
                                      .add_bias_kv = call.add_bias_kv,
                                      .add_zero_attn = call.add_zero_attn,
                                      .dtype = type_of(call.type)},
                                     state);
  Results results{.out = {call.y.fresh()}, .lse = {}, .weights = {}};
  mh::MultiHeadAttentionOptions options{.key_padding_mask = view(call.key_padding_mask),
                                        .attn_mask = view(call.attn_mask),
                                        .mask = mask_of(call.mask),
                                        .head_scale = view(call.head_scale),
                                        .bits = asked_bits()};
  if (call.weights.given()) {
    results.weights = {call.weights.fresh()};
    options.weights = view(results.weights[0]);
  }
  if (call.key.given()) {
    layer.forward(view(call.query), view(call.key), view(call.value), view(results.out[0]), options);
  } else {
    layer.forward(view(call.query), view(results.out[0]), options);
  }
  return results;
}

}  // namespace bits
