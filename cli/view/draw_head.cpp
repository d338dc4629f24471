#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <string>
#include <vector>

#include "base/format.hpp"
#include "cli.hpp"
#include "view/figures.hpp"

// One head of a text.
namespace manyheads::cli {
namespace {

// Tokens, or words: what the two columns of links are made of (viewer/src/views/heads/units.ts).
struct Unit {
  std::string text;
  std::int64_t begin = 0, end = 0;
};

std::vector<Unit> units_of(const nlohmann::json& trace, bool words, bool hide_special) {
  std::vector<Unit> units;
  const nlohmann::json& word_of = trace["word_of_token"];
  for (std::size_t place = 0; place < trace["tokens"].size(); ++place) {
    const std::int64_t at = static_cast<std::int64_t>(place);
    const std::int64_t word = place < word_of.size() ? word_of[place].get<std::int64_t>() : at;
    const std::string token = trace["tokens"][place].get<std::string>();
    if (word < 0) {
      if (!hide_special) units.push_back({token, at, at + 1});
      continue;
    }
    const bool same = words && !word_of.empty() && !units.empty() && units.back().end == at &&
                      word_of[static_cast<std::size_t>(units.back().begin)] == word;
    const bool named = words && static_cast<std::size_t>(word) < trace["words"].size();
    if (same) {
      units.back().end = at + 1;
    } else {
      units.push_back(
          {named ? trace["words"][static_cast<std::size_t>(word)]["text"].get<std::string>() : token, at, at + 1});
    }
  }
  return units;
}

struct UnitLink {
  std::size_t query = 0, key = 0;
  double weight = 0;
};

// The largest weights of a row, from the mean over the query's tokens of the sum over the key's; of equals the first.
std::vector<UnitLink> strongest(const std::vector<Unit>& units, std::size_t query, const float* weights,
                                std::int64_t keys, bool renormalise, std::size_t count) {
  std::vector<UnitLink> row;
  double all = 0;
  for (std::size_t u = 0; u < units.size(); ++u) {
    double sum = 0;
    for (std::int64_t i = units[query].begin; i < units[query].end; ++i) {
      for (std::int64_t j = units[u].begin; j < units[u].end; ++j) sum += static_cast<double>(weights[i * keys + j]);
    }
    sum /= static_cast<double>(units[query].end - units[query].begin);
    all += sum;
    if (sum > 0) row.push_back({query, u, sum});
  }
  std::stable_sort(row.begin(), row.end(), [](const UnitLink& a, const UnitLink& b) { return a.weight > b.weight; });
  if (row.size() > count) row.resize(count);
  for (UnitLink& link : row) link.weight /= renormalise && all > 0 ? all : 1;
  return row;
}

}  // namespace

void FigureMaker::links() {
  constexpr double kLine = 30, kRoom = 420, kTop = 52;
  constexpr std::size_t kMostUnits = 200;
  const HeadName shown = head();
  const std::string name = base::format("{}.{}", shown.layer, shown.head);
  const bool words = link_.flag("l.words", true), hide = link_.flag("l.special", false);
  const auto most = static_cast<std::size_t>(link_.whole("l.top", 1, 8, 2));
  std::vector<Unit> units = units_of(trace_, words, hide);
  const std::size_t count = units.size();
  if (trace_["queries"] != trace_["keys"] || units.empty())
    throw UsageError("this view needs a text that attends to itself");
  if (count > kMostUnits) units.resize(kMostUnits);
  const std::int64_t tokens = units.back().end;
  const SafetensorsFile answer = tensors({{"ask", "patch"},
                                          {"trace", trace_["id"]},
                                          {"layer", shown.layer},
                                          {"head", shown.head},
                                          {"rows", {0, tokens}},
                                          {"keys", {0, tokens}},
                                          {"size", 4096}});
  heading(filled(texts_.links_caption, {name, std::to_string(most)}));
  double left = 40;
  for (const Unit& unit : units) left = std::max(left, Sheet::width_of(unit.text, 14) + 8);
  for (std::size_t query = 0; query < units.size(); ++query) {
    const double y = kTop + (static_cast<double>(query) + 0.5) * kLine;
    sheet_.text(left - 8, y + 5, units[query].text, {.size = 14, .anchor = Anchor::kEnd, .colour = sheet_.theme().q});
    sheet_.text(left + kRoom + 8, y + 5, units[query].text, {.size = 14, .colour = sheet_.theme().k});
    for (const UnitLink& link : strongest(units, query, answer.at("weights").as<float>(), tokens, hide, most)) {
      const double to = kTop + (static_cast<double>(link.key) + 0.5) * kLine;
      sheet_.add(Sheet::Curve{
          .points = {{{left, y}, {left + kRoom / 2, y}, {left + kRoom / 2, to}, {left + kRoom, to}}},
          .colour = sheet_.theme().w,
          .width = 1 + 6 * link.weight,
          .opacity = std::min(1.0, 0.12 + link.weight),
          .told = base::format("{} → {}: {}", units[query].text, units[link.key].text, exactly(link.weight))});
    }
  }
  double y = kTop + static_cast<double>(units.size()) * kLine + 20;
  y = sheet_.paragraph(0, y, words ? texts_.links_words : texts_.links_pieces, 90, {.quiet = true});
  if (hide) y = sheet_.paragraph(0, y, texts_.links_renormalised, 90, {.quiet = true});
  if (count > kMostUnits)
    sheet_.text(0, y, filled(texts_.first_of, {std::to_string(kMostUnits), std::to_string(count)}), {.quiet = true});
}

void FigureMaker::why() {
  const HeadName shown = head();
  const SafetensorsFile answer = tensors({{"ask", "why"},
                                          {"trace", trace_["id"]},
                                          {"layer", shown.layer},
                                          {"head", shown.head},
                                          {"row", query()},
                                          {"key", key()}});
  const Tensor& products = answer.at("products");
  const auto number = [&](const char* name, std::int64_t i) {
    return static_cast<double>(answer.at(name).as<float>()[i]);
  };
  double dot = 0;
  std::vector<Bar> each;
  for (std::int64_t d = 0; d < products.elements(); ++d) {
    const double product = number("products", d);
    dot += product;
    each.push_back(
        {std::to_string(d), product,
         base::format("{}   = {} × {}", fixed(product, 3), fixed(number("q", d), 3), fixed(number("k", d), 3))});
  }
  const double scale = std::stod(answer.metadata.at("scale"));
  heading(filled(texts_.why_caption, {token(query()), token(key()), base::format("{}.{}", shown.layer, shown.head)}),
          filled(texts_.why_facts, {fixed(dot, 4), fixed(scale, 4), fixed(dot * scale, 4), fixed(number("score", 0), 4),
                                    weight(number("weight", 0))}));
  bars(0, 50, each, sheet_.theme().w);
}

void FigureMaker::distance() {
  constexpr std::int64_t kNear = 16;
  const HeadName shown = head();
  const SafetensorsFile answer =
      tensors({{"ask", "map"}, {"trace", trace_["id"]}, {"layer", shown.layer}, {"head", shown.head}});
  const Tensor& mass = answer.at("distance_mass");
  const std::int64_t first = std::stoll(answer.metadata.at("first_distance")), last = first + mass.elements() - 1;
  double all = 0;
  for (std::int64_t i = 0; i < mass.elements(); ++i) all += mass.as<double>()[i];
  // One bin each near 0, wider and wider further away, as viewer/src/views/heads/bins.ts has them.
  const bool is_short = mass.elements() <= 4 * kNear + 1;
  std::vector<std::int64_t> edges;
  for (std::int64_t at = 0; at <= std::max(last, -first); at = is_short || at < kNear ? at + 1 : 2 * at)
    edges.push_back(at);
  struct Bin {
    std::int64_t begin, end;
    double mass;
  };
  std::map<std::int64_t, Bin> bins;
  for (std::int64_t i = 0; i < mass.elements(); ++i) {
    const std::int64_t at = first + i;
    const auto edge = std::upper_bound(edges.begin(), edges.end(), std::abs(at)) - edges.begin() - 1;
    Bin& bin = bins.try_emplace(at < 0 ? -edge : edge, Bin{at, at, 0}).first->second;
    bin.end = at;
    bin.mass += mass.as<double>()[i];
  }
  std::vector<Bar> each;
  for (const auto& [place, bin] : bins) {
    const double share = all > 0 ? bin.mass / all : 0;
    each.push_back({bin.begin == bin.end
                        ? std::to_string(bin.begin)
                        : filled(texts_.distance_range, {std::to_string(bin.begin), std::to_string(bin.end)}),
                    share, fixed(share, 4)});
  }
  heading(filled(texts_.distance_caption, {base::format("{}.{}", shown.layer, shown.head)}),
          filled(texts_.distance_facts, {fixed(std::stod(answer.metadata.at("distance_mean")), 3),
                                         fixed(std::stod(answer.metadata.at("distance_variance")), 3)}));
  const double y = bars(0, 50, each, sheet_.theme().w);
  sheet_.text(0, y + 18, texts_.distance_note, {.quiet = true});
}

void FigureMaker::compare() {
  constexpr double kSide = 360, kGap = 24;
  const HeadName first = head();
  const std::optional<HeadName> named = link_.head("h.other");
  const bool fits =
      named && named->layer < trace_["layers"].get<std::size_t>() && named->head < trace_["heads"].get<std::int64_t>();
  if (!fits || (named->layer == first.layer && named->head == first.head)) {
    throw UsageError("this view needs a second head: --view \"compare&head=2.8&h.other=1.8\"");
  }
  if (!link_.text("h.text", 20000).empty())
    throw UsageError("two texts side by side are drawn by the page alone, which saves them as a picture");
  const auto patch = [&](const HeadName& of) {
    return tensors({{"ask", "patch"},
                    {"trace", trace_["id"]},
                    {"layer", of.layer},
                    {"head", of.head},
                    {"pool", link_.one_of("m.pool", {"mean", "max"})},
                    {"size", 512}});
  };
  const SafetensorsFile one = patch(first), other = patch(*named);
  const auto name = [](const HeadName& of) { return base::format("{}.{}", of.layer, of.head); };
  const Tensor& a = one.at("weights");
  const Tensor& b = other.at("weights");
  heading(base::format("{} | {} | {} − {}", name(first), name(*named), name(*named), name(first)), shown_text());
  const double top = 52 + names_room(), step = kSide + kGap + names_room(), left = names_room();
  named_map(left, top, kSide, a, name(first));
  named_map(left + step, top, kSide, b, name(*named));
  double largest = 0;
  for (std::int64_t i = 0; i < a.elements(); ++i)
    largest = std::max(largest, static_cast<double>(std::fabs(b.as<float>()[i] - a.as<float>()[i])));
  const Theme& theme = sheet_.theme();
  std::vector<Colour> colours;
  for (std::int64_t i = 0; i < a.elements(); ++i) {
    const double difference = static_cast<double>(b.as<float>()[i] - a.as<float>()[i]);
    const Colour& end = difference < 0 ? theme.less : theme.more;
    Colour colour = theme.paper;
    for (std::size_t c = 0; largest > 0 && c < 3; ++c) {
      colour[c] = static_cast<std::uint8_t>(
          std::lround(theme.paper[c] + std::fabs(difference) / largest * (end[c] - theme.paper[c])));
    }
    colours.push_back(colour);
  }
  const double cell = kSide / static_cast<double>(std::max(a.size(0), a.size(1)));
  const double width = cell * static_cast<double>(a.size(1)), height = cell * static_cast<double>(a.size(0));
  sheet_.add(Sheet::Cells{.x = left + 2 * step,
                          .y = top,
                          .width = width,
                          .height = height,
                          .columns = static_cast<int>(a.size(1)),
                          .lines = static_cast<int>(a.size(0)),
                          .colours = std::move(colours),
                          .told = "± " + exactly(largest)});
  sheet_.add(Sheet::Box{.x = left + 2 * step, .y = top, .width = width, .height = height, .edge = theme.edge});
  name_edges(left + 2 * step, top, kSide);
  sheet_.text(left + 2 * step, top + height + 18, base::format("± {}", weight(largest)), {.quiet = true});
}

}  // namespace manyheads::cli
