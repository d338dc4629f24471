#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

using Words = std::vector<std::string>;

struct Valued {
  Words request;  // complete but for the option
  Words options;  // those that take a value
};

const std::vector<Valued> kVerbs = {
    {{"dims"}, {"--d-model", "--heads", "--tokens", "--batch", "--dtype", "--threads"}},
    {{"look", "the"}, {"--model", "--pair", "--link", "--head", "--trace", "--threads"}},
    {{"trace", "the", "--model", "m"}, {"-o", "--out", "--pair", "--threads"}},
    {{"embed", "--model", "m"}, {"-o", "--out", "--weights-dtype", "--threads"}},
    {{"attend", "in"},
     {"-o", "--layout", "--causal", "--align", "--window", "--softcap", "--scale", "--out-dtype", "--threads"}},
    {{"layer", "w", "in", "-o", "out"}, {"--heads", "--kv-heads", "--threads"}},
    {{"bench"}, {"--case", "--dtype", "--head-dim", "--tokens", "--isa", "--threads"}},
};

void expect_usage(const Words& words, const std::string& says) {
  const Result result = run(words);
  EXPECT_EQ(result.code, 2) << words[0] << ": " << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(is_one_line(result, says));
}

Words with(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// As from a shell variable that is not set.
TEST(CliArguments, AnEmptyValueIsRefusedByName) {
  for (const Valued& verb : kVerbs) {
    for (const std::string& option : verb.options) {
      expect_usage(with(verb.request, {option, ""}), option + " needs a value, got \"\"");
      if (option.size() > 2) expect_usage(with(verb.request, {option + "="}), option + " needs a value");
    }
  }
}

TEST(CliArguments, AnOptionIsNoValue) {
  for (const Valued& verb : kVerbs) {
    for (const std::string& option : verb.options) {
      expect_usage(with(verb.request, {option, "--json"}), option + " needs a value, and --json follows");
      expect_usage(with(verb.request, {option}), option + " needs a value");
    }
  }
}

TEST(CliArguments, NumbersAreNeverCutToFit) {
  const std::vector<Valued> whole = {{{"dims"}, {"--d-model", "--tokens", "--batch", "--heads", "--threads"}},
                                     {{"attend", "in", "-o", "out"}, {"--threads"}},
                                     {{"layer", "w", "in", "-o", "out", "--heads", "2"}, {"--kv-heads"}},
                                     {{"bench"}, {"--head-dim", "--tokens"}}};
  for (const Valued& verb : whole) {
    for (const std::string& option : verb.options) {
      for (const std::string value : {"99999999999999999999", "-99999999999999999999", "9223372036854775808", "0", "-1",
                                      "1.5", "1e3", "0x10", " 1", "nan", "inf", "half"}) {
        const Result result = run(with(verb.request, {option, value}));
        EXPECT_EQ(result.code, 2) << result.err;
        EXPECT_TRUE(is_one_line(result, value));
        EXPECT_NE(result.err.find(option), std::string::npos) << result.err;
      }
    }
  }
  for (const std::string value : {"99999999999999999999", "9223372036854775808", "1.5", "0x10", "nan"}) {
    expect_usage({"layer", "w", "in", "-o", "out", "--heads", value},
                 "--heads: takes a whole number of 64 bits, got \"" + value + "\"");
  }
  for (const std::string option : {"--scale", "--softcap"}) {
    for (const std::string value : {"1e999", "-1e999", "1e-999", "nan", "inf", "-inf", "0x10", "1,5", "half"}) {
      expect_usage({"attend", "in", "-o", "out", option, value},
                   option + ": takes a number that a double holds, got \"" + value);
    }
  }
  for (const std::string value : {"99999999999999999999.0", "0.99999999999999999999", "nan.0", "1e9.0", ".", "0.", "0"}) {
    expect_usage({"look", "the", "--model", "m", "--head", value}, "--head");
  }
}

TEST(CliArguments, ALeadingZeroIsNoOctalNumber) {
  const Result result = run({"dims", "--d-model", "0512", "--heads", "1", "--no-time", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(nlohmann::json::parse(result.out).at("d_model"), 512);
}

TEST(CliArguments, AnUnknownOptionIsNamedAlone) {
  expect_usage({"dims", "--nothing", "--json"}, "unknown option \"--nothing\"; see manyheads dims --help");
  expect_usage({"dims", "-x", "--json"}, "unknown option \"-x\";");
  expect_usage({"dims", "--json=1"}, "--json takes no value, got \"1\"");
  expect_usage({"dims", "--batch", "1", "--batch", "2"}, "--batch is given twice");
  expect_usage({"attend", "in", "-o", "a", "--out=b"}, "--out is given twice");
  expect_usage({"dims", "a", "b"}, "unknown argument \"a\"");
  expect_usage({"look", "a", "b", "--model", "m"}, "unknown argument \"b\"");
  expect_usage({"look", "a", "--\x1b[31m", "--model", "m"}, "unknown option \"--\\u001b[31m\"");
}

class CliArgumentsOfLook : public TinyModel {
 protected:
  std::string text_of(const Words& words) {
    const Result result = run(words);
    EXPECT_EQ(result.code, 0) << result.err;
    return result.code == 0 ? nlohmann::json::parse(result.out).at("text").get<std::string>() : "";
  }
};

TEST_F(CliArgumentsOfLook, ATextThatBeginsWithADashGoesBehindTwo) {
  for (const std::string text : {"-hello", "-h", "--help", "--json", "-", "--", "-o", "-1", "++"}) {
    EXPECT_EQ(text_of({"look", "--json", "--model", model(), "--", text}), text);
  }
  expect_usage({"look", "--model", model(), "--json", "--", "-a", "-b"}, "unknown argument \"-b\"");
  for (const std::string text : {"-hello", "-help", "-oh", "--hello", "-1", "-\xc3\xa9"}) {
    expect_usage({"look", text, "--model", model(), "--json"},
                 "unknown option \"" + text + "\"; what begins with - and is no option goes behind --: manyheads look");
  }
  // Behind -- nothing is an option: in the order they were given.
  expect_usage({"look", "--", "the", "--model", model()}, "unknown argument \"--model\"");
}

TEST_F(CliArgumentsOfLook, ATextMayBeAVerbOrAValueMayBeginWithADash) {
  EXPECT_EQ(text_of({"look", "bench", "--model", model(), "--json"}), "bench");
  const Result pair = run({"look", "the", "--pair", "-hello", "--model", model(), "--json"});
  EXPECT_EQ(nlohmann::json::parse(pair.out).at("text2"), "-hello");
  const Result glued = run({"look", "the", "--pair=--json", "--model", model(), "--json"});
  EXPECT_EQ(nlohmann::json::parse(glued.out).at("text2"), "--json");
}

}  // namespace
}  // namespace manyheads::cli_test
