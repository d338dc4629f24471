#include <algorithm>
#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <manyheads/model/encoding.hpp>
#include <optional>
#include <vector>

#include "base/format.hpp"
#include "base/utf8.hpp"
#include "io/safetensors_bytes.hpp"
#include "layer/convert.hpp"
#include "model/bert.hpp"
#include "model/bert_names.hpp"
#include "model/checkpoint_tensors.hpp"
#include "view/memory_file.hpp"
#include "view/state.hpp"

// A model's own questions: a text's trace, and what stands around a head's attention.
namespace manyheads::view {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::int64_t> integers(const Question& question, const char* key, std::int64_t least) {
  std::vector<std::int64_t> list;
  for (const io::JsonDocument& item : require_array(question.json(), key)) {
    list.push_back(io::require_int({{{"item", item.value}}, item.place}, "item", least));
  }
  return list;
}

std::string text_of(const Question& question, const char* key) {
  return has(question.json(), key) ? require_string(question.json(), key) : "";
}

// The tokens as the page's own tokenizer made them.
model::Encoding encoding_of(const Question& question) {
  model::Encoding encoding;
  encoding.ids = integers(question, "ids", 0);
  const std::size_t count = encoding.ids.size();
  for (const io::JsonDocument& item : require_array(question.json(), "tokens")) {
    encoding.tokens.push_back(io::require_string({{{"item", item.value}}, item.place}, "item"));
  }
  const auto list = [&](const char* key, std::int64_t least) {
    return has(question.json(), key) ? integers(question, key, least) : std::vector<std::int64_t>();
  };
  encoding.words = list("words", -1);
  encoding.type_ids =
      has(question.json(), "type_ids") ? integers(question, "type_ids", 0) : std::vector<std::int64_t>(count, 0);
  for (const std::int64_t sequence : list("sequences", -1)) {
    encoding.sequences.push_back(static_cast<std::int32_t>(std::min<std::int64_t>(sequence, 2)));
  }
  if (has(question.json(), "offsets")) {
    for (const io::JsonDocument& item : require_array(question.json(), "offsets")) {
      const std::vector<std::int64_t> ends = numbers(item, {io::kMaxInt, io::kMaxInt});
      encoding.offsets.push_back({ends[0], ends[1]});
    }
  }
  const std::pair<const char*, std::size_t> sizes[] = {{"tokens", encoding.tokens.size()},
                                                       {"type_ids", encoding.type_ids.size()},
                                                       {"words", encoding.words.size()},
                                                       {"sequences", encoding.sequences.size()},
                                                       {"offsets", encoding.offsets.size()}};
  for (const auto& [key, size] : sizes) {
    const bool optional = std::string_view(key) != "tokens";
    if (size != count && !(optional && size == 0)) {
      question.refuse(base::format("{} {} for {} ids", size, base::in_quotes(key), count));
    }
  }
  if (count == 0) question.refuse("\"ids\" is empty");
  return encoding;
}

// [layers,heads] of factors, or undefined.
Tensor head_scale_of(const Question& question, const model::EncoderConfig& config) {
  if (!has(question.json(), "heads_off")) return {};
  Tensor scale(DType::kF32, {config.num_layers, config.num_heads});
  std::fill_n(scale.as<float>(), scale.elements(), 1.0f);
  for (const io::JsonDocument& item : require_array(question.json(), "heads_off")) {
    const bool is_head = item.value.is_array() && item.value.size() == 3 && item.value[2].is_number();
    if (!is_head) question.refuse("\"heads_off\" is a list of [layer, head, scale]");
    const io::JsonDocument place{{item.value[0], item.value[1]}, item.place};
    const std::vector<std::int64_t> at = numbers(place, {config.num_layers, config.num_heads});
    scale.as<float>()[at[0] * config.num_heads + at[1]] = item.value[2].get<float>();
  }
  return scale;
}

// One head's rows or columns of a projection, and what it adds.
Tensor part_of(const Tensor& whole, std::int64_t first_row, std::int64_t rows, std::int64_t first, std::int64_t columns,
               bool turned) {
  const Tensor f32 = whole.dtype() == DType::kF32 ? whole : layer::converted(whole.cview(), DType::kF32);
  const std::int64_t width = f32.size(1);
  Tensor part(DType::kF32, turned ? Dims{columns, rows} : Dims{rows, columns});
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      part.as<float>()[turned ? c * rows + r : r * columns + c] = f32.as<float>()[(first_row + r) * width + first + c];
    }
  }
  return part;
}

