#include "lens/trace.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <map>
#include <utility>

#include "attention/weights.hpp"
#include "base/file.hpp"
#include "base/format.hpp"
#include "base/parallel.hpp"
#include "io/json.hpp"

namespace manyheads::lens {

namespace {

using io::Json;

std::string tensor_name(std::size_t layer, const char* part) { return "layers." + std::to_string(layer) + "." + part; }

// Throws with the place ("save_trace", or the file) in front.
class Checker {
 public:
  Checker(std::string place, ErrorCode code) : place_(std::move(place)), code_(code) {}

  [[noreturn]] void fail(const std::string& what) const { throw Error(code_, place_ + ": " + what); }
  void require(bool holds, const std::string& what) const {
    if (!holds) fail(what);
  }

 private:
  std::string place_;
  ErrorCode code_;
};

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
  // One character may stand for several tokens; a text that each token has anew would take their product of memory.
  std::int64_t covered = 0;
  const auto bytes = static_cast<std::int64_t>(trace.text.size() + (trace.text2 ? trace.text2->size() : 0));
  for (const auto& [begin, end] : trace.offsets) covered += end - begin;
  check.require(covered <= 64 * bytes, "offsets give " + std::to_string(covered) + " bytes to tokens of texts of " +
                                           std::to_string(bytes));
  check.require(std::isfinite(trace.scale), "scale is not finite");
  check.require(std::isfinite(trace.softcap) && trace.softcap >= 0, "softcap must be finite and not negative");
  check.require(trace.window[0] >= -1 && trace.window[1] >= -1, "window needs two numbers of -1 or more");
  check.require(!trace.causal || trace.alignment != Alignment::kUnspecified || trace.num_queries() == trace.num_keys(),
                "causal with " + std::to_string(trace.num_queries()) + " queries needs alignment" + keys);
  check.require(trace.key_length >= 0 && trace.key_length <= trace.num_keys(),
                "key_length is " + std::to_string(trace.key_length) + keys);
}

// The strings of the file's metadata, each read as JSON where it has structure.
class Metadata {
 public:
  Metadata(const SafetensorsFile& file, const Checker& check) : file_(file), check_(check) {}

  bool has(const char* key) const { return file_.metadata.count(key) != 0; }
  const std::string& text(const char* key) const {
    const auto it = file_.metadata.find(key);
    check_.require(it != file_.metadata.end(), std::string("no trace: the metadata has no ") + key);
    return it->second;
  }
  Json json(const char* key) const {
    return io::parse_json(text(key), base::path_in_quotes(file_.path) + ": metadata " + key).value;
  }
  [[noreturn]] void refuse(const char* key, const char* needed) const {
    check_.fail(std::string("metadata ") + key + " is " + base::in_quotes(text(key), 60) + "; " + needed +
                " is needed");
  }

  double number(const char* key) const {
    const Json value = json(key);
    if (!value.is_number()) refuse(key, "a number");
    return value.get<double>();
  }
  std::int64_t integer(const char* key) const {
    const Json value = json(key);
    if (!is_int(value)) refuse(key, "an integer");
    return value.get<std::int64_t>();
  }
  bool boolean(const char* key) const {
    const Json value = json(key);
    if (!value.is_boolean()) refuse(key, "true or false");
    return value.get<bool>();
  }
  std::vector<std::string> strings(const char* key) const {
    std::vector<std::string> out;
    const Json list = json(key);
    if (!list.is_array()) refuse(key, "a list of strings");
    for (const Json& item : list) {
      if (!item.is_string()) refuse(key, "a list of strings");
      out.push_back(item.get<std::string>());
    }
    return out;
  }
  std::vector<std::int64_t> integers(const char* key) const {
    std::vector<std::int64_t> out;
    const Json list = json(key);
    if (!list.is_array()) refuse(key, "a list of integers");
    for (const Json& item : list) {
      if (!is_int(item)) refuse(key, "a list of integers");
      out.push_back(item.get<std::int64_t>());
    }
    return out;
  }
  std::vector<std::array<std::int64_t, 2>> pairs(const char* key) const {
    std::vector<std::array<std::int64_t, 2>> out;
    const Json list = json(key);
    if (!list.is_array()) refuse(key, "a list of [begin, end]");
    for (const Json& item : list) {
      if (!item.is_array() || item.size() != 2 || !is_int(item[0]) || !is_int(item[1])) {
        refuse(key, "a list of [begin, end]");
      }
      out.push_back({item[0].get<std::int64_t>(), item[1].get<std::int64_t>()});
    }
    return out;
  }

