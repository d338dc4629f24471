#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <manyheads/lens/roles.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/format.hpp"
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

// best, offset_mean and mean against the weights of every head, asked for one by one.
TEST_F(CliLook, LinksAreRankedByWhatIsAboveTheirOffset) {
  const std::string text = "the embed sat on the cat";  // embed is two pieces
  const json found = look({text, "--link", "cat,embed", "--link", "embed->the#2"});
  ASSERT_EQ(found.at("links").size(), 2u);
  EXPECT_EQ(found.at("links")[1].at("name"), "embed→the#2");
  EXPECT_EQ(found.at("links")[0].at("offset"), -4);
  // Words: the embed sat on the cat. Tokens: [CLS] the em ##bed sat on the cat [SEP].
  std::vector<std::vector<double>> weights(2), means(2);
  for (int layer = 0; layer < 2; ++layer) {
    for (int head = 0; head < 4; ++head) {
      const json one = look({text, "--head", std::to_string(layer) + "." + std::to_string(head)});
      const json& rows = one.at("head").at("weights");
      ASSERT_EQ(rows.size(), 9u);
      const auto a = [&](std::size_t q, std::size_t k) { return rows[q][k].get<double>(); };
      double sum = 0;
      for (std::size_t k = 0; k < 9; ++k) sum += a(7, k);
      EXPECT_NEAR(sum, 1, 1e-6);
      weights[0].push_back(a(7, 2) + a(7, 3));        // four words back; so is
      means[0].push_back(a(6, 1));                    // the#2 to the
      weights[1].push_back((a(2, 6) + a(3, 6)) / 2);  // three words on; so are
      means[1].push_back((a(1, 5) + a(4, 7)) / 2);    // the to on, and sat to cat
    }
  }
  for (std::size_t i = 0; i < 2; ++i) {
    const json& link = found.at("links")[i];
    double sum = 0, most = -1;
    for (std::size_t h = 0; h < 8; ++h) {
      sum += weights[i][h];
      most = std::max(most, weights[i][h] - means[i][h]);
    }
    EXPECT_NEAR(link.at("mean").get<double>(), sum / 8, 1e-9);
    ASSERT_EQ(link.at("best").size(), 5u);
    double before = most;
    for (const json& best : link.at("best")) {
      const auto at = static_cast<std::size_t>(best.at("layer").get<int>() * 4 + best.at("head").get<int>());
      EXPECT_NEAR(best.at("weight").get<double>(), weights[i][at], 1e-9);
      EXPECT_NEAR(best.at("offset_mean").get<double>(), means[i][at], 1e-9);
      const double above = weights[i][at] - means[i][at];
      if (&best == &link.at("best")[0]) {
        EXPECT_NEAR(above, most, 1e-9);
      }
      EXPECT_LE(above, before + 1e-9);
      before = above;
    }
  }
}

TEST_F(CliLook, StrongestLinksHaveTheMeanAtTheirOffset) {
  for (const json& head : look({"the black cat sat on the mat"}).at("heads")) {
    double before = 2;
    for (const json& link : head.at("strongest")) {
      const int away = std::abs(link.at("key_word").get<int>() - link.at("query_word").get<int>());
      EXPECT_EQ(link.at("offset_mean").is_null(), away == 6);  // only the first and the last word are so far apart
      if (away == 6) continue;
      const double above = link.at("weight").get<double>() - link.at("offset_mean").get<double>();
      EXPECT_LE(above, before);
      before = above;
    }
  }
  // Two words: nothing to set beside their links, which then rank by weight.
  const json two = look({"cat sat"});
  EXPECT_EQ(two.at("links")[0].at("best")[0].at("offset_mean"), nullptr);
  double before = 2;
  for (const json& best : two.at("links")[0].at("best")) {
    EXPECT_LE(best.at("weight").get<double>(), before);
    before = best.at("weight").get<double>();
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

// The columns of the longest line, each character counted as one.
int longest_line(const std::string& text) {
  int columns = 0, longest = 0;
  for (const char c : text) {
    columns = c == '\n' ? 0 : columns + ((static_cast<unsigned char>(c) & 0xc0) != 0x80 ? 1 : 0);
    longest = std::max(longest, columns);
  }
  return longest;
}

TEST_F(CliLook, TextForPeopleFitsEightyColumns) {
  const std::string sentence = "The black cat sat on the mat.";
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"look", sentence},
                                                    {"look", sentence, "--all"},
                                                    {"look", sentence, "--legend"},
                                                    {"look", "the cat", "--head", "1.3"},
                                                    {"look", "the cat", "--pair", "the dog sat", "--link", "cat,dog"},
                                                    {"look", many_words(30)},
                                                    {"look", many_words(30), "--all"},
                                                    {"look", many_words(30), "--head", "0.0"}}) {
    const Result result = program(arguments);
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.out.find('\x1b'), std::string::npos);
    EXPECT_LE(longest_line(result.out), 80) << result.out;
  }
}

