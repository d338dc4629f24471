#include "lens/trace_check.hpp"

#include <cmath>

#include "base/format.hpp"

namespace manyheads::lens {
namespace {

void check_row_sum(const TraceLayer& layer, const std::string& name, const Checker& check) {
  const ConstTensorView& sums = layer.row_sum;
  const Dims needed{layer.q.size(0), layer.q.size(1)};
  check.require(sums.shape() == needed,
                name + " is " + sums.shape().to_string() + ", " + needed.to_string() + " is needed");
  for (std::int64_t head = 0; head < needed[0]; ++head) {
    for (std::int64_t i = 0; i < needed[1]; ++i) {
      const float sum = static_cast<const float*>(sums.data())[head * sums.stride(0) + i * sums.stride(1)];
      if (sum == 0.0f || (sum >= kLeastRowSum && sum <= kMostRowSum)) continue;
      check.fail(base::format("{} of head {}, row {} is {:.9g}; 0 or a number from {} to {} is needed", name, head, i,
                              static_cast<double>(sum), kLeastRowSum, kMostRowSum));
    }
  }
}

void check_layer(const TraceLayer& layer, std::size_t i, std::int64_t num_queries, std::int64_t num_keys,
                 const Checker& check) {
  const auto name = [i](const char* part) { return tensor_name(i, part); };
  const auto check_type = [&](const ConstTensorView& tensor, const char* part) {
    check.require(!tensor.defined() || tensor.dtype() == DType::kF32,
                  name(part) + " is " + name_of(tensor.dtype()) + "; F32 is needed");
  };
  check_type(layer.q, "q");
  check_type(layer.k, "k");
  check_type(layer.lse, "lse");
  check_type(layer.v, "v");
  check_type(layer.bias, "bias");
  check_type(layer.sinks, "sinks");
  check_type(layer.row_sum, "row_sum");
  const Dims& q = layer.q.shape();
  const Dims& k = layer.k.shape();
  const std::string shapes = " (" + name("q") + " " + q.to_string() + ", " + name("k") + " " + k.to_string() + ")";
  check.require(q.rank() == 3 && k.rank() == 3, "q and k of a layer need 3 axes [heads,tokens,head size]" + shapes);
  check.require(q[0] > 0 && k[0] > 0 && q[2] > 0, "a layer needs heads and a head size" + shapes);
  check.require(q[2] == k[2], "q and k of a layer need one head size" + shapes);
  check.require(q[0] % k[0] == 0, "the heads of q must be a multiple of those of k" + shapes);
  check.require(q[1] == num_queries && k[1] == num_keys,
                "all layers need as many queries and keys as layer 0: " + std::to_string(num_queries) + " and " +
                    std::to_string(num_keys) + shapes);
  check.require(layer.lse.shape() == Dims({q[0], q[1]}), name("lse") + " is " + layer.lse.shape().to_string() + ", " +
                                                             Dims({q[0], q[1]}).to_string() + " is needed");
  if (layer.v.defined()) {
    const Dims& v = layer.v.shape();
    check.require(v.rank() == 3 && v[0] == k[0] && v[1] == k[1],
                  name("v") + " is " + v.to_string() + ", which does not belong to" + shapes);
  }
  if (layer.sinks.defined()) {
    check.require(layer.sinks.shape() == Dims({q[0]}),
                  name("sinks") + " is " + layer.sinks.shape().to_string() + ", [heads] is needed" + shapes);
  }
  if (layer.row_sum.defined()) check_row_sum(layer, name("row_sum"), check);
  if (layer.bias.defined()) {
    const Dims& b = layer.bias.shape();
    const std::int64_t full[] = {q[0], q[1], k[1]};
    bool fits = b.rank() <= 3;
    for (int axis = 0; fits && axis < b.rank(); ++axis) {
      fits = b[axis] == 1 || b[axis] == full[3 - b.rank() + axis];
    }
    check.require(
        fits, name("bias") + " is " + b.to_string() + ", which does not broadcast to [heads,queries,keys]" + shapes);
  }
}

}  // namespace

std::string tensor_name(std::size_t layer, const char* part) { return "layers." + std::to_string(layer) + "." + part; }

void check_head(const char* function, const Trace& trace, std::size_t layer, std::int64_t head) {
  if (layer < trace.layers.size() && head >= 0 && head < trace.num_heads(layer)) return;
  throw Error(
      ErrorCode::kInvalidArgument,
      base::format("{}: there is no head {} in layer {} (the trace has {} layers{})", function, head, layer,
                   trace.layers.size(),
                   layer < trace.layers.size() ? base::format(" and {} heads there", trace.num_heads(layer)) : ""));
}

void check_ranges(const char* function, const Trace& trace, Range rows, Range keys) {
  const auto within = [](Range range, std::int64_t count) {
    return 0 <= range.begin && range.begin <= range.end && range.end <= count;
  };
  if (within(rows, trace.num_queries()) && within(keys, trace.num_keys())) return;
  throw Error(ErrorCode::kInvalidArgument,
              base::format("{}: queries {} to {} and keys {} to {} of a trace of {} queries and {} keys", function,
                           rows.begin, rows.end, keys.begin, keys.end, trace.num_queries(), trace.num_keys()));
}

void check_trace(const Trace& trace, const Checker& check) {
  check.require(!trace.layers.empty(), "a trace needs at least one layer (layers.0.q)");
  for (std::size_t i = 0; i < trace.layers.size(); ++i) {
    const TraceLayer& layer = trace.layers[i];
    check.require(layer.q.defined() && layer.k.defined() && layer.lse.defined(),
                  "layer " + std::to_string(i) + " needs q, k and lse");
    if (i == 0) {
      check.require(layer.q.rank() == 3 && layer.k.rank() == 3,
                    "q and k of a layer need 3 axes [heads,tokens,head size] (layers.0.q " +
                        layer.q.shape().to_string() + ", layers.0.k " + layer.k.shape().to_string() + ")");
    }
    check_layer(layer, i, trace.num_queries(), trace.num_keys(), check);
  }
  const std::string keys = "; the trace has " + std::to_string(trace.num_keys()) + " keys";
  const auto n = static_cast<std::size_t>(trace.num_keys());
  check.require(trace.tokens.size() == n, "tokens has " + std::to_string(trace.tokens.size()) + " entries" + keys);
  const auto check_list = [&](std::size_t size, const char* field) {
    check.require(size == 0 || size == n, std::string(field) + " has " + std::to_string(size) + " entries" + keys);
  };
  check_list(trace.token_ids.size(), "token_ids");
  check_list(trace.offsets.size(), "offsets");
  check_list(trace.words.size(), "words");
  check_list(trace.sequences.size(), "sequences");
  for (const std::int64_t w : trace.words) {
    check.require(w >= -1, "words has " + std::to_string(w) + "; -1 or an index is needed");
  }
  for (const std::int64_t s : trace.sequences) {
    check.require(s >= -1 && s <= (trace.text2 ? 1 : 0),
                  "sequences has " + std::to_string(s) + "; -1, 0" + (trace.text2 ? " or 1" : "") + " is needed");
  }
  for (std::size_t i = 0; i < trace.offsets.size(); ++i) {
    const auto [begin, end] = trace.offsets[i];
    const std::string& own = !trace.sequences.empty() && trace.sequences[i] == 1 ? *trace.text2 : trace.text;
    check.require(0 <= begin && begin <= end && end <= static_cast<std::int64_t>(own.size()),
                  "offsets of token " + std::to_string(i) + " are " + std::to_string(begin) + " to " +
                      std::to_string(end) + ", its text has " + std::to_string(own.size()) + " bytes");
  }
  // Tokens may share characters. If every token had the whole text, their copies would take the product of both in
  // memory.
  std::int64_t covered = 0;
  const auto bytes = static_cast<std::int64_t>(trace.text.size() + (trace.text2 ? trace.text2->size() : 0));
  for (const auto& [begin, end] : trace.offsets) covered += end - begin;
  check.require(covered <= 64 * bytes,
                "offsets give " + std::to_string(covered) + " bytes to tokens of texts of " + std::to_string(bytes));
  check.require(std::isfinite(trace.scale), "scale is not finite");
  check.require(std::isfinite(trace.softcap) && trace.softcap >= 0, "softcap must be finite and not negative");
  check.require(trace.window[0] >= -1 && trace.window[1] >= -1, "window needs two numbers of -1 or more");
  check.require(!trace.causal || trace.alignment != Alignment::kUnspecified || trace.num_queries() == trace.num_keys(),
                "causal with " + std::to_string(trace.num_queries()) + " queries needs alignment" + keys);
  check.require(trace.key_length >= 0 && trace.key_length <= trace.num_keys(),
                "key_length is " + std::to_string(trace.key_length) + keys);
}

}  // namespace manyheads::lens