// One head [T,D] of a view [H,T,D].
Tensor head_of(const ConstTensorView& view, std::int64_t head) {
  Tensor copy(DType::kF32, {view.size(1), view.size(2)});
  for (std::int64_t i = 0; i < copy.elements(); ++i) {
    copy.as<float>()[i] = static_cast<const float*>(
        view.data())[head * view.stride(0) + i / view.size(2) * view.stride(1) + i % view.size(2) * view.stride(2)];
  }
  return copy;
}

const model::BertNames* names_of(const StateDict& tensors) {
  for (const model::BertNames& names : model::kBertNames) {
    const std::string name = std::string(names.layers) + "0." + names.query + ".weight";
    if (tensors.contains(name) || tensors.contains(names.prefix + name)) return &names;
  }
  return nullptr;
}

// What a layer does around the attention of one head, from the model itself.
void add_projections(const Question& question, const Model& model, const OpenTrace& open, std::int64_t layer,
                     std::int64_t head, StateDict& tensors) {
  const lens::Trace& trace = open.trace;
  const model::EncoderConfig& config = model.encoder->config();
  const model::BertNames* names = names_of(model.tensors);
  if (names == nullptr) question.refuse("the projections of " + base::in_quotes(model.name) + " are not at hand");
  const bool same = config.num_layers == static_cast<std::int64_t>(trace.layers.size()) &&
                    config.num_heads == trace.num_heads(0) && !trace.token_ids.empty();
  if (!same) question.refuse("the trace is not one of " + base::in_quotes(model.name));
  if (trace.text2 && open.type_ids.empty()) question.refuse("the trace does not say which token has which type");
  std::vector<model::LayerHeads> layers;
  std::vector<Tensor> hidden;
  model::EncoderOptions run;
  run.layers = &layers;
  run.hidden_states = &hidden;
  run.threads = question.threads();
  if (open.head_scale.defined()) run.head_scale = open.head_scale.cview();
  std::vector<std::vector<std::int64_t>> types;
  if (!open.type_ids.empty()) types.push_back(open.type_ids);
  model.encoder->run(model::TokenBatch::from_rows({trace.token_ids}, types), run);

  const std::int64_t tokens = static_cast<std::int64_t>(trace.token_ids.size());
  const std::int64_t e = config.hidden_size, d = config.head_dim, heads = config.num_heads;
  Tensor x(DType::kF32, {tokens, e});
  std::copy_n(hidden[static_cast<std::size_t>(layer)].as<float>(), x.elements(), x.as<float>());
  const model::EntryHeads of = layers[static_cast<std::size_t>(layer)].entry();
  const auto batch = [](const ConstTensorView& view) {
    return ConstTensorView(view.data(), DType::kF32, Dims{1, view.size(0), view.size(1), view.size(2)},
                           Dims{0, view.stride(0), view.stride(1), view.stride(2)});
  };
  Tensor concat(DType::kF32, {tokens, heads * d});
  AttentionOptions options;
  options.scale = config.scale;
  options.threads = question.threads();
  attention(batch(of.q), batch(of.k), batch(of.v),
            TensorView(concat.as<float>(), DType::kF32, Dims{1, heads, tokens, d}, Dims{0, d, heads * d, 1}), options);
  for (std::int64_t i = 0; open.head_scale.defined() && i < concat.elements(); ++i) {
    concat.as<float>()[i] *= open.head_scale.as<float>()[layer * heads + i % (heads * d) / d];
  }

  static const std::map<std::string, std::string> kNone;
  const model::CheckpointTensors from(model.tensors, kNone, base::in_quotes(model.name), names->prefix);
  const std::string place = names->layers + std::to_string(layer) + ".";
  for (const auto& [part, name] : {std::pair{"q", names->query}, {"k", names->key}, {"v", names->value}}) {
    const Tensor weight = from.take(place + name + ".weight", {heads * d, e});
    const Tensor bias = from.take_f32(place + name + ".bias", {heads * d});
    tensors[std::string("W_") + part] = part_of(weight, head * d, d, 0, e, true);
    Tensor own(DType::kF32, {d});
    std::copy_n(bias.as<float>() + head * d, d, own.as<float>());
    tensors[std::string("b_") + part] = own;
  }
  const Tensor out = from.take_f32(place + names->attention_output + ".weight", {e, heads * d});
  const Tensor out_bias = from.take_f32(place + names->attention_output + ".bias", {e});
  tensors["W_o"] = part_of(out, 0, e, head * d, d, true);
  tensors["b_o"] = out_bias;
  Tensor y(DType::kF32, {tokens, e});
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t i = 0; i < e; ++i) {
      double sum = static_cast<double>(out_bias.as<float>()[i]);
      for (std::int64_t j = 0; j < heads * d; ++j) {
        sum += static_cast<double>(concat.as<float>()[t * heads * d + j]) *
               static_cast<double>(out.as<float>()[i * heads * d + j]);
      }
      y.as<float>()[t * e + i] = static_cast<float>(sum);
    }
  }
  tensors["x"] = x;
  tensors["concat"] = concat;
  tensors["y"] = y;
}

