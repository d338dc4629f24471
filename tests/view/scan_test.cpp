#include <gtest/gtest.h>

#include <fstream>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/tiny_model.hpp"
#include "lens/scan_file.hpp"
#include "view/session.hpp"

namespace manyheads::view {
namespace {

using nlohmann::json;

class CliViewScan : public cli_test::TinyModel {
 protected:
  void SetUp() override {
    TinyModel::SetUp();
    std::ofstream(path("texts.txt")) << "the black cat sat on the mat .\nthe dog sat , the cat sat .\nthe mat .\n";
    const auto made = program({"scan", path("texts.txt"), "-o", path("s.safetensors")});
    ASSERT_EQ(made.code, 0) << made.err;
    lens::ScanFile scan = lens::load_scan(path("s.safetensors"));
    session_.open_scan(scan, [scan](std::int64_t row) { return std::optional(scan.kept_text(row)); });
  }
  json shown(std::vector<std::string> more) {
    std::vector<std::string> arguments = {"scan", "--show", path("s.safetensors"), "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto result = cli_test::run(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    return json::parse(result.out);
  }

  Session session_{"native", {.num_threads = 1}};
};

json without_texts(json scan) {
  for (json& head : scan["heads"]) {
    for (json& score : head["scores"]) {
      for (json& example : score["top"]) example.erase("text");
      for (json& decile : score["samples"]) {
        for (json& example : decile) example.erase("text");
      }
    }
  }
  return scan;
}

TEST_F(CliViewScan, IsWhatShowTells) {
  const auto ask = [&](const std::string& question) { return json::parse(session_.ask(question).bytes); };
  EXPECT_EQ(without_texts(ask(R"({"ask": "scan", "scan": 1})")), without_texts(shown({})));
  EXPECT_EQ(without_texts(ask(R"({"ask": "scan", "scan": 1, "head": [1, 3], "score": "next"})")),
            without_texts(shown({"--head", "1.3", "--sort", "next"})));
  EXPECT_EQ(ask(R"({"ask": "about"})")["scans"][0]["id"], 1);
}

TEST_F(CliViewScan, OfOneHeadSharesAddUpToOne) {
  const json head = shown({"--head", "1.3", "--sort", "next"})["heads"][0];
  double all = 0;
  for (const json& bin : head["distances"]) all += bin["share"].get<double>();
  EXPECT_NEAR(all, 1, 1e-12);
  double variance = 0;
  for (const json& share : head["query_components"]) variance += share.get<double>();
  EXPECT_LE(variance, 1 + 1e-12);
  EXPECT_GT(variance, 0.3);
  EXPECT_EQ(head["scores"].size(), 1u);
}

TEST_F(CliViewScan, WhatItDoesNotHoldIsAnError) {
  EXPECT_THROW(session_.ask(R"({"ask": "scan", "scan": 2})"), Error);
  EXPECT_THROW(session_.ask(R"({"ask": "scan", "scan": 1, "head": [2, 0]})"), Error);
  EXPECT_THROW(session_.ask(R"({"ask": "scan", "scan": 1, "score": "charm"})"), Error);
}

}  // namespace
}  // namespace manyheads::view
