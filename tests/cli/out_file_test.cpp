#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <manyheads/safetensors.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tensors.hpp"
#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Each verb that writes a file, as it is called but for -o.
class CliOutFile : public TinyModel {
 protected:
  void SetUp() override {
    TinyModel::SetUp();
    std::mt19937 random(1);
    const Tensor x = normal(DType::kF32, {1, 2, 4, 16}, random);
    save_safetensors(path("qkv"), {{"q", x}, {"k", x}, {"v", x}});
    save_safetensors(path("x"), {{"query", normal(DType::kF32, {1, 3, 8}, random)}});
    save_safetensors(path("mha"), {{"in_proj_weight", normal(DType::kF32, {24, 8}, random)},
                                   {"in_proj_bias", normal(DType::kF32, {24}, random)},
                                   {"out_proj.weight", normal(DType::kF32, {8, 8}, random)},
                                   {"out_proj.bias", normal(DType::kF32, {8}, random)}});
    verbs_ = {{"attend", path("qkv")},
              {"layer", path("mha"), path("x"), "--heads", "2"},
              {"trace", "the cat", "--model", model()}};
    outside_ = names();
  }

  static std::vector<std::string> to(std::vector<std::string> verb, const std::string& out,
                                     const std::vector<std::string>& more = {}) {
    verb.insert(verb.end(), {"-o", out});
    verb.insert(verb.end(), more.begin(), more.end());
    return verb;
  }

  // What the verb writes to a file.
  std::string expected(const std::vector<std::string>& verb) {
    const Result result = run(to(verb, path("expected")));
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_NE(result.out.find(path("expected")), std::string::npos) << result.out;
    std::string bytes = bytes_of(path("expected"));
    fs::remove(path("expected"));
    return bytes;
  }

  std::vector<std::vector<std::string>> verbs_;
  std::vector<std::string> outside_;
};

TEST_F(CliOutFile, StandardOutputHoldsTheFileAlone) {
  for (const auto& verb : verbs_) {
    const std::string file = expected(verb);
    for (const std::string out : {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}) {
      for (const Stdout kind : {Stdout::kPipe, Stdout::kKept, Stdout::kSlowPipe}) {
        if (kind == Stdout::kSlowPipe && out != "-") continue;
        const Result result = run(to(verb, out), {.out = kind});
        EXPECT_EQ(result.code, 0) << result.err;
        EXPECT_EQ(result.out, file) << verb[0] << " " << out;
        EXPECT_EQ(result.err, "");
      }
    }
  }
  EXPECT_EQ(names(), outside_);
}

TEST_F(CliOutFile, WhatWasAskedForGoesToStandardError) {
  const Result result = run(to(verbs_[0], "-", {"--explain"}), {.out = Stdout::kPipe});
  EXPECT_EQ(result.out, expected(verbs_[0]));
  EXPECT_NE(result.err.find("fused"), std::string::npos) << result.err;
}

TEST_F(CliOutFile, JsonDoesNotShareStandardOutput) {
  for (const auto& verb : verbs_) {
    for (const std::string out : {"-", "/dev/stdout"}) {
      const Result result = run(to(verb, out, {"--json"}), {.out = Stdout::kPipe});
      EXPECT_EQ(result.code, 2);
      EXPECT_EQ(result.out, "");
      EXPECT_TRUE(is_one_line(result, "--json and --out " + out + " both write to standard output"));
    }
    EXPECT_EQ(run(to(verb, "/dev/null", {"--json"})).code, 0);
    EXPECT_EQ(run(to(verb, "/dev/stderr", {"--json"})).code, 0);
  }
}

TEST_F(CliOutFile, AReaderThatHasGoneEndsItQuietly) {
  const Result gone = run(to(verbs_[0], "-"), {.out = Stdout::kClosedPipe});
  EXPECT_EQ(gone.code, 0);
  EXPECT_EQ(gone.err, "");
  const Result full = run(to(verbs_[0], "-"), {.out = Stdout::kFull});
  EXPECT_EQ(full.code, 1);
  EXPECT_TRUE(is_one_line(full, "No space left on device"));
  const Result none = run(to(verbs_[0], "-"), {.out = Stdout::kClosed});
  EXPECT_EQ(none.code, 1);
  EXPECT_TRUE(is_one_line(none, "Bad file descriptor"));
}

TEST_F(CliOutFile, ALinkToNowhereAPipeAndTheInputItself) {
  for (const auto& verb : verbs_) {
    const std::string file = expected(verb);
    fs::create_symlink("target", path("link"));
    EXPECT_EQ(run(to(verb, path("link"))).code, 0);
    EXPECT_TRUE(fs::is_symlink(path("link")));
    EXPECT_EQ(bytes_of(path("target")), file);
    fs::remove(path("link"));
    fs::remove(path("target"));

    ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
    std::string got;
    std::thread reader([&] { got = bytes_of(path("pipe")); });
    EXPECT_EQ(run(to(verb, path("pipe"))).code, 0);
    reader.join();
    EXPECT_EQ(got, file);
    fs::remove(path("pipe"));
  }
  const std::string attended = expected(verbs_[0]);
  EXPECT_EQ(run(to(verbs_[0], path("qkv"))).code, 0);  // mapped while it is written
  EXPECT_EQ(bytes_of(path("qkv")), attended);
  const std::string applied = expected(verbs_[1]);
  EXPECT_EQ(run(to(verbs_[1], path("mha"))).code, 0);
  EXPECT_EQ(bytes_of(path("mha")), applied);
}

TEST_F(CliOutFile, ABadPathIsFoundBeforeTheWork) {
  for (const auto& verb : verbs_) {
    for (const auto& [out, says] : {std::pair{path("none/out"), "there is no folder"}, {path("tiny"), "it is a folder"},
                                    {path("x\x1b[31m/out"), "x\\u001b[31m"}}) {
      const Result result = run(to(verb, out));
      EXPECT_EQ(result.code, 1);
      EXPECT_TRUE(is_one_line(result, says));
    }
  }
  const Result shown = run(to(verbs_[0], path("o\x1b[31m\xc2\x9bt")));
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_NE(shown.out.find("o\\u001b[31m\\u009bt"), std::string::npos) << shown.out;
}

}  // namespace
}  // namespace manyheads::cli_test
