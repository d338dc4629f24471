#include "model/pooling.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <manyheads/error.hpp>
#include <string>
#include <utility>

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

TEST_F(PoolingFolder, WithoutModulesMeanAndNormalise) {
  const PoolingConfig config = load_pooling(folder_);
  EXPECT_EQ(config.mode, PoolingConfig::Mode::kMean);
  EXPECT_TRUE(config.normalize);
}

TEST_F(PoolingFolder, ReadsTheModules) {
  write(modules(kNormalize), kMean);
  EXPECT_EQ(load_pooling(folder_).mode, PoolingConfig::Mode::kMean);
  EXPECT_TRUE(load_pooling(folder_).normalize);
  write(modules(""), R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})");
  EXPECT_EQ(load_pooling(folder_).mode, PoolingConfig::Mode::kCls);
  EXPECT_FALSE(load_pooling(folder_).normalize);
  write(modules(""), R"({"pooling_mode": "cls"})");
  EXPECT_EQ(load_pooling(folder_).mode, PoolingConfig::Mode::kCls);
}

TEST_F(PoolingFolder, RefusesWhatItDoesNotKnow) {
  const auto refused = [&](const std::string& list, const std::string& pooling, const std::string& says) {
    write(list, pooling);
    EXPECT_NE(error().find(says), std::string::npos) << error();
  };
  refused(modules(""), R"({"pooling_mode_max_tokens": true})", "pooling_mode_max_tokens");
  refused(modules(""), R"({"pooling_mode_mean_tokens": true, "pooling_mode_lasttoken": true})",
          "pooling_mode_lasttoken");
  refused(modules(""), R"({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true})", "mean or cls");
  refused(modules(""), R"({"pooling_mode_mean_tokens": false})", "mean or cls");
  refused(modules(""), R"({"pooling_mode_mean_tokens": 1})", "pooling_mode_mean_tokens");
  refused(modules(""), R"({"pooling_mode": "max"})", "pooling_mode");
  refused(modules(""), "[1]", "config.json");
  refused(modules("", "../1_Pooling"), kMean, "path");
  refused(modules("", "/1_Pooling"), kMean, "path");
  refused(modules("", "3_Pooling"), kMean, "3_Pooling");
  refused(modules(R"(, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"})"), kMean, "Dense");
  refused(modules(R"(, {"type": 3})"), kMean, "type");
  refused("[]", kMean, "Pooling");
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
  const Tensor first = pool(hidden.cview(), {2, 1}, {.mode = PoolingConfig::Mode::kCls, .normalize = false});
  EXPECT_FLOAT_EQ(first.as<float>()[0], 1);
  const Tensor none = pool(hidden.cview(), {0, 3}, {});
  EXPECT_EQ(none.as<float>()[0], 0);
  EXPECT_FLOAT_EQ(pool(hidden.cview(), {}, {.normalize = false}).as<float>()[2], 61);
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