 private:
  static bool is_int(const Json& value) {
    return value.is_number_integer() &&
           (!value.is_number_unsigned() ||
            value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
  }

  const SafetensorsFile& file_;
  const Checker& check_;
};

Tensor dense_copy(const ConstTensorView& view) {
  Tensor copy(DType::kF32, view.shape());
  float* to = copy.as<float>();
  const std::int64_t count = copy.elements();
  const int rank = view.rank();
  std::vector<std::int64_t> index(static_cast<std::size_t>(rank), 0);
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t offset = 0;
    for (int axis = 0; axis < rank; ++axis) offset += index[static_cast<std::size_t>(axis)] * view.stride(axis);
    to[i] = static_cast<const float*>(view.data())[offset];
    for (int axis = rank - 1; axis >= 0 && ++index[static_cast<std::size_t>(axis)] == view.size(axis); --axis) {
      index[static_cast<std::size_t>(axis)] = 0;
    }
  }
  return copy;
}

// One head of a view whose first axis is the heads: [1,1,...].
ConstTensorView one_head(const ConstTensorView& view, std::int64_t head) {
  const float* data = static_cast<const float*>(view.data()) + head * view.stride(0);
  if (view.rank() == 2) return {data, Dims{1, 1, view.size(1)}, Dims{0, 0, view.stride(1)}};
  return {data, Dims{1, 1, view.size(1), view.size(2)}, Dims{0, 0, view.stride(1), view.stride(2)}};
}

// Some of the places along an axis that is not the first. A size of 1 that stands for all places stays.
ConstTensorView part_of(const ConstTensorView& view, int axis, std::int64_t first, std::int64_t count) {
  Dims shape = view.shape();
  if (shape[axis] == 1) return view;
  shape[axis] = count;
  return {static_cast<const float*>(view.data()) + first * view.stride(axis), shape, view.strides()};
}

double length_of(const float* row, std::int64_t count, std::int64_t stride) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = static_cast<double>(row[i * stride]);
    sum += value * value;
  }
  return std::sqrt(sum);
}

// Throws where a row's lse is not the one, `own`, that q and k give. Each of the two may come of sums in F32 in any
// order: a score then errs by a rounding of |q| |k| (which no sum of products exceeds) for each of D and some more, the
// sum over the keys by one for each of them, and what is added and taken to base 2 by a few of lse.
void check_lse(const Trace& trace, std::size_t layer_index, std::int64_t head, std::int64_t first_query,
               const std::vector<float>& own) {
  const TraceLayer& layer = trace.layers[layer_index];
  const ConstTensorView q = one_head(layer.q, head), k = one_head(layer.k, head / (layer.q.size(0) / layer.k.size(0)));
  const ConstTensorView lse = one_head(layer.lse, head);
  const auto row = [](const ConstTensorView& rows, std::int64_t i) {
    return static_cast<const float*>(rows.data()) + i * rows.stride(2);
  };
  const std::int64_t depth = q.size(3);
  double longest = 0;
  for (std::int64_t j = 0; j < trace.key_length; ++j) {
    longest = std::max(longest, length_of(row(k, j), depth, k.stride(3)));
  }
  for (std::size_t r = 0; r < own.size(); ++r) {
    const std::int64_t i = first_query + static_cast<std::int64_t>(r);
    const double there = static_cast<double>(*row(lse, i)), right = static_cast<double>(own[r]);
    const double scores = std::fabs(trace.scale) * length_of(row(q, i), depth, q.stride(3)) * longest;
    const double roundings = static_cast<double>(depth + 16) * scores + 4 * std::fabs(right) +
                             static_cast<double>(trace.key_length) + 64;
    const bool same = std::isfinite(right)
                          ? !(std::fabs(there - right) > 2 * 0x1p-24 * roundings) && !std::isnan(there)
                          : !std::isfinite(there) && (there < 0) == (right < 0);
    if (same) continue;
    throw Error(trace.place.empty() ? ErrorCode::kInvalidArgument : ErrorCode::kMalformedFile,
                base::format("{}: {} of head {}, row {} is {:.9g}; q and k give {:.9g}, so that the row's weights "
                             "would add up to {:.9g}",
                             trace.place.empty() ? "trace_weights" : trace.place, tensor_name(layer_index, "lse"), head,
                             i, there, right, std::exp(right - there)));
  }
}

