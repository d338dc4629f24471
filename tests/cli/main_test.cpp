#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "program.hpp"

namespace manyheads::cli_test {
namespace {

const std::vector<std::string> kVerbs = {"dims", "look", "trace", "embed", "attend", "layer", "bench"};

TEST(CliMain, HelpNamesEveryVerb) {
  const Result result = run({"--help"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.err, "");
  for (const std::string& verb : kVerbs) EXPECT_NE(result.out.find("  " + verb + " "), std::string::npos) << verb;
}

TEST(CliMain, EachVerbHasHelpWithAnExample) {
  for (const std::string& verb : kVerbs) {
    const Result result = run({verb, "--help"});
    EXPECT_EQ(result.code, 0) << verb;
    const std::size_t example = result.out.find("Example: ");
    ASSERT_NE(example, std::string::npos) << result.out;
    EXPECT_NE(result.out.find("manyheads " + verb, example), std::string::npos) << result.out;
    EXPECT_NE(result.out.find("--json"), std::string::npos) << verb;
    EXPECT_NE(result.out.find("--threads"), std::string::npos) << verb;
  }
}

TEST(CliMain, Version) {
  const Result result = run({"--version"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.out.rfind("manyheads ", 0), 0u) << result.out;
}

TEST(CliMain, UsageErrorsAreOneLineAndTwo) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "a verb is missing"},
      {{""}, "verb is empty"},
      {{"lok"}, "unknown verb \"lok\""},
      {{"--nothing"}, "unknown verb \"--nothing\""},
      {{"dims", "--nothing"}, "--nothing"},
      {{"dims", "--threads", "0"}, "--threads"},
      {{"dims", "--threads", "-1"}, "--threads"},
      {{"dims", "--threads", "two"}, "--threads"},
      {{"dims", "--threads"}, "--threads"},
      {{"dims", "--heads", "0"}, "--heads"},
      {{"dims", "--heads", "1,,2"}, "--heads"},
      {{"dims", "--heads", "1,2,"}, "--heads"},
      {{"dims", "--heads", "99999999999999999999"}, "--heads"},
      {{"dims", "--dtype", "f64"}, "--dtype"},
      {{"dims", "--tokens", "0"}, "--tokens"},
      {{"dims", "extra"}, "extra"},
      {{"attend"}, "IN"},
      {{"attend", "in.safetensors"}, "--out"},
      {{"layer", "w", "in", "-o", "out"}, "--heads"},
      {{"bench", "--case", "nonsense"}, "nonsense"},
  };
  for (const auto& [arguments, contains] : cases) {
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 2) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(is_one_line(result, contains));
    EXPECT_NE(result.err.find("--help"), std::string::npos) << result.err;
  }
}

TEST(CliMain, UnknownInstructionSetFailsLoudly) {
  const Result named = run({"bench", "--isa", "avx9000", "--case", "linear"});
  EXPECT_EQ(named.code, 1);
  EXPECT_TRUE(is_one_line(named, "avx9000"));
  const Result variable = run({"bench", "--case", "linear"}, {.environment = {{"MANYHEADS_ISA", "avx9000"}}});
  EXPECT_EQ(variable.code, 1);
  EXPECT_TRUE(is_one_line(variable, "avx9000"));
}

TEST(CliMain, ClosedPipeEndsQuietly) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"dims", "--no-time"}, {"--help"}, {"dims", "--help"}}) {
    const Result result = run(arguments, {.out = Stdout::kClosedPipe});
    EXPECT_EQ(result.code, 0);
    EXPECT_EQ(result.err, "");
  }
}

TEST(CliMain, FullDiskOnStandardOutput) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"dims", "--no-time"}, {"dims", "--no-time", "--json"}, {"--help"}, {"--version"}}) {
    const Result result = run(arguments, {.out = Stdout::kFull});
    EXPECT_EQ(result.code, 1);
    EXPECT_TRUE(is_one_line(result, "cannot write to standard output: No space left on device"));
  }
}

TEST(CliMain, NoStandardOutputAtAll) {
  const Result result = run({"dims", "--no-time"}, {.out = Stdout::kClosed});
  EXPECT_EQ(result.code, 1);
  EXPECT_TRUE(is_one_line(result, "cannot write to standard output"));
}

TEST(CliMain, InterruptEndsWith130) {
  const Result result = run({"bench"}, {.interrupt_after = 0.5});
  EXPECT_EQ(result.code, 130);
  EXPECT_EQ(result.err, "");
}

}  // namespace
}  // namespace manyheads::cli_test
