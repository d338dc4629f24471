#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "program.hpp"

namespace manyheads::cli_test {
namespace {

const std::vector<std::string> kVerbs = {"dims", "look", "trace", "map", "embed", "attend", "layer", "bench"};

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

// A shell goes on with its loop after a program that exits, and ends it after one that the signal killed.
TEST(CliMain, ASignalIsDiedOf) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    const Result result = run({"bench"}, {.interrupt_after = 0.5, .interrupt = signal});
    EXPECT_EQ(result.code, -1) << signal;
    EXPECT_EQ(result.signal, signal);
    EXPECT_EQ(result.err, "");
  }
}

TEST(CliMain, ASignalThatWasIgnoredStaysSo) {
  for (const int signal : {SIGINT, SIGHUP}) {
    const Result result = run({"bench", "--quick", "--case", "linear", "--threads", "1"},
                              {.interrupt_after = 0.2, .interrupt = signal, .ignored = true});
    EXPECT_EQ(result.code, 0) << signal;
    EXPECT_EQ(result.signal, 0);
  }
}

TEST(CliMain, ASlowReaderIsWaitedFor) {
  std::string heads = "1";
  for (int i = 0; i < 300; ++i) heads += ",1";
  const std::vector<std::string> arguments = {"dims", "--no-time", "--json", "--heads", heads};
  const Result slow = run(arguments, {.out = Stdout::kSlowPipe});
  EXPECT_EQ(slow.code, 0) << slow.err;
  EXPECT_GT(slow.out.size(), 100'000u);  // more than a pipe holds
  EXPECT_EQ(slow.out, run(arguments).out);
  EXPECT_LT(slow.cpu_seconds, 0.7);
}

TEST(CliMain, OpenMpsVariableIsReadAsOpenMpReadsIt) {
  const auto dims = [](const std::string& value, std::vector<std::string> more = {}, const std::string& own = "") {
    more.insert(more.begin(), {"dims", "--no-time", "--json"});
    return run(more, {.environment = {{"OMP_NUM_THREADS", value}, {"MANYHEADS_NUM_THREADS", own}}});
  };
  for (const std::string value : {"2", " 2 ", "2 ,1", "\t2,3 , 4", "+2"}) {
    const Result result = dims(value);
    EXPECT_EQ(nlohmann::json::parse(result.out).at("threads"), 2) << value;
    EXPECT_EQ(result.err, "");
  }
  EXPECT_EQ(dims("").err, "");
  for (const std::string value : {"0", "abc", "-1", "1e3", "2,", "2,x", " ", "99999999999999999999"}) {
    const Result result = dims(value);
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_TRUE(is_one_line(result, "warning: OMP_NUM_THREADS=\"" + (value == " " ? "" : value))) << value;
    EXPECT_EQ(dims(value, {"--threads", "3"}).err, "");  // read by nobody
    EXPECT_EQ(dims(value, {}, "3").err, "");
    EXPECT_EQ(dims(value, {"--help"}).err, "");
  }
  const Result own = dims("2", {}, "abc");  // ours: an error
  EXPECT_EQ(own.code, 1);
  EXPECT_TRUE(is_one_line(own, "MANYHEADS_NUM_THREADS=abc"));
}

}  // namespace
}  // namespace manyheads::cli_test
