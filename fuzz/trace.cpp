// Traces. The input: lines of text. "key=value" is metadata, "@name dtype sizes" a tensor, "!word" a word to look for;
// the first byte says what the tensors hold, and whether each lse is made the right one.
#include <cmath>
#include <cstring>
#include <manyheads/attention.hpp>
#include <manyheads/lens/head_map.hpp>
#include <manyheads/lens/links.hpp>
#include <manyheads/lens/patch.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/safetensors.hpp>
#include <optional>
#include <random>

#include "harness.hpp"

using namespace manyheads;

namespace {

constexpr std::int64_t kMostElements = 4096;

struct Input {
  StateDict tensors;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> words;
};

void add_tensor(Input& input, const std::string& line, std::mt19937& random, double size) {
  char name[64] = {}, type[8] = {}, sizes[64] = {};
  if (std::sscanf(line.c_str(), "@%63s %7s %63s", name, type, sizes) < 2) return;
  std::vector<std::int64_t> shape;
  std::int64_t elements = 1;
  for (const char* at = sizes; *at != '\0' && shape.size() < 4;) {
    char* end = nullptr;
    const std::int64_t n = std::strtoll(at, &end, 10);
    if (end == at || n < 0 || n > kMostElements) return;
    elements *= std::max<std::int64_t>(n, 1);
    if (elements > kMostElements) return;
    shape.push_back(n);
    at = *end == ',' ? end + 1 : end;
    if (*end != ',' && *end != '\0') return;
  }
  if (std::strcmp(type, "F32") != 0) {
    input.tensors[name] = Tensor(DType::kI32, Dims(shape));
    return;
  }
  Tensor tensor(DType::kF32, Dims(shape));
  std::normal_distribution<double> normal;
  for (std::int64_t i = 0; i < tensor.elements(); ++i) {
    tensor.as<float>()[i] = static_cast<float>(normal(random) * size);
  }
  input.tensors[name] = tensor;
}

Input read(std::string_view text, std::mt19937& random, double size) {
  Input input;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t equals = line.find('=');
    if (line.empty()) continue;
    if (line[0] == '@') {
      add_tensor(input, line, random, size);
    } else if (line[0] == '!') {
      input.words.push_back(line.substr(1));
    } else if (equals != std::string::npos) {
      input.metadata[line.substr(0, equals)] = line.substr(equals + 1);
    }
  }
  return input;
}

// The trace with the lse that attention() gives for each layer; false where it takes no such call.
bool set_lse(lens::Trace& trace) {
  for (lens::TraceLayer& layer : trace.layers) {
    const auto batch = [](const ConstTensorView& v) {
      Dims shape{1}, strides{0};
      for (int i = 0; i < v.rank(); ++i) {
        shape = v.rank() == 2 ? Dims{1, v.size(0), v.size(1)} : Dims{1, v.size(0), v.size(1), v.size(2)};
        strides = v.rank() == 2 ? Dims{0, v.stride(0), v.stride(1)} : Dims{0, v.stride(0), v.stride(1), v.stride(2)};
      }
      return ConstTensorView(v.data(), v.dtype(), shape, strides);
    };
    AttentionOptions options = lens::attention_options(trace);
    options.threads.num_threads = 1;
    options.mask.bias = layer.bias;
    options.sinks = layer.sinks;
    Tensor lse(DType::kF32, Dims{1, layer.q.size(0), layer.q.size(1)});
    Tensor out(DType::kF32, Dims{1, layer.q.size(0), layer.q.size(1), layer.k.size(2)});
    const TensorView lse_view = lse.view();
    options.lse = lse_view;
    attention(batch(layer.q), batch(layer.k), batch(layer.k), out.view(), options);
    layer.lse = ConstTensorView(static_cast<const float*>(lse.bytes()), Dims{layer.q.size(0), layer.q.size(1)});
    layer.storage.push_back(lse);
  }
  return true;
}

// Rows of weights are shares: from 0 to 1, and 1 in sum, or less where a sink takes the rest.
void check_weights(const lens::Trace& trace, std::size_t layer, std::int64_t head, bool right_lse) {
  Tensor weights(DType::kF32, Dims{trace.num_queries(), trace.num_keys()});
  const bool taken = fuzz::taken([&] { lens::trace_weights(trace, layer, head, weights.view(), {.num_threads = 1}); });
  fuzz::require(taken || !right_lse, "its own lse is refused");
  if (!taken) return;
  for (std::int64_t q = 0; q < trace.num_queries(); ++q) {
    double sum = 0;
    bool nan = false;
    for (std::int64_t k = 0; k < trace.num_keys(); ++k) {
      const float w = weights.as<float>()[q * trace.num_keys() + k];
      nan = nan || std::isnan(w);
      fuzz::require(nan || (w >= 0 && w <= 1.00001f), "a weight that is no share");
      sum += static_cast<double>(w);
    }
    const ConstTensorView& all = trace.layers[layer].lse;
    const float lse = static_cast<const float*>(all.data())[head * all.stride(0) + q * all.stride(1)];
    if (nan) {
      fuzz::require(!std::isfinite(lse), "NaN from a finite lse");
    } else if (trace.layers[layer].sinks.defined()) {
      fuzz::require(sum <= 1.00001, "more than 1 in sum");
    } else {
      fuzz::require(std::fabs(sum - 1) < 1e-5 || (sum == 0 && lse < 0), "not 1 in sum");
    }
  }
}

