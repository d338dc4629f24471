#pragma once

#include <cstdint>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "findings.hpp"
#include "view/figure_texts.hpp"
#include "view/link.hpp"
#include "view/opened.hpp"
#include "view/sheet.hpp"

// Figures of the page's views that the program draws itself, from the answers that the page would get.
namespace manyheads::cli {

class FigureMaker {
 public:
  FigureMaker(Opened& opened, const Link& link);

  // The view that the link shows. Throws Error or UsageError in one sentence where nothing but a browser draws it, or
  // where it needs what is not open.
  void draw();
  const Sheet& sheet() const { return sheet_; }
  const std::string& title() const { return title_; }

 private:
  using Json = nlohmann::json;

  // draw_story.cpp
  void story();
  void arcs();
  void row();
  void swap();
  void readers();
  void grammar();
  // draw_heads.cpp
  void grid();
  void scatter();
  void clusters();
  void mean();
  void rollout();
  // draw_head.cpp
  void links();
  void why();
  void distance();
  void compare();
  // draw_pipeline.cpp
  void pipeline();
  // draw_dimensions.cpp
  void dimensions();
  // draw_corpus.cpp
  void corpus();
  void ranges(const Json& scan, const std::string& score);
  void distribution(const Json& scan, const std::string& score);
  void bands(const Json& relations);

  Json json(const Json& question);
  SafetensorsFile tensors(const Json& question);
  void needs_text() const;
  // The chosen head, query and key: the link's, or as the page chooses them.
  HeadName head() const;
  std::int64_t query() const;
  std::int64_t key() const;
  std::string token(std::int64_t place) const;
  std::string word(std::int64_t index) const;
  std::string shown_text() const;  // its beginning
  Json links_read();               // of the pairs of words that the link names, or that the page chooses

  static std::string head_name(const Json& head);  // "1.8", of an answer's layer and head
  std::string fixed(double value, int decimals) const;
  std::string grouped(std::int64_t value) const;
  std::string weight(double value) const;  // with four decimals, or where they say nothing by its power of ten
  static std::string exactly(double value);

  // The figure's title, and a line below it.
  void heading(const std::string& title, const std::string& below = "");
  struct Bar {
    std::string name;
    double value = 0;
    std::string said;
    std::string told{};
  };
  // Bars from y on, negative ones to the left; `full` reaches all through the room, or where it is 0 the largest one.
  // Returns where they end.
  double bars(double x, double y, const std::vector<Bar>& bars, const Colour& colour, double room = 360,
              double full = 0);
  // Numbers as a strip of cells: 0 is paper, the largest `colour`, negative ones hatched.
  void strip(double x, double y, const std::vector<double>& numbers, const Colour& colour, const std::string& name);
  void map(double x, double y, double side, const float* weights, std::int64_t lines, std::int64_t columns,
           const std::string& name);
  // The same with the tokens' names at its edges, where there is room for them. names_room(): what they take.
  void named_map(double x, double y, double side, const Tensor& weights, const std::string& name);
  double names_room() const;
  void name_edges(double x, double y, double side);
  struct Axis {
    double least = 0, most = 1, step = 1;
    double share(double value) const { return (value - least) / (most - least); }
  };
  static Axis axis_of(const std::vector<double>& values);
  std::string tick(const Axis& axis, double value) const;

  Opened& opened_;
  const Link& link_;
  const FigureTexts& texts_;
  Sheet sheet_;
  WeightRamp ramp_;
  Json about_, trace_;
  std::string title_;
};

}  // namespace manyheads::cli
