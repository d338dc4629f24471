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
      {"the\n" + many_words(60), "line 2 of \"" + path("texts") +
                                      "\" has 62 tokens, the model takes 40 (max_position_embeddings of config.json)"},
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

// A line without a token has the vector of the tokens that every text gets, as in sentence-transformers.
TEST_F(CliEmbed, LinesWithoutATokenHaveAVector) {
  const std::vector<std::string> empty = {"",         " \t",     "\xe2\x80\x8b", "\xe3\x80\x80",
                                          "\xcc\xb0", "\xee\x80\x80", "\x1a",         "\r"};
  std::string texts = "the cat\n";
  for (const std::string& text : empty) texts += text + "\n";
  texts += "dog\n";
  const Result result = program({"embed", write("texts", texts)});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  const std::vector<json> all = lines(result.out);
  ASSERT_EQ(all.size(), empty.size() + 2);
  for (std::size_t i = 1; i <= empty.size(); ++i) {
    EXPECT_EQ(all[i].at("embedding"), all[1].at("embedding")) << i;
    EXPECT_FALSE(all[i].contains("line"));
  }
  EXPECT_NE(all[0].at("embedding"), all[1].at("embedding"));

  const Result skipped = program({"embed", "--skip-empty", path("texts")});
  ASSERT_EQ(skipped.code, 0);
  EXPECT_EQ(skipped.err, "manyheads embed: 8 of 10 lines left out: they have no token\n");
  const std::vector<json> others = lines(skipped.out);
  ASSERT_EQ(others.size(), 2u);
  EXPECT_EQ(others[0].at("line"), 1);
  EXPECT_EQ(others[1].at("line"), 10);
  EXPECT_EQ(others[0].at("embedding"), all[0].at("embedding"));
  EXPECT_EQ(others[1].at("embedding"), all.back().at("embedding"));

  const Result file = program({"embed", "--skip-empty", path("texts"), "-o", path("e"), "--json"});
  ASSERT_EQ(file.code, 0);
  EXPECT_EQ(json::parse(file.out).at("texts"), 2);
  EXPECT_EQ(json::parse(file.out).at("left_out"), 8);
  EXPECT_EQ(json::parse(file.out).at("cut"), 0);
  const SafetensorsFile written = load_safetensors(path("e"));
  EXPECT_EQ(written.at("embeddings").shape(), Dims({2, 32}));
  EXPECT_EQ(written.at("lines").as<std::int64_t>()[1], 10);

  // A prompt is no text of the line's own.
  const Result prompted = program({"embed", "--skip-empty", "--prompt", "the ", path("texts")});
  EXPECT_EQ(lines(prompted.out).size(), 2u);
  // Nothing but such lines.
  EXPECT_EQ(program({"embed", "--skip-empty", "-o", path("none")}, {.in = "\n\n"}).code, 0);
  EXPECT_EQ(load_safetensors(path("none")).at("embeddings").shape(), Dims({0, 32}));
}

TEST_F(CliEmbed, SaysOnceHowManyLinesAreCut) {
  setting("sentence_bert_config.json", R"({"max_seq_length": 6})");
  const std::string file =
      write("texts", "the cat\n" + many_words(20) + "\n" + many_words(4) + "\n" + many_words(5) + "\n");
  const std::string said =
      "manyheads embed: 2 of 4 lines cut to 6 tokens (max_seq_length of sentence_bert_config.json)\n";
  const Result result = program({"embed", file});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.err, said);
  const std::vector<json> all = lines(result.out);
  EXPECT_EQ(all[1].at("embedding"), all[2].at("embedding"));
  EXPECT_EQ(all[1].at("embedding"), all[3].at("embedding"));
  EXPECT_EQ(program({"embed", file, "--truncate", "-o", path("e")}).err, said);
  EXPECT_TRUE(is_one_line(program({"embed", file, "--no-truncate"}),
                          "line 2 of \"" + file + "\" has 22 tokens, the model takes 6 ("));
  // A limit beyond the model's positions is theirs.
  setting("sentence_bert_config.json", R"({"max_seq_length": 1000})");
  EXPECT_EQ(program({"embed"}, {.in = many_words(60)}).err,
            "manyheads embed: 1 of 1 lines cut to 40 tokens (max_position_embeddings of config.json)\n");
  setting("sentence_bert_config.json", R"({"max_seq_length": 1})");
  EXPECT_TRUE(is_one_line(program({"embed"}, {.in = "cat"}),
                          "sentence_bert_config.json is 1, too few for the 2 special tokens"));
}

