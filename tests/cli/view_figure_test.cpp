#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "running.hpp"
#include "tiny_model.hpp"

// manyheads view --export NAME.svg and NAME.png: each figure's numbers are those of the verbs that print them.
namespace manyheads::cli_test {
namespace {

using nlohmann::json;

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// What stands under the pointer: "NAME: NUMBER".
std::vector<std::pair<std::string, double>> told_in(const std::string& svg) {
  std::vector<std::pair<std::string, double>> found;
  const std::regex told("<title>([^<]*): (-?[0-9.e+-]+)</title>");
  for (std::sregex_iterator at(svg.begin(), svg.end(), told), end; at != end; ++at) {
    found.emplace_back((*at)[1], std::stod((*at)[2]));
  }
  return found;
}

double told_of(const std::string& svg, const std::string& name) {
  for (const auto& [what, value] : told_in(svg)) {
    if (what == name) return value;
  }
  ADD_FAILURE() << "the figure tells nothing of " << name;
  return NAN;
}

class CliViewFigure : public TinyModel {
 protected:
  std::string figure(std::vector<std::string> arguments, const std::string& text = "the black cat") {
    const std::string out = path("figure.svg");
    arguments.insert(arguments.begin(), {"view", text, "--export", out});
    const Result result = program(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.out.rfind("Wrote ", 0), 0u) << result.out;
    return bytes_of(out);
  }
  // [tokens,tokens] of a head.
  SafetensorsFile map_of(const std::string& head) {
    EXPECT_EQ(program({"map", "the black cat", "--head", head, "-o", path("map.safetensors")}).code, 0);
    return load_safetensors(path("map.safetensors"));
  }
  json look(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"look", "the black cat", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json::parse(program(arguments).out);
  }
};

TEST_F(CliViewFigure, TheSentenceIsDrawnWithWhatItsBestHeadsGive) {
  const std::string svg = figure({});
  // Two words that tell something: one link, black -> cat.
  const json link = look({"--link", "black,cat"}).at("links").at(0);
  const json& best = link.at("best").at(0);
  const std::string name =
      std::to_string(best.at("layer").get<int>()) + "." + std::to_string(best.at("head").get<int>());
  bool found = false;
  const std::regex told("<title>black → cat: ([0-9]+[.][0-9]+) ([0-9.e-]+)</title>");
  std::smatch match;
  if (std::regex_search(svg, match, told)) {
    found = true;
    EXPECT_EQ(match[1], name);
    EXPECT_NEAR(std::stod(match[2]), best.at("weight").get<double>(), 1e-8);
  }
  EXPECT_TRUE(found) << svg;
  EXPECT_EQ(svg, figure({"--view", "story"}));
  // As the page's link says it, in German and dark.
  const std::string german = figure({"--view", "http://127.0.0.1:1/x/#lang=de&theme=dark"});
  EXPECT_NE(german.find("Der Satz und seine Verbindungen"), std::string::npos);
  EXPECT_NE(german.find("#17181b"), std::string::npos);
}

TEST_F(CliViewFigure, EveryHeadsWeightOnALinkIsInTheGridOfReaders) {
  const std::string svg = figure({"--view", "readers"});
  for (int layer = 0; layer < 2; ++layer) {
    for (int head = 0; head < 4; ++head) {
      const std::string name = std::to_string(layer) + "." + std::to_string(head);
      const double weight = static_cast<double>(map_of(name).at("weights").as<float>()[2 * 5 + 3]);
      EXPECT_NEAR(told_of(svg, name + ", black → cat"), weight, 1e-6) << name;
    }
  }
}

TEST_F(CliViewFigure, LinksRowsAndRolloutAddUpAsTheEngineSaysTheyDo) {
  const SafetensorsFile map = map_of("1.2");
  const float* const weights = map.at("weights").as<float>();
  const std::vector<std::string> tokens{"[CLS]", "the", "black", "cat", "[SEP]"};
  // All links of a text of five tokens.
  const std::string links = figure({"--view", "links&l.top=8&l.words=0", "--head", "1.2"});
  for (std::size_t i = 0; i < 5; ++i) {
    for (std::size_t j = 0; j < 5; ++j) {
      EXPECT_NEAR(told_of(links, tokens[i] + " → " + tokens[j]), static_cast<double>(weights[5 * i + j]), 1e-6);
    }
  }
  // Without special tokens what is left of a row is all of it.
  double sum = 0;
  for (const auto& [name, weight] : told_in(figure({"--view", "links&l.top=8&l.special=1", "--head", "1.2"}))) {
    if (name.rfind("black →", 0) == 0) sum += weight;
  }
  EXPECT_NEAR(sum, 1, 1e-6);
  const std::string row = figure({"--view", "row&links=1-2,2-1", "--head", "1.2"});
  EXPECT_NEAR(told_of(row, "black"), static_cast<double>(weights[5 * 2 + 2]), 1e-6);
  double shares = 0;
  for (const auto& [name, share] : told_in(figure({"--view", "rollout"}))) shares += share;
  EXPECT_NEAR(shares, 1, 1e-8);
}

TEST_F(CliViewFigure, WhyAndPipelineHaveTheProductsThatMakeTheScore) {
  double dot = 0;
  const std::string why = figure({"--view", "why&q=2&k=3", "--head", "1.2"});
  const auto products = told_in(why);
  for (const auto& [name, product] : products) dot += product;
  const double weight = static_cast<double>(map_of("1.2").at("weights").as<float>()[2 * 5 + 3]);
  std::ostringstream said;
  said.precision(4);
  said << std::fixed << "weight " << weight << "<";
  EXPECT_NE(why.find(said.str()), std::string::npos) << said.str();
  std::ostringstream sum;
  sum.precision(4);
  sum << std::fixed << "q · k = " << (dot < 0 ? "−" : "") << std::fabs(dot) << " ";
  EXPECT_NE(why.find(sum.str()), std::string::npos) << sum.str();
  const std::string pipeline = figure({"--view", "pipeline&q=2&k=3", "--head", "1.2"});
  for (const auto& [dimension, product] : products) EXPECT_EQ(told_of(pipeline, "q × k [" + dimension + "]"), product);
  EXPECT_NEAR(told_of(pipeline, "cat"), weight, 1e-6);
}

TEST_F(CliViewFigure, DistancesAreTheSharesOfAllWeights) {
  const SafetensorsFile map = map_of("0.3");
  std::vector<double> mass(9);
  for (int i = 0; i < 5; ++i) {
    for (int j = 0; j < 5; ++j) {
      mass[static_cast<std::size_t>(i - j + 4)] += static_cast<double>(map.at("weights").as<float>()[5 * i + j]) / 5;
    }
  }
  const std::string svg = figure({"--view", "distance", "--head", "0.3"});
  for (int distance = -4; distance <= 4; ++distance) {
    EXPECT_NEAR(told_of(svg, std::to_string(distance)), mass[static_cast<std::size_t>(distance + 4)], 1e-6) << distance;
  }
}

TEST_F(CliViewFigure, TheGridHasEveryHeadAndSortsAndFiltersAsTheLinkSays) {
  const json heads = look({"--all"}).at("heads");
  const std::string svg = figure({"--view", "heads"});
  const std::regex names("<title>([0-9]+[.][0-9]+)( [(][^<]*[)])?: [^<]*</title>");
  const auto order = [&](const std::string& figure) {
    std::vector<std::string> found;
    for (std::sregex_iterator at(figure.begin(), figure.end(), names), end; at != end; ++at) found.push_back((*at)[1]);
    return found;
  };
  EXPECT_EQ(order(svg), (std::vector<std::string>{"0.0", "0.1", "0.2", "0.3", "1.0", "1.1", "1.2", "1.3"}));
  const std::vector<std::string> sorted = order(figure({"--view", "heads&h.sort=entropy"}));
  ASSERT_EQ(sorted.size(), 8u);
  const auto entropy = [&](const std::string& name) -> double {
    for (const json& head : heads) {
      if (std::to_string(head.at("layer").get<int>()) + "." + std::to_string(head.at("head").get<int>()) == name) {
        return head.at("scores").at("entropy").get<double>();
      }
    }
    return NAN;
  };
  for (std::size_t i = 1; i < 8; ++i) EXPECT_GE(entropy(sorted[i - 1]), entropy(sorted[i]));
  std::size_t sinks = 0;
  for (const json& head : heads) {
    for (const json& role : head.at("roles")) sinks += role == "sink" ? 1 : 0;
  }
  EXPECT_EQ(order(figure({"--view", "heads&h.role=sink"})).size(), sinks);
  EXPECT_EQ(order(figure({"--view", "heads&h.role=-sink"})).size(), 8 - sinks);
}

TEST_F(CliViewFigure, TheCutOfDModelIsThatOfDimsAndNeedsNoModel) {
  const std::string out = path("dims.svg");
  const auto drawn = [&](const std::string& view) {
    EXPECT_EQ(run({"view", "--view", view, "--export", out}).code, 0);
    return bytes_of(out);
  };
  const std::string seven = drawn("dimensions&h=7");
  EXPECT_NE(seven.find(">512 = 7 · 73 + 1</text>"), std::string::npos);
  EXPECT_NE(seven.find("url(#left-over)"), std::string::npos);
  EXPECT_NE(seven.find("<title>W_q [512, 512]</title>"), std::string::npos);
  const std::string eight = drawn("dimensions&h=8&d=768&n=64");
  EXPECT_EQ(eight.find("\"url(#left-over)"), std::string::npos);
  const json dims =
      json::parse(run({"dims", "--d-model", "768", "--heads", "8", "--tokens", "64", "--no-time", "--json"}).out);
  const json& cut = dims.at("heads").at(0);
  std::string parameters = std::to_string(cut.at("parameters").get<std::int64_t>());
  for (std::size_t at = parameters.size(); at > 3;) parameters.insert(at -= 3, ",");
  EXPECT_NE(eight.find("Parameters: " + parameters + "<"), std::string::npos);
  EXPECT_NE(eight.find("<title>W_k [768, 768]</title>"), std::string::npos);
  // Two of eight heads share each of four.
  EXPECT_NE(drawn("dimensions&h=8&d=768&kv=4").find("<title>W_k [768, 384]</title>"), std::string::npos);
}

TEST_F(CliViewFigure, OtherViewsAndPicturesAreWritten) {
  for (const char* view : {"sum", "grammar", "scatter", "clusters", "mean", "mean&h.heads=0.1,1.2",
                           "compare&head=0.1&h.other=1.2", "map"}) {
    const std::string svg = figure({"--view", view}, "the black cat sat");
    EXPECT_EQ(svg.rfind("<svg ", 0), 0u) << view;
    EXPECT_EQ(svg.find("nan"), std::string::npos) << view;
    ASSERT_EQ(program({"view", "the black cat sat", "--view", view, "--export", path("a.png")}).code, 0) << view;
    const std::string png = bytes_of(path("a.png"));
    EXPECT_EQ(png.substr(1, 3), "PNG") << view;
    EXPECT_EQ(png.substr(png.size() - 8, 4), "IEND") << view;
  }
  // A trace needs no model; one without values has no output to draw, and the rest is there.
  ASSERT_EQ(program({"trace", "the black cat", "-o", path("t.safetensors")}).code, 0);
  for (const char* view : {"story", "heads", "links", "pipeline"}) {
    EXPECT_EQ(run({"view", path("t.safetensors"), "--view", view, "--export", path("b.svg")}).code, 0) << view;
  }
  // The sentence of a link is the one that the page showed.
  const std::string other = figure({"--view", "row&text=the+black%20cat"}, "the embed");
  EXPECT_EQ(other, figure({"--view", "row"}));
}

TEST_F(CliViewFigure, AScanIsDrawnWithItsOwnNumbers) {
  std::ofstream(path("texts.txt")) << "the black cat sat\n\nthe cat sat on the mat\n";
  ASSERT_EQ(program({"scan", path("texts.txt"), "-o", path("a.scan")}).code, 0);
  const json scan = json::parse(run({"scan", "--show", path("a.scan"), "--json"}).out);
  const std::string out = path("scan.svg");
  ASSERT_EQ(run({"view", path("a.scan"), "--view", "corpus&c.score=entropy", "--export", out}).code, 0);
  const std::string svg = bytes_of(out);
  int seen = 0;
  for (const json& head : scan.at("heads")) {
    for (const json& score : head.at("scores")) {
      if (score.at("name") != "entropy" || score.at("count") == 0) continue;
      const std::string name =
          std::to_string(head.at("layer").get<int>()) + "." + std::to_string(head.at("head").get<int>());
      const std::regex told("<title>" + name + ": ([0-9.e-]+) [(]([0-9]+)[)]</title>");
      std::smatch match;
      ASSERT_TRUE(std::regex_search(svg, match, told)) << name;
      EXPECT_NEAR(std::stod(match[1]), score.at("mean").get<double>(), 1e-8);
      EXPECT_EQ(std::stoll(match[2]), score.at("count").get<std::int64_t>());
      ++seen;
    }
  }
  EXPECT_EQ(seen, 8);
  for (const char* view : {"distribution&c.score=entropy", "tokens", "components", "distances"}) {
    EXPECT_EQ(run({"view", path("a.scan"), "--view", view, "--head", "1.2", "--export", out}).code, 0) << view;
  }
  std::int64_t passages = 0;
  ASSERT_EQ(run({"view", path("a.scan"), "--view", "distribution&c.score=entropy", "--export", out}).code, 0);
  for (const auto& [between, count] : told_in(bytes_of(out))) passages += static_cast<std::int64_t>(count);
  EXPECT_EQ(passages, scan.at("passages").get<std::int64_t>());
}

TEST_F(CliViewFigure, TheTableOfRelationsIsThatOfRoles) {
  std::ofstream trees(path("trees.conllu"));
  for (int i = 0; i < 30; ++i) {
    trees << "# text = the black cat\n1\tthe\t_\tDET\t_\t_\t3\tdet\t_\t_\n2\tblack\t_\tADJ\t_\t_\t3\tamod\t_\t_\n"
             "3\tcat\t_\tNOUN\t_\t_\t0\troot\t_\t_\n\n";
  }
  trees.close();
  const Result roles = program({"roles", "--treebank", path("trees.conllu"), "--json"});
  ASSERT_EQ(roles.code, 0) << roles.err;
  // A bar for the best fixed distance, then one for each head, relation by relation.
  std::vector<std::pair<std::string, double>> bars;
  const json read = json::parse(roles.out);
  for (const json& relation : read.at("relations")) {
    const json& offset = relation.at("offset");
    bars.emplace_back(offset.is_null() ? "–" : "Always " + std::to_string(offset.get<int>()),
                      relation.at("offset_accuracy").get<double>());
    for (const json& head : relation.at("heads")) {
      bars.emplace_back(std::to_string(head.at("layer").get<int>()) + "." + std::to_string(head.at("head").get<int>()),
                        head.at("accuracy").get<double>());
    }
  }
  ASSERT_GT(bars.size(), 8u);
  const std::string svg = figure({"--treebank", path("trees.conllu"), "--view", "relations"});
  const auto told = told_in(svg);
  ASSERT_EQ(told.size(), bars.size());
  for (std::size_t i = 0; i < bars.size(); ++i) {
    EXPECT_EQ(told[i].first, bars[i].first);
    EXPECT_NEAR(told[i].second, bars[i].second, 1e-8) << bars[i].first;
  }
  EXPECT_NE(svg.find("over 30 sentences of trees.conllu<"), std::string::npos);
  EXPECT_NE(svg.find(">amod: word → its head</text>"), std::string::npos);
  const Result picture = program(
      {"view", "the black cat", "--treebank", path("trees.conllu"), "--view", "relations", "--export", path("a.png")});
  ASSERT_EQ(picture.code, 0) << picture.err;
  EXPECT_EQ(bytes_of(path("a.png")).substr(1, 3), "PNG");
}

TEST_F(CliViewFigure, WhatCannotBeDrawnIsSaidInOneSentence) {
  const std::string out = path("a.svg");
  const struct {
    std::vector<std::string> arguments;
    std::string says;
  } cases[] = {
      {{"cat", "--model", model(), "--view", "haeds", "--export", out},
       "--view takes a link of the page, or one of story, row"},
      {{"cat", "--model", model(), "--export", out}, "too few words for a link"},
      {{"--view", "heads", "--export", out}, "this view is of a text"},
      {{"cat", "--model", model(), "--view", "corpus", "--export", out}, "this view is of a scan"},
      {{"cat", "--model", model(), "--view", "relations", "--export", out}, "--treebank FILE"},
      {{"cat", "--model", model(), "--view", "v=story&step=7", "--export", out}, "measures while it is looked at"},
      {{"cat", "--model", model(), "--view", "v=story&step=8", "--export", out}, "asks questions"},
      {{"cat", "--model", model(), "--view", "v=heads&h.one=off", "--export", out}, "the page shows it"},
      {{"cat", "--model", model(), "--view", "compare", "--export", out}, "needs a second head"},
      {{"cat", "--model", model(), "--view", "heads"}, "--view and --head are of a figure"},
      {{"cat", "--model", model(), "--head", "x", "--export", out}, "--head takes LAYER.HEAD"},
  };
  for (const auto& [arguments, says] : cases) {
    std::vector<std::string> all{"view"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Result result = run(all);
    EXPECT_NE(result.code, 0) << says;
    EXPECT_TRUE(is_one_line(result, says)) << result.err;
  }
}

}  // namespace
}  // namespace manyheads::cli_test