// log of the sum of exp(scale q k) over the keys that a query sees, [Hq,T].
Tensor lse_in_double(const ConstTensorView& q, const ConstTensorView& k, double scale, bool causal,
                     const TraceOptions& options) {
  Tensor lse(DType::kF32, Dims{q.size(0), q.size(1)});
  float* out = lse.as<float>();
  const std::int64_t rows = q.size(0) * q.size(1);
  base::parallel_for(rows, base::worker_count(rows, options.num_threads), options.executor, [&](std::int64_t i, int) {
    const std::int64_t head = i / q.size(1), row = i % q.size(1), kv_head = head / (q.size(0) / k.size(0));
    const float* query = static_cast<const float*>(q.data()) + head * q.stride(0) + row * q.stride(1);
    const std::int64_t keys = causal ? row + 1 : k.size(1);
    std::vector<double> scores(static_cast<std::size_t>(keys));
    for (std::int64_t j = 0; j < keys; ++j) {
      const float* key = static_cast<const float*>(k.data()) + kv_head * k.stride(0) + j * k.stride(1);
      double sum = 0;
      for (std::int64_t d = 0; d < k.size(2); ++d) {
        sum += static_cast<double>(query[d * q.stride(2)]) * static_cast<double>(key[d * k.stride(2)]);
      }
      scores[static_cast<std::size_t>(j)] = scale * sum;
    }
    const double largest = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (const double score : scores) sum += std::exp(score - largest);
    out[i] = static_cast<float>(largest + std::log(sum));
  });
  return lse;
}

}  // namespace

Trace make_trace(const model::Encoder& encoder, const model::Encoding& encoding, const std::string& model,
                 const std::string& text, const TraceOptions& options) {
  std::vector<model::LayerHeads> layers;
  model::EncoderOptions run;
  run.layers = &layers;
  run.num_threads = options.num_threads;
  run.executor = options.executor;
  encoder.run(model::TokenBatch::from_rows({encoding.ids}, {encoding.type_ids}), run);

  Trace trace;
  trace.model = model;
  trace.text = text;
  trace.text2 = options.text2;
  trace.tokens = encoding.tokens;
  trace.token_ids = encoding.ids;
  trace.offsets = encoding.offsets;
  trace.words = encoding.words;
  trace.sequences.assign(encoding.sequences.begin(), encoding.sequences.end());
  trace.scale = encoder.config().scale;
  trace.causal = encoder.config().causal;
  trace.key_length = static_cast<std::int64_t>(encoding.size());
  for (model::LayerHeads& of : layers) {
    const model::EntryHeads heads = of.entry();
    trace.layers.push_back({heads.q, heads.k, heads.lse, {}, {}, {}, std::move(of.storage)});
    if (!options.lse_in_double) continue;
    TraceLayer& layer = trace.layers.back();
    layer.storage.push_back(lse_in_double(heads.q, heads.k, trace.scale, trace.causal, options));
    layer.lse = layer.storage.back().cview();
  }
  return trace;
}

