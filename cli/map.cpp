#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <manyheads/error.hpp>
#include <manyheads/lens/head_map.hpp>
#include <manyheads/lens/patch.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/safetensors.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "arguments.hpp"
#include "base/file.hpp"
#include "base/format.hpp"
#include "cli.hpp"
#include "figure.hpp"
#include "findings.hpp"
#include "out_file.hpp"
#include "text_trace.hpp"

namespace manyheads::cli {
namespace {

struct MapRequest {
  Common common;
  std::string source, model, head, rows, keys, out;  // source: a trace, or with a model a text
  std::optional<std::string> pair;
  bool truncate = false;
  std::string pool = "mean";
  std::int64_t size = 512;
};

enum class Format { kSafetensors, kPng, kSvg };

Format format_of(const std::string& out) {
  const auto ends_with = [&out](const std::string& end) {
    return out.size() > end.size() && out.compare(out.size() - end.size(), end.size(), end) == 0;
  };
  if (ends_with(".safetensors")) return Format::kSafetensors;
  if (ends_with(".png")) return Format::kPng;
  if (ends_with(".svg")) return Format::kSvg;
  throw UsageError("--out takes a name that ends in .safetensors, .png or .svg; got " + base::in_quotes(out));
}

// "A:B", places A to B - 1; each may be left out. Empty: all.
lens::Range parse_range(const std::string& option, const std::string& text, std::int64_t count, const char* of) {
  lens::Range range{0, count};
  const std::size_t colon = text.find(':');
  const auto number = [&](std::size_t begin, std::size_t end, std::int64_t* value) {
    if (begin == end) return true;
    const auto [stop, problem] = std::from_chars(text.data() + begin, text.data() + end, *value);
    return problem == std::errc() && stop == text.data() + end;
  };
  if (!text.empty() &&
      (colon == std::string::npos || !number(0, colon, &range.begin) || !number(colon + 1, text.size(), &range.end))) {
    throw UsageError(option + " takes A:B, the places A to B - 1, such as 0:64; got " + base::in_quotes(text));
  }
  if (range.begin < 0 || range.begin >= range.end || range.end > count) {
    throw UsageError(base::format("{} {} is no part of the trace's {}, which are 0:{}", option, text, of, count));
  }
  return range;
}

// What the picture shows.
struct Map {
  lens::Trace trace;
  HeadName head;
  lens::Range rows, keys;
  std::int64_t side = 1;  // of a cell
  std::string pool;       // exact, mean or max
  Tensor weights;
  std::optional<lens::Tracks> tracks;
};

Tensor row_sums_of(const lens::Trace& trace, const HeadName& name, lens::Range rows, const Threads& threads) {
  Tensor sums(DType::kF32, {trace.num_queries()});
  std::fill_n(sums.as<float>(), sums.elements(), 1.0f);
  const std::vector<float> found = lens::row_sums(trace, name.layer, name.head, rows, threads);
  std::copy(found.begin(), found.end(), sums.as<float>() + rows.begin);
  return sums;
}

Map make_map(const MapRequest& request) {
  Map map;
  map.head = parse_head(request.head);
  const Format format = format_of(request.out);
  map.trace = request.model.empty()
                  ? lens::load_trace(request.source)
                  : trace_text({request.source, request.model, request.pair, request.truncate}, request.common).trace;
  const lens::Trace& trace = map.trace;
  if (map.head.layer >= trace.layers.size() || map.head.head >= trace.num_heads(map.head.layer)) {
    throw UsageError(base::format("--head {}: there are {} layers of {} heads, both counted from 0", request.head,
                                  trace.layers.size(), trace.num_heads(0)));
  }
  map.rows = parse_range("--rows", request.rows, trace.num_queries(), "queries");
  map.keys = parse_range("--keys", request.keys, trace.num_keys(), "keys");
  const bool whole = map.rows.size() == trace.num_queries() && map.keys.size() == trace.num_keys();
  const std::int64_t longest = std::max(map.rows.size(), map.keys.size());
  map.side = (longest - 1) / request.size + 1;
  map.pool = map.side == 1 ? "exact" : request.pool;
  const lens::Pool pool = request.pool == "max" ? lens::Pool::kMax : lens::Pool::kMean;
  const Threads threads{request.common.threads, nullptr};

  Tensor sums;
  const bool from_pyramid = whole && map.side > 64;
  if (from_pyramid || (whole && format == Format::kSafetensors)) {
    lens::HeadMap made = *lens::map_head(trace, map.head.layer, map.head.head, {.threads = threads});
    map.tracks = std::move(made.tracks);
    if (from_pyramid) {
      std::size_t level = 0;
      while (made.levels[level].side < map.side) ++level;
      map.side = made.levels[level].side;
      map.weights = pool == lens::Pool::kMax ? made.levels[level].max : made.levels[level].mean;
      return map;
    }
    sums = Tensor(DType::kF32, {trace.num_queries()});
    std::copy(made.row_sum.begin(), made.row_sum.end(), sums.as<float>());
  } else {
    sums = row_sums_of(trace, map.head, map.rows, threads);
  }
  const lens::PatchOptions options{.row_sum = sums.view(), .threads = threads};
  if (map.side == 1) {
    map.weights = Tensor(DType::kF32, {map.rows.size(), map.keys.size()});
    lens::patch(trace, map.head.layer, map.head.head, map.rows, map.keys, map.weights.view(), options);
  } else {
    map.weights = lens::pooled_patch(trace, map.head.layer, map.head.head, map.rows, map.keys, map.side, pool, options);
  }
  return map;
}

std::string pooling(const Map& map) {
  return map.side == 1 ? "exact weights" : base::format("{0} of {1} x {1} weights", map.pool, map.side);
}

std::vector<std::string> names(const Map& map, lens::Range range, std::int64_t count) {
  const bool all = map.side == 1 && count <= kMostNames && map.trace.num_queries() == map.trace.num_keys();
  if (!all) return {};
  return {map.trace.tokens.begin() + range.begin, map.trace.tokens.begin() + range.end};
}

Figure figure_of(const Map& map) {
  Figure figure;
  figure.title = base::format("layer {}, head {}{}{}", map.head.layer, map.head.head,
                              map.trace.model.empty() ? "" : " of ", map.trace.model);
  figure.subtitle = base::format("queries {} to {}, keys {} to {}: {}", map.rows.begin, map.rows.end - 1,
                                 map.keys.begin, map.keys.end - 1, pooling(map));
  figure.lines = map.weights.size(0);
  figure.columns = map.weights.size(1);
  figure.values = map.weights.as<float>();
  figure.rows = map.rows;
  figure.keys = map.keys;
  figure.row_names = names(map, map.rows, figure.lines);
  figure.key_names = names(map, map.keys, figure.columns);
  return figure;
}

void save_numbers(const std::string& path, const Map& map) {
  StateDict tensors;
  std::map<std::string, std::string> metadata;
  tensors["weights"] = map.weights;
  metadata = {{"model", map.trace.model},
              {"layer", std::to_string(map.head.layer)},
              {"head", std::to_string(map.head.head)},
              {"rows", base::format("[{}, {}]", map.rows.begin, map.rows.end)},
              {"keys", base::format("[{}, {}]", map.keys.begin, map.keys.end)},
              {"pool", map.pool},
              {"cell", std::to_string(map.side)}};
  if (map.tracks) {
    const auto doubles = [](const std::vector<double>& values) {
      Tensor tensor(DType::kF64, {static_cast<std::int64_t>(values.size())});
      std::copy(values.begin(), values.end(), tensor.as<double>());
      return tensor;
    };
    tensors["column_mass"] = doubles(map.tracks->column_mass);
    tensors["entropy"] = doubles(map.tracks->entropy);
    tensors["distance_mass"] = doubles(map.tracks->distance_mass);
    tensors["top_weights"] = map.tracks->top_weights;
    tensors["top_keys"] = map.tracks->top_keys;
    metadata["first_distance"] = std::to_string(map.tracks->first_distance);
    metadata["distance_mean"] = nlohmann::ordered_json(map.tracks->distance_mean).dump();
    metadata["distance_variance"] = nlohmann::ordered_json(map.tracks->distance_variance).dump();
  }
  save_safetensors(path, tensors, metadata);
}

void map(const MapRequest& request) {
  parse_head(request.head);
  const Format format = format_of(request.out);
  const OutFile file(request.out, request.common.json);
  const Map made = make_map(request);
  const Figure figure = figure_of(made);
  file.save([&](const std::string& path) {
    if (format == Format::kSafetensors) return save_numbers(path, made);
    base::FileWriter writer(path);
    writer.write(format == Format::kPng ? png_figure(figure) : svg_figure(figure));
    writer.commit();
  });
  if (request.common.json) {
    print_json({{"out", request.out},
                {"model", made.trace.model},
                {"layer", made.head.layer},
                {"head", made.head.head},
                {"rows", {made.rows.begin, made.rows.end}},
                {"keys", {made.keys.begin, made.keys.end}},
                {"pool", made.pool},
                {"cell", made.side},
                {"shape", {figure.lines, figure.columns}},
                {"largest", figure.largest()},
                {"tracks", format == Format::kSafetensors && made.tracks.has_value()}});
    return;
  }
  file.report(base::format("Wrote {}: {}, {}, {} x {} numbers up to {:.4g}\n", file.shown(), figure.title,
                           figure.subtitle, figure.lines, figure.columns, figure.largest()));
}

}  // namespace

void add_map(CLI::App& app) {
  auto request = std::make_shared<MapRequest>();
  CLI::App* verb = app.add_subcommand("map", "One head's weights, or a part of them, as numbers or as a picture");
  verb->add_option("FILE", request->source,
                   "A trace: what manyheads trace wrote, or another program. With --model: a text")
      ->transform(plain_text)
      ->required()
      ->type_name("");
  CLI::Option* model = verb->add_option("--model", request->model,
                                        "Take a text and not a file: the folder of the model that reads it, with "
                                        "config.json, model.safetensors and tokenizer.json")
                           ->type_name("DIR");
  verb->add_option("--head", request->head, "Which head: layer.head, both counted from 0")
      ->required()
      ->type_name("L.H");
  verb->add_option("-o,--out", request->out,
                   "The file to write: numbers in NAME.safetensors, a picture in NAME.png or NAME.svg")
      ->required()
      ->type_name("FILE");
  verb->add_option("--rows", request->rows, "Queries A to B - 1 alone; default: all")->type_name("A:B");
  verb->add_option("--keys", request->keys, "Keys C to D - 1 alone; default: all")->type_name("C:D");
  verb->add_option("--pool", request->pool,
                   "What a cell of several weights shows where they do not fit --size: mean (default) or max")
      ->check(CLI::IsMember({"mean", "max"}))
      ->type_name("NAME");
  verb->add_option("--size", request->size, "The most cells along a side, 1 to 4096; default: 512")
      ->transform(whole_number(1, 4096))
      ->type_name("N");
  verb->add_option("--pair", request->pair, "A second text: the model sees both, as two segments")
      ->transform(plain_text)
      ->type_name("TEXT2")
      ->needs(model);
  verb->add_flag("--truncate", request->truncate, "Cut a text that is longer than the model takes")->needs(model);
  add_bits(*verb, request->common)->needs(model);
  add_common(*verb, request->common);
  verb->footer("Example: manyheads map cat.safetensors --head 2.8 -o head.svg");
  verb->callback([request] { map(*request); });
}

}  // namespace manyheads::cli