// The words that a decoder goes on with, from the hidden states [1,T,E].
Json next_json(const Model& model, const Tensor& hidden) {
  constexpr std::size_t kTokens = 10;
  if (!model.next) return nullptr;
  const std::int64_t e = hidden.size(2);
  const ConstTensorView last(hidden.as<float>() + (hidden.size(1) - 1) * e, DType::kF32, {1, e});
  Json list = Json::array();
  for (const NextToken& token : model.next(last, kTokens)) {
    list.push_back({{"token", token.token}, {"id", token.id}, {"probability", token.probability}});
  }
  return list;
}

}  // namespace

Model read_model(ModelFiles files) {
  const model::BertConfig config = model::bert_config(io::parse_json(files.config, "config.json"));
  SafetensorsFile file = io::read_safetensors(memory_file(std::move(files.weights)), "model.safetensors");
  const auto bf16 = [](const auto& item) { return item.second.dtype() == DType::kBF16; };
  const DType kept = std::any_of(file.tensors.begin(), file.tensors.end(), bf16) ? DType::kBF16 : DType::kF32;
  Model model;
  model.name = std::move(files.name);
  model.encoder = std::make_shared<model::BertEncoder>(config, file.tensors, kept);
  model.tensors = std::move(file.tensors);
  return model;
}

Answer ask_encode(const Question& question) {
  const Model& model = question.model();
  const model::Encoding encoding = encoding_of(question);
  OpenTrace open;
  open.head_scale = head_scale_of(question, model.encoder->config());
  Tensor hidden;
  lens::TraceOptions options;
  if (has(question.json(), "text2")) {
    options.text2 = require_string(question.json(), "text2");
    open.type_ids = encoding.type_ids;
  }
  options.values = !has(question.json(), "values") || require_bool(question.json(), "values");
  options.row_sums = true;
  if (open.head_scale.defined()) options.head_scale = open.head_scale.cview();
  options.hidden = &hidden;
  options.threads = question.threads();
  open.trace = lens::make_trace(*model.encoder, encoding, model.name, text_of(question, "text"), options);
  Json embedding = nullptr;
  if (!model.encoder->config().causal) {
    const Tensor pooled = model::pool(hidden.cview(), {}, model.pooling);
    embedding = std::vector<float>(pooled.as<float>(), pooled.as<float>() + pooled.elements());
  }
  const Json next = next_json(model, hidden);
  return json_answer({{"trace", question.open(std::move(open))}, {"embedding", embedding}, {"next", next}});
}

Answer ask_pipeline(const Question& question) {
  const OpenTrace& open = question.trace();
  const std::int64_t layer = question.layer(open.trace), head = question.head(open.trace, layer);
  const lens::TraceLayer& part = open.trace.layers[static_cast<std::size_t>(layer)];
  const std::int64_t kv_head = head / (part.q.size(0) / part.k.size(0));
  StateDict tensors{{"q", head_of(part.q, head)}, {"k", head_of(part.k, kv_head)}};
  if (part.v.defined()) tensors["v"] = head_of(part.v, kv_head);
  if (has(question.json(), "model")) add_projections(question, question.model(), open, layer, head, tensors);
  return tensors_answer(tensors, {{"layer", std::to_string(layer)}, {"head", std::to_string(head)}, {"norm", "none"}});
}

}  // namespace manyheads::view
