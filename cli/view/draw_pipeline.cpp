#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/format.hpp"
#include "view/figures.hpp"

// Inside one head: from two tokens' numbers to a weight, and from the weights to the head's output.
namespace manyheads::cli {

void FigureMaker::pipeline() {
  constexpr std::int64_t kMostKeys = 200;
  needs_text();
  const HeadName shown = head();
  const std::string name = base::format("{}.{}", shown.layer, shown.head);
  const Json place = {{"trace", trace_["id"]}, {"layer", shown.layer}, {"head", shown.head}, {"row", query()}};
  const auto ask = [&](const char* what) {
    Json question = place;
    question["ask"] = what;
    question["key"] = key();
    return tensors(question);
  };
  const SafetensorsFile pair = ask("why"), all = ask("row");
  const auto numbers = [](const Tensor& tensor) {
    return std::vector<double>(tensor.as<float>(), tensor.as<float>() + tensor.elements());
  };
  const std::vector<double> products = numbers(pair.at("products"));
  double dot = 0;
  for (const double product : products) dot += product;
  heading(filled(texts_.pipeline_caption, {token(query()), token(key()), name}),
          filled(texts_.why_facts, {fixed(dot, 4), fixed(std::stod(pair.metadata.at("scale")), 4),
                                    fixed(dot * std::stod(pair.metadata.at("scale")), 4),
                                    fixed(static_cast<double>(pair.at("score").as<float>()[0]), 4),
                                    weight(static_cast<double>(pair.at("weight").as<float>()[0]))}));
  double y = 60;
  const auto section = [&](const std::string& words, Colour colour) {
    sheet_.text(0, y + 12, words, {.size = 13, .bold = true, .colour = colour});
    y += 20;
  };
  section(filled(texts_.pipeline_q, {token(query())}), sheet_.theme().q);
  strip(0, y, numbers(pair.at("q")), sheet_.theme().q, "q");
  y += 44;
  section(filled(texts_.pipeline_k, {token(key())}), sheet_.theme().k);
  strip(0, y, numbers(pair.at("k")), sheet_.theme().k, "k");
  y += 44;
  // The products as signed columns, which add up to q · k.
  constexpr double kRoom = 640, kHalf = 48;
  section(base::format("{}: Σ = {}", texts_.pipeline_products, fixed(dot, 4)), sheet_.theme().ink);
  double largest = 0;
  for (const double product : products) largest = std::max(largest, std::fabs(product));
  const double column = kRoom / static_cast<double>(products.size());
  for (std::size_t d = 0; d < products.size(); ++d) {
    const double height = largest > 0 ? kHalf * std::fabs(products[d]) / largest : 0;
    sheet_.add(Sheet::Box{.x = static_cast<double>(d) * column + 1,
                          .y = products[d] < 0 ? y + kHalf : y + kHalf - height,
                          .width = std::max(0.5, column - 2),
                          .height = height,
                          .fill = sheet_.theme().w,
                          .told = base::format("q × k [{}]: {}", d, exactly(products[d]))});
  }
  sheet_.add(Sheet::Line{{0, y + kHalf}, {kRoom, y + kHalf}, sheet_.theme().edge});
  y += 2 * kHalf + 24;
  section(filled(texts_.pipeline_row, {token(query())}), sheet_.theme().ink);
  std::vector<Bar> shares;
  const std::int64_t keys = all.at("weights").elements();
  for (std::int64_t j = 0; j < std::min(keys, kMostKeys); ++j) {
    const double score = static_cast<double>(all.at("scores").as<float>()[j]),
                 share = static_cast<double>(all.at("weights").as<float>()[j]);
    shares.push_back(
        {token(j), share,
         base::format("{}   {} {}", weight(share), texts_.score, std::isfinite(score) ? fixed(score, 3) : "−∞")});
  }
  y = bars(0, y, shares, sheet_.theme().w, 320) + 8;
  if (keys > kMostKeys) {
    sheet_.text(0, y + 8, filled(texts_.first_of, {std::to_string(kMostKeys), std::to_string(keys)}), {.quiet = true});
    y += 20;
  }
  if (!trace_["has_values"].get<bool>()) return;
  const std::vector<double> output = numbers(ask("head_output").at("output"));
  y += 12;
  section(filled(texts_.pipeline_mix, {std::to_string(output.size())}), sheet_.theme().v);
  strip(0, y, output, sheet_.theme().v, "Σ w·v");
}

}  // namespace manyheads::cli
