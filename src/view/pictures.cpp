#include <algorithm>
#include <manyheads/lens/head_map.hpp>
#include <manyheads/lens/patch.hpp>
#include <optional>
#include <vector>

#include "base/format.hpp"
#include "base/index.hpp"
#include "lens/picture.hpp"
#include "view/state.hpp"

// Patches and maps of heads.
namespace manyheads::view {
namespace {

// A picture of one head, with the sums of its rows that other pictures have found.
std::optional<lens::Picture> picture_of(const Question& question, const OpenTrace& open,
                                        const lens::PictureRequest& request, const Progress& progress = {}) {
  const auto layer = static_cast<std::int64_t>(request.layer);
  Tensor sums = open.sums->of(layer, request.head, open.trace.num_queries());
  std::optional<lens::Picture> picture = lens::make_picture(
      open.trace, request, {.row_sums = &sums, .progress = progress, .threads = question.threads()});
  open.sums->add(layer, request.head, {sums.as<float>(), static_cast<std::size_t>(sums.elements())});
  return picture;
}

constexpr std::int64_t kMostSize = 4096;

using base::at;

}  // namespace

Answer ask_patch(const Question& question) {
  const OpenTrace& open = question.trace();
  const std::int64_t layer = question.layer(open.trace), head = question.head(open.trace, layer);
  const lens::PictureRequest request{.layer = at(layer),
                                     .head = head,
                                     .rows = question.range("rows", open.trace.num_queries()),
                                     .keys = question.range("keys", open.trace.num_keys()),
                                     .pool = question.pool(),
                                     .size = question.size(512, kMostSize),
                                     .tracks = false};
  const std::optional<lens::Picture> picture = picture_of(question, open, request, question.progress());
  if (!picture) return cancelled();
  StateDict tensors;
  std::map<std::string, std::string> metadata;
  lens::add_picture(open.trace, *picture, tensors, metadata);
  return tensors_answer(tensors, metadata);
}

Answer ask_map(const Question& question) {
  const OpenTrace& open = question.trace();
  const std::int64_t layer = question.layer(open.trace), head = question.head(open.trace, layer);
  const bool coarse = has(question.json(), "coarse") && require_bool(question.json(), "coarse");
  const std::optional<lens::HeadMap> map = lens::map_head(
      open.trace, at(layer), head, {.coarse = coarse, .progress = question.progress(), .threads = question.threads()});
  if (!map) return cancelled();
  if (!map->row_sum.empty()) open.sums->add(layer, head, map->row_sum);
  StateDict tensors;
  std::map<std::string, std::string> metadata{{"model", open.trace.model},
                                              {"layer", std::to_string(layer)},
                                              {"head", std::to_string(head)},
                                              {"row_step", std::to_string(map->row_step)}};
  for (const lens::PyramidLevel& level : map->levels) {
    tensors[base::format("mean.{}", level.side)] = level.mean;
    tensors[base::format("max.{}", level.side)] = level.max;
  }
  if (map->tracks) lens::add_tracks(*map->tracks, tensors, metadata);
  return tensors_answer(tensors, metadata);
}

Answer ask_thumbnails(const Question& question) {
  const OpenTrace& open = question.trace();
  const lens::Trace& trace = open.trace;
  const bool one = has(question.json(), "layer");
  const std::int64_t first = one ? question.layer(trace) : 0;
  const std::int64_t layers = one ? 1 : static_cast<std::int64_t>(trace.layers.size());
  if (layers == 0 || trace.num_queries() == 0 || trace.num_keys() == 0) question.refuse("the trace is empty");
  const std::int64_t size = question.size(64, 512), heads = trace.num_heads(0);
  // Beyond that many tokens every 8th row is read.
  constexpr std::int64_t kMostWhole = 2048;
  const std::int64_t longest = std::max(trace.num_queries(), trace.num_keys());
  Tensor all;
  std::int64_t side = 0, step = 1;
  for (std::int64_t i = 0; i < layers * heads; ++i) {
    const std::int64_t layer = first + i / heads, head = i % heads;
    Tensor picture;
    if (longest <= kMostWhole) {
      const std::optional<lens::Picture> made =
          picture_of(question, open,
                     {.layer = at(layer),
                      .head = head,
                      .rows = {0, trace.num_queries()},
                      .keys = {0, trace.num_keys()},
                      .pool = question.pool(),
                      .size = size});
      picture = made->weights;
      side = made->side;
    } else {
      const lens::HeadMap map =
          *lens::map_head(trace, at(layer), head, {.coarse = true, .threads = question.threads()});
      std::size_t level = 0;
      while (level + 1 < map.levels.size() && std::max(map.levels[level].rows(), map.levels[level].keys()) > size) {
        ++level;
      }
      picture = question.pool() == lens::Pool::kMax ? map.levels[level].max : map.levels[level].mean;
      side = map.levels[level].side;
      step = map.row_step;
    }
    if (!all.defined()) all = Tensor(DType::kF32, {layers, heads, picture.size(0), picture.size(1)});
    std::copy_n(picture.as<float>(), picture.elements(), all.as<float>() + i * picture.elements());
    if (question.progress() && !question.progress()(static_cast<double>(i + 1) / static_cast<double>(layers * heads))) {
      return cancelled();
    }
  }
  return tensors_answer({{"thumbnails", all}}, {{"pool", question.pool() == lens::Pool::kMax ? "max" : "mean"},
                                                {"cell", std::to_string(side)},
                                                {"row_step", std::to_string(step)}});
}

Answer ask_mean(const Question& question) {
  const OpenTrace& open = question.trace();
  const lens::Trace& trace = open.trace;
  const lens::Range rows = question.range("rows", trace.num_queries()), keys = question.range("keys", trace.num_keys());
  const std::vector<io::JsonDocument> heads = require_array(question.json(), "heads");
  if (heads.empty() || trace.layers.empty()) question.refuse("\"heads\" names no head");
  std::optional<lens::Picture> mean;
  std::vector<double> sums;
  for (const io::JsonDocument& name : heads) {
    const std::vector<std::int64_t> head =
        numbers(name, {static_cast<std::int64_t>(trace.layers.size()), trace.num_heads(0)});
    const std::optional<lens::Picture> picture =
        picture_of(question, open,
                   {.layer = at(head[0]),
                    .head = head[1],
                    .rows = rows,
                    .keys = keys,
                    .pool = question.pool(),
                    .size = question.size(512, kMostSize)});
    const std::int64_t count = picture->weights.elements();
    sums.resize(at(count));
    for (std::int64_t i = 0; i < count; ++i) sums[at(i)] += static_cast<double>(picture->weights.as<float>()[i]);
    mean = picture;
  }
  for (std::size_t i = 0; i < sums.size(); ++i) {
    mean->weights.as<float>()[i] = static_cast<float>(sums[i] / static_cast<double>(heads.size()));
  }
  return tensors_answer({{"weights", mean->weights}}, {{"model", trace.model},
                                                       {"heads", std::to_string(heads.size())},
                                                       {"rows", base::format("[{}, {}]", rows.begin, rows.end)},
                                                       {"keys", base::format("[{}, {}]", keys.begin, keys.end)},
                                                       {"pool", mean->pool},
                                                       {"cell", std::to_string(mean->side)}});
}

}  // namespace manyheads::view
