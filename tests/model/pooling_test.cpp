#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <manyheads/error.hpp>
#include <manyheads/model/pooling.hpp>
#include <string>
#include <utility>
#include <vector>

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;

class PoolingFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("manyheads_pooling_" + std::to_string(getpid()));
    fs::create_directories(folder_ / "1_Pooling");
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& modules, const std::string& pooling) {
    std::ofstream(folder_ / "modules.json") << modules;
    std::ofstream(folder_ / "1_Pooling/config.json") << pooling;
  }
  std::string error() {
    try {
      load_pooling(folder_);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  fs::path folder_;
};

std::string modules(const std::string& more, const std::string& path = "1_Pooling") {
  return R"([{"type": "sentence_transformers.models.Transformer", "path": ""},
             {"type": "sentence_transformers.models.Pooling", "path": ")" +
         path + "\"}" + more + "]";
}
const std::string kNormalize = R"(, {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"})";
const std::string kMean = R"({"word_embedding_dimension": 8, "pooling_mode_cls_token": false,
                              "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": false})";

using Mode = PoolingConfig::Mode;
using Modes = std::vector<Mode>;

TEST_F(PoolingFolder, WithoutModulesTheMeanAsItIs) {
  const PoolingConfig config = load_pooling(folder_);
  EXPECT_EQ(config.modes, Modes{Mode::kMean});
  EXPECT_TRUE(config.include_prompt);
  EXPECT_FALSE(config.normalize);
}

TEST_F(PoolingFolder, ReadsTheModules) {
  write(modules(kNormalize), kMean);
  EXPECT_EQ(load_pooling(folder_).modes, Modes{Mode::kMean});
  EXPECT_TRUE(load_pooling(folder_).normalize);
  write(modules(""), R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})");
  EXPECT_EQ(load_pooling(folder_).modes, Modes{Mode::kCls});
  EXPECT_FALSE(load_pooling(folder_).normalize);
  write(modules(""), R"({"include_prompt": false, "pooling_mode": null})");
  EXPECT_FALSE(load_pooling(folder_).include_prompt);
}

TEST_F(PoolingFolder, ReadsEachModeByBothItsNames) {
  const std::vector<std::array<std::string, 2>> names = {
      {"cls", "cls_token"},
      {"max", "max_tokens"},
      {"mean", "mean_tokens"},
      {"mean_sqrt_len_tokens", "mean_sqrt_len_tokens"},
      {"weightedmean", "weightedmean_tokens"},
      {"lasttoken", "lasttoken"},
  };
  const Modes modes = {Mode::kCls,         Mode::kMax,          Mode::kMean,
                       Mode::kMeanSqrtLen, Mode::kWeightedMean, Mode::kLastToken};
  for (std::size_t i = 0; i < names.size(); ++i) {
    write(modules(""), R"({"pooling_mode": ")" + names[i][0] + "\"}");
    EXPECT_EQ(load_pooling(folder_).modes, Modes{modes[i]});
    write(modules(""), R"({"word_embedding_dimension": 8, "pooling_mode_)" + names[i][1] + R"(": true})");
    EXPECT_EQ(load_pooling(folder_).modes, Modes{modes[i]});
  }
  write(modules(""), R"({"pooling_mode": ["lasttoken", "cls"]})");
  EXPECT_EQ(load_pooling(folder_).modes, (Modes{Mode::kLastToken, Mode::kCls}));
  // The order of the older keys is fixed; the newer key goes before them; nothing at all is the mean.
  write(modules(""), R"({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true})");
  EXPECT_EQ(load_pooling(folder_).modes, (Modes{Mode::kCls, Mode::kMean}));
  write(modules(""), R"({"pooling_mode_cls_token": true, "pooling_mode": "max"})");
  EXPECT_EQ(load_pooling(folder_).modes, Modes{Mode::kMax});
  for (const char* none : {R"({"word_embedding_dimension": 8})", R"({"pooling_mode_mean_tokens": false})"}) {
    write(modules(""), none);
    EXPECT_EQ(load_pooling(folder_).modes, Modes{Mode::kMean});
  }
}

TEST_F(PoolingFolder, RefusesWhatItDoesNotKnow) {
  const auto refused = [&](const std::string& list, const std::string& pooling, const std::string& says) {
    write(list, pooling);
    EXPECT_NE(error().find(says), std::string::npos) << error();
  };
  refused(modules(""), R"({"pooling_mode_median": true})", "pooling_mode_median");
  refused(modules(""), R"({"pooling_mode_mean_tokens": 1})", "pooling_mode_mean_tokens");
  refused(modules(""), R"({"pooling_mode": "median"})", "pooling_mode");
  refused(modules(""), R"({"pooling_mode": ["mean", 3]})", "pooling_mode");
  refused(modules(""), R"({"pooling_mode": []})", "pooling_mode");
  refused(modules(""), R"({"include_prompt": "no"})", "include_prompt");
  refused(modules(""), "[1]", "config.json");
  refused(modules("", "../1_Pooling"), kMean, "path");
  refused(modules("", "/1_Pooling"), kMean, "path");
  refused(modules("", "3_Pooling"), kMean, "3_Pooling");
  refused(modules(R"(, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"})"), kMean, "Dense");
  refused(modules(R"(, {"type": 3})"), kMean, "type");
  refused(modules(R"(, {"type": "Normalize"})"), kMean, "path");
  refused("[]", kMean, "list of modules");
  refused(R"([{"type": "Transformer", "path": ""}])", kMean, "no module of type Pooling");
  refused(R"([{"type": "Pooling", "path": "1_Pooling"}])", kMean, "Transformer");
  refused("[1]", kMean, "module 0");
  refused("{}", kMean, "list of modules");
}