void save_trace(const std::filesystem::path& path, const Trace& trace) {
  check_trace(trace, Checker("save_trace", ErrorCode::kInvalidArgument));
  StateDict tensors;
  for (std::size_t i = 0; i < trace.layers.size(); ++i) {
    const TraceLayer& layer = trace.layers[i];
    const std::pair<const char*, const ConstTensorView&> parts[] = {{"q", layer.q},       {"k", layer.k},
                                                                    {"lse", layer.lse},   {"v", layer.v},
                                                                    {"bias", layer.bias}, {"sinks", layer.sinks}};
    for (const auto& [part, view] : parts) {
      if (view.defined()) tensors[tensor_name(i, part)] = dense_copy(view);
    }
  }
  std::map<std::string, std::string> metadata = {
      {"manyheads_trace", "1"},
      {"model", trace.model},
      {"text", trace.text},
      {"tokens", Json(trace.tokens).dump()},
      {"token_ids", Json(trace.token_ids).dump()},
      {"offsets", Json(trace.offsets).dump()},
      {"words", Json(trace.words).dump()},
      {"sequences", Json(trace.sequences).dump()},
      {"scale", Json(trace.scale).dump()},
      {"causal", Json(trace.causal).dump()},
      {"window", Json(trace.window).dump()},
      {"softcap", Json(trace.softcap).dump()},
      {"key_length", Json(trace.key_length).dump()},
  };
  if (trace.text2) metadata["text2"] = *trace.text2;
  if (trace.alignment == Alignment::kTopLeft) metadata["alignment"] = "top_left";
  if (trace.alignment == Alignment::kBottomRight) metadata["alignment"] = "bottom_right";
  save_safetensors(path, tensors, metadata);
}

Trace load_trace(const std::filesystem::path& path) {
  const SafetensorsFile file = load_safetensors(path);
  const Checker check(base::path_in_quotes(file.path), ErrorCode::kMalformedFile);
  const Metadata metadata(file, check);
  if (metadata.text("manyheads_trace") != "1") metadata.refuse("manyheads_trace", "1");

  Trace trace;
  trace.place = base::path_in_quotes(file.path);
  trace.tokens = metadata.strings("tokens");
  trace.scale = metadata.number("scale");
  if (metadata.has("model")) trace.model = metadata.text("model");
  if (metadata.has("text")) trace.text = metadata.text("text");
  if (metadata.has("text2")) trace.text2 = metadata.text("text2");
  if (metadata.has("token_ids")) trace.token_ids = metadata.integers("token_ids");
  if (metadata.has("offsets")) trace.offsets = metadata.pairs("offsets");
  if (metadata.has("words")) trace.words = metadata.integers("words");
  if (metadata.has("sequences")) trace.sequences = metadata.integers("sequences");
  if (metadata.has("causal")) trace.causal = metadata.boolean("causal");
  if (metadata.has("softcap")) trace.softcap = metadata.number("softcap");
  if (metadata.has("window")) {
    const std::vector<std::int64_t> window = metadata.integers("window");
    if (window.size() != 2) metadata.refuse("window", "[left, right]");
    trace.window = {window[0], window[1]};
  }
  if (metadata.has("alignment")) {
    const std::string& name = metadata.text("alignment");
    if (name == "top_left") {
      trace.alignment = Alignment::kTopLeft;
    } else if (name == "bottom_right") {
      trace.alignment = Alignment::kBottomRight;
    } else {
      metadata.refuse("alignment", "top_left or bottom_right");
    }
  }

  const auto has_tensor = [&file](const std::string& name) {
    return file.tensors.count(name) != 0 || file.unsupported.count(name) != 0;
  };
  for (std::size_t i = 0; has_tensor(tensor_name(i, "q")); ++i) {
    TraceLayer layer;
    const auto take = [&](const char* part, ConstTensorView* view) {
      const Tensor& tensor = file.at(tensor_name(i, part));
      *view = tensor.view();
      layer.storage.push_back(tensor);
    };
    take("q", &layer.q);
    take("k", &layer.k);
    take("lse", &layer.lse);
    if (has_tensor(tensor_name(i, "v"))) take("v", &layer.v);
    if (has_tensor(tensor_name(i, "bias"))) take("bias", &layer.bias);
    if (has_tensor(tensor_name(i, "sinks"))) take("sinks", &layer.sinks);
    trace.layers.push_back(std::move(layer));
  }
  const auto check_name = [&](const std::string& name) {
    if (name.rfind("layers.", 0) != 0) return;
    std::size_t index = 0;
    const auto [end, status] = std::from_chars(name.data() + 7, name.data() + name.size(), index);
    check.require(
        status == std::errc() && index < trace.layers.size() && name.rfind(tensor_name(index, ""), 0) == 0,
        "tensor " + base::in_quotes(name, 80) + " belongs to no layer: layers.{i}.q counts from 0 without a gap");
  };
  for (const auto& [name, tensor] : file.tensors) check_name(name);
  for (const auto& [name, type] : file.unsupported) check_name(name);
  trace.key_length =
      metadata.has("key_length") ? metadata.integer("key_length") : static_cast<std::int64_t>(trace.tokens.size());
  check_trace(trace, check);
  return trace;
}

