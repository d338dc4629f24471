#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lens/roles.hpp"
#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

class CliLook : public TinyModel {
 protected:
  json look(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"look", "--json"});
    const Result result = program(std::move(arguments));
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    return json::parse(result.out);
  }
};

TEST_F(CliLook, JsonHasTokensLinksAndHeads) {
  const json found = look({"The black cat sat on the mat."});
  EXPECT_EQ(found.at("tokens"),
            json({"[CLS]", "the", "black", "cat", "sat", "on", "the", "mat", ".", "[SEP]"}));  // not cut to 8
  EXPECT_EQ(found.at("model"), "tiny");
  ASSERT_EQ(found.at("links").size(), 3u);
  EXPECT_EQ(found.at("links")[0].at("name"), "cat→sat");
  EXPECT_EQ(found.at("links")[1].at("query"), "black");
  EXPECT_EQ(found.at("links")[2].at("key"), "mat");
  ASSERT_EQ(found.at("heads").size(), 8u);
  for (const json& head : found.at("heads")) {
    for (const lens::ScoreRule& rule : lens::score_rules()) EXPECT_TRUE(head.at("scores").contains(rule.name));
    EXPECT_EQ(head.at("strongest").size(), 3u);
  }
  EXPECT_EQ(found.at("score_rules").size(), lens::score_rules().size());
}

// best and mean against the weights of every head, asked for one by one.
TEST_F(CliLook, LinksAreRankedByTheWeightsOfTheHeads) {
  const std::string text = "the embed sat on the cat";  // embed is two pieces
  const json found = look({text, "--link", "cat,embed", "--link", "embed->the#2"});
  ASSERT_EQ(found.at("links").size(), 2u);
  EXPECT_EQ(found.at("links")[1].at("name"), "embed→the#2");
  std::vector<std::vector<double>> weights(2);
  for (int layer = 0; layer < 2; ++layer) {
    for (int head = 0; head < 4; ++head) {
      const json one = look({text, "--head", std::to_string(layer) + "." + std::to_string(head)});
      const json& a = one.at("head").at("weights");  // [CLS] the em ##bed sat on the cat [SEP]
      ASSERT_EQ(a.size(), 9u);
      double sum = 0;
      for (const json& w : a[7]) sum += w.get<double>();
      EXPECT_NEAR(sum, 1, 1e-6);
      weights[0].push_back(a[7][2].get<double>() + a[7][3].get<double>());
      weights[1].push_back((a[2][6].get<double>() + a[3][6].get<double>()) / 2);
    }
  }
  for (std::size_t i = 0; i < 2; ++i) {
    const json& link = found.at("links")[i];
    double sum = 0;
    for (const double w : weights[i]) sum += w;
    EXPECT_NEAR(link.at("mean").get<double>(), sum / 8, 1e-9);
    EXPECT_NEAR(link.at("best")[0].at("weight").get<double>(), *std::max_element(weights[i].begin(), weights[i].end()),
                1e-9);
    double before = 2;
    for (const json& best : link.at("best")) {
      const auto at = static_cast<std::size_t>(best.at("layer").get<int>() * 4 + best.at("head").get<int>());
      EXPECT_NEAR(best.at("weight").get<double>(), weights[i][at], 1e-9);
      EXPECT_LE(best.at("weight").get<double>(), before);
      before = best.at("weight").get<double>();
    }
  }
}

TEST_F(CliLook, UsualLinksOnlyWhereTheTextHasTheWords) {
  EXPECT_EQ(look({"the dog sat on the mat"}).at("links").size(), 1u);  // sat, mat
  EXPECT_EQ(look({"the dog"}).at("links").size(), 0u);
  EXPECT_NE(program({"look", "the dog"}).out.find("--link \"the,dog\""), std::string::npos);
}

