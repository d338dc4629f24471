#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// So many different lines of the tiny model's words.
std::string lines(int count) {
  const char* const words[] = {"the", "black", "cat", "sat", "on", "mat", "dog", "embed", "w17", "w23"};
  std::string text;
  unsigned state = 12345;
  const auto next = [&](unsigned below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 16) % below;
  };
  for (int i = 0; i < count; ++i) {
    for (unsigned w = 0, of = 3 + next(25); w < of; ++w) text += std::string(words[next(10)]) + " ";
    text += ".\n";
  }
  return text;
}

class CliScan : public TinyModel {
 protected:
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name), std::ios::binary) << text;
    return path(name);
  }
  Result scan(std::vector<std::string> arguments, const How& how = {}) const {
    arguments.insert(arguments.begin(), "scan");
    return program(arguments, how);
  }
  json show(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"scan", "--json", "--show"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    return json::parse(result.out.empty() ? "{}" : result.out);
  }
};
class CliScanOfADecoder : public TinyDecoder {};

TEST_F(CliScan, WritesTheSameFileForAnyNumberOfThreads) {
  const std::string texts = write("a.txt", lines(400));
  std::string first;
  for (const char* threads : {"1", "2", "8"}) {
    const std::string out = path(std::string(threads) + ".scan");
    const Result result = scan({texts, "-o", out, "--threads", threads});
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_NE(result.out.find("400 passages"), std::string::npos) << result.out;
    EXPECT_EQ(result.err, "");
    if (first.empty()) first = contents(out);
    EXPECT_TRUE(contents(out) == first) << threads;
  }
}

// Interrupts runs of the same scan until one ends by itself; its file is that of an undisturbed run.
TEST_F(CliScan, ARunThatIsKilledGoesOnToTheSameFile) {
  const std::string corpus = lines(6000);
  const std::string texts = write("a.txt", corpus.substr(0, corpus.size() / 2));
  const std::string more = write("b.txt", corpus.substr(corpus.size() / 2));
  ASSERT_EQ(scan({texts, more, "-o", path("whole.scan"), "--threads", "2"}).code, 0);
  for (const int signal : {SIGINT, SIGTERM}) {
    int stopped = 0;
    for (double seconds = 0.03; seconds < 60; seconds *= 1.3) {
      const Result result = scan({texts, more, "-o", path("a.scan"), "--threads", "1"},
                                 {.interrupt_after = seconds, .interrupt = signal});
      if (result.code == 0) break;
      ASSERT_EQ(result.signal, signal) << result.err;
      if (result.err.empty()) continue;  // before it began
      EXPECT_TRUE(is_one_line(result, "the same command goes on from")) << result.err;
      EXPECT_FALSE(std::filesystem::exists(path("a.scan")));
      EXPECT_TRUE(std::filesystem::exists(path("a.scan.part")));
      ++stopped;
    }
    EXPECT_GT(stopped, 1);
    EXPECT_TRUE(contents(path("a.scan")) == contents(path("whole.scan")));
    EXPECT_FALSE(std::filesystem::exists(path("a.scan.part")));
    std::filesystem::remove(path("a.scan"));
  }
}

TEST_F(CliScan, ItsPartBelongsToThatScanAlone) {
  const std::string texts = write("a.txt", lines(10000));
  const auto stop = [&] {
    for (double seconds = 0.1; seconds < 10 && !std::filesystem::exists(path("a.scan.part")); seconds *= 1.2) {
      scan({texts, "-o", path("a.scan"), "--threads", "1"}, {.interrupt_after = seconds});
    }
    return std::filesystem::exists(path("a.scan.part"));
  };
  ASSERT_TRUE(stop());
  const std::string good = contents(path("a.scan.part"));
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& why) {
    std::vector<std::string> all = arguments;
    all.insert(all.end(), {"-o", path("a.scan")});
    const Result result = scan(all);
    EXPECT_EQ(result.code, 1) << why;
    EXPECT_TRUE(is_one_line(result, why));
    EXPECT_TRUE(contents(path("a.scan.part")) == good);
  };
  refused({texts, "--seed", "2"}, "another --seed");
  refused({texts, texts}, "another list of texts");
  refused({texts, "--jsonl"}, "another list of texts");
  write("a.txt", "the dog .\n" + lines(10000));
  refused({texts}, "other texts");
  write("a.txt", "the dog .\n");
  refused({texts}, "other texts");
  write("a.txt", lines(10000));
  for (const std::size_t cut : {std::size_t{0}, std::size_t{9}, good.size() / 2}) {
    write("a.scan.part", good.substr(0, cut));
    const Result result = scan({texts, "-o", path("a.scan")});
    EXPECT_EQ(result.code, 1) << cut;
    EXPECT_TRUE(is_one_line(result, "a.scan.part")) << cut;
  }
  write("a.scan.part", good);
  std::ofstream(model() + "/config.json", std::ios::app) << "\n";
  refused({texts}, "another model");
}

