#include <array>
#include <charconv>
#include <limits>
#include <manyheads/lens/trace.hpp>
#include <manyheads/safetensors.hpp>
#include <map>
#include <utility>

#include "base/file.hpp"
#include "io/json.hpp"
#include "io/safetensors_bytes.hpp"
#include "lens/trace_check.hpp"

namespace manyheads::lens {
namespace {

using io::Json;

// The file's metadata: strings, some of which hold JSON.
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

// A trace as the file holds it.
struct Parts {
  StateDict tensors;
  std::map<std::string, std::string> metadata;
};

Parts parts_of(const Trace& trace, const char* function) {
  check_trace(trace, Checker(function, ErrorCode::kInvalidArgument));
  StateDict tensors;
  for (std::size_t i = 0; i < trace.layers.size(); ++i) {
    const TraceLayer& layer = trace.layers[i];
    const std::pair<const char*, const ConstTensorView&> parts[] = {
        {"q", layer.q},       {"k", layer.k},         {"lse", layer.lse},        {"v", layer.v},
        {"bias", layer.bias}, {"sinks", layer.sinks}, {"row_sum", layer.row_sum}};
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
  return {std::move(tensors), std::move(metadata)};
}

}  // namespace

void save_trace(const std::filesystem::path& path, const Trace& trace) {
  const Parts parts = parts_of(trace, "save_trace");
  save_safetensors(path, parts.tensors, parts.metadata);
}

std::string trace_bytes(const Trace& trace) {
  const Parts parts = parts_of(trace, "trace_bytes");
  return io::safetensors_bytes(parts.tensors, parts.metadata);
}

Trace load_trace(const std::filesystem::path& path) { return read_trace(load_safetensors(path)); }

Trace read_trace(const SafetensorsFile& file) {
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
    if (has_tensor(tensor_name(i, "row_sum"))) take("row_sum", &layer.row_sum);
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

}  // namespace manyheads::lens