// A patch holds the weights of the whole matrix, and a map their means. Rows of weights that are not numbers are
// none's.
void check_patch(const lens::Trace& trace, std::size_t layer, std::int64_t head, std::mt19937& random, bool right_lse) {
  const std::int64_t queries = trace.num_queries(), keys = trace.num_keys();
  Tensor whole(DType::kF32, Dims{queries, keys});
  const Threads one{.num_threads = 1};
  const auto range = [&](std::int64_t count) {
    const std::int64_t a = static_cast<std::int64_t>(random()) % (count + 1);
    const std::int64_t b = static_cast<std::int64_t>(random()) % (count + 1);
    return lens::Range{std::min(a, b), std::max(a, b)};
  };
  const lens::Range rows = range(queries), of_keys = range(keys);
  Tensor weights(DType::kF32, Dims{rows.size(), of_keys.size()});
  fuzz::taken([&] { lens::patch(trace, layer, head, rows, of_keys, weights.view(), {.threads = one}); });
  if (!fuzz::taken([&] { lens::trace_weights(trace, layer, head, whole.view(), one); })) return;
  std::vector<float> sums;
  const bool summed = fuzz::taken([&] { sums = lens::row_sums(trace, layer, head, {0, queries}, one); });
  fuzz::require(summed || !right_lse, "its own lse has no row sums");
  if (!summed) return;
  const lens::PatchOptions exact{.row_sum = ConstTensorView(sums.data(), Dims{queries}), .threads = one};
  const bool taken = fuzz::taken([&] { lens::patch(trace, layer, head, rows, of_keys, weights.view(), exact); });
  fuzz::require(taken || !right_lse, "a patch of its own lse is refused");
  double mass = 0;
  bool nan = false;
  for (std::int64_t i = 0; i < queries * keys; ++i) {
    const float expected = whole.as<float>()[i];
    nan = nan || std::isnan(expected);
    mass += static_cast<double>(expected);
    const std::int64_t row = i / keys - rows.begin, key = i % keys - of_keys.begin;
    if (!taken || row < 0 || row >= rows.size() || key < 0 || key >= of_keys.size()) continue;
    const float found = weights.as<float>()[row * of_keys.size() + key];
    fuzz::require(std::isnan(expected) || std::fabs(found - expected) < 1e-4f, "another weight in a patch");
  }
  std::optional<lens::HeadMap> map;
  const bool mapped = fuzz::taken([&] { map = lens::map_head(trace, layer, head, {.threads = one}); });
  fuzz::require(mapped || !right_lse || nan || queries == 0 || keys == 0, "a map of its own lse is refused");
  if (!mapped || nan) return;
  const lens::PyramidLevel& top = map->levels.back();
  fuzz::require(top.rows() == 1 && top.keys() == 1, "a pyramid without its top");
  const double found = static_cast<double>(top.mean.as<float>()[0]) * static_cast<double>(queries * keys);
  fuzz::require(std::fabs(found - mass) < 1e-3 * static_cast<double>(queries + 1), "another mass in the pyramid");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const fuzz::Folder folder;
  if (size < 1) return 0;
  static constexpr double kSizes[] = {1, 0, 10, 1e3, 1e10, 1e30, 1e-30, INFINITY};
  std::mt19937 random(bytes[0]);
  Input input = read({reinterpret_cast<const char*>(bytes) + 1, size - 1}, random, kSizes[bytes[0] / 2 % 8]);
  const auto path = folder.path() / "a";
  lens::Trace trace;
  if (!fuzz::taken([&] {
        save_safetensors(path, input.tensors, input.metadata);
        trace = lens::load_trace(path);
      })) {
    return 0;
  }
  const bool right_lse = bytes[0] % 2 != 0 && fuzz::taken([&] { set_lse(trace); });
  for (std::size_t layer = 0; layer < trace.layers.size(); ++layer) {
    for (std::int64_t head = 0; head < trace.num_heads(layer); ++head) {
      check_weights(trace, layer, head, right_lse);
      check_patch(trace, layer, head, random, right_lse);
    }
  }
  fuzz::taken([&] {
    const std::vector<lens::Word> words = lens::words_of(trace);
    std::size_t bytes_of_words = 0;
    for (const lens::Word& word : words) bytes_of_words += word.text.size();
    fuzz::require(bytes_of_words <= 65 * (size + 64), "words of more bytes than the text has");
    for (const std::string& name : input.words) fuzz::require(lens::find_word(words, name) < words.size(), "no word");
  });
  if (!right_lse) return 0;
  // Written and read again, it is the same trace.
  const auto again = folder.path() / "b";
  if (!fuzz::taken([&] { lens::save_trace(again, trace); })) fuzz::fail("a trace that cannot be written");
  const lens::Trace back = lens::load_trace(again);
  for (std::size_t layer = 0; layer < trace.layers.size(); ++layer) {
    const ConstTensorView &v = trace.layers[layer].v, &read = back.layers[layer].v;
    fuzz::require(v.defined() == read.defined() && v.shape() == read.shape(), "other values");
  }
  fuzz::require(back.tokens == trace.tokens && back.words == trace.words && back.scale == trace.scale &&
                    back.window == trace.window && back.text == trace.text && back.text2 == trace.text2 &&
                    back.layers.size() == trace.layers.size(),
                "another trace");
  return 0;
}
