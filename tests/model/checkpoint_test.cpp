#include "model/checkpoint.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

using test::TemporaryFolder;

std::string error_of(const std::function<void()>& work) { return test::error_of(work, std::nullopt); }

Tensor one_number(float value) {
  Tensor tensor(DType::kF32, {1});
  tensor.as<float>()[0] = value;
  return tensor;
}

class Checkpoint : public testing::Test {
 protected:
  void shard(const std::string& name, const std::string& tensor, float value) {
    save_safetensors(folder_.path() / name, {{tensor, one_number(value)}});
  }
  void index(const std::string& weight_map) {
    folder_.write("model.safetensors.index.json", "{\"metadata\":{},\"weight_map\":" + weight_map + "}");
  }
  std::string error() {
    return error_of([&] { load_checkpoint(folder_.path()); });
  }
  TemporaryFolder folder_;
};

TEST_F(Checkpoint, ReadsShards) {
  shard("model-00001-of-00002.safetensors", "a", 1);
  shard("model-00002-of-00002.safetensors", "b", 2);
  index(R"({"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"})");
  const SafetensorsFile file = load_checkpoint(folder_.path());
  EXPECT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(file.at("b").as<float>()[0], 2);
  shard("model.safetensors", "c", 3);  // the single file comes first
  EXPECT_EQ(load_checkpoint(folder_.path()).at("c").as<float>()[0], 3);
}

TEST_F(Checkpoint, KeepsToTheFolder) {
  const TemporaryFolder other;
  save_safetensors(other.path() / "a.safetensors", {{"a", one_number(1)}});
  shard("good.safetensors", "a", 1);
  const std::string outside = (other.path() / "a.safetensors").string();
  for (const std::string& name :
       {outside, "../" + other.path().filename().string() + "/a.safetensors", std::string(".."), std::string("."),
        std::string(""), std::string("./good.safetensors"), std::string("x/../good.safetensors"),
        std::string("..\\\\good.safetensors"), std::string("good.safetensors\\u0000x")}) {
    index("{\"a\":\"" + name + "\"}");
    EXPECT_NE(error().find("the name of a file in the same folder is needed"), std::string::npos) << name << error();
  }
}

TEST_F(Checkpoint, SaysWhatIsWrong) {
  EXPECT_NE(error().find("holds neither model.safetensors nor model.safetensors.index.json"), std::string::npos);
  EXPECT_NE(error_of([&] { load_checkpoint(folder_.path() / "none"); }).find("is not a folder"), std::string::npos);
  folder_.write("model.safetensors.index.json", "{}");
  EXPECT_NE(error().find("\"weight_map\" is missing"), std::string::npos);
  index("[]");
  EXPECT_NE(error().find("\"weight_map\" is an array; an object is needed"), std::string::npos);
  index("{\"a\":1}");
  EXPECT_NE(error().find("\"a\" is 1; a string is needed"), std::string::npos);
  index(R"({"a":"x.safetensors","a":"x.safetensors"})");
  EXPECT_NE(error().find("\"a\" is there twice"), std::string::npos);
  index(R"({"a":"x.safetensors"})");
  EXPECT_NE(error().find("x.safetensors\": No such file"), std::string::npos);
  shard("x.safetensors", "b", 1);
  EXPECT_NE(error().find("tensor \"a\" is missing"), std::string::npos);
  folder_.write("x.safetensors", "short");
  EXPECT_NE(error().find("too short"), std::string::npos);
}

}  // namespace
}  // namespace manyheads::model