TEST(Pool, IsTheMeanOfTheTokensThatCount) {
  Tensor hidden(DType::kF32, {2, 3, 2});
  const float numbers[] = {1, 2, 3, 4, 90, 90, 3, 4, 90, 90, 90, 90};
  std::copy(std::begin(numbers), std::end(numbers), hidden.as<float>());
  const Tensor mean = pool(hidden.cview(), {2, 1}, {.normalize = false});
  const float* m = mean.as<float>();
  EXPECT_FLOAT_EQ(m[0], 2);
  EXPECT_FLOAT_EQ(m[1], 3);
  EXPECT_FLOAT_EQ(m[2], 3);
  EXPECT_FLOAT_EQ(m[3], 4);
  const Tensor unit = pool(hidden.cview(), {2, 1}, {});
  EXPECT_FLOAT_EQ(unit.as<float>()[0], 2 / std::sqrt(13.0f));
  EXPECT_FLOAT_EQ(unit.as<float>()[3], 0.8f);
  const Tensor first = pool(hidden.cview(), {2, 1}, {.modes = {Mode::kCls}, .normalize = false});
  EXPECT_FLOAT_EQ(first.as<float>()[0], 1);
  const Tensor none = pool(hidden.cview(), {0, 3}, {});
  EXPECT_EQ(none.as<float>()[0], 0);
  EXPECT_FLOAT_EQ(pool(hidden.cview(), {}, {.normalize = false}).as<float>()[2], 61);
}

TEST_F(PoolingFolder, RefusesANormalizeOfOtherFeatures) {
  write(modules(kNormalize), kMean);
  fs::create_directories(folder_ / "2_Normalize");
  std::ofstream(folder_ / "2_Normalize/config.json") << R"({"module_input_name": "sentence_embedding"})";
  EXPECT_TRUE(load_pooling(folder_).normalize);
  std::ofstream(folder_ / "2_Normalize/config.json") << R"({"module_input_name": "token_embeddings"})";
  EXPECT_NE(error().find("module_input_name"), std::string::npos) << error();
}

// Worked by hand from the definitions: three tokens of four count, and with a prompt of one token two of them.
TEST(Pool, EveryModeAndAPromptLeftOut) {
  Tensor hidden(DType::kF32, {1, 4, 1});
  const float numbers[] = {6, -4, 2, 90};
  std::copy(std::begin(numbers), std::end(numbers), hidden.as<float>());
  PoolingConfig all{.modes = {Mode::kCls, Mode::kMax, Mode::kMean, Mode::kMeanSqrtLen, Mode::kWeightedMean,
                              Mode::kLastToken},
                    .normalize = false};
  const auto expect = [&](const Tensor& pooled, const std::vector<double>& right) {
    ASSERT_EQ(pooled.shape(), (Dims{1, 6}));
    for (std::size_t i = 0; i < 6; ++i) EXPECT_FLOAT_EQ(pooled.as<float>()[i], static_cast<float>(right[i])) << i;
  };
  expect(pool(hidden.cview(), {3}, all), {6, 6, 4.0 / 3, 4 / std::sqrt(3.0), (6 - 8 + 6) / 6.0, 2});
  expect(pool(hidden.cview(), {3}, all, 1), {-4, 2, -1, -2 / std::sqrt(2.0), (-8 + 6) / 5.0, 2});
  // A prompt that is all there is: the first token, no largest number, and 0.
  const Tensor none = pool(hidden.cview(), {3}, all, 5);
  EXPECT_EQ(none.as<float>()[0], 6);
  EXPECT_EQ(none.as<float>()[1], -std::numeric_limits<float>::infinity());
  for (int i = 2; i < 6; ++i) EXPECT_EQ(none.as<float>()[i], 0);
  // The length is of the whole vector.
  all.normalize = true;
  const Tensor unit = pool(hidden.cview(), {3}, all);
  double squares = 0;
  for (int i = 0; i < 6; ++i) squares += unit.as<float>()[i] * unit.as<float>()[i];
  EXPECT_NEAR(squares, 1, 1e-6);
}

TEST(Pool, NamesWhatDoesNotFit) {
  Tensor hidden(DType::kF32, {2, 3, 2}), flat(DType::kF32, {3, 2});
  EXPECT_THROW(pool(flat.cview(), {}, {}), Error);
  EXPECT_THROW(pool(hidden.cview(), {1}, {}), Error);
  EXPECT_THROW(pool(hidden.cview(), {1, 4}, {}), Error);
  EXPECT_THROW(pool(hidden.cview(), {1, -1}, {}), Error);
}

}  // namespace
}  // namespace manyheads::model