TEST_F(CliScan, EachExampleOpensAgain) {
  write("a.txt", "\xef\xbb\xbfthe cat sat .\r\n\n  \nthe black dog .\r\non the mat");
  write("b.jsonl", "{\"text\": \"the \\\"cat\\\" sat \\u002e\", \"n\": 1}\n\n{\"text\": \"  \"}\n{\"text\": \"a\\ndog .\"}\n");
  const std::string long_line = many_words(100);  // the model takes 40 tokens
  write("c.txt", long_line + "\n");
  ASSERT_EQ(scan({path("a.txt"), path("b.jsonl"), path("c.txt"), "-o", path("a.scan")}).code, 0);
  const json found = show({path("a.scan"), "--head", "1.2", "--sort", "self"});
  EXPECT_EQ(found.at("passages"), 3 + 2 + 3);
  EXPECT_EQ(found.at("files").size(), 3u);
  std::vector<std::string> texts;
  for (const json& example : found.at("heads")[0].at("scores")[0].at("top")) {
    const std::string text = example.at("text");
    texts.push_back(text);
    if (example.at("file") == path("b.jsonl")) continue;
    const std::string file = contents(example.at("file"));
    const auto offset = example.at("offset").get<std::size_t>() + example.at("begin").get<std::size_t>();
    EXPECT_EQ(file.substr(offset, text.size()), text);
  }
  std::sort(texts.begin(), texts.end());
  EXPECT_EQ(texts[0], "a\ndog .");
  EXPECT_EQ(texts[4], "on the mat");
  EXPECT_EQ(texts.back(), "the cat sat .");
  std::string windows;
  for (const std::string& text : texts) {
    if (text.find("cat sat cat") == 0) windows += text + " ";
  }
  EXPECT_EQ(windows, long_line);  // no token is lost
  write("a.txt", "short");
  const json changed = show({path("a.scan"), "--head", "1.2", "--sort", "self"});
  int closed = 0;
  for (const json& example : changed.at("heads")[0].at("scores")[0].at("top")) closed += example.at("text").is_null() ? 1 : 0;
  EXPECT_EQ(closed, 3);
}

