#include "view/figures.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <manyheads/error.hpp>
#include <utility>

#include "base/format.hpp"
#include "cli.hpp"
#include "heatmap.hpp"
#include "io/safetensors_bytes.hpp"
#include "lens/unicode.hpp"
#include "view/memory_file.hpp"
#include "view/pairs.hpp"

namespace manyheads::cli {
namespace {

constexpr double kBar = 20, kLeastNames = 50;
constexpr double kNameSize = 11;  // of a token at the edge of a map

}  // namespace

FigureMaker::FigureMaker(Opened& opened, const Link& link)
    : opened_(opened),
      link_(link),
      texts_(figure_texts(link.text("lang") == "de")),
      sheet_(theme_of(link.text("theme") == "dark")),
      ramp_(sheet_.theme()),
      about_(json({{"ask", "about"}})) {
  if (!about_["traces"].empty()) trace_ = json({{"ask", "trace"}, {"trace", about_["traces"][0]["id"]}});
}

void FigureMaker::draw() {
  const std::string view = link_.one_of("v", {"story", "pipeline", "dimensions", "heads", "corpus"});
  if (view == "story") return story();
  if (view == "pipeline") return pipeline();
  if (view == "dimensions") return dimensions();
  if (view == "corpus") return corpus();
  const bool one = shows_one_head(link_);
  const std::string all = link_.one_of("h.all", {"grid", "scatter", "clusters", "mean", "rollout"});
  const std::string detail = link_.one_of("h.one", {"map", "links", "why", "distance", "compare", "off"});
  needs_text();
  const std::pair<const char*, void (FigureMaker::*)()> overviews[] = {{"grid", &FigureMaker::grid},
                                                                       {"scatter", &FigureMaker::scatter},
                                                                       {"clusters", &FigureMaker::clusters},
                                                                       {"mean", &FigureMaker::mean},
                                                                       {"rollout", &FigureMaker::rollout}};
  const std::pair<const char*, void (FigureMaker::*)()> details[] = {{"links", &FigureMaker::links},
                                                                     {"why", &FigureMaker::why},
                                                                     {"distance", &FigureMaker::distance},
                                                                     {"compare", &FigureMaker::compare}};
  for (const auto& [name, make] : overviews) {
    if (!one && all == name) return (this->*make)();
  }
  for (const auto& [name, make] : details) {
    if (one && detail == name) return (this->*make)();
  }
  throw UsageError(
      "what a head that is switched off changes is measured while it is looked at: the page shows it, and "
      "saves it as a picture");
}

FigureMaker::Json FigureMaker::json(const Json& question) { return Json::parse(opened_.ask(question.dump()).bytes); }

SafetensorsFile FigureMaker::tensors(const Json& question) {
  return io::read_safetensors(view::memory_file(opened_.ask(question.dump()).bytes), "the answer");
}

void FigureMaker::needs_text() const {
  if (trace_.is_null()) throw UsageError("this view is of a text: give one with --model DIR, or a trace FILE");
  if (trace_["layers"] == 0 || trace_["tokens"].empty()) throw UsageError("this text has no weights to draw");
}

HeadName FigureMaker::head() const {
  const auto fits = [&](std::size_t layer, std::int64_t head) {
    return layer < trace_["layers"].get<std::size_t>() && head < trace_["heads"].get<std::int64_t>();
  };
  const std::optional<HeadName> named = link_.head("head");
  if (named && fits(named->layer, named->head)) return *named;
  return fits(2, 8) ? HeadName{2, 8} : HeadName{0, 0};
}

std::int64_t FigureMaker::query() const {
  const auto tokens = static_cast<std::int64_t>(trace_["tokens"].size()),
             words = static_cast<std::int64_t>(trace_["words"].size());
  const std::int64_t named = link_.whole("q", 0, trace_["queries"].get<std::int64_t>() - 1, -1);
  if (named >= 0 && named < tokens) return named;
  return words == 0 ? 0
                    : trace_["words"][static_cast<std::size_t>(std::min<std::int64_t>(1, words - 1))]["first_token"]
                          .get<std::int64_t>();
}

std::int64_t FigureMaker::key() const {
  const auto words = static_cast<std::int64_t>(trace_["words"].size());
  const std::int64_t named = link_.whole("k", 0, trace_["keys"].get<std::int64_t>() - 1, -1);
  if (named >= 0) return named;
  return words == 0 ? 0
                    : trace_["words"][static_cast<std::size_t>(std::min<std::int64_t>(2, words - 1))]["first_token"]
                          .get<std::int64_t>();
}

std::string FigureMaker::token(std::int64_t place) const {
  const auto at = static_cast<std::size_t>(place);
  return at < trace_["tokens"].size() ? trace_["tokens"][at].get<std::string>() : std::to_string(place);
}

std::string FigureMaker::word(std::int64_t index) const {
  return trace_["words"][static_cast<std::size_t>(index)]["text"].get<std::string>();
}

std::string FigureMaker::shown_text() const {
  constexpr int kMost = 90;
  const std::string text = trace_["text"].get<std::string>();
  return lens::display_width(text) <= kMost ? text : fit(text, kMost);
}

FigureMaker::Json FigureMaker::links_read() {
  Json wanted = Json::array();
  for (const auto& [from, to] : pairs_of(trace_, link_.text("links"))) wanted.push_back({from, to});
  if (wanted.empty()) throw UsageError("this text has too few words for a link; take a longer sentence");
  return json({{"ask", "links"}, {"trace", trace_["id"]}, {"pairs", wanted}})["links"];
}

std::string FigureMaker::head_name(const Json& head) {
  return base::format("{}.{}", head["layer"].get<int>(), head["head"].get<int>());
}

std::string FigureMaker::fixed(double value, int decimals) const {
  std::string text = base::format("{:.{}f}", value, decimals);
  std::replace(text.begin(), text.end(), '.', texts_.point);
  if (text[0] == '-') text = "−" + text.substr(1);
  return text;
}

std::string FigureMaker::grouped(std::int64_t value) const {
  std::string text = std::to_string(value);
  for (std::size_t at = text.size(); at > 3;) {
    at -= 3;
    text.insert(at, texts_.point == '.' ? "," : ".");
  }
  return text;
}

std::string FigureMaker::weight(double value) const {
  if (value == 0 || std::fabs(value) >= 0.001) return fixed(value, 4);
  std::string text = base::format("{:.2e}", value);
  std::replace(text.begin(), text.end(), '.', texts_.point);
  return text;
}

std::string FigureMaker::exactly(double value) { return base::format("{:.9g}", value); }

void FigureMaker::heading(const std::string& title, const std::string& below) {
  title_ = title;
  sheet_.text(0, 14, title, {.size = 16, .bold = true});
  if (!below.empty()) sheet_.text(0, 34, below, {.quiet = true});
}

double FigureMaker::bars(double x, double y, const std::vector<Bar>& bars, const Colour& colour, double room,
                         double full) {
  double largest = full, names = kLeastNames;
  bool signs = false;
  for (const Bar& bar : bars) {
    largest = std::max(largest, std::fabs(bar.value));
    signs = signs || bar.value < 0;
    names = std::max(names, Sheet::width_of(bar.name) + 8);
  }
  const double zero = x + names + (signs ? room / 2 : 0), reach = signs ? room / 2 : room;
  for (const Bar& bar : bars) {
    const double length = largest > 0 ? reach * std::fabs(bar.value) / largest : 0;
    sheet_.text(x + names - 8, y + 13, bar.name, {.anchor = Anchor::kEnd});
    sheet_.add(Sheet::Box{.x = bar.value < 0 ? zero - length : zero,
                          .y = y + 2,
                          .width = length,
                          .height = kBar - 5,
                          .fill = colour,
                          .told = bar.told.empty() ? bar.name + ": " + exactly(bar.value) : bar.told});
    sheet_.text(x + names + room + 8, y + 13, bar.said);
    y += kBar;
  }
  if (signs)
    sheet_.add(Sheet::Line{{zero, y - kBar * static_cast<double>(bars.size())}, {zero, y}, sheet_.theme().edge});
  return y;
}

void FigureMaker::strip(double x, double y, const std::vector<double>& numbers, const Colour& colour,
                        const std::string& name) {
  constexpr double kRoom = 640, kHeight = 24;
  double largest = 0;
  for (const double value : numbers) largest = std::max(largest, std::fabs(value));
  const double width = kRoom / static_cast<double>(numbers.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    sheet_.add(Sheet::Box{.x = x + static_cast<double>(i) * width,
                          .y = y,
                          .width = width,
                          .height = kHeight,
                          .fill = colour,
                          .opacity = largest > 0 ? std::fabs(numbers[i]) / largest : 0,
                          .hatched = false,
                          .told = base::format("{} [{}]: {}", name, i, exactly(numbers[i]))});
    // A sign is no shade: negative numbers stand below a line.
    if (numbers[i] < 0) {
      const double at = x + static_cast<double>(i) * width;
      sheet_.add(Sheet::Line{{at, y + kHeight + 2}, {at + width - 1, y + kHeight + 2}, sheet_.theme().ink, 2});
    }
  }
  sheet_.add(Sheet::Box{.x = x, .y = y, .width = kRoom, .height = kHeight, .edge = sheet_.theme().edge});
}

void FigureMaker::map(double x, double y, double side, const float* weights, std::int64_t lines, std::int64_t columns,
                      const std::string& name) {
  double largest = 0;
  for (std::int64_t i = 0; i < lines * columns; ++i) largest = std::max(largest, static_cast<double>(weights[i]));
  std::vector<Colour> colours;
  for (std::int64_t i = 0; i < lines * columns; ++i) {
    colours.push_back(ramp_.root(static_cast<double>(weights[i]), largest));
  }
  const double cell = side / static_cast<double>(std::max(lines, columns));
  const double width = cell * static_cast<double>(columns), height = cell * static_cast<double>(lines);
  sheet_.add(Sheet::Cells{.x = x,
                          .y = y,
                          .width = width,
                          .height = height,
                          .columns = static_cast<int>(columns),
                          .lines = static_cast<int>(lines),
                          .colours = std::move(colours),
                          .told = name + ": " + filled(texts_.largest, {exactly(largest)})});
  sheet_.add(Sheet::Box{.x = x, .y = y, .width = width, .height = height, .edge = sheet_.theme().edge});
}

double FigureMaker::names_room() const {
  constexpr std::size_t kMostNamed = 48;
  if (trace_["queries"] != trace_["keys"] || trace_["tokens"].size() > kMostNamed) return 0;
  double most = 0;
  for (const Json& token : trace_["tokens"])
    most = std::max(most, Sheet::width_of(token.get<std::string>(), kNameSize));
  return most + 6;
}

void FigureMaker::name_edges(double x, double y, double side) {
  if (names_room() == 0) return;
  const double cell = side / static_cast<double>(trace_["tokens"].size());
  for (std::size_t i = 0; i < trace_["tokens"].size(); ++i) {
    const double middle = (static_cast<double>(i) + 0.5) * cell + kNameSize / 3;
    const std::string name = trace_["tokens"][i].get<std::string>();
    sheet_.text(x - 6, y + middle, name, {.size = kNameSize, .anchor = Anchor::kEnd, .quiet = true});
    sheet_.text(x + middle, y - 6, name, {.size = kNameSize, .quiet = true, .upwards = true});
  }
}

void FigureMaker::named_map(double x, double y, double side, const Tensor& weights, const std::string& name) {
  map(x, y, side, weights.as<float>(), weights.size(0), weights.size(1), name);
  name_edges(x, y, side);
}

FigureMaker::Axis FigureMaker::axis_of(const std::vector<double>& values) {
  const double least = values.empty() ? 0 : *std::min_element(values.begin(), values.end());
  const double most = values.empty() ? 1 : *std::max_element(values.begin(), values.end());
  const double range = most > least ? most - least : most != 0 ? std::fabs(most) : 1;
  const double rough = range / 4, power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= rough) step = factor * power;
  }
  const double first = std::floor(least / step + 1e-9), last = std::max(first + 1, std::ceil(most / step - 1e-9));
  return {first * step, last * step, step};
}

std::string FigureMaker::tick(const Axis& axis, double value) const {
  return fixed(value, static_cast<int>(std::clamp(-std::floor(std::log10(axis.step) + 1e-9), 0.0, 6.0)));
}

}  // namespace manyheads::cli
