#include <gtest/gtest.h>

#include <cstdio>
#include <manyheads/error.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/safetensors.hpp>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "io/malformed.hpp"
#include "lens/random_trace.hpp"
#include "support.hpp"

// Traces that another program spoilt, field by field and tensor by tensor.
namespace manyheads::lens {
namespace {

class MalformedTraceTest : public testing::Test {
 protected:
  void SetUp() override {
    std::mt19937 random(3);
    Trace trace = random_trace({4, 2, 6, 6, 4});
    trace.softcap = 2;
    for (TraceLayer& layer : trace.layers) {
      Tensor sums(DType::kF32, {4, 6});
      std::fill_n(sums.as<float>(), 24, 1.0f);
      add(layer, &TraceLayer::v, random_tensor({2, 6, 5}, random));
      add(layer, &TraceLayer::bias, random_tensor({4, 6, 6}, random));
      add(layer, &TraceLayer::sinks, random_tensor({4}, random));
      add(layer, &TraceLayer::row_sum, sums);
    }
    save_trace(path(), trace);
    good_ = load_safetensors(path());
    tensors_ = good_.tensors;
    metadata_ = good_.metadata;
  }
  void TearDown() override { std::printf("malformed: %d traces of %s\n", refused_, name()); }
  static const char* name() { return testing::UnitTest::GetInstance()->current_test_info()->name(); }
  std::filesystem::path path() const { return folder_.path() / "trace.safetensors"; }

  // The trace as it is now gives one line that names the file and says `says`. Makes it whole again.
  void refused(const std::string& says) {
    ++refused_;
    save_safetensors(path(), tensors_, metadata_);
    tensors_ = good_.tensors;
    metadata_ = good_.metadata;
    try {
      load_trace(path());
      ADD_FAILURE() << "accepted; expected: " << says;
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_EQ(error.code(), ErrorCode::kMalformedFile) << what;
      EXPECT_NE(what.find(says), std::string::npos) << what << "\nexpected: " << says;
      EXPECT_EQ(what.find("\"" + path().string() + "\": "), 0u) << what;
      EXPECT_EQ(what.find_first_of("\n\r\t\x1b"), std::string::npos) << what;
      EXPECT_LT(what.size(), 600U) << what;
    }
  }

