#include <gtest/gtest.h>

#include <cmath>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "io/safetensors_bytes.hpp"
#include "lens/random_trace.hpp"
#include "view/memory_file.hpp"
#include "view/session.hpp"

namespace manyheads::view {
namespace {

using nlohmann::json;

lens::Trace random_trace() {
  return lens::random_trace({2, 1, 200, 200, 4}, [](lens::Trace& trace) {
    trace.causal = true;
    std::mt19937 random(3);
    for (lens::TraceLayer& layer : trace.layers) {
      lens::add(layer, &lens::TraceLayer::v, lens::random_tensor({1, 200, 4}, random));
    }
  });
}

json question(const char* ask, std::int64_t trace, int head, json more = json::object()) {
  more.update({{"ask", ask}, {"trace", trace}, {"layer", 1}, {"head", head}});
  return more;
}

// A row's sum is one float step off where a map has found it: so are its weights.
void expect_same(const Answer& found, const Answer& expected, const std::string& question) {
  ASSERT_EQ(found.kind, expected.kind) << question;
  if (found.kind == Answer::Kind::kJson) {
    EXPECT_EQ(found.bytes, expected.bytes);
    return;
  }
  const SafetensorsFile a = io::read_safetensors(memory_file(found.bytes), "found");
  const SafetensorsFile b = io::read_safetensors(memory_file(expected.bytes), "expected");
  EXPECT_EQ(a.metadata, b.metadata) << question;
  ASSERT_EQ(a.tensors.size(), b.tensors.size()) << question;
  for (const auto& [name, tensor] : b.tensors) {
    ASSERT_EQ(a.at(name).shape(), tensor.shape()) << question;
    if (tensor.dtype() != DType::kF32) continue;
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      const float is = a.at(name).as<float>()[i], should = tensor.as<float>()[i];
      ASSERT_TRUE(is == should || std::abs(is - should) <= 2e-6f * std::abs(should)) << question << name << i;
    }
  }
}

TEST(ViewSessionThreads, AQuestionIsAnsweredWhileAMapIsMade) {
  Session session("native", {.num_threads = 1});
  session.open_trace(random_trace());
  const std::string patch = question("patch", 1, 0, {{"rows", {5, 60}}, {"keys", {0, 50}}}).dump();
  const std::string expected = session.ask(patch).bytes;
  Session other("native", {.num_threads = 1});
  other.open_trace(random_trace());
  int asked = 0;
  const Answer map = other.ask(question("map", 1, 0).dump(), [&](double) {
    // On another thread, which a lock of the whole session would hold up for ever.
    std::thread([&] { EXPECT_TRUE(other.ask(patch).bytes == expected); }).join();
    ++asked;
    return true;
  });
  EXPECT_GT(asked, 0);
  EXPECT_EQ(map.kind, Answer::Kind::kSafetensors);
}

TEST(ViewSessionThreads, WhatAQuestionWorksOnStaysThoughItIsClosed) {
  Session session("native", {.num_threads = 1});
  session.open_trace(random_trace());
  const std::string map = question("map", 1, 1).dump();
  const std::string expected = session.ask(map).bytes;
  const std::int64_t again = session.open_trace(random_trace());
  bool closed = false;
  const Answer found = session.ask(question("map", again, 1).dump(), [&](double) {
    if (!closed) session.close(again);
    return closed = true;
  });
  EXPECT_TRUE(closed);
  EXPECT_TRUE(found.bytes == expected);
  EXPECT_THROW(session.ask(question("map", again, 1).dump()), Error);
}

TEST(ViewSessionThreads, ManyAtOnceAnswerAsOneAfterTheOther) {
  std::vector<std::string> questions;
  for (int head = 0; head < 2; ++head) {
    questions.push_back(question("map", 1, head).dump());
    questions.push_back(question("row", 1, head, {{"row", 70}}).dump());
    questions.push_back(question("why", 1, head, {{"row", 70}, {"key", 9}}).dump());
    questions.push_back(question("head_output", 1, head, {{"row", 70}}).dump());
    for (int begin = 0; begin < 150; begin += 30) {
      questions.push_back(question("patch", 1, head, {{"rows", {begin, begin + 50}}, {"keys", {0, 90}}}).dump());
    }
  }
  questions.push_back(json({{"ask", "thumbnails"}, {"trace", 1}, {"size", 32}}).dump());
  questions.push_back(json({{"ask", "mean"}, {"trace", 1}, {"heads", {{0, 1}, {1, 0}}}, {"size", 200}}).dump());
  questions.push_back(json({{"ask", "dims"}, {"heads", {7, 8}}}).dump());
  std::vector<Answer> expected;
  {
    Session session("native", {.num_threads = 2});
    session.open_trace(random_trace());
    for (const std::string& each : questions) expected.push_back(session.ask(each));
  }
  Session session("native", {.num_threads = 2});
  session.open_trace(random_trace());
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < questions.size(); ++i) {
        const std::size_t at = (i * (2 * t + 1) + t) % questions.size();
        expect_same(session.ask(questions[at]), expected[at], questions[at]);
        const std::int64_t own = session.open_trace(random_trace());
        session.ask(R"({"ask": "about"})");
        session.ask(json({{"ask", "close"}, {"trace", own}}).dump());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(json::parse(session.ask(R"({"ask": "about"})").bytes)["traces"].size(), 1u);
}

TEST(ViewSessionThreads, ShortQuestionsAreToldFromLongOnes) {
  const auto takes_long = [](const json& each) { return Session::takes_long(each.dump()); };
  for (const char* name : {"about", "trace", "row", "why", "head_output", "dims", "close", "unknown"}) {
    EXPECT_FALSE(takes_long({{"ask", name}})) << name;
  }
  for (const char* name : {"map", "thumbnails", "mean", "heads", "clusters", "rollout", "scan", "encode", "pipeline",
                           "layer", "limits", "time", "patch"}) {
    EXPECT_TRUE(takes_long({{"ask", name}})) << name;
  }
  EXPECT_FALSE(takes_long(question("patch", 1, 0, {{"rows", {100, 612}}, {"keys", {90'000, 90'512}}})));
  EXPECT_TRUE(takes_long(question("patch", 1, 0, {{"rows", {0, 8192}}, {"keys", {0, 8192}}})));
  EXPECT_THROW(Session::takes_long("["), Error);
}

}  // namespace
}  // namespace manyheads::view