void trace_rows(const Trace& trace, std::size_t layer_index, std::int64_t head, std::int64_t first_query,
                TensorView weights, int num_threads) {
  if (layer_index >= trace.layers.size() || head < 0 || head >= trace.num_heads(layer_index)) {
    throw Error(ErrorCode::kInvalidArgument, "trace_rows: there is no head " + std::to_string(head) + " in layer " +
                                                 std::to_string(layer_index) + " (the trace has " +
                                                 std::to_string(trace.layers.size()) + " layers)");
  }
  const TraceLayer& layer = trace.layers[layer_index];
  const bool fits = weights.rank() == 2 && weights.size(1) == trace.num_keys();
  if (!fits || first_query < 0 || first_query > trace.num_queries() - weights.size(0)) {
    throw Error(ErrorCode::kInvalidArgument, "trace_rows: weights is " + weights.shape().to_string() + " from query " +
                                                 std::to_string(first_query) + " on, [queries,keys] is " +
                                                 Dims({trace.num_queries(), trace.num_keys()}).to_string());
  }
  const std::int64_t rows = weights.size(0);
  AttentionOptions options;
  options.scale = trace.scale;
  options.softcap = trace.softcap;
  options.num_threads = num_threads;
  options.mask.causal = trace.causal;
  options.mask.window_left = trace.window[0];
  options.mask.window_right = trace.window[1];
  options.mask.alignment = trace.alignment;
  if (trace.key_length != trace.num_keys()) {
    options.mask.key_lengths = ConstTensorView(&trace.key_length, Dims{1});
  }
  // The first of these rows is not the text's first: the diagonal moves with it.
  const bool bottom_right = trace.alignment == Alignment::kBottomRight;
  const std::int64_t diagonal = first_query + (bottom_right ? trace.key_length - trace.num_queries() : 0);
  if (rows != trace.num_queries()) {
    options.mask.alignment = Alignment::kUnspecified;
    options.mask.offsets = ConstTensorView(&diagonal, Dims{1});
  }
  if (layer.sinks.defined()) {
    options.sinks =
        ConstTensorView(static_cast<const float*>(layer.sinks.data()) + head * layer.sinks.stride(0), Dims{1});
  }
  if (layer.bias.defined()) {
    const bool by_head = layer.bias.rank() == 3 && layer.bias.size(0) != 1;
    ConstTensorView bias = layer.bias.rank() == 3 ? one_head(layer.bias, by_head ? head : 0) : layer.bias;
    if (bias.rank() >= 2) bias = part_of(bias, bias.rank() - 2, first_query, rows);
    options.mask.bias = bias;
  }
  const std::int64_t group = layer.q.size(0) / layer.k.size(0);
  const TensorView out(weights.data(), DType::kF32, Dims{1, 1, rows, weights.size(1)},
                       Dims{0, 0, weights.stride(0), weights.stride(1)});
  std::vector<float> own_lse(static_cast<std::size_t>(rows));
  attention_detail::weights(part_of(one_head(layer.q, head), 2, first_query, rows), one_head(layer.k, head / group),
                            part_of(one_head(layer.lse, head), 2, first_query, rows), out, options, own_lse.data());
  check_lse(trace, layer_index, head, first_query, own_lse);
}

void trace_weights(const Trace& trace, std::size_t layer, std::int64_t head, TensorView weights, int num_threads) {
  if (weights.shape() != Dims({trace.num_queries(), trace.num_keys()})) {
    throw Error(ErrorCode::kInvalidArgument, "trace_weights: weights is " + weights.shape().to_string() +
                                                 ", [queries,keys] is " +
                                                 Dims({trace.num_queries(), trace.num_keys()}).to_string());
  }
  trace_rows(trace, layer, head, 0, weights, num_threads);
}

}  // namespace manyheads::lens
