#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "base/format.hpp"
#include "cli.hpp"
#include "view/figures.hpp"
#include "view/pairs.hpp"

// The sentence, its links, and who reads them.
namespace manyheads::cli {
namespace {

// A head on a link.
struct Reader {
  std::string name;
  std::size_t layer = 0;
  std::int64_t head = 0;
  double weight = 0;
  std::optional<double> offset_mean{};  // none: no other word has it
  double over() const { return weight - offset_mean.value_or(0); }
};

// Those first whose weight most exceeds what they give at that distance anyway.
std::vector<Reader> readers_of(const nlohmann::json& link) {
  std::vector<Reader> readers;
  for (std::size_t layer = 0; layer < link["heads"].size(); ++layer) {
    for (std::size_t head = 0; head < link["heads"][layer].size(); ++head) {
      const nlohmann::json& of = link["heads"][layer][head];
      Reader reader{base::format("{}.{}", layer, head), layer, static_cast<std::int64_t>(head),
                    of["weight"].is_number() ? of["weight"].get<double>() : 0};
      if (of["offset_mean"].is_number()) reader.offset_mean = of["offset_mean"].get<double>();
      readers.push_back(std::move(reader));
    }
  }
  std::stable_sort(readers.begin(), readers.end(),
                   [](const Reader& a, const Reader& b) { return a.over() > b.over(); });
  return readers;
}

std::string words_of(const nlohmann::json& link) {
  return link["query"].get<std::string>() + " → " + link["key"].get<std::string>();
}

}  // namespace

void FigureMaker::story() {
  needs_text();
  switch (link_.whole("step", 0, 8, 0)) {
    case 1:
      return row();
    case 2:
      return swap();
    case 3:
      return readers();
    case 4:
      return grammar();
    case 7:
      throw UsageError(
          "step 8 of the tour measures while it is looked at: the page shows it, and saves it as a picture");
    case 8:
      throw UsageError("step 9 of the tour asks questions: the page alone does that");
    default:
      arcs();
  }
}

void FigureMaker::arcs() {
  constexpr double kLetter = 11, kBetween = 18, kWords = 190, kBase = 168;
  const Json found = links_read();
  std::string names;
  for (const Json& link : found) names += (names.empty() ? "" : ", ") + words_of(link);
  heading(texts_.links_of, names);
  std::vector<double> middles;
  double x = 8;
  for (std::size_t i = 0; i < trace_["words"].size(); ++i) {
    const std::string word_here = word(static_cast<std::int64_t>(i));
    const double width = std::max(Sheet::width_of(word_here, 17), kLetter);
    middles.push_back(x + width / 2);
    sheet_.text(x + width / 2, kWords, word_here, {.size = 17, .anchor = Anchor::kMiddle});
    x += width + kBetween;
  }
  for (const Json& link : found) {
    const double from = middles[link["query_word"].get<std::size_t>()],
                 to = middles[link["key_word"].get<std::size_t>()];
    const double high = kBase - std::min(110.0, 16 + std::fabs(to - from) * 0.5);
    const Reader best = readers_of(link)[0];
    sheet_.add(Sheet::Curve{.points = {{{from, kBase}, {from, high}, {to, high}, {to, kBase}}},
                            .colour = sheet_.theme().w,
                            .width = 1.5 + 3 * best.weight,
                            .told = base::format("{}: {} {}", words_of(link), best.name, exactly(best.weight))});
    for (const double side : {-4.0, 4.0}) {
      sheet_.add(Sheet::Line{{to + side, kBase - 7}, {to, kBase + 1}, sheet_.theme().w, 1.5});
    }
  }
  // The table behind it.
  const double columns[] = {0, 150, 270, 370, 540};
  const char* const names_of[] = {"", texts_.best, texts_.weight, texts_.offset_mean, texts_.mean};
  double y = kWords + 44;
  for (std::size_t c = 1; c < 5; ++c) sheet_.text(columns[c], y, names_of[c], {.quiet = true});
  for (std::size_t i = 0; i < found.size(); ++i) {
    const Json& link = found[i];
    const Reader best = readers_of(link)[0];
    y += 20;
    sheet_.text(columns[0], y, words_of(link), {.bold = true});
    sheet_.text(columns[1], y, best.name);
    sheet_.text(columns[2], y, fixed(best.weight, 3));
    sheet_.text(columns[3], y, best.offset_mean ? fixed(*best.offset_mean, 3) : "–");
    sheet_.text(columns[4], y, fixed(link["mean"].get<double>(), 3));
    if (is_chapters(trace_) && !link_.has("links")) sheet_.text(columns[4] + 130, y, texts_.roles[i], {.quiet = true});
  }
}

void FigureMaker::row() {
  const Json found = links_read();
  const std::vector<Pair> pairs = pairs_of(trace_, link_.text("links"));
  const Pair first = pairs[0];
  std::int64_t middle = first.second;
  if (found.size() > 1 && (pairs[1].first == first.first || pairs[1].second == first.first)) middle = first.first;
  const Reader second = readers_of(found[found.size() > 1 ? 1 : 0])[0];
  const HeadName shown = link_.head("head") ? head() : HeadName{second.layer, second.head};
  const std::int64_t place = trace_["words"][static_cast<std::size_t>(middle)]["first_token"].get<std::int64_t>();
  const SafetensorsFile answer =
      tensors({{"ask", "row"}, {"trace", trace_["id"]}, {"layer", shown.layer}, {"head", shown.head}, {"row", place}});
  heading(filled(texts_.row_of, {word(middle), base::format("{}.{}", shown.layer, shown.head)}));
  std::vector<Bar> shares;
  double sum = 0;
  for (std::int64_t j = 0; j < answer.at("weights").elements(); ++j) {
    const double share = static_cast<double>(answer.at("weights").as<float>()[j]);
    sum += share;
    shares.push_back({token(j), share, fixed(share, 3)});
  }
  const double y = bars(0, 44, shares, sheet_.theme().w);
  sheet_.text(0, y + 18, base::format("{} {}", texts_.sum, fixed(sum, 3)), {.bold = true});
}

void FigureMaker::swap() {
  const Json found = links_read();
  if (found.size() < 2) throw UsageError("this view needs a text with two links");
  if (!trace_["has_values"].get<bool>())
    throw UsageError("this view needs a trace with values: it was written without them");
  const Reader one = readers_of(found[0])[0];
  std::optional<Reader> other;
  for (const Reader& reader : readers_of(found[1])) {
    if (!other && reader.layer == one.layer && reader.head != one.head) other = reader;
  }
  if (!other) throw UsageError("this view needs a layer with two heads");
  const std::vector<Pair> pairs = pairs_of(trace_, link_.text("links"));
  const Pair first = pairs[0], second = pairs[1];
  const std::int64_t b = first.first == second.first || first.first == second.second ? first.first : first.second;
  const std::int64_t a = first.first == b ? first.second : first.first;
  const std::int64_t c = second.first == b ? second.second : second.first;
  const auto value = [&](const Reader& reader, std::int64_t of_word) {
    const auto at = [&](std::int64_t index) {
      return trace_["words"][static_cast<std::size_t>(index)]["first_token"].get<std::int64_t>();
    };
    const SafetensorsFile answer = tensors({{"ask", "head_output"},
                                            {"trace", trace_["id"]},
                                            {"layer", reader.layer},
                                            {"head", reader.head},
                                            {"row", at(b)}});
    const Tensor& v = answer.at("v");
    const float* const row = v.as<float>() + at(of_word) * v.size(1);
    return std::vector<double>(row, row + v.size(1));
  };
  const std::vector<double> first_a = value(one, a), first_c = value(one, c), second_a = value(*other, a),
                            second_c = value(*other, c);
  const auto half = [](const std::vector<double>& x, const std::vector<double>& y) {
    std::vector<double> sum;
    for (std::size_t i = 0; i < x.size(); ++i) sum.push_back(0.5 * x[i] + 0.5 * y[i]);
    return sum;
  };
  const auto beside = [](std::vector<double> x, const std::vector<double>& y) {
    x.insert(x.end(), y.begin(), y.end());
    return x;
  };
  const auto change = [&](const std::vector<double>& x, const std::vector<double>& y) {
    double most = 0;
    for (std::size_t i = 0; i < x.size(); ++i) most = std::max(most, std::fabs(x[i] - y[i]));
    return filled(texts_.change, {fixed(most, 3)});
  };
  heading(filled(texts_.sum_one, {one.name, word(a), word(c)}));
  const double left = std::max(Sheet::width_of(texts_.before), Sheet::width_of(texts_.after)) + 12;
  const auto rows = [&](double y, const std::vector<double>& before, const std::vector<double>& after) {
    sheet_.text(0, y + 16, texts_.before, {.quiet = true});
    strip(left, y, before, sheet_.theme().v, texts_.before);
    sheet_.text(0, y + 52, texts_.after, {.quiet = true});
    strip(left, y + 36, after, sheet_.theme().v, texts_.after);
    sheet_.text(left, y + 82, change(before, after), {.bold = true});
  };
  rows(40, half(first_a, first_c), half(first_c, first_a));
  sheet_.text(0, 164, filled(texts_.sum_two, {one.name, other->name}), {.size = 16, .bold = true});
  rows(184, beside(first_a, second_c), beside(first_c, second_a));
}

void FigureMaker::readers() {
  constexpr double kCell = 32, kLeft = 28, kTop = 64;
  const Json found = links_read();
  double top = kTop;
  heading(filled(texts_.grid_caption, {words_of(found[0])}));
  for (std::size_t which = 0; which < found.size(); ++which) {
    const Json& link = found[which];
    const std::vector<Reader> order = readers_of(link);
    if (which > 0) {
      sheet_.text(0, top - 34, filled(texts_.grid_caption, {words_of(link)}), {.size = 16, .bold = true});
    }
    for (std::size_t place = 0; place < order.size(); ++place) {
      const Reader& reader = order[place];
      const double x = kLeft + kCell * static_cast<double>(reader.head),
                   y = top + kCell * static_cast<double>(reader.layer);
      if (reader.layer == 0)
        sheet_.text(x + kCell / 2, top - 6, std::to_string(reader.head), {.anchor = Anchor::kMiddle, .quiet = true});
      if (reader.head == 0)
        sheet_.text(kLeft - 8, y + 20, std::to_string(reader.layer), {.anchor = Anchor::kEnd, .quiet = true});
      sheet_.add(
          Sheet::Box{.x = x + 2, .y = y + 2, .width = kCell - 4, .height = kCell - 4, .edge = sheet_.theme().line});
      sheet_.add(Sheet::Box{.x = x + 2,
                            .y = y + 2,
                            .width = kCell - 4,
                            .height = kCell - 4,
                            .fill = sheet_.theme().w,
                            .opacity = std::min(1.0, reader.weight),
                            .told = base::format("{}, {}: {}", reader.name, words_of(link), exactly(reader.weight))});
      if (place < 3) {
        sheet_.add(
            Sheet::Box{.x = x + 1, .y = y + 1, .width = kCell - 2, .height = kCell - 2, .edge = sheet_.theme().k});
      }
    }
    top += kCell * static_cast<double>(link["heads"].size()) + 70;
  }
  sheet_.paragraph(0, top - 44, texts_.grid_note, 90, {.quiet = true});
}

void FigureMaker::grammar() {
  if (about_["models"].empty()) throw UsageError("this view needs --model, which reads the tour's sentences");
  const Json found = json({{"ask", "relations"}});
  const bool causal = found["causal"].get<bool>();
  const std::size_t of_links[] = {causal ? 1u : 0u, causal ? 3u : 2u, causal ? 4u : 5u};
  double y = 0;
  for (std::size_t link = 0; link < 3; ++link) {
    const Json& relation = found["relations"][of_links[link]];
    const Json& ends = found["texts"][0]["links"][link];
    const std::string word_of = ends["word"].get<std::string>(), head_of = ends["head"].get<std::string>();
    const std::string name = (link == 2) != causal ? head_of + " → " + word_of : word_of + " → " + head_of;
    if (link == 0) {
      heading(filled(texts_.shares, {name}));
      y = 28;
    } else {
      sheet_.text(0, y + 14, filled(texts_.shares, {name}), {.size = 16, .bold = true});
      y += 28;
    }
    std::vector<Bar> shares;
    const auto percent = [](const Json& share) { return std::to_string(std::lround(100 * share.get<double>())); };
    constexpr std::size_t kBest = 5;
    for (std::size_t i = 0; i < std::min(kBest, relation["heads"].size()); ++i) {
      const Json& reader = relation["heads"][i];
      const std::string name = head_name(reader);
      const double of = relation["scored_on"].get<double>(), accuracy = reader["accuracy"].get<double>();
      shares.push_back({filled(texts_.head, {name}), accuracy,
                        filled(texts_.found, {std::to_string(std::lround(accuracy * of)),
                                              std::to_string(std::lround(of)), percent(reader["accuracy"])}) +
                            "; " +
                            filled(texts_.interval, {percent(reader["interval"][0]), percent(reader["interval"][1])})});
    }
    if (!relation["offset"].is_null()) {
      const int offset = relation["offset"].get<int>();
      shares.push_back(
          {filled(texts_.always, {offset > 0 ? "+" + std::to_string(offset) : "−" + std::to_string(-offset)}),
           relation["offset_accuracy"].get<double>(), percent(relation["offset_accuracy"]) + " %"});
    }
    y = bars(0, y, shares, sheet_.theme().w, 240, 1) + 24;
  }
}

}  // namespace manyheads::cli
