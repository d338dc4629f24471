#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <manyheads/model/decoder.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "running.hpp"
#include "server/client.hpp"
#include "tiny_model.hpp"

// What the page asks of the program that serves it.
namespace manyheads::cli_test {
namespace {

using nlohmann::json;
using test::answer_to;
using test::Reply;

class CliViewQuestions : public TinyModel {};
class CliViewDecoder : public TinyDecoder {};

TEST_F(CliViewDecoder, TheNextTokensAreThoseThatGenerateSees) {
  const Running view({"the black cat", "--model", model(), "--no-browser"});
  json question = {{"ask", "encode"}, {"model", 1}, {"text", "the black cat"}};
  const json before = ask(view, question).at("next");
  ASSERT_EQ(before.size(), 10u);
  const json greedy = json::parse(program({"generate", "the black cat", "--tokens", "1", "--json"}).out);
  EXPECT_EQ(before.at(0).at("id"), greedy.at("ids").at(0));
  EXPECT_NEAR(std::log(before.at(0).at("probability").get<double>()), greedy.at("log_probabilities").at(0), 1e-12);

  // With heads off, and with all of them again, the float64 softmax of the logits of a run without those heads.
  const auto decoder = model::load_decoder(model());
  const model::EncoderConfig& config = decoder->config();
  const model::TokenBatch tokens = model::TokenBatch::from_rows({greedy.at("prompt_ids")});
  const auto expect = [&](const json& heads_off, const Tensor& scale) {
    question["heads_off"] = heads_off;
    const Tensor hidden = decoder->run(tokens, {.head_scale = scale.cview()});
    const Tensor logits = decoder->logits(ConstTensorView(hidden.as<float>(), {tokens.tokens, config.hidden_size}));
    std::vector<double> mass;
    for (std::int64_t i = 0; i < config.vocab_size; ++i) {
      mass.push_back(std::exp(
          static_cast<double>(logits.as<float>()[(tokens.tokens - 1) * config.vocab_size + i])));
    }
    const double sum = std::accumulate(mass.begin(), mass.end(), 0.0);
    double above = 1;
    const json next = ask(view, question).at("next");
    for (const json& token : next) {
      const double probability = token.at("probability");
      EXPECT_NEAR(probability, mass.at(token.at("id")) / sum, 1e-12) << heads_off << token;
      EXPECT_LE(probability, above);
      above = probability;
    }
    // None that is left out is likelier than the last.
    const auto likelier = [&](double each) { return each / sum > above * (1 + 1e-12); };
    EXPECT_EQ(std::count_if(mass.begin(), mass.end(), likelier), 9);
    return next;
  };
  Tensor scale(DType::kF32, {config.num_layers, config.num_heads});
  std::fill_n(scale.as<float>(), scale.elements(), 1.0f);
  EXPECT_EQ(expect(json::array(), scale), before);
  scale.as<float>()[1] = 0;
  scale.as<float>()[config.num_heads + 2] = 0.5f;
  EXPECT_NE(expect({{0, 1, 0}, {1, 2, 0.5}}, scale), before);
}

TEST_F(CliViewQuestions, AnEncoderHasNoNextTokens) {
  const Running view({"the black cat", "--model", model(), "--no-browser"});
  EXPECT_EQ(ask(view, {{"ask", "encode"}, {"model", 1}, {"text", "cat"}}).at("next"), nullptr);
}

TEST(CliViewSmolLM2, TheNextTokensHaveTheReferencesLogits) {
  const std::filesystem::path source = MANYHEADS_SOURCE_DIR;
  const std::filesystem::path folder = source / "models/SmolLM2-135M-Instruct";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not here: scripts/fetch-model smollm2";
  const SafetensorsFile golden = load_safetensors(source / "tests/golden/decoder/smollm2_capital.safetensors");
  const std::string text = golden.metadata.at("text");
  const Running view({text, "--model", folder.string(), "--no-browser"});
  json question = {{"ask", "encode"}, {"model", 1}, {"text", text}, {"values", false}};
  const json next = ask(view, question).at("next");
  EXPECT_EQ(next.at(0).at("token"), " Paris");
  // The last of the places at which the reference has its 20 largest logits.
  const std::int64_t first = 20 * (golden.at("places").elements() - 1);
  const std::int64_t* ids = golden.at("logits.ids").as<std::int64_t>() + first;
  const float* logits = golden.at("logits.values").as<float>() + first;
  for (std::size_t i = 0; i < next.size(); ++i) {
    EXPECT_EQ(next.at(i).at("id"), ids[i]);
    const double ratio = next.at(i).at("probability").get<double>() / next.at(0).at("probability").get<double>();
    EXPECT_NEAR(std::log(ratio), static_cast<double>(logits[i]) - static_cast<double>(logits[0]), 2e-3) << i;
  }
  const json written = json::parse(
      run({"generate", text, "--tokens", "1", "--json", "--model", folder.string()}).out);
  EXPECT_EQ(written.at("ids").at(0), next.at(0).at("id"));
  EXPECT_NEAR(std::log(next.at(0).at("probability").get<double>()), written.at("log_probabilities").at(0), 1e-9);
  question["heads_off"] = json::array();
  for (int head = 0; head < 9; ++head) question["heads_off"].push_back({0, head, 0});
  EXPECT_NE(ask(view, question).at("next"), next);
}

TEST_F(CliViewQuestions, APatchPassesAMapThatTakesLong) {
  // 60,000 tokens whose scores are all 0.
  constexpr std::int64_t kTokens = 60'000;
  Tensor q(DType::kF32, {1, kTokens, 4}), lse(DType::kF32, {1, kTokens});
  std::fill_n(q.as<float>(), q.elements(), 0.0f);
  std::fill_n(lse.as<float>(), kTokens, static_cast<float>(std::log(kTokens)));
  save_safetensors(path("long.safetensors"), {{"layers.0.q", q}, {"layers.0.k", q}, {"layers.0.lse", lse}},
                   {{"manyheads_trace", "1"}, {"scale", "1"}, {"causal", "false"},
                    {"tokens", json(std::vector<std::string>(kTokens, "a")).dump()}});
  Running view({path("long.safetensors"), "--no-browser"});
  test::Client map(view.port());
  const json question = {{"ask", "map"}, {"trace", 1}, {"layer", 0}, {"head", 0}};
  ASSERT_TRUE(map.send(test::post(view.port(), view.path() + "ask?job=map", question.dump())));
  const auto job = [&] { return answer_to(view.port(), test::get(view.port(), view.path() + "job/map")); };
  while (job().body.find("\"waiting\":false") == std::string::npos) ::usleep(1000);
  const json part = {{"ask", "patch"}, {"trace", 1}, {"layer", 0}, {"head", 0}, {"rows", {100, 110}}, {"keys", {7, 9}}};
  const Reply patch = answer_to(view.port(), test::post(view.port(), view.path() + "ask", part.dump()));
  EXPECT_EQ(job().status, 200) << "the map has ended";
  EXPECT_EQ(patch.status, 200);
  std::ofstream(path("patch.safetensors"), std::ios::binary) << patch.body;
  EXPECT_NEAR(load_safetensors(path("patch.safetensors")).at("weights").as<float>()[0], 1.0 / kTokens, 1e-9);
  const std::string ends = test::get(view.port(), view.path() + "job/map");
  EXPECT_EQ(answer_to(view.port(), "DELETE" + ends.substr(3)).status, 204);
  EXPECT_EQ(test::parse(map.read_all()).status, 409);
  EXPECT_EQ(view.end(SIGINT), 0);
}

}  // namespace
}  // namespace manyheads::cli_test