TEST_F(CliScan, StandardInputIsKeptInTheFile) {
  const Result result = scan({"-", "-o", path("a.scan")}, {.in = "the cat sat .\nthe dog .\n"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json found = show({path("a.scan"), "--head", "0.0", "--sort", "next"});
  const json& top = found.at("heads")[0].at("scores")[0].at("top");
  ASSERT_EQ(top.size(), 2u);
  EXPECT_EQ(std::set<std::string>({top[0].at("text"), top[1].at("text")}), std::set<std::string>({"the cat sat .", "the dog ."}));
  const Result of_json = scan({"-", "--jsonl", "-o", path("b.scan")}, {.in = "{\"text\":\"the cat\"}\n"});
  ASSERT_EQ(of_json.code, 0) << of_json.err;
  EXPECT_EQ(show({path("b.scan"), "--head", "0.0"}).at("heads")[0].at("scores")[0].at("top")[0].at("text"), "the cat");
}

TEST_F(CliScan, EachBadInputIsOneClearError) {
  const std::string out = path("a.scan");
  const auto refused = [&](const std::vector<std::string>& texts, const std::string& what) {
    std::vector<std::string> arguments = texts;
    arguments.insert(arguments.end(), {"-o", out});
    const Result result = scan(arguments);
    EXPECT_EQ(result.code, 1) << what;
    EXPECT_TRUE(is_one_line(result, what));
    EXPECT_FALSE(std::filesystem::exists(out));
  };
  refused({path("missing.txt")}, "missing.txt");
  refused({path(".")}, "directory");
  refused({write("a.txt", "")}, "no text");
  refused({write("b.txt", "\n \n\t\r\n")}, "no text");
  refused({write("c.txt", "the cat\nthe \xff dog\n")}, "line 2 of");
  const std::string good = "{\"text\":\"the cat\"}\n";
  for (const char* line : {"{", "[]", "the cat", "{\"text\":1}", "{\"texts\":\"a\"}", "{\"text\":\"a\",\"text\":\"b\"}",
                           "{\"text\":\"\\ud800\"}", "{\"text\":\"a\"} x", "null", "\"a\""}) {
    refused({write("d.jsonl", good + line + "\n")}, "line 2 of");
  }
  const std::string texts = write("e.txt", "the cat\n");
  for (const auto& [at, why] : {std::pair<std::string, std::string>{path("no/a.scan"), "no folder"}, {path("."), "folder"}}) {
    const Result result = scan({texts, "-o", at});
    EXPECT_EQ(result.code, 1);
    EXPECT_TRUE(is_one_line(result, why));
  }
  const Result no_model = run({"scan", texts, "--model", path("none"), "-o", out});
  EXPECT_EQ(no_model.code, 1);
  EXPECT_TRUE(is_one_line(no_model, "none"));
}

TEST_F(CliScan, SenselessRequestsAreUsageErrors) {
  const std::string texts = write("e.txt", "the cat sat .\n");
  ASSERT_EQ(scan({texts, "-o", path("a.scan")}).code, 0);
  const auto usage = [&](const std::vector<std::string>& arguments, const std::string& what) {
    std::vector<std::string> all = arguments;
    all.insert(all.begin(), "scan");
    const Result result = run(all);
    EXPECT_EQ(result.code, 2) << what;
    EXPECT_TRUE(is_one_line(result, what));
  };
  usage({}, "TEXTS");
  usage({texts, "-o", path("b.scan")}, "--model");
  usage({texts, "--model", model()}, "--out");
  usage({texts, "--model", model(), "-o", path("b.scan"), "--head", "0.0"}, "--show");
  usage({texts, "--show", path("a.scan")}, "--show");
  usage({"--show", path("a.scan"), "--head", "9.0"}, "2 layers of 4 heads");
  usage({"--show", path("a.scan"), "--head", "x"}, "--head");
  usage({"--show", path("a.scan"), "--sort", "x"}, "the scores are self, previous");
  usage({texts, "--model", model(), "-o", path("b.scan"), "--seed", "-1"}, "--seed");
}

TEST_F(CliScan, ShowTellsOfAllHeadsOrOne) {
  const std::string texts = write("e.txt", lines(50));
  ASSERT_EQ(scan({texts, "-o", path("a.scan")}).code, 0);
  const Result all = run({"scan", "--show", path("a.scan")});
  EXPECT_EQ(all.code, 0);
  EXPECT_NE(all.out.find("50 passages"), std::string::npos) << all.out;
  EXPECT_NE(all.out.find("previous"), std::string::npos);
  const Result sorted = run({"scan", "--show", path("a.scan"), "--sort", "next"});
  EXPECT_EQ(std::count(sorted.out.begin(), sorted.out.end(), '\n'), 3 + 8) << sorted.out;
  const Result one = run({"scan", "--show", path("a.scan"), "--head", "1.3", "--sort", "next"});
  EXPECT_NE(one.out.find("Head 1.3"), std::string::npos) << one.out;
  EXPECT_NE(one.out.find("from 90 to 100 %"), std::string::npos);
  EXPECT_NE(one.out.find("e.txt:"), std::string::npos);
  const Result none = run({"scan", "--show", texts});
  EXPECT_EQ(none.code, 1);
  EXPECT_TRUE(is_one_line(none, "e.txt"));
}

// A corpus 100 times larger takes no more memory, but for the places of its last passages.
TEST_F(CliScan, MemoryDoesNotGrowWithTheCorpus) {
  const auto peak = [&](const std::string& texts) {
    const pid_t child = ::fork();
    if (child == 0) {
      std::freopen("/dev/null", "w", stdout);
      const char* named = std::getenv("MANYHEADS_PROGRAM");
      const std::string binary = named != nullptr ? named : MANYHEADS_PROGRAM;
      ::execl(binary.c_str(), binary.c_str(), "scan", texts.c_str(), "--model", model().c_str(), "-o",
              path("m.scan").c_str(), "--threads", "1", nullptr);
      ::_exit(127);
    }
    int status = 0;
    rusage used{};
    ::wait4(child, &status, 0, &used);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return used.ru_maxrss;  // KiB
  };
  const std::string small = write("small.txt", lines(400)), large = write("large.txt", lines(40000));
  EXPECT_LT(peak(large), peak(small) + 8 * 1024);
}

TEST_F(CliScanOfADecoder, SharesKeyHeads) {
  std::ofstream(path("a.txt")) << lines(30);
  const Result result = program({"scan", path("a.txt"), "-o", path("a.scan"), "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(json::parse(result.out).at("passages"), 30);
  const Result shown = run({"scan", "--show", path("a.scan"), "--head", "1.3"});
  EXPECT_EQ(shown.code, 0) << shown.err;
}

}  // namespace
}  // namespace manyheads::cli_test