TEST_F(CliLook, APairIsTwoSegments) {
  const json pair = look({"the cat", "--pair", "the dog sat", "--link", "cat,dog"});
  EXPECT_EQ(pair.at("tokens"), json({"[CLS]", "the", "cat", "[SEP]", "the", "dog", "sat", "[SEP]"}));
  EXPECT_EQ(pair.at("text2"), "the dog sat");
  EXPECT_EQ(pair.at("words")[3].at("sequence"), 1);
  EXPECT_EQ(pair.at("words")[3].at("text"), "dog");
}

TEST_F(CliLook, TheSameForAnyThreads) {
  const std::string one = program({"look", "the cat sat", "--json", "--threads", "1"}).out;
  EXPECT_EQ(program({"look", "the cat sat", "--json", "--threads", "3"}).out, one);
  EXPECT_EQ(program({"look", "the cat sat", "--json", "--threads", "64"}).out, one);
}

TEST_F(CliLook, ATraceIsLookedAtAsItsText) {
  ASSERT_EQ(program({"trace", "the black cat sat", "-o", path("t.safetensors")}).code, 0);
  const Result from_file = run({"look", "--trace", path("t.safetensors"), "--json"});
  ASSERT_EQ(from_file.code, 0) << from_file.err;
  const json file = json::parse(from_file.out);
  const json text = look({"the black cat sat"});
  EXPECT_EQ(file.at("tokens"), text.at("tokens"));
  ASSERT_EQ(file.at("heads").size(), text.at("heads").size());
  for (std::size_t i = 0; i < text.at("heads").size(); ++i) {
    EXPECT_NEAR(file.at("heads")[i].at("scores").at("first").get<double>(),
                text.at("heads")[i].at("scores").at("first").get<double>(), 1e-6);
  }
}

TEST_F(CliLook, TextForPeopleFitsEightyColumns) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"look", "The black cat sat on the mat."},
                                                    {"look", "the cat", "--head", "1.3"},
                                                    {"look", many_words(30), "--head", "0.0"}}) {
    const Result result = program(arguments);
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.out.find('\x1b'), std::string::npos);
    int columns = 0;
    for (const char c : result.out) {
      if (c == '\n') {
        EXPECT_LE(columns, 80);
        columns = 0;
      } else if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) {
        ++columns;
      }
    }
    EXPECT_NE(result.out.find("Clark et al. 2019"), std::string::npos);
  }
}

