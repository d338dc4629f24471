#include <CLI/CLI.hpp>
#include <charconv>
#include <manyheads/error.hpp>
#include <manyheads/lens/patch.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/safetensors.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "arguments.hpp"
#include "base/file.hpp"
#include "base/format.hpp"
#include "cli.hpp"
#include "figure.hpp"
#include "findings.hpp"
#include "lens/picture.hpp"
#include "map.hpp"
#include "out_file.hpp"
#include "text_trace.hpp"

namespace manyheads::cli {
namespace {

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
  lens::Picture picture;
};

// What the page shows first.
HeadName usual_head(const lens::Trace& trace) {
  return trace.layers.size() > 2 && trace.num_heads(2) > 8 ? HeadName{2, 8} : HeadName{0, 0};
}

Map make_map(const MapRequest& request) {
  Map map;
  map.trace = request.model.empty()
                  ? lens::load_trace(request.source)
                  : trace_text({request.source, request.model, request.pair, request.truncate}, request.common).trace;
  const lens::Trace& trace = map.trace;
  const HeadName head = request.head.empty() ? usual_head(trace) : parse_head(request.head);
  if (head.layer >= trace.layers.size() || head.head >= trace.num_heads(head.layer)) {
    throw UsageError(base::format("--head {}: there are {} layers of {} heads, both counted from 0", request.head,
                                  trace.layers.size(), trace.num_heads(0)));
  }
  map.picture = *lens::make_picture(trace,
                                    {.layer = head.layer,
                                     .head = head.head,
                                     .rows = parse_range("--rows", request.rows, trace.num_queries(), "queries"),
                                     .keys = parse_range("--keys", request.keys, trace.num_keys(), "keys"),
                                     .pool = request.pool == "max" ? lens::Pool::kMax : lens::Pool::kMean,
                                     .size = request.size,
                                     .tracks = format_of(request.out) == Format::kSafetensors},
                                    {.threads = {request.common.threads, nullptr}});
  return map;
}

std::string pooling(const lens::Picture& picture) {
  return picture.side == 1 ? "exact weights" : base::format("{0} of {1} x {1} weights", picture.pool, picture.side);
}

std::vector<std::string> names(const Map& map, lens::Range range, std::int64_t count) {
  const bool all = map.picture.side == 1 && count <= kMostNames && map.trace.num_queries() == map.trace.num_keys();
  if (!all) return {};
  return {map.trace.tokens.begin() + range.begin, map.trace.tokens.begin() + range.end};
}

Figure figure_of(const Map& map) {
  const lens::PictureRequest& of = map.picture.of;
  Figure figure;
  figure.title =
      base::format("layer {}, head {}{}{}", of.layer, of.head, map.trace.model.empty() ? "" : " of ", map.trace.model);
  figure.subtitle = base::format("queries {} to {}, keys {} to {}: {}", of.rows.begin, of.rows.end - 1, of.keys.begin,
                                 of.keys.end - 1, pooling(map.picture));
  figure.lines = map.picture.weights.size(0);
  figure.columns = map.picture.weights.size(1);
  figure.values = map.picture.weights.as<float>();
  figure.rows = of.rows;
  figure.keys = of.keys;
  figure.row_names = names(map, of.rows, figure.lines);
  figure.key_names = names(map, of.keys, figure.columns);
  return figure;
}

void save_numbers(const std::string& path, const Map& map) {
  StateDict tensors;
  std::map<std::string, std::string> metadata;
  lens::add_picture(map.trace, map.picture, tensors, metadata);
  save_safetensors(path, tensors, metadata);
}

}  // namespace

void map(const MapRequest& request) {
  if (!request.head.empty()) parse_head(request.head);
  const Format format = format_of(request.out);
  const OutFile file(request.out, request.common.json);
  const Map made = make_map(request);
  const lens::PictureRequest& of = made.picture.of;
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
                {"layer", of.layer},
                {"head", of.head},
                {"rows", {of.rows.begin, of.rows.end}},
                {"keys", {of.keys.begin, of.keys.end}},
                {"pool", made.picture.pool},
                {"cell", made.picture.side},
                {"shape", {figure.lines, figure.columns}},
                {"largest", figure.largest()},
                {"tracks", format == Format::kSafetensors && made.picture.tracks.has_value()}});
    return;
  }
  file.report(base::format("Wrote {}: {}, {}, {} x {} numbers up to {:.4g}\n", file.shown(), figure.title,
                           figure.subtitle, figure.lines, figure.columns, figure.largest()));
}

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
