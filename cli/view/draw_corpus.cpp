#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/format.hpp"
#include "cli.hpp"
#include "view/figures.hpp"

// One head over a scan, and which heads read a treebank's relations.
namespace manyheads::cli {
namespace {

const nlohmann::json* score_named(const nlohmann::json& head, const std::string& name) {
  for (const nlohmann::json& score : head["scores"]) {
    if (score["name"] == name && score["count"].get<std::int64_t>() > 0) return &score;
  }
  return nullptr;
}

}  // namespace

void FigureMaker::corpus() {
  const std::string part =
      link_.one_of("c.part", {"heads", "distribution", "examples", "tokens", "components", "distances", "relations"});
  if (part == "relations") return bands(json({{"ask", "treebank"}}));
  if (part == "examples")
    throw UsageError("examples are texts, which the page alone opens; manyheads scan --show prints them");
  if (!about_.contains("scans") || about_["scans"].empty())
    throw UsageError("this view is of a scan: give one as NAME.scan, or with --scan FILE");
  const Json id = about_["scans"][0]["id"];
  const Json all = json({{"ask", "scan"}, {"scan", id}});
  std::string score = all["score_rules"][0]["name"].get<std::string>();
  for (const Json& rule : all["score_rules"]) {
    if (rule["name"] == link_.text("c.score")) score = link_.text("c.score");
  }
  if (part == "heads") return ranges(all, score);
  Json wanted = all["heads"][0];
  if (const std::optional<HeadName> named = link_.head("head")) {
    for (const Json& head : all["heads"]) {
      if (head["layer"] == named->layer && head["head"] == named->head) wanted = head;
    }
  }
  const Json one = json({{"ask", "scan"}, {"scan", id}, {"head", {wanted["layer"], wanted["head"]}}, {"score", score}});
  const Json& head = one["heads"][0];
  if (part == "distribution") return distribution(one, score);
  if (part == "distances") {
    std::vector<Json> distances(head["distances"].begin(), head["distances"].end());
    constexpr std::size_t kMost = 40;
    const std::size_t count = distances.size();
    std::stable_sort(distances.begin(), distances.end(),
                     [](const Json& a, const Json& b) { return a["share"] > b["share"]; });
    if (count > kMost) distances.resize(kMost);
    std::sort(distances.begin(), distances.end(), [](const Json& a, const Json& b) { return a["begin"] < b["begin"]; });
    std::vector<Bar> each;
    for (const Json& bin : distances) {
      const std::int64_t begin = bin["begin"].get<std::int64_t>(), end = bin["end"].get<std::int64_t>();
      const double share = bin["share"].get<double>();
      each.push_back({begin == end ? std::to_string(begin)
                                   : filled(texts_.distance_range, {std::to_string(begin), std::to_string(end)}),
                      share, fixed(share, 4)});
    }
    heading(filled(texts_.distance_caption, {head_name(head)}),
            filled(texts_.over, {one["model"].get<std::string>(), grouped(one["passages"].get<std::int64_t>()),
                                 grouped(one["tokens"].get<std::int64_t>())}));
    double y = bars(0, 50, each, sheet_.theme().w) + 18;
    sheet_.text(0, y, texts_.distance_note, {.quiet = true});
    if (count > kMost)
      sheet_.text(0, y + 16, filled(texts_.most_of, {std::to_string(kMost), std::to_string(count)}), {.quiet = true});
    return;
  }
  const bool is_tokens = part == "tokens";
  heading(filled(texts_.head, {head_name(head)}),
          filled(texts_.over, {one["model"].get<std::string>(), grouped(one["passages"].get<std::int64_t>()),
                               grouped(one["tokens"].get<std::int64_t>())}));
  double y = 56;
  const char* const names[] = {is_tokens ? texts_.asking : texts_.query_components,
                               is_tokens ? texts_.asked : texts_.key_components};
  const char* const keys[] = {is_tokens ? "asking" : "query_components", is_tokens ? "asked" : "key_components"};
  for (std::size_t side = 0; side < 2; ++side) {
    constexpr std::size_t kMost = 25;
    std::vector<Bar> each;
    if (head.contains(keys[side])) {
      for (const Json& entry : head[keys[side]]) {
        if (each.size() == kMost) break;
        if (is_tokens) {
          const double mass = entry["mass"].get<double>();
          each.push_back({entry["token"].get<std::string>(), mass,
                          base::format("{}   {} ×", fixed(mass, 3), entry["count"].get<std::int64_t>())});
        } else {
          const double share = entry.get<double>();
          each.push_back(
              {filled(texts_.component, {std::to_string(each.size() + 1)}), share, fixed(100 * share, 1) + " %"});
        }
      }
    }
    sheet_.text(0, y + 12, names[side], {.size = 14, .bold = true});
    y = bars(0, y + 24, each, side == 0 ? sheet_.theme().q : sheet_.theme().k) + 20;
  }
}

void FigureMaker::ranges(const Json& scan, const std::string& score) {
  constexpr double kLine = 20, kRoom = 520, kLeft = 48, kTop = 72;
  std::vector<std::pair<const Json*, const Json*>> found;
  std::vector<double> ends;
  for (const Json& head : scan["heads"]) {
    if (const Json* of = score_named(head, score)) {
      found.emplace_back(&head, of);
      ends.push_back((*of)["min"].get<double>()), ends.push_back((*of)["max"].get<double>());
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return (*a.second)["mean"] > (*b.second)["mean"]; });
  heading(filled(texts_.ranges_caption, {score}),
          filled(texts_.over, {scan["model"].get<std::string>(), grouped(scan["passages"].get<std::int64_t>()),
                               grouped(scan["tokens"].get<std::int64_t>())}));
  const Axis axis = axis_of(ends);
  const auto at = [&](const Json& value) { return kLeft + kRoom * axis.share(value.get<double>()); };
  const Theme& theme = sheet_.theme();
  const double bottom = kTop + kLine * static_cast<double>(found.size());
  for (double value = axis.least; value < axis.most + axis.step / 2; value += axis.step) {
    const double x = kLeft + kRoom * axis.share(value);
    sheet_.add(Sheet::Line{{x, kTop - 6}, {x, bottom}, theme.line});
    sheet_.text(x, kTop - 12, tick(axis, value), {.anchor = Anchor::kMiddle, .quiet = true});
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto& [head, of] = found[i];
    const Json& score_here = *of;
    const double y = kTop + kLine * (static_cast<double>(i) + 0.5);
    sheet_.text(kLeft - 10, y + 4, head_name(*head), {.anchor = Anchor::kEnd});
    sheet_.add(Sheet::Line{{at(score_here["min"]), y}, {at(score_here["max"]), y}, theme.edge, 1});
    const double low = at(score_here["deciles"][0]), high = at(score_here["deciles"][8]);
    sheet_.add(Sheet::Box{.x = low,
                          .y = y - 4,
                          .width = std::max(1.0, high - low),
                          .height = 8,
                          .fill = theme.edge,
                          .opacity = 0.5,
                          .told = base::format("{}: {} ({})", head_name(*head), exactly(score_here["mean"].get<double>()),
                                               score_here["count"].get<std::int64_t>())});
    sheet_.add(Sheet::Line{{at(score_here["mean"]), y - 7}, {at(score_here["mean"]), y + 7}, theme.w, 2.5});
    sheet_.text(kLeft + kRoom + 12, y + 4, fixed(score_here["mean"].get<double>(), 3));
  }
  sheet_.paragraph(0, bottom + 22, texts_.ranges_note, 100, {.quiet = true});
}

void FigureMaker::distribution(const Json& scan, const std::string& score) {
  constexpr double kWidth = 720, kLeft = 56, kRight = 16, kTop = 56, kBottom = 320;
  const Json& head = scan["heads"][0];
  heading(filled(texts_.distribution_caption, {score, head_name(head)}));
  const Json* const of = score_named(head, score);
  if (of == nullptr) throw UsageError("no passage of this scan has the score " + score);
  const auto number = [&](const char* name) { return (*of)[name].get<double>(); };
  sheet_.text(0, 34,
              filled(texts_.passages, {grouped((*of)["count"].get<std::int64_t>()), fixed(number("mean"), 3),
                                       fixed(number("min"), 3), fixed(number("max"), 3)}),
              {.quiet = true});
  const double first = (*of)["range"][0].get<double>(), last = (*of)["range"][1].get<double>();
  const Json& histogram = (*of)["histogram"];
  const double step = (last - first) / static_cast<double>(histogram.size());
  std::int64_t most = 1;
  for (const Json& count : histogram) most = std::max(most, count.get<std::int64_t>());
  const Axis axis = axis_of({first, last});
  const auto at = [&](double value) { return kLeft + axis.share(value) * (kWidth - kLeft - kRight); };
  const Theme& theme = sheet_.theme();
  for (double value = axis.least; value < axis.most + axis.step / 2; value += axis.step) {
    sheet_.add(Sheet::Line{{at(value), kTop}, {at(value), kBottom}, theme.line});
    sheet_.text(at(value), kBottom + 22, tick(axis, value), {.anchor = Anchor::kMiddle});
  }
  for (std::size_t i = 0; i < histogram.size(); ++i) {
    const double from = at(first + static_cast<double>(i) * step), to = at(first + static_cast<double>(i + 1) * step);
    const double height = (kBottom - kTop) * histogram[i].get<double>() / static_cast<double>(most);
    sheet_.add(Sheet::Box{
        .x = from,
        .y = kBottom - height,
        .width = std::max(1.0, to - from - 1),
        .height = height,
        .fill = theme.w,
        .told = base::format("{} – {}: {}", exactly(first + static_cast<double>(i) * step),
                             exactly(first + static_cast<double>(i + 1) * step), histogram[i].get<std::int64_t>())});
  }
  for (const Json& decile : (*of)["deciles"])
    sheet_.add(Sheet::Line{{at(decile.get<double>()), kBottom}, {at(decile.get<double>()), kBottom + 6}, theme.ink});
  sheet_.add(Sheet::Line{{at(number("mean")), kTop}, {at(number("mean")), kBottom}, theme.k, 1.5, true});
  sheet_.text(0, kBottom + 46, texts_.distribution_note, {.quiet = true});
}

void FigureMaker::bands(const Json& relations) {
  constexpr double kLine = 20, kRoom = 360, kLeft = 110;
  heading(filled(texts_.relations_caption,
                 {std::to_string(relations["sentences"].get<int>()), relations["treebank"].get<std::string>()}));
  double y = sheet_.paragraph(0, 36, texts_.relations_note, 100, {.quiet = true}) + 10;
  const Theme& theme = sheet_.theme();
  const auto percent = [](double share) { return std::to_string(std::lround(100 * share)) + " %"; };
  for (const Json& relation : relations["relations"]) {
    const bool to_head = relation["direction"] == "to_head";
    const double offset = relation["offset_accuracy"].get<double>();
    sheet_.text(0, y + 13, filled(to_head ? texts_.to_head : texts_.to_word, {relation["relation"].get<std::string>()}),
                {.size = 13, .bold = true});
    y += 20;
    const auto band = [&](const std::string& name, double share, const Colour& colour, double opacity,
                          const std::string& said) {
      sheet_.text(kLeft - 8, y + 14, name, {.anchor = Anchor::kEnd});
      sheet_.add(Sheet::Box{.x = kLeft,
                            .y = y + 3,
                            .width = kRoom * share,
                            .height = 14,
                            .fill = colour,
                            .opacity = opacity,
                            .told = name + ": " + exactly(share)});
      sheet_.text(kLeft + kRoom + 10, y + 14, said);
    };
    const double top = y;
    band(relation["offset"].is_null() ? "–" : filled(texts_.always, {std::to_string(relation["offset"].get<int>())}),
         offset, theme.edge, 1, percent(offset));
    y += kLine;
    bool any = false;
    for (const Json& head : relation["heads"]) {
      const bool reads = head["reads"].get<bool>();
      any = any || reads;
      band(head_name(head), head["accuracy"].get<double>(), theme.w, 0.6,
           percent(head["accuracy"].get<double>()) + (reads ? base::format("  {}", texts_.reads) : ""));
      const double low = head["interval"][0].get<double>(), high = head["interval"][1].get<double>();
      sheet_.add(Sheet::Line{{kLeft + kRoom * low, y + 10}, {kLeft + kRoom * high, y + 10}, theme.ink, 1.5});
      y += kLine;
    }
    sheet_.add(Sheet::Line{{kLeft + kRoom * offset, top}, {kLeft + kRoom * offset, y}, theme.k, 1.5, true});
    if (!any) sheet_.text(kLeft, y + 14, texts_.none_reads, {.quiet = true}), y += kLine;
    y += 12;
  }
}

}  // namespace manyheads::cli
