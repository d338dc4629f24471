#include "lens/scan_file.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>

#include "base/fail.hpp"
#include "base/file.hpp"
#include "io/json.hpp"
#include "lens/scan.hpp"
#include "lens/trace_check.hpp"

namespace manyheads::lens {
namespace {

using io::Json;
using io::JsonDocument;

// What the sizes of a scan's tensors are named; -1: not known yet.
struct Sizes {
  std::int64_t layers = -1, heads = -1, kv_heads = -1, scores = -1, head_dim = -1, components = -1, passages = -1,
               text = -1, bins = -1;
};

struct Axis {
  std::int64_t Sizes::* named = nullptr;
  std::int64_t size = 0;
};

struct TensorRule {
  const char* name;
  DType type;
  std::vector<Axis> shape;
};

const std::vector<TensorRule>& tensor_rules() {
  constexpr auto fixed = [](std::int64_t size) { return Axis{nullptr, size}; };
  constexpr auto named = [](std::int64_t Sizes::* size) { return Axis{size, 0}; };
  const Axis l = named(&Sizes::layers), h = named(&Sizes::heads), kv = named(&Sizes::kv_heads),
             s = named(&Sizes::scores), d = named(&Sizes::head_dim), c = named(&Sizes::components),
             p = named(&Sizes::passages);
  static const std::vector<TensorRule> rules = {
      {"score_mean", DType::kF64, {l, h, s}},
      {"score_count", DType::kI64, {l, h, s}},
      {"score_min", DType::kF64, {l, h, s}},
      {"score_max", DType::kF64, {l, h, s}},
      {"score_error", DType::kF64, {l, h, s}},
      {"score_deciles", DType::kF64, {l, h, s, fixed(kScanDeciles - 1)}},
      {"score_histogram", DType::kI64, {l, h, s, fixed(ScoreSketch::kParts)}},
      {"score_range", DType::kF64, {l, h, s, fixed(2)}},
      {"top_passages", DType::kI64, {l, h, s, fixed(kScanTop)}},
      {"top_values", DType::kF64, {l, h, s, fixed(kScanTop)}},
      {"sample_passages", DType::kI64, {l, h, s, fixed(kScanDeciles), fixed(kScanSamples)}},
      {"sample_values", DType::kF64, {l, h, s, fixed(kScanDeciles), fixed(kScanSamples)}},
      {"passages", DType::kI64, {p, fixed(6)}},
      {"passage_text", DType::kU8, {named(&Sizes::text)}},
      {"passage_text_ends", DType::kI64, {p}},
      {"distance_mass", DType::kF64, {l, h, named(&Sizes::bins)}},
      {"distance_edges", DType::kI64, {fixed(static_cast<std::int64_t>(distance_edges().size()))}},
      {"asking_tokens", DType::kI64, {l, h, fixed(kScanTokens)}},
      {"asking_mass", DType::kF64, {l, h, fixed(kScanTokens)}},
      {"asking_count", DType::kI64, {l, h, fixed(kScanTokens)}},
      {"asked_tokens", DType::kI64, {l, h, fixed(kScanTokens)}},
      {"asked_mass", DType::kF64, {l, h, fixed(kScanTokens)}},
      {"asked_count", DType::kI64, {l, h, fixed(kScanTokens)}},
      {"query_mean", DType::kF64, {l, h, d}},
      {"query_total_variance", DType::kF64, {l, h}},
      {"query_variance", DType::kF64, {l, h, c}},
      {"query_components", DType::kF64, {l, h, c, d}},
      {"key_mean", DType::kF64, {l, kv, d}},
      {"key_total_variance", DType::kF64, {l, kv}},
      {"key_variance", DType::kF64, {l, kv, c}},
      {"key_components", DType::kF64, {l, kv, c, d}},
  };
  return rules;
}

// Numbers that nobody checks otherwise: no NaN and no infinity may reach a table or a picture.
void check_numbers(const std::string& name, const Tensor& tensor, const Checker& check) {
  const std::int64_t count = tensor.elements();
  if (tensor.dtype() == DType::kF64) {
    const double* const values = tensor.as<double>();
    for (std::int64_t i = 0; i < count; ++i) {
      check.require(std::isfinite(values[i]), base::format("tensor {} holds {}", name, values[i]));
    }
  } else if (tensor.dtype() == DType::kI64) {
    const std::int64_t least = name.ends_with("_tokens") || name.ends_with("_passages") ? -1 : 0;
    if (name == "distance_edges") return;
    const std::int64_t* const values = tensor.as<std::int64_t>();
    for (std::int64_t i = 0; i < count; ++i) {
      check.require(values[i] >= least, base::format("tensor {} holds {}", name, values[i]));
    }
  }
}

void check_tensors(const ScanFile& scan, const Checker& check) {
  Sizes sizes;
  sizes.scores = static_cast<std::int64_t>(scan.scores.size());
  sizes.bins = static_cast<std::int64_t>(distance_edges().size()) - 1;
  for (const TensorRule& rule : tensor_rules()) {
    const auto it = scan.tensors.find(rule.name);
    check.require(it != scan.tensors.end(), std::string("the scan has no tensor ") + rule.name);
    const Tensor& tensor = it->second;
    bool fits = tensor.dtype() == rule.type && tensor.rank() == static_cast<int>(rule.shape.size());
    std::string expected;
    for (std::size_t axis = 0; axis < rule.shape.size(); ++axis) {
      std::int64_t size = rule.shape[axis].size;
      if (rule.shape[axis].named != nullptr) {
        std::int64_t& known = sizes.*rule.shape[axis].named;
        if (known < 0 && fits) known = tensor.size(static_cast<int>(axis));
        size = known;
      }
      fits = fits && tensor.size(static_cast<int>(axis)) == size;
      expected += (axis == 0 ? "" : ",") + (size < 0 ? std::string("*") : std::to_string(size));
    }
    check.require(fits, base::format("tensor {} is {}, expected {} [{}]", rule.name, base::describe(tensor.view()),
                                     name_of(rule.type), expected));
    check_numbers(rule.name, tensor, check);
  }
  check.require(sizes.layers > 0 && sizes.heads > 0, "the scan has no head");
  const auto& edges = distance_edges();
  check.require(std::equal(edges.begin(), edges.end(), scan.tensors.at("distance_edges").as<std::int64_t>()),
                "distance_edges are others than a scan has");
  for (const char* name : {"top_passages", "sample_passages"}) {
    const Tensor& rows = scan.tensors.at(name);
    for (std::int64_t i = 0; i < rows.elements(); ++i) {
      const std::int64_t row = rows.as<std::int64_t>()[i];
      check.require(row < sizes.passages,
                    base::format("tensor {} names passage {} of {}", name, row, sizes.passages));
    }
  }
  for (const char* name : {"asking_tokens", "asked_tokens"}) {
    const Tensor& ids = scan.tensors.at(name);
    for (std::int64_t i = 0; i < ids.elements(); ++i) {
      const std::int64_t id = ids.as<std::int64_t>()[i];
      check.require(id < 0 || scan.tokens_by_id.count(id) != 0, base::format("metadata tokens has no token {}", id));
    }
  }
  const std::int64_t* const row = scan.tensors.at("passages").as<std::int64_t>();
  const std::int64_t* const ends = scan.tensors.at("passage_text_ends").as<std::int64_t>();
  std::int64_t before = 0;
  for (std::int64_t i = 0; i < sizes.passages; ++i) {
    check.require(row[6 * i] < scan.passages && row[6 * i + 1] < static_cast<std::int64_t>(scan.files.size()) &&
                      row[6 * i + 4] <= row[6 * i + 5] && ends[i] >= before && ends[i] <= sizes.text,
                  base::format("row {} of tensor passages is no passage of the corpus", i));
    before = ends[i];
  }
}

}  // namespace

std::string ScanFile::kept_text(std::int64_t row) const {
  const std::int64_t* const ends = tensors.at("passage_text_ends").as<std::int64_t>();
  const char* const text = static_cast<const char*>(tensors.at("passage_text").bytes());
  const std::int64_t begin = row == 0 ? 0 : ends[row - 1];
  return {text + begin, text + ends[row]};
}

void save_scan(const std::filesystem::path& path, const ScanFile& scan) {
  Json files = Json::array(), scores = Json::array(), tokens = Json::object();
  for (const ScanFile::File& file : scan.files) {
    files.push_back({{"name", file.name}, {"format", file.json_lines ? "jsonl" : "text"}});
  }
  for (const ScanFile::ScoreName& score : scan.scores) {
    scores.push_back({{"name", score.name}, {"formula", score.formula}, {"source", score.source}});
  }
  for (const auto& [id, token] : scan.tokens_by_id) tokens[std::to_string(id)] = token;
  const auto text = [](const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  save_safetensors(path, scan.tensors,
                   {{"manyheads_scan", "1"},
                    {"model", text(scan.model)},
                    {"bits", text(scan.bits)},
                    {"causal", text(scan.causal)},
                    {"max_tokens", text(scan.max_tokens)},
                    {"passages", text(scan.passages)},
                    {"tokens", text(scan.tokens)},
                    {"seed", text(scan.seed)},
                    {"files", text(files)},
                    {"scores", text(scores)},
                    {"token_names", text(tokens)}});
}

ScanFile load_scan(const std::filesystem::path& path) {
  const SafetensorsFile file = load_safetensors(path);
  ScanFile scan;
  scan.place = base::path_in_quotes(file.path);
  const Checker check(scan.place, ErrorCode::kMalformedFile);
  const auto version = file.metadata.find("manyheads_scan");
  check.require(version != file.metadata.end(), "no scan: the metadata has no manyheads_scan");
  check.require(version->second == "1", "metadata manyheads_scan is " + base::in_quotes(version->second, 60) +
                                            "; this program reads 1");
  // All fields as one object, which the readers of JSON check and name.
  JsonDocument fields{Json::object(), scan.place + ": metadata"};
  for (const char* key : {"model", "bits", "causal", "max_tokens", "passages", "tokens", "seed", "files", "scores",
                          "token_names"}) {
    const auto it = file.metadata.find(key);
    check.require(it != file.metadata.end(), std::string("no scan: the metadata has no ") + key);
    fields.value[key] = io::parse_json(it->second, scan.place + ": metadata " + key).value;
  }
  scan.model = io::require_string(fields, "model");
  scan.bits = io::require_string(fields, "bits");
  scan.causal = io::require_bool(fields, "causal");
  scan.max_tokens = io::require_int(fields, "max_tokens", 1);
  scan.passages = io::require_int(fields, "passages");
  scan.tokens = io::require_int(fields, "tokens");
  scan.seed = io::require_int(fields, "seed");
  for (const JsonDocument& entry : io::require_array(fields, "files")) {
    const std::string format = io::require_string(entry, "format");
    if (format != "text" && format != "jsonl") io::refuse_json(entry, "format", "text or jsonl");
    scan.files.push_back({io::require_string(entry, "name"), format == "jsonl"});
  }
  for (const JsonDocument& entry : io::require_array(fields, "scores")) {
    scan.scores.push_back({io::require_string(entry, "name"), io::require_string(entry, "formula"),
                           io::require_string(entry, "source")});
  }
  check.require(!scan.scores.empty(), "metadata scores is empty");
  for (const auto& [id, token] : io::view_object(fields, "token_names").items()) {
    std::int64_t number = -1;
    const auto [end, problem] = std::from_chars(id.data(), id.data() + id.size(), number);
    check.require(problem == std::errc() && end == id.data() + id.size() && number >= 0 && token.is_string(),
                  "metadata token_names: " + base::in_quotes(id, 60) + " is no id with its spelling");
    scan.tokens_by_id[number] = token.get<std::string>();
  }
  for (const TensorRule& rule : tensor_rules()) scan.tensors[rule.name] = file.at(rule.name);
  check_tensors(scan, check);
  return scan;
}

}  // namespace manyheads::lens
