#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/format.hpp"
#include "view/figures.hpp"

// How d_model is cut into heads: the numbers of `manyheads dims`.
namespace manyheads::cli {

void FigureMaker::dimensions() {
  constexpr double kRoom = 640, kBarHeight = 44, kLargest = 140, kLeast = 1.5;
  const std::int64_t d = link_.whole("d", 1, 65536, 512), h = link_.whole("h", 1, 64, 8);
  const std::int64_t tokens = link_.whole("n", 1, 1 << 20, 128), batch = link_.whole("b", 1, 4096, 1);
  std::int64_t kv = link_.whole("kv", 0, 64, 0);
  if (kv == 0 || h % kv != 0) kv = h;
  Json question = {{"ask", "dims"},    {"d_model", d},   {"heads", {h}},
                   {"tokens", tokens}, {"batch", batch}, {"dtype", link_.one_of("t", {"f32", "bf16", "f16"})}};
  if (kv < h) question["kv_heads"] = kv;
  const Json cut = json(question)["heads"][0];
  const bool divides = cut["divides"].get<bool>();
  const std::int64_t dk = cut[divides ? "d_k" : "floor_d_k"].get<std::int64_t>();
  const std::int64_t dropped = divides ? 0 : cut["dropped"].get<std::int64_t>();
  const Theme& theme = sheet_.theme();
  heading(texts_.cut_caption,
          base::format("d_model {}, num_heads {}, {} {}, batch {}", d, h, tokens, texts_.tokens, batch));

  // The bar: a part for each head, and hatched what no head would read.
  const double unit = kRoom / static_cast<double>(d);
  for (std::int64_t i = 0; i < h; ++i) {
    const double x = static_cast<double>(i * dk) * unit, width = static_cast<double>(dk) * unit;
    sheet_.add(Sheet::Box{
        .x = x,
        .y = 48,
        .width = width,
        .height = kBarHeight,
        .fill = theme.paper,
        .edge = theme.edge,
        .told = base::format("{}: {} to {}", filled(texts_.head, {std::to_string(i)}), i * dk, (i + 1) * dk - 1)});
    if (h <= 16) sheet_.text(x + width / 2, 48 + kBarHeight / 2 + 4, std::to_string(i), {.anchor = Anchor::kMiddle});
  }
  if (dropped > 0) {
    sheet_.add(Sheet::Box{.x = static_cast<double>(h * dk) * unit,
                          .y = 48,
                          .width = std::max(2.0, static_cast<double>(dropped) * unit),
                          .height = kBarHeight,
                          .edge = theme.edge,
                          .hatched = true,
                          .told = base::format("{}: {}", texts_.left_over, dropped)});
  }
  double y = 48 + kBarHeight + 24;
  sheet_.text(0, y, base::format("{} = {} · {}", d, h, dk) + (dropped > 0 ? base::format(" + {}", dropped) : ""),
              {.size = 15, .bold = true});
  y += 22;
  if (!divides) {
    y = sheet_.paragraph(0, y,
                         filled(texts_.floor, {std::to_string(d), std::to_string(h), std::to_string(dk),
                                               std::to_string(h * dk), std::to_string(dropped)}),
                         100);
    y = sheet_.paragraph(0, y, std::string(texts_.refuses) + " " + cut["problem"].get<std::string>(), 100);
  }

  // The matrices, on one scale.
  struct Matrix {
    const char *name, *role;
    Colour colour;
    std::int64_t rows, columns, parts, left_over;
  };
  const std::int64_t kv_left = kv == h ? dropped : 0;
  const Matrix matrices[] = {{"X", texts_.x, theme.ink, tokens, d, 1, 0},
                             {"W_q", texts_.wq, theme.q, d, dk, h, dropped},
                             {"W_k", texts_.wk, theme.k, d, dk, kv, kv_left},
                             {"W_v", texts_.wv, theme.v, d, dk, kv, kv_left},
                             {"scores", "q · k / √d_k", theme.w, tokens, tokens, 1, 0},
                             {"concat", texts_.concat, theme.v, tokens, dk, h, dropped},
                             {"W_o", texts_.wo, theme.ink, d, d, 1, 0}};
  const double scale = kLargest / static_cast<double>(std::max(d, tokens));
  y += 14;
  sheet_.text(0, y, texts_.shapes_caption, {.size = 15, .bold = true});
  y += 20;
  double x = 0, highest = 0;
  for (const Matrix& matrix : matrices)
    highest = std::max(highest, std::max(kLeast, scale * static_cast<double>(matrix.rows)));
  for (const Matrix& matrix : matrices) {
    const double one = std::max(0.5, scale * static_cast<double>(matrix.columns));
    const double width =
        std::max(kLeast, one * static_cast<double>(matrix.parts) + scale * static_cast<double>(matrix.left_over));
    const double height = std::max(kLeast, scale * static_cast<double>(matrix.rows));
    const std::int64_t columns = matrix.columns * matrix.parts + matrix.left_over;
    const std::string shape = matrix.parts > 1
                                  ? base::format("[{}, {}] × {}", matrix.rows, matrix.columns, matrix.parts)
                                  : base::format("[{}, {}]", matrix.rows, columns);
    sheet_.add(Sheet::Box{.x = x,
                          .y = y,
                          .width = width,
                          .height = height,
                          .fill = matrix.colour,
                          .edge = matrix.colour,
                          .opacity = 0.15,
                          .told = base::format("{} [{}, {}]", matrix.name, matrix.rows, columns)});
    if (matrix.left_over > 0) {
      sheet_.add(Sheet::Box{.x = x + one * static_cast<double>(matrix.parts),
                            .y = y,
                            .width = std::max(2.0, scale * static_cast<double>(matrix.left_over)),
                            .height = height,
                            .edge = theme.edge,
                            .hatched = true});
    }
    for (std::int64_t i = 1; i < matrix.parts && one >= 3; ++i) {
      sheet_.add(Sheet::Line{
          {x + one * static_cast<double>(i), y}, {x + one * static_cast<double>(i), y + height}, matrix.colour, 0.75});
    }
    if (matrix.parts > 1) sheet_.add(Sheet::Box{.x = x, .y = y, .width = one, .height = height, .edge = theme.ink});
    double below = y + highest + 18;
    for (const std::string& words : {std::string(matrix.name), std::string(matrix.role), shape}) {
      sheet_.text(x, below, words,
                  {.size = 11,
                   .bold = words == matrix.name,
                   .colour = words == matrix.name ? std::optional<Colour>(matrix.colour) : std::nullopt});
      below += 15;
    }
    x += std::max({width, Sheet::width_of(matrix.role, 11), Sheet::width_of(shape, 11)}) + 20;
  }
  y += highest + 78;
  if (!divides) return;

  sheet_.text(0, y, filled(texts_.parameters, {grouped(cut["parameters"].get<std::int64_t>())}),
              {.size = 15, .bold = true});
  y += 30;
  sheet_.text(0, y, texts_.work_caption, {.size = 15, .bold = true});
  const double at[] = {0, 330, 450, 570};
  const char* const names[] = {texts_.step, texts_.flop, texts_.bytes, texts_.intensity};
  y += 22;
  for (std::size_t c = 0; c < 4; ++c)
    sheet_.text(at[c], y, names[c], {.anchor = c == 0 ? Anchor::kStart : Anchor::kEnd, .quiet = true});
  for (std::size_t i = 0; i < 6; ++i) {
    const Json& step = i < 5 ? cut["steps"][i] : cut["fused"];
    y += 20;
    sheet_.text(at[0], y, texts_.steps[i]);
    sheet_.text(at[1], y, grouped(std::llround(step["flop"].get<double>())), {.anchor = Anchor::kEnd});
    sheet_.text(at[2], y, grouped(std::llround(step["bytes"].get<double>())), {.anchor = Anchor::kEnd});
    sheet_.text(at[3], y, fixed(step["intensity"].get<double>(), 2), {.anchor = Anchor::kEnd});
  }
}

}  // namespace manyheads::cli