  test::TemporaryFolder folder_;
  SafetensorsFile good_;
  StateDict tensors_;
  std::map<std::string, std::string> metadata_;
  int refused_ = 0;
};

constexpr const char* kNumbers[] = {"scale", "softcap", "key_length"};
constexpr const char* kLists[] = {"tokens", "token_ids", "offsets", "words", "sequences", "window"};

TEST_F(MalformedTraceTest, FieldsThatAreNoJson) {
  std::vector<std::string> names = {"causal"};
  names.insert(names.end(), std::begin(kNumbers), std::end(kNumbers));
  names.insert(names.end(), std::begin(kLists), std::end(kLists));
  for (const std::string& name : names) {
    for (const test::Malformed& text : test::not_json("[", "]")) {
      const bool utf8 = text.expected.find("UTF-8") == std::string::npos;
      // No header holds bytes that are not UTF-8; [] is a list.
      if (!utf8 || text.bytes.size() > 10'000 || text.bytes == "[]") continue;
      metadata_[name] = text.bytes;
      refused("metadata " + name);
    }
  }
  EXPECT_GE(refused_, 300);
}

TEST_F(MalformedTraceTest, FieldsOfAnotherKind) {
  const auto wrong = [&](const std::string& name, const std::vector<std::string>& values) {
    for (const std::string& value : values) {
      metadata_[name] = value;
      refused(name);
    }
  };
  for (const char* name : kNumbers) wrong(name, {"null", "true", "\"1\"", "[]", "[1]", "{}"});
  wrong("key_length", {"1.5", "-1", "7", "1e3", "18446744073709551615"});
  wrong("softcap", {"-1", "-1e-300"});
  wrong("causal", {"null", "0", "1", "\"true\"", "[]", "{}"});
  wrong("alignment", {"", "top", "TOP_LEFT", "top_left ", "null", "0"});
  wrong("manyheads_trace", {"", "0", "2", "1.0", " 1", "true"});
  for (const char* name : kLists) {
    wrong(name, {"null", "true", "1", "\"a\"", "{}", "[null]", "[true]", "[{}]", "[[]]", "[1.5]", "[[1,2],3]"});
  }
  wrong("tokens", {"[]", "[1,2,3,4,5,6]", R"(["a","b","c","d","e"])", R"(["a","b","c","d","e","f","g"])"});
  for (const char* name : {"token_ids", "words", "sequences"}) {
    wrong(name, {"[0]", "[0,0,0,0,0]", "[0,0,0,0,0,0,0]", "[0,0,0,0,0,\"0\"]", "[0,0,0,0,0,0.0]", "[0,0,0,0,0,1e99]",
                 "[0,0,0,0,0,9223372036854775808]"});
  }
  wrong("words", {"[-2,0,0,0,0,0]", "[0,0,0,0,0,-9223372036854775808]"});
  wrong("sequences", {"[1,0,0,0,0,0]", "[0,0,0,0,0,-2]", "[2,0,0,0,0,0]"});
  wrong("window", {"[]", "[1]", "[1,2,3]", "[-2,0]", "[0,-2]", "[0,\"1\"]", "[0,1.0]"});
  const std::string five = "[0,0],[0,0],[0,0],[0,0],[0,0],";
  for (const char* last : {"[0]", "[0,1,2]", "[1,0]", "[-1,0]", "[0,1000]", "[0.0,1]", "[0,null]", "0", "[]",
                           "[9223372036854775807,9223372036854775807]", "[0,9223372036854775808]"}) {
    wrong("offsets", {"[" + five + last + "]"});
  }
  for (const char* name : {"manyheads_trace", "tokens", "scale"}) {
    metadata_.erase(name);
    refused(name);
  }
  EXPECT_GE(refused_, 150);
}

TEST_F(MalformedTraceTest, TensorsOfAnotherTypeOrShape) {
  for (const std::string layer : {"layers.0.", "layers.1."}) {
    for (const char* part : {"q", "k", "lse", "v", "bias", "sinks", "row_sum"}) {
      const std::string name = layer + part;
      const Dims shape = good_.tensors.at(name).shape();
      for (const DType type : {DType::kF64, DType::kF16, DType::kBF16, DType::kI32, DType::kI64, DType::kBool}) {
        tensors_[name] = Tensor(type, shape);
        refused(name);
      }
      for (int axis = 0; axis < shape.rank(); ++axis) {
        for (const std::int64_t size : {shape[axis] + 1, shape[axis] * 2 + 1}) {
          Dims other = shape;
          other[axis] = size;
          // The head size of v is free, and q of more heads than lse shows at lse.
          if (part == std::string("v") && axis == 2) continue;
          tensors_[name] = Tensor(DType::kF32, other);
          refused(layer.substr(0, 9));
        }
      }
      Dims more = shape.rank() == 1   ? Dims{1, shape[0]}
                  : shape.rank() == 2 ? Dims{1, shape[0], shape[1]}
                                      : Dims{1, shape[0], shape[1], shape[2]};
      tensors_[name] = Tensor(DType::kF32, more);
      refused(layer.substr(0, 8));
      if (part != std::string("q") && part != std::string("k") && part != std::string("lse")) continue;
      tensors_.erase(name);
      refused(layer.substr(0, 8));
    }
  }
  for (const char* name : {"layers.2.k", "layers.01.q", "layers..q", "layers.-1.q", "layers.0", "layers.", "layers.0q",
                           "layers.18446744073709551616.q", "layers.1e0.q", "layers. 0.q"}) {
    tensors_[name] = good_.tensors.at("layers.0.q");
    refused("belongs to no layer");
  }
  EXPECT_GE(refused_, 150);
}

}  // namespace
}  // namespace manyheads::lens
