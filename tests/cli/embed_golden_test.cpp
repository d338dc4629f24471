#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "program.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

fs::path golden() { return fs::path(MANYHEADS_SOURCE_DIR) / "tests/golden/embed"; }

// The vectors are sentence-transformers' in float64, stored as float32. Its own float32 run differs from them by at
// most 1.8e-7 on the 200 texts, whose vectors have length 1, and by 6.0e-6 on the small model, whose numbers go up to
// about 5 (make_embed_golden.py prints all). Ours may differ by twice that.
constexpr double kMiniLmBound = 3.6e-7;
struct TinyModel {
  const char* folder;
  double bound;
  std::size_t cases, unlike_plain;  // at least so many
};

class CliEmbedGolden : public Folder {
 protected:
  // The largest difference of what embed gives for the texts to the rows of `expected`.
  double largest_difference(const std::string& model, const std::vector<std::string>& options, const json& texts,
                            const Tensor& expected, std::string* said) {
    std::string in;
    for (const json& text : texts) in += text.get<std::string>() + "\n";
    std::vector<std::string> arguments = {"embed", "--model", model, "-o", path("out.safetensors")};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const Result result = run(arguments, {.in = in});
    EXPECT_EQ(result.code, 0) << result.err;
    *said = result.err;
    if (result.code != 0) return HUGE_VAL;
    const SafetensorsFile file = load_safetensors(path("out.safetensors"));
    const Tensor& got = file.at("embeddings");
    EXPECT_EQ(got.shape(), expected.shape()) << got.shape().to_string() << expected.shape().to_string();
    if (got.shape() != expected.shape()) return HUGE_VAL;
    double largest = 0;
    for (std::int64_t i = 0; i < got.elements(); ++i) {
      const double difference = std::abs(static_cast<double>(got.as<float>()[i]) - expected.as<float>()[i]);
      largest = difference <= largest ? largest : difference;  // a NaN counts
    }
    return largest;
  }
};

TEST_F(CliEmbedGolden, TwoHundredTextsInManyScripts) {
  const fs::path minilm = fs::path(MANYHEADS_SOURCE_DIR) / "models/all-MiniLM-L6-v2";
  if (!fs::exists(minilm)) GTEST_SKIP() << minilm << " is not here: scripts/fetch-model fetches it";
  const SafetensorsFile file = load_safetensors(golden() / "minilm_texts.safetensors");
  const json texts = json::parse(file.metadata.at("texts"));
  ASSERT_EQ(texts.size(), 200u);
  const Tensor& tokens = file.at("tokens");
  const std::int64_t limit = std::stoll(file.metadata.at("max_seq_length"));
  const auto cut = std::count_if(tokens.as<std::int64_t>(), tokens.as<std::int64_t>() + tokens.elements(),
                                 [&](std::int64_t n) { return n > limit; });
  EXPECT_GT(cut, 100);
  std::string said;
  const double largest = largest_difference(minilm.string(), {}, texts, file.at("embeddings"), &said);
  EXPECT_LE(largest, kMiniLmBound);
  EXPECT_EQ(said, "manyheads embed: " + std::to_string(cut) + " of 200 lines cut to " + std::to_string(limit) +
                      " tokens (max_seq_length of sentence_bert_config.json)\n");
}

class CliEmbedSetting : public CliEmbedGolden, public testing::WithParamInterface<TinyModel> {
 protected:
  // The plain folder with what a case has otherwise.
  std::string make_model(const json& test) {
    const fs::path folder = path("model");
    fs::remove_all(folder);
    fs::copy(golden() / GetParam().folder, folder, fs::copy_options::recursive);
    if (test.contains("subfolder")) {
      const fs::path inner = folder / test.at("subfolder").get<std::string>();
      fs::create_directories(inner);
      for (const char* name : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                               "sentence_bert_config.json"}) {
        fs::rename(folder / name, inner / name);
      }
    }
    for (const auto& [name, content] : test.at("files").items()) {
      const fs::path file = folder / name;
      json whole = content;
      if (name == "tokenizer.json") {  // the parts that differ
        whole = json::parse(std::ifstream(file));
        for (const auto& [part, value] : content.items()) {
          if (value.is_object() && whole[part].is_object()) {
            whole[part].update(value);
          } else {
            whole[part] = value;
          }
        }
      }
      fs::create_directories(file.parent_path());
      if (content.is_null()) {
        fs::remove(file);
      } else {
        std::ofstream(file) << whole.dump();
      }
    }
    return folder.string();
  }
};

TEST_P(CliEmbedSetting, EachChangesTheVectorAsInSentenceTransformers) {
  const json cases = json::parse(std::ifstream(golden() / GetParam().folder / "cases.json"));
  const SafetensorsFile expected = load_safetensors(golden() / GetParam().folder / "expected.safetensors");
  ASSERT_GE(cases.at("cases").size(), GetParam().cases);
  ASSERT_EQ(expected.tensors.size(), cases.at("cases").size());
  std::size_t texts = 0, unlike_plain = 0;
  for (const auto& [name, test] : cases.at("cases").items()) {
    SCOPED_TRACE(name);
    std::vector<std::string> options;
    const json asked = test.value("options", json::object());
    for (const auto& [option, value] : asked.items()) {
      if (value == "") {
        options.push_back("--no-prompt");
        continue;
      }
      options.push_back(option == "prompt" ? "--prompt" : "--prompt-name");
      options.push_back(value);
    }
    std::string said;
    const Tensor& right = expected.at(name);
    EXPECT_LE(largest_difference(make_model(test), options, cases.at("texts"), right, &said), GetParam().bound) << said;
    texts += cases.at("texts").size();
    const Tensor& plain = expected.at("plain");
    if (right.shape() != plain.shape() ||
        !std::equal(right.as<float>(), right.as<float>() + right.elements(), plain.as<float>())) {
      ++unlike_plain;
    }
  }
  EXPECT_GE(unlike_plain, GetParam().unlike_plain);  // the settings are seen
  std::printf("%zu vectors\n", texts);
}

INSTANTIATE_TEST_SUITE_P(Models, CliEmbedSetting,
                         testing::Values(TinyModel{"tiny", 1.2e-5, 50, 37}, TinyModel{"tiny_roberta", 7.0e-7, 15, 9},
                                         TinyModel{"tiny_distilbert", 5.8e-7, 5, 2}),
                         [](const auto& model) { return std::string(model.param.folder); });

}  // namespace
}  // namespace manyheads::cli_test