TEST_F(CliEmbed, PromptsAreRefusedByName) {
  EXPECT_TRUE(is_one_line(program({"embed", "--prompt-name", "q"}, {.in = "cat"}), "there is no prompt \"q\""));
  EXPECT_EQ(program({"embed", "--prompt-name", "query", "--prompt", "x"}, {.in = "cat"}).code, 2);
  EXPECT_TRUE(is_one_line(program({"embed", "--prompt", "\xff"}, {.in = "cat"}), "--prompt is not UTF-8"));
  const std::string prompted = program({"embed", "--prompt", "the "}, {.in = "cat"}).out;
  EXPECT_EQ(lines(prompted)[0].at("embedding"), lines(program({"embed"}, {.in = "the cat"}).out)[0].at("embedding"));
  EXPECT_EQ(lines(prompted)[0].at("text"), "cat");
}

TEST_F(CliEmbed, AByteOrderMarkIsNoText) {
  const std::string plain = program({"embed"}, {.in = "the cat\nsat\n"}).out;
  EXPECT_EQ(program({"embed"}, {.in = "\xef\xbb\xbfthe cat\nsat\n"}).out, plain);
  // Only at the start, and only once.
  const std::vector<json> all = lines(program({"embed"}, {.in = "\xef\xbb\xbf\xef\xbb\xbfx\n\xef\xbb\xbfy\n"}).out);
  EXPECT_EQ(all[0].at("text"), "\xef\xbb\xbfx");
  EXPECT_EQ(all[1].at("text"), "\xef\xbb\xbfy");
  EXPECT_TRUE(is_one_line(program({"embed"}, {.in = "\xef\xbb\xbf"}), "holds no text"));
  EXPECT_EQ(lines(program({"embed"}, {.in = "\xef\xbb\xbf\n"}).out)[0].at("text"), "");
}

TEST_F(CliEmbed, ATokenThatTheModelHasNotNamesTheLine) {
  const std::filesystem::path file = std::filesystem::path(model()) / "tokenizer.json";
  json tokenizer = json::parse(std::ifstream(file));
  tokenizer["model"]["vocab"]["zebra"] = 50;
  std::ofstream(file) << tokenizer.dump();
  const Result result = program({"embed"}, {.in = "cat\nthe cat sat\nthe zebra\n"});
  EXPECT_EQ(result.code, 1);
  EXPECT_TRUE(is_one_line(result, "line 3 of standard input: tokenizer.json and config.json of \"" + model() +
                                      "\" do not fit: token id 50, vocab_size is 50"));
  EXPECT_TRUE(is_one_line(program({"look", "zebra"}), "TEXT: tokenizer.json and config.json"));
  EXPECT_TRUE(is_one_line(program({"trace", "zebra", "-o", path("t")}), "TEXT: tokenizer.json and config.json"));
}

// look and trace see the tokens that embed sees.
TEST_F(CliEmbed, SettingsOfTokensHoldForTheOtherVerbs) {
  const auto tokens = [&] {
    EXPECT_EQ(program({"trace", "The CAT", "-o", path("t")}).code, 0);
    return json::parse(load_safetensors(path("t")).metadata.at("tokens"));
  };
  EXPECT_EQ(tokens(), json({"[CLS]", "the", "cat", "[SEP]"}));
  setting("tokenizer_config.json", R"({"do_lower_case": false})");
  EXPECT_EQ(tokens(), json({"[CLS]", "[UNK]", "[UNK]", "[SEP]"}));
  setting("sentence_bert_config.json", R"({"do_lower_case": true, "max_seq_length": 3})");
  EXPECT_EQ(tokens(), json({"[CLS]", "the", "cat", "[SEP]"}));
  EXPECT_EQ(json::parse(program({"look", "The CAT", "--json"}).out).at("tokens"), tokens());
}

// A line of megabytes is read as far as it is needed; one that BERT's tokenizer has no place to cut at is refused.
TEST_F(CliEmbed, VeryLongLines) {
  std::string words, blanks(3 << 20, ' ');
  while (words.size() < (3u << 20)) words += "cat sat ";
  const Result result = program({"embed"}, {.in = words + "\n" + blanks + "cat\n" + std::string(3 << 20, 'a') + "\n"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "manyheads embed: 1 of 3 lines cut to 40 tokens (max_position_embeddings of config.json)\n");
  const std::vector<json> short_ones = lines(program({"embed"}, {.in = many_words(38) + "\ncat\nunknown\n"}).out);
  const std::vector<json> all = lines(result.out);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(all[i].at("embedding"), short_ones[i].at("embedding")) << i;
  EXPECT_TRUE(is_one_line(program({"embed", "--no-truncate"}, {.in = words}), "has more than 40 tokens"));
  std::string thai;
  while (thai.size() < (2u << 20)) thai += "\xe0\xb8\x81";
  EXPECT_TRUE(is_one_line(program({"embed"}, {.in = "cat\n" + thai}), "line 2 of standard input: more than 1 MiB"));
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