TEST_F(CliLook, OneScreenUnlessMoreIsAskedFor) {
  const auto text = [&](const std::vector<std::string>& arguments) {
    const Result result = program(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    return result.out;
  };
  const std::string screen = text({"look", "The black cat sat on the mat."});
  EXPECT_LT(std::count(screen.begin(), screen.end(), '\n'), 45);
  EXPECT_NE(screen.find("[CLS]: the model's mark"), std::string::npos);
  EXPECT_NE(screen.find("[SEP]: its mark"), std::string::npos);
  EXPECT_EQ(screen.find("##"), std::string::npos);
  EXPECT_EQ(screen.find("Clark et al. 2019"), std::string::npos);
  EXPECT_NE(text({"look", "embed"}).find("##: a piece that continues"), std::string::npos);
  EXPECT_NE(text({"look", "zebra"}).find("[UNK]: something"), std::string::npos);
  EXPECT_NE(text({"look", "the cat", "--legend"}).find("Clark et al. 2019"), std::string::npos);
  const std::string all = text({"look", "The black cat sat on the mat.", "--all"});
  for (int head = 0; head < 8; ++head) {
    const std::string name = "\n  " + std::to_string(head / 4) + "." + std::to_string(head % 4) + " ";
    EXPECT_NE(all.find(name), std::string::npos) << name;
  }
}

TEST_F(CliLook, ATraceWithoutKeysHasNoMap) {
  lens::Trace trace;
  trace.tokens = {"a"};
  trace.key_length = 0;
  Tensor q(DType::kF32, {1, 1, 1}), lse(DType::kF32, {1, 1});
  lse.as<float>()[0] = -std::numeric_limits<float>::infinity();
  trace.layers.push_back({q.cview(), q.cview(), lse.cview(), {}, {}, {}, {q, q, lse}});
  lens::save_trace(path("none.safetensors"), trace);
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--head", "0.0"}, {"--all"}, {"--json"}}) {
    std::vector<std::string> arguments = {"look", "--trace", path("none.safetensors")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.out.find("There is no token to look at") != std::string::npos, more.size() == 2) << result.out;
  }
}

TEST_F(CliLook, ControlCharactersOfTheTextAreNotShown) {
  // ESC, its one-byte form, and what turns the direction of writing: inside words, where tokens leave them out.
  const std::string text = "ca\x1b[31mt sa\xc2\x9bt d\xe2\x80\xaeog m\xe2\x81\xa6t";
  for (const auto& [option, code] : {std::pair{"--truncate", 0}, {"--head=0.0", 0}, {"--link=none,cat", 1}}) {
    const Result result = program({"look", text, option});
    EXPECT_EQ(result.code, code) << result.err;
    for (const char* obeyed : {"\x1b", "\xc2\x9b", "\xe2\x80\xae", "\xe2\x81\xa6"}) {
      EXPECT_EQ((result.out + result.err).find(obeyed), std::string::npos);
    }
  }
}

