#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

class CliEmbed : public TinyModel {
 protected:
  // The mean, normalised, as sentence-transformers' files say it.
  void SetUp() override {
    TinyModel::SetUp();
    setting("modules.json", R"([{"type": "sentence_transformers.models.Transformer", "path": ""},
                                {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
                                {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}])");
    setting("1_Pooling/config.json", R"({"word_embedding_dimension": 32})");
  }
  // Writes a file of the model's folder.
  void setting(const std::string& name, const std::string& text) {
    const std::filesystem::path file = std::filesystem::path(model()) / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(path(name), std::ios::binary) << text;
    return path(name);
  }
  static std::vector<json> lines(const std::string& text) {
    std::vector<json> all;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) all.push_back(json::parse(line));
    return all;
  }
};

TEST_F(CliEmbed, OneJsonLineForEachText) {
  const Result result = program({"embed", "-"}, {.in = "the cat\r\nThe \"dog\" sat\nmat"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "");  // no progress in a pipe
  const std::vector<json> all = lines(result.out);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].at("text"), "the cat");
  EXPECT_EQ(all[1].at("text"), "The \"dog\" sat");
  EXPECT_EQ(all[2].at("text"), "mat");
  for (const json& line : all) {
    ASSERT_EQ(line.at("embedding").size(), 32u);
    double square = 0;
    for (const json& x : line.at("embedding")) square += x.get<double>() * x.get<double>();
    EXPECT_NEAR(square, 1, 1e-5);
  }
}

TEST_F(CliEmbed, BitsDependOnTheTextAlone) {
  std::string texts;
  std::string alone;
  for (int i = 0; i < 40; ++i) {
    const std::string text = many_words(1 + i * 7 % 30) + "w" + std::to_string(20 + i % 20);
    texts += text + "\n";
    if (i % 8 == 0) alone += program({"embed", write("one", text)}).out;
  }
  const std::string file = write("texts", texts);
  const std::string together = program({"embed", file, "--threads", "1"}).out;
  EXPECT_EQ(program({"embed", file, "--threads", "3"}).out, together);
  EXPECT_EQ(program({"embed"}, {.in = texts}).out, together);
  std::istringstream in(together);
  std::string every_eighth;
  int i = 0;
  for (std::string line; std::getline(in, line); ++i) every_eighth += i % 8 == 0 ? line + "\n" : "";
  EXPECT_EQ(i, 40);
  EXPECT_EQ(every_eighth, alone);
}

