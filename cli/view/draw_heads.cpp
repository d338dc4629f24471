#include <algorithm>
#include <cmath>
#include <optional>
#include <limits>
#include <string>
#include <vector>

#include "base/format.hpp"
#include "view/figures.hpp"

// All heads of a text.
namespace manyheads::cli {
namespace {

bool has_role(const nlohmann::json& head, const std::string& role) {
  return std::find(head["roles"].begin(), head["roles"].end(), role) != head["roles"].end();
}

std::optional<double> score_of(const nlohmann::json& head, const std::string& name) {
  const auto found = head["scores"].find(name);
  if (found == head["scores"].end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

}  // namespace

void FigureMaker::grid() {
  constexpr double kSide = 48, kGap = 8, kName = 30, kTop = 64, kColumns = 12;
  const Json found = json({{"ask", "heads"}, {"trace", trace_["id"]}});
  const SafetensorsFile small = tensors({{"ask", "thumbnails"}, {"trace", trace_["id"]}, {"size", 48}});
  const std::string sort = link_.text("h.sort"), filter = link_.text("h.role");
  const std::string first = token(0);
  std::vector<Json> shown;
  for (const Json& head : found["heads"]) {
    const bool rests =
        has_role(head, "first") || (has_role(head, "sink") && head["scores"].value("sink_key", Json()) == first);
    if (filter == "-rest"
            ? rests
            : !filter.empty() && has_role(head, filter[0] == '-' ? filter.substr(1) : filter) == (filter[0] == '-'))
      continue;
    shown.push_back(head);
  }
  std::vector<std::vector<double>> distances;
  const HeadName chosen = this->head();
  if (sort == "~") {
    distances = json({{"ask", "clusters"}, {"trace", trace_["id"]}, {"clusters", 2}})["distances"]
                    .get<std::vector<std::vector<double>>>();
  }
  const std::int64_t heads = trace_["heads"].get<std::int64_t>();
  const auto value = [&](const Json& head) -> std::optional<double> {
    if (sort != "~") return score_of(head, sort);
    const auto at = static_cast<std::size_t>(static_cast<std::int64_t>(chosen.layer) * heads + chosen.head);
    return -distances[at][static_cast<std::size_t>(head["layer"].get<std::int64_t>() * heads +
                                                   head["head"].get<std::int64_t>())];
  };
  if (!sort.empty()) {
    std::stable_sort(shown.begin(), shown.end(), [&](const Json& a, const Json& b) {
      constexpr double kNone = -std::numeric_limits<double>::infinity();
      return value(a).value_or(kNone) > value(b).value_or(kNone);
    });
  }
  const Tensor& all = small.at("thumbnails");
  const std::int64_t lines = all.size(2), columns = all.size(3);
  const std::string cell = small.metadata.at("cell"), step = small.metadata.at("row_step");
  heading(texts_.thumbs_caption);
  std::string note = cell == "1" ? std::string(texts_.thumb_one) : filled(texts_.thumb_mean, {cell});
  if (step != "1") note += filled(texts_.thumb_step, {step});
  note += "; " + filled(texts_.heads_shown, {std::to_string(shown.size()), std::to_string(found["heads"].size())});
  sheet_.text(0, 34, note, {.quiet = true});
  const bool plain = sort.empty() && filter.empty();
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const Json& head = shown[i];
    const std::int64_t layer = head["layer"].get<std::int64_t>(), index = head["head"].get<std::int64_t>();
    const double column =
        plain ? static_cast<double>(index) : static_cast<double>(i % static_cast<std::size_t>(kColumns));
    const double line =
        plain ? static_cast<double>(layer) : static_cast<double>(i / static_cast<std::size_t>(kColumns));
    const double x = column * (kSide + kGap), y = kTop + line * (kSide + kGap + kName);
    // The roles that most heads have stand behind the others.
    std::string roles, common;
    for (const Json& role : head["roles"]) {
      std::string& to = role == "sink" || role == "first" ? common : roles;
      to += (to.empty() ? "" : ", ") + role.get<std::string>();
    }
    if (!common.empty()) roles += (roles.empty() ? "" : ", ") + common;
    map(x, y, kSide, all.as<float>() + (layer * heads + index) * lines * columns, lines, columns,
        head_name(head) + (roles.empty() ? "" : " (" + roles + ")"));
    const std::optional<double> sorted = sort.empty() ? std::nullopt : value(head);
    sheet_.text(x, y + kSide + 14,
                head_name(head) + (sort.empty() ? ""
                                 : sorted     ? "  " + fixed(std::fabs(*sorted), 2)
                                              : "  –"),
                {.size = 11});
    const std::string first_role = roles.substr(0, roles.find(','));
    sheet_.text(x, y + kSide + 27, first_role.substr(0, 9), {.size = 9, .quiet = true});
  }
}

void FigureMaker::scatter() {
  constexpr double kWidth = 720, kHeight = 460, kLeft = 64, kRight = 20, kTop = 52, kBottom = 52;
  const Json found = json({{"ask", "heads"}, {"trace", trace_["id"]}});
  const auto known = [&](const char* name, const char* usual) -> std::string {
    for (const Json& rule : found["score_rules"]) {
      if (rule["score"] == link_.text(name)) return link_.text(name);
    }
    return usual;
  };
  const std::string x = known("h.x", "distance"), y = known("h.y", "entropy"), c = known("h.c", "sink");
  std::vector<double> xs, ys, cs;
  std::vector<Json> shown;
  for (const Json& head : found["heads"]) {
    if (!score_of(head, x) || !score_of(head, y)) continue;
    shown.push_back(head);
    xs.push_back(*score_of(head, x)), ys.push_back(*score_of(head, y));
    if (score_of(head, c)) cs.push_back(*score_of(head, c));
  }
  heading(filled(texts_.scatter_caption, {x, y, c}));
  const Axis across = axis_of(xs), upwards = axis_of(ys), shades = axis_of(cs);
  const auto at_x = [&](double value) { return kLeft + across.share(value) * (kWidth - kLeft - kRight); };
  const auto at_y = [&](double value) { return kTop + (1 - upwards.share(value)) * (kHeight - kTop - kBottom); };
  const Theme& theme = sheet_.theme();
  for (double at = across.least; at < across.most + across.step / 2; at += across.step) {
    sheet_.add(Sheet::Line{{at_x(at), kTop}, {at_x(at), kHeight - kBottom}, theme.line});
    sheet_.text(at_x(at), kHeight - kBottom + 18, tick(across, at), {.anchor = Anchor::kMiddle});
  }
  for (double at = upwards.least; at < upwards.most + upwards.step / 2; at += upwards.step) {
    sheet_.add(Sheet::Line{{kLeft, at_y(at)}, {kWidth - kRight, at_y(at)}, theme.line});
    sheet_.text(kLeft - 8, at_y(at) + 4, tick(upwards, at), {.anchor = Anchor::kEnd});
  }
  sheet_.text((kLeft + kWidth - kRight) / 2, kHeight - 12, x, {.anchor = Anchor::kMiddle, .quiet = true});
  sheet_.text(14, (kTop + kHeight - kBottom) / 2, y, {.anchor = Anchor::kMiddle, .quiet = true, .upwards = true});
  const HeadName chosen = this->head();
  // The chosen head lies on the others.
  std::stable_partition(shown.begin(), shown.end(),
                        [&](const Json& head) { return head["layer"] != chosen.layer || head["head"] != chosen.head; });
  for (const Json& head : shown) {
    const std::optional<double> shade = score_of(head, c);
    const double px = at_x(*score_of(head, x)), py = at_y(*score_of(head, y));
    const bool here = head["layer"] == chosen.layer && head["head"] == chosen.head;
    Sheet::Disc disc{.at = {px, py}, .radius = here ? 9.0 : 7.0, .edge = theme.edge};
    if (shade) disc.fill = ramp_.straight(shades.share(*shade), 1);
    disc.told = base::format("{}: {} {}, {} {}, {} {}", head_name(head), x, exactly(*score_of(head, x)), y,
                             exactly(*score_of(head, y)), c, shade ? exactly(*shade) : "–");
    sheet_.add(disc);
    if (here) sheet_.text(px + 13, py + 4, head_name(head), {.bold = true});
  }
  sheet_.text(0, kHeight + 14, filled(texts_.scatter_note, {c, tick(shades, shades.least), tick(shades, shades.most)}),
              {.quiet = true});
}

void FigureMaker::clusters() {
  constexpr double kSide = 40, kGap = 8, kRow = 76;
  constexpr std::size_t kAcross = 14;
  const Json found = json({{"ask", "clusters"},
                           {"trace", trace_["id"]},
                           {"clusters", std::min<std::int64_t>(link_.whole("h.groups", 2, 24, 8),
                                                               trace_["layers"].get<std::int64_t>() *
                                                                   trace_["heads"].get<std::int64_t>())}});
  const SafetensorsFile small = tensors({{"ask", "thumbnails"}, {"trace", trace_["id"]}, {"size", 48}});
  const Tensor& all = small.at("thumbnails");
  heading(filled(texts_.clusters_caption, {std::to_string(found["clusters"].size())}));
  double y = 36;
  for (std::size_t group = 0; group < found["clusters"].size(); ++group) {
    const Json& of = found["clusters"][group];
    const std::size_t count = of["heads"].size();
    sheet_.text(
        0, y + 12,
        filled(texts_.group_said, {std::to_string(group + 1)}) +
            (count > 1 ? filled(texts_.apart, {std::to_string(count), fixed(of["mean_distance"].get<double>(), 3)})
                       : std::string(texts_.alone)),
        {.bold = true});
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t layer = of["heads"][i][0].get<std::int64_t>(), head = of["heads"][i][1].get<std::int64_t>();
      const double x = static_cast<double>(i % kAcross) * (kSide + kGap),
                   top = y + 20 + static_cast<double>(i / kAcross) * (kSide + 20);
      const std::string name = base::format("{}.{}", layer, head);
      map(x, top, kSide, all.as<float>() + (layer * all.size(1) + head) * all.size(2) * all.size(3), all.size(2),
          all.size(3), name);
      sheet_.text(x, top + kSide + 12, name, {.size = 10, .quiet = true});
    }
    y += kRow + 16 + static_cast<double>(count == 0 ? 0 : (count - 1) / kAcross) * (kSide + 20);
  }
  sheet_.paragraph(0, y + 8, texts_.clusters_note, 100, {.quiet = true});
}

void FigureMaker::mean() {
  constexpr double kSide = 512;
  Json chosen = Json::array();
  std::string names;
  const std::string given = link_.text("h.heads", 640);
  for (std::size_t at = 0; at < given.size();) {
    const std::size_t end = std::min(given.find(',', at), given.size());
    Link one("v=heads");
    one.set("head", given.substr(at, end - at));
    if (const std::optional<HeadName> head = one.head("head");
        head && head->layer < trace_["layers"].get<std::size_t>() && head->head < trace_["heads"].get<std::int64_t>()) {
      chosen.push_back({head->layer, head->head});
      names += (names.empty() ? "" : ", ") + given.substr(at, end - at);
    }
    at = end + 1;
  }
  const bool all = chosen.empty();
  for (std::size_t layer = 0; all && layer < trace_["layers"].get<std::size_t>(); ++layer) {
    for (std::int64_t head = 0; head < trace_["heads"].get<std::int64_t>(); ++head) chosen.push_back({layer, head});
  }
  const SafetensorsFile answer = tensors({{"ask", "mean"},
                                          {"trace", trace_["id"]},
                                          {"heads", chosen},
                                          {"pool", link_.one_of("m.pool", {"mean", "max"})},
                                          {"size", 512}});
  const Tensor& weights = answer.at("weights");
  heading(all || chosen.size() > 8 ? filled(texts_.mean_of_all, {std::to_string(chosen.size())})
                                   : filled(texts_.mean_caption, {names}),
          shown_text());
  named_map(names_room(), 52 + names_room(), kSide, weights,
            filled(texts_.mean_of_all, {std::to_string(chosen.size())}));
}

void FigureMaker::rollout() {
  constexpr std::size_t kMost = 60;
  const SafetensorsFile answer = tensors({{"ask", "rollout"}, {"trace", trace_["id"]}});
  const Tensor& shares = answer.at("rollout");
  heading(texts_.rollout_caption, trace_["causal"].get<bool>() ? texts_.rollout_causal : texts_.rollout_note);
  std::vector<Bar> all;
  for (std::int64_t j = 0; j < shares.elements(); ++j) {
    const double share = shares.as<double>()[j];
    all.push_back({base::format("{} {}", j, token(j)), share, fixed(share, 4)});
  }
  const std::size_t count = all.size();
  if (count > kMost) {
    std::stable_sort(all.begin(), all.end(), [](const Bar& a, const Bar& b) { return a.value > b.value; });
    all.resize(kMost);
  }
  const double y = bars(0, 50, all, sheet_.theme().w);
  if (count > kMost)
    sheet_.text(0, y + 16, filled(texts_.most_of, {std::to_string(kMost), std::to_string(count)}), {.quiet = true});
}

}  // namespace manyheads::cli