TEST_F(CliLook, AByteOrderMarkIsNoPartOfTheText) {
  const json found = look({"\xef\xbb\xbfthe cat", "--pair", "\xef\xbb\xbfthe dog"});
  EXPECT_EQ(found.at("text"), "the cat");
  EXPECT_EQ(found.at("text2"), "the dog");
  EXPECT_EQ(found.at("words")[0].at("text"), "the");
  EXPECT_TRUE(is_one_line(program({"look", "\xef\xbb\xbf"}), "TEXT is empty"));
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
      {{"look", "the cat", "--head", "0.1", "--all"}, 2, "leave out one of the two"},
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
    const auto [query, key] = places[i];
    double sum = 0, most = -1;
    std::vector<std::vector<double>> means(6, std::vector<double>(12));
    for (std::size_t l = 0; l < 6; ++l) {
      for (std::size_t h = 0; h < 12; ++h) {
        sum += weight(l, h, query, key);
        double others = 0;  // every word is one token, from 1 to 8
        std::size_t count = 0;
        for (std::size_t q = 1; q + (key - query) <= 8; ++q) {
          if (q == query) continue;
          others += weight(l, h, q, q + (key - query));
          ++count;
        }
        means[l][h] = others / static_cast<double>(count);
        most = std::max(most, weight(l, h, query, key) - means[l][h]);
      }
    }
    if (i == 0) {
      EXPECT_EQ(base::format("1.8 {:.2f} {:.2f}", weight(1, 8, query, key), means[1][8]), "1.8 0.39 0.69");
    }
    for (const json& head : found.at("heads")) {
      const auto l = head.at("layer").get<std::size_t>(), h = head.at("head").get<std::size_t>();
      EXPECT_NEAR(head.at("links")[i].at("weight").get<double>(), weight(l, h, query, key), 1e-5);
      EXPECT_NEAR(head.at("links")[i].at("offset_mean").get<double>(), means[l][h], 1e-5);
    }
    const json& link = found.at("links")[i];
    EXPECT_NEAR(link.at("mean").get<double>(), sum / 72, 1e-5);
    const json& first = link.at("best")[0];
    EXPECT_NEAR(first.at("weight").get<double>() - first.at("offset_mean").get<double>(), most, 1e-5);
    for (const json& best : link.at("best")) {
      const auto l = best.at("layer").get<std::size_t>(), h = best.at("head").get<std::size_t>();
      EXPECT_NEAR(best.at("weight").get<double>(), weight(l, h, query, key), 1e-5);
      EXPECT_NEAR(best.at("offset_mean").get<double>(), means[l][h], 1e-5);
    }
  }
  // Head 1.8 gives any next word what it gives to black -> cat: that link is no sign of grammar.
  const json& black_cat = found.at("links")[1].at("best");
  const char* const expected[] = {"5.11 0.60 0.02", "2.8 0.74 0.25", "1.7 0.42 0.15", "1.8 0.85 0.61"};
  for (std::size_t i = 0; i < 4; ++i) {
    const json& best = black_cat[i];
    EXPECT_EQ(base::format("{}.{} {:.2f} {:.2f}", best.at("layer").get<int>(), best.at("head").get<int>(),
                           best.at("weight").get<double>(), best.at("offset_mean").get<double>()),
              expected[i]);
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

class CliLookDecoder : public TinyDecoder {};

TEST_F(CliLookDecoder, WordsSeeOnlyEarlierOnes) {
  const Result asked = program({"look", "The black cat sat on the mat.", "--json", "--link", "sat,cat"});
  ASSERT_EQ(asked.code, 0) << asked.err;
  const json found = json::parse(asked.out);
  EXPECT_EQ(found.at("links")[0].at("name"), "sat→cat");
  // None is asked for: the usual ones, turned round.
  const json usual = json::parse(program({"look", "The black cat sat on the mat.", "--json"}).out);
  ASSERT_EQ(usual.at("links").size(), 3u);
  EXPECT_EQ(usual.at("links")[2].at("name"), "mat→sat");
  for (const json& head : usual.at("heads")) {
    for (const json& link : head.at("strongest")) {
      EXPECT_LT(link.at("key_word").get<int>(), link.at("query_word").get<int>()) << link;
    }
  }
  const Result forward = program({"look", "The black cat sat on the mat.", "--link", "cat,sat"});
  EXPECT_EQ(forward.code, 1);
  EXPECT_EQ(forward.err,
            "manyheads look: --link cat,sat: in this model a word sees only itself and earlier ones; ask "
            "for sat,cat\n");
}

TEST_F(CliLookDecoder, ATraceTellsTheSameAsTheModel) {
  const std::string file = path("t.safetensors");
  ASSERT_EQ(program({"trace", "The black cat sat on the mat.", "-o", file}).code, 0);
  const json traced = json::parse(run({"look", "--trace", file, "--json"}).out);
  const json direct = json::parse(program({"look", "The black cat sat on the mat.", "--json"}).out);
  EXPECT_EQ(traced.at("links")[0].at("name"), direct.at("links")[0].at("name"));
  EXPECT_EQ(traced.at("tokens"), direct.at("tokens"));
  EXPECT_TRUE(lens::load_trace(file).causal);
}

class CliEmbedDecoder : public TinyDecoder {};

TEST_F(CliEmbedDecoder, WithoutAFileThatSaysHowItIsRefused) {
  const Result refused = program({"embed"}, {.in = "the cat\n"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.err.find("holds a decoder and no modules.json"), std::string::npos) << refused.err;
  std::filesystem::create_directories(std::filesystem::path(model()) / "1_Pooling");
  std::ofstream(std::filesystem::path(model()) / "modules.json")
      << R"([{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},)"
      << R"({"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"}])";
  std::ofstream(std::filesystem::path(model()) / "1_Pooling/config.json")
      << R"({"word_embedding_dimension":32,"pooling_mode_mean_tokens":false,"pooling_mode_lasttoken":true})";
  const Result last = program({"embed"}, {.in = "the cat\n"});
  EXPECT_EQ(last.code, 0) << last.err;
}

}  // namespace
}  // namespace manyheads::cli_test