TEST_F(CliEmbed, SafetensorsHoldsTheSameNumbers) {
  const std::string file = write("texts", "the cat\ndog\nthe black cat sat\n");
  const Result result = program({"embed", file, "-o", path("e.safetensors"), "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(json::parse(result.out).at("texts"), 3);
  EXPECT_EQ(json::parse(result.out).at("dimensions"), 32);
  const SafetensorsFile written = load_safetensors(path("e.safetensors"));
  const Tensor& embeddings = written.at("embeddings");
  ASSERT_EQ(embeddings.dtype(), DType::kF32);
  ASSERT_EQ(embeddings.shape(), Dims({3, 32}));
  const std::vector<json> printed = lines(program({"embed", file}).out);
  for (std::size_t t = 0; t < 3; ++t) {
    for (std::size_t i = 0; i < 32; ++i) {
      EXPECT_EQ(printed[t].at("embedding")[i].get<float>(), embeddings.as<float>()[t * 32 + i]);
    }
  }
}

TEST_F(CliEmbed, Bf16WeightsAreNearAndNotTheSame) {
  const std::string file = write("texts", "the black cat sat\n");
  const json f32 = lines(program({"embed", file}).out)[0].at("embedding");
  EXPECT_EQ(lines(program({"embed", file, "--weights-dtype", "f32"}).out)[0].at("embedding"), f32);
  const Result result = program({"embed", file, "--weights-dtype", "bf16"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json bf16 = lines(result.out)[0].at("embedding");
  EXPECT_NE(bf16, f32);
  double cosine = 0;
  for (std::size_t i = 0; i < 32; ++i) cosine += bf16[i].get<double>() * f32[i].get<double>();
  EXPECT_GT(cosine,
            0.998);  // weights and rows of 8 projections rounded by 2^-8: an angle of 0.063 if all errors add up
  EXPECT_EQ(program({"embed", file, "--weights-dtype", "f16"}).code, 2);
}

// More lines than are sorted together, in their order.
TEST_F(CliEmbed, ManyLinesKeepTheirOrder) {
  std::string texts;
  for (int i = 0; i < 5000; ++i) texts += "w" + std::to_string(15 + i * 7 % 35) + (i % 3 == 0 ? " cat\n" : "\n");
  const Result result = program({"embed"}, {.in = texts});
  ASSERT_EQ(result.code, 0) << result.err;
  const std::vector<json> all = lines(result.out);
  ASSERT_EQ(all.size(), 5000u);
  for (int i = 0; i < 5000; ++i) {
    const auto at = static_cast<std::size_t>(i);
    ASSERT_EQ(all[at].at("text"), "w" + std::to_string(15 + i * 7 % 35) + (i % 3 == 0 ? " cat" : ""));
    ASSERT_EQ(all[at].at("embedding"), all[static_cast<std::size_t>(i % 105)].at("embedding")) << i;
  }
}

TEST_F(CliEmbed, BadLinesAreNamed) {
  struct Case {
    std::string text;
    std::string says;
  };
  const std::vector<Case> cases = {
      {"\xef\xbf\n", "line 1 of \"" + path("texts") + "\" is not UTF-8"},
      {"the\n\xff\ncat\n\xff\n\n", "line 2 of"},  // the first of two
      {"", "holds no text"},
      {"the\n" + many_words(60), "line 2 of \"" + path("texts") + "\" has 62 tokens, the model takes 40 (max_position_embeddings of config.json)"},
  };
  for (const Case& test : cases) {
    const std::string file = write("texts", test.text);
    for (const bool to_file : {false, true}) {
      std::vector<std::string> arguments = {"embed", "--no-truncate", file};
      if (to_file) arguments.insert(arguments.end(), {"-o", path("e.safetensors")});
      const Result result = program(arguments);
      EXPECT_EQ(result.code, 1);
      EXPECT_TRUE(is_one_line(result, test.says));
      EXPECT_EQ(result.out, "");
      EXPECT_EQ(names(), (std::vector<std::string>{"texts", "tiny"}));
    }
  }
  EXPECT_EQ(program({"embed", path("texts"), "--truncate"}).code, 0);
}

TEST_F(CliEmbed, BadFilesGetOneLine) {
  EXPECT_TRUE(is_one_line(program({"embed", path("none")}), "No such file"));
  EXPECT_TRUE(is_one_line(program({"embed", model()}), "Is a directory"));
  EXPECT_TRUE(is_one_line(program({"embed", "-", "-o", model()}, {.in = "cat\n"}), "it is a folder"));
  EXPECT_TRUE(is_one_line(program({"embed", "-", "-o", path("no/e")}, {.in = "cat\n"}), "there is no folder"));
  EXPECT_TRUE(is_one_line(program({"embed", "-"}, {.out = Stdout::kFull, .in = "cat\n"}), "No space left"));
  EXPECT_EQ(run({"embed", "-"}, {.in = "cat\n"}).code, 2);
}

TEST_F(CliEmbed, MiniLmAgreesWithTheGoldenEmbeddings) {
  const std::filesystem::path source = MANYHEADS_SOURCE_DIR;
  const auto minilm = source / "models/all-MiniLM-L6-v2";
  if (!std::filesystem::exists(minilm)) GTEST_SKIP() << minilm << " is not here: scripts/fetch-model fetches it";
  const SafetensorsFile golden = load_safetensors(source / "tests/golden/model/minilm_batch.safetensors");
  std::string texts;
  for (const json& text : json::parse(golden.metadata.at("texts"))) texts += text[0].get<std::string>() + "\n";
  const Result result = run({"embed", "--model", minilm.string()}, {.in = texts});
  ASSERT_EQ(result.code, 0) << result.err;
  const std::vector<json> all = lines(result.out);
  const Tensor& expected = golden.at("sentence_embedding");
  ASSERT_EQ(expected.dtype(), DType::kF32);
  ASSERT_EQ(all.size(), 3u);
  for (std::size_t t = 0; t < 3; ++t) {
    for (std::size_t i = 0; i < 384; ++i) {
      EXPECT_NEAR(all[t].at("embedding")[i].get<float>(), expected.as<float>()[t * 384 + i], 1e-5);
    }
  }
}

}  // namespace
}  // namespace manyheads::cli_test