TEST_F(CliLook, ControlCharactersOfTheTextAreNotShown) {
  const Result result = program({"look", "cat\x1b[31m sat"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out.find('\x1b'), std::string::npos);
}

TEST_F(CliLook, ALongTextIsCutOnlyOnRequest) {
  const Result refused = program({"look", many_words(60)});
  EXPECT_EQ(refused.code, 1);
  EXPECT_TRUE(is_one_line(refused, "62 tokens, the model takes 40"));
  const json cut = look({many_words(60), "--truncate"});
  EXPECT_EQ(cut.at("tokens").size(), 40u);
  EXPECT_EQ(cut.at("truncated_from"), 62);
  EXPECT_EQ(cut.at("tokens")[39], "[SEP]");
  EXPECT_EQ(look({many_words(38)}).at("tokens").size(), 40u);
}

TEST_F(CliLook, BadRequestsGetOneLine) {
  struct Case {
    std::vector<std::string> arguments;
    int code;
    std::string says;
  };
  const std::vector<Case> cases = {
      {{"look", ""}, 1, "TEXT is empty"},
      {{"look", " \t\n"}, 1, "TEXT is empty"},
      {{"look", "\xe2\x80\x8b"}, 1, "TEXT is empty"},  // a space of no width
      {{"look", "caf\xff"}, 1, "TEXT is not UTF-8 (byte 3)"},
      {{"look", "the", "--pair", " "}, 1, "--pair is empty"},
      {{"look", "the", "--pair", "\xc3"}, 1, "--pair is not UTF-8"},
      {{"look", "the cat", "--link", "cat,dog"}, 1, "no word \"dog\"; its words are: the cat"},
      {{"look", "the cat", "--link", "the#2,cat"}, 1, "occurs 1 time"},
      {{"look", "the cat", "--link", "cat"}, 2, "--link takes two words"},
      {{"look", "the cat", "--link", "cat,"}, 2, "--link takes two words"},
      {{"look", "the cat", "--link", "a,b,c"}, 2, "--link takes two words"},
      {{"look", "the cat", "--head", "1"}, 2, "--head takes LAYER.HEAD"},
      {{"look", "the cat", "--head", "1.x"}, 2, "--head takes LAYER.HEAD"},
      {{"look", "the cat", "--head", "2.0"}, 2, "2 layers of 4 heads"},
      {{"look", "the cat", "--head", "0.4"}, 2, "2 layers of 4 heads"},
      {{"look", "the", "cat"}, 2, "unknown argument"},
      {{"look"}, 2, "TEXT is required"},
  };
  for (const Case& test : cases) {
    const Result result = program(test.arguments);
    EXPECT_EQ(result.code, test.code) << result.err;
    EXPECT_TRUE(is_one_line(result, test.says));
    EXPECT_EQ(result.out, "");
  }
  EXPECT_EQ(run({"look", "the"}).code, 2);
  EXPECT_TRUE(is_one_line(run({"look", "the", "--model", path("none")}), "there is no folder"));
  EXPECT_TRUE(is_one_line(run({"look", "the", "--model", path("tiny/config.json")}), "there is no folder"));
  EXPECT_EQ(run({"look", "the", "--model", model(), "--trace", "x"}).code, 2);
  EXPECT_TRUE(is_one_line(run({"look", "--trace", path("tiny/model.safetensors")}), "no trace"));
}

// The chapter's sentence in the real model, against weights evaluated elsewhere in float64.
TEST_F(CliLook, MiniLmAgreesWithTheGoldenWeights) {
  const std::filesystem::path source = MANYHEADS_SOURCE_DIR;
  const auto minilm = source / "models/all-MiniLM-L6-v2";
  if (!std::filesystem::exists(minilm)) GTEST_SKIP() << minilm << " is not here: scripts/fetch-model fetches it";
  const SafetensorsFile golden = load_safetensors(source / "tests/golden/model/minilm_cat.safetensors");
  const Result result =
      run({"look", "The black cat sat on the mat.", "--model", minilm.string(), "--json", "--head", "2.7"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json found = json::parse(result.out);
  const auto weight = [&](std::size_t layer, std::size_t head, std::size_t q, std::size_t k) {
    const Tensor& tensor = golden.at("weights." + std::to_string(layer));
    const std::size_t at = (head * 10 + q) * 10 + k;
    return tensor.dtype() == DType::kF64 ? tensor.as<double>()[at] : static_cast<double>(tensor.as<float>()[at]);
  };
  const std::size_t places[3][2] = {{3, 4}, {2, 3}, {4, 7}};  // cat sat, black cat, sat mat
  for (std::size_t i = 0; i < 3; ++i) {
    double sum = 0;
    double best = 0;
    for (std::size_t l = 0; l < 6; ++l) {
      for (std::size_t h = 0; h < 12; ++h) {
        sum += weight(l, h, places[i][0], places[i][1]);
        best = std::max(best, weight(l, h, places[i][0], places[i][1]));
      }
    }
    const json& link = found.at("links")[i];
    EXPECT_NEAR(link.at("mean").get<double>(), sum / 72, 1e-5);
    EXPECT_NEAR(link.at("best")[0].at("weight").get<double>(), best, 1e-5);
  }
  for (const json& head : found.at("heads")) {
    const auto l = head.at("layer").get<std::size_t>();
    const auto h = head.at("head").get<std::size_t>();
    double self = 0;
    for (std::size_t t = 0; t < 10; ++t) self += weight(l, h, t, t) / 10;
    EXPECT_NEAR(head.at("scores").at("self").get<double>(), self, 1e-5);
  }
  for (std::size_t q = 0; q < 10; ++q) {
    for (std::size_t k = 0; k < 10; ++k) {
      EXPECT_NEAR(found.at("head").at("weights")[q][k].get<double>(), weight(2, 7, q, k), 1e-5);
    }
  }
}

}  // namespace
}  // namespace manyheads::cli_test
