#include "view/session.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <manyheads/error.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>

#include "cli/program.hpp"
#include "io/safetensors_bytes.hpp"
#include "lens/random_trace.hpp"
#include "view/memory_file.hpp"

namespace manyheads::view {
namespace {

using nlohmann::json;

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

SafetensorsFile tensors_of(const Answer& answer) {
  EXPECT_EQ(answer.kind, Answer::Kind::kSafetensors) << answer.bytes.substr(0, 200);
  return io::read_safetensors(memory_file(answer.bytes), "answer");
}

std::string error_of(Session& session, const std::string& question) {
  try {
    session.ask(question);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

class ViewSession : public cli_test::Folder {
 protected:
  void SetUp() override {
    Folder::SetUp();
    lens::save_trace(path("t"), lens::random_trace({2, 1, 16, 16, 4}, [](lens::Trace& t) {
                       t.causal = true;
                       std::mt19937 random(3);
                       for (lens::TraceLayer& layer : t.layers) {
                         lens::add(layer, &lens::TraceLayer::v, lens::random_tensor({1, 16, 4}, random));
                       }
                     }));
    ASSERT_EQ(session_.open_trace(text_of(path("t"))), 1);
  }
  json ask(const json& question) {
    const Answer answer = session_.ask(question.dump());
    EXPECT_EQ(answer.kind, Answer::Kind::kJson);
    return json::parse(answer.bytes);
  }
  SafetensorsFile numbers(const json& question) { return tensors_of(session_.ask(question.dump())); }

  Session session_{"native", {.num_threads = 1}};
};

TEST_F(ViewSession, TellsWhatATraceHolds) {
  const json trace = ask({{"ask", "trace"}, {"trace", 1}});
  EXPECT_EQ(trace["layers"], 2);
  EXPECT_EQ(trace["heads"], 2);
  EXPECT_EQ(trace["kv_heads"], 1);
  EXPECT_EQ(trace["queries"], 16);
  EXPECT_EQ(trace["words"].size(), 14u);
  EXPECT_EQ(trace["has_values"], true);
  EXPECT_EQ(ask({{"ask", "about"}})["traces"][0]["id"], 1);
}

class CliViewSession : public ViewSession {};

TEST_F(CliViewSession, PatchesAreTheBytesOfMap) {
  const auto map = [&](const std::string& rows, const std::string& keys, const std::string& size) {
    const auto result = cli_test::run({"map", path("t"), "--head", "1.1", "--rows", rows, "--keys", keys, "--size",
                                       size, "--pool", "max", "-o", path("m.safetensors")});
    EXPECT_EQ(result.code, 0) << result.err;
    return text_of(path("m.safetensors"));
  };
  const auto patch = [&](std::vector<int> rows, std::vector<int> keys, int size) {
    const json question = {{"ask", "patch"}, {"trace", 1},   {"layer", 1},   {"head", 1},
                           {"rows", rows},   {"keys", keys}, {"size", size}, {"pool", "max"}};
    return session_.ask(question.dump()).bytes;
  };
  EXPECT_EQ(patch({3, 9}, {2, 8}, 16), map("3:9", "2:8", "16"));
  EXPECT_EQ(patch({0, 9}, {2, 8}, 4), map("0:9", "2:8", "4"));
  EXPECT_EQ(patch({1, 16}, {0, 16}, 16), map("1:16", "0:16", "16"));  // of rows known and unknown
}

TEST_F(ViewSession, ARowsNumbersFollowFromOneAnother) {
  const json place = {{"trace", 1}, {"layer", 1}, {"head", 0}, {"row", 5}};
  json question = place;
  question["ask"] = "row";
  const SafetensorsFile row = numbers(question);
  const float* scores = row.at("scores").as<float>();
  const float* weights = row.at("weights").as<float>();
  double sum = 0;
  for (int j = 0; j < 16; ++j) sum += std::exp(static_cast<double>(scores[j]));
  for (int j = 0; j < 16; ++j) EXPECT_NEAR(weights[j], std::exp(static_cast<double>(scores[j])) / sum, 1e-6) << j;
  EXPECT_EQ(weights[6], 0.0f);

  question["ask"] = "why";
  question["key"] = 3;
  const SafetensorsFile why = numbers(question);
  double score = 0;
  for (int d = 0; d < 4; ++d) score += static_cast<double>(why.at("products").as<float>()[d]);
  EXPECT_NEAR(score * 0.5, scores[3], 1e-6);
  EXPECT_EQ(why.at("weight").as<float>()[0], weights[3]);

  question["ask"] = "head_output";
  const SafetensorsFile output = numbers(question);
  for (int d = 0; d < 4; ++d) {
    double mixed = 0;
    for (int j = 0; j < 16; ++j) {
      mixed += static_cast<double>(weights[j]) * static_cast<double>(output.at("v").as<float>()[j * 4 + d]);
    }
    EXPECT_NEAR(output.at("output").as<float>()[d], mixed, 1e-6);
  }
}

TEST_F(ViewSession, MapsThumbnailsAndMeansAgreeWithPatches) {
  const SafetensorsFile map = numbers({{"ask", "map"}, {"trace", 1}, {"layer", 0}, {"head", 1}});
  const SafetensorsFile whole = numbers({{"ask", "patch"}, {"trace", 1}, {"layer", 0}, {"head", 1}});
  double sum = 0;
  for (int i = 0; i < 256; ++i) sum += static_cast<double>(whole.at("weights").as<float>()[i]);
  EXPECT_NEAR(map.at("mean.64").as<float>()[0], sum / 256, 1e-6);
  EXPECT_EQ(map.metadata.at("row_step"), "1");
  EXPECT_EQ(map.at("entropy").elements(), 16);

  const SafetensorsFile all = numbers({{"ask", "thumbnails"}, {"trace", 1}, {"size", 16}});
  EXPECT_EQ(all.at("thumbnails").shape(), (Dims{2, 2, 16, 16}));
  const SafetensorsFile mean = numbers({{"ask", "mean"}, {"trace", 1}, {"heads", {{0, 1}, {1, 0}}}});
  for (int i = 0; i < 256; ++i) {
    EXPECT_EQ(all.at("thumbnails").as<float>()[256 + i], whole.at("weights").as<float>()[i]);
    EXPECT_NEAR(mean.at("weights").as<float>()[i],
                (all.at("thumbnails").as<float>()[256 + i] + all.at("thumbnails").as<float>()[512 + i]) / 2, 1e-6);
  }
}

// Rows whose lse is too coarse take a map's pass twice; another program's sums are not believed.
TEST_F(ViewSession, APatchHasTheSameBitsBeforeAndAfterAMap) {
  for (const bool sums : {false, true}) {
    lens::save_trace(path("sharp"), lens::random_trace({2, 1, 90, 90, 16}, [&](lens::Trace& t) {
                       t.text = std::string(90, 'a');
                       std::fill(t.tokens.begin(), t.tokens.end(), "a");
                       for (lens::TraceLayer& layer : t.layers) {
                         for (std::int64_t i = 0; i < 90 * 16; ++i) layer.storage[1].as<float>()[i] *= 30;
                         if (!sums) continue;
                         Tensor row_sum(DType::kF32, {2, 90});
                         std::fill_n(row_sum.as<float>(), 180, 1.0f);
                         lens::add(layer, &lens::TraceLayer::row_sum, row_sum);
                       }
                     }));
    Session without("native"), with("native");
    const std::string bytes = text_of(path("sharp"));
    without.open_trace(bytes), with.open_trace(bytes);
    with.ask(R"({"ask": "map", "trace": 1, "layer": 1, "head": 1})");
    with.ask(R"({"ask": "patch", "trace": 1, "layer": 1, "head": 1, "rows": [60, 90], "keys": [3, 5]})");
    const std::string question =
        R"({"ask": "patch", "trace": 1, "layer": 1, "head": 1, "rows": [40, 85], "keys": [10, 80]})";
    EXPECT_EQ(without.ask(question).bytes, with.ask(question).bytes) << "sums " << sums;
  }
}

TEST_F(ViewSession, HeadsAndLinksAreThoseOfLook) {
  const json heads = ask({{"ask", "heads"}, {"trace", 1}});
  EXPECT_EQ(heads["heads"].size(), 4u);
  EXPECT_EQ(heads["score_rules"][0]["score"], "self");
  const json links = ask({{"ask", "links"}, {"trace", 1}, {"pairs", {{5, 2}}}})["links"];
  const SafetensorsFile row = numbers({{"ask", "row"}, {"trace", 1}, {"layer", 1}, {"head", 1}, {"row", 6}});
  EXPECT_NEAR(links[0]["heads"][1][1]["weight"].get<double>(), row.at("weights").as<float>()[3], 1e-6);
  EXPECT_EQ(links[0]["offset"], -3);
}

TEST_F(ViewSession, SaysWhatWouldDivide) {
  const json dims = ask({{"ask", "dims"}, {"d_model", 512}, {"heads", {7, 8}}});
  EXPECT_EQ(dims["heads"][0]["divides"], false);
  EXPECT_EQ(dims["heads"][0]["dropped"], 1);
  EXPECT_EQ(dims["heads"][1]["d_k"], 64);
  const json time = ask({{"ask", "time"}, {"d_model", 64}, {"heads", 4}, {"tokens", 1}});
  EXPECT_EQ(time["where"], "native");
  EXPECT_GT(time["seconds"], 0);
  EXPECT_GT(time["over_single_head"], 0);
  EXPECT_GT(time["repeats"], 10);  // some microseconds, and 20 ms is the least
  EXPECT_NE(error_of(session_, R"({"ask": "time", "d_model": 512, "heads": 7})").find("512 = 7 * 73 + 1"),
            std::string::npos);
}

TEST_F(ViewSession, RefusesWhatDoesNotFitAndGoesOn) {
  const auto expect = [&](const std::string& question, const std::string& part) {
    EXPECT_NE(error_of(session_, question).find(part), std::string::npos) << error_of(session_, question);
  };
  expect("", "ask: empty");
  expect("[", "ask: not JSON");
  expect("[]", "a JSON object is needed");
  expect(R"({"ask": "pictures"})", "one of about, trace, patch");
  expect(R"({"ask": "trace", "trace": 2})", "\"trace\" is 2; the number of an open trace is needed");
  expect(R"({"ask": "patch", "trace": 1, "layer": 2, "head": 0})", "\"layer\" is 2; an integer from 0 to 1");
  expect(R"({"ask": "patch", "trace": 1, "layer": 1, "head": 2})", "\"head\" is 2; an integer from 0 to 1");
  for (const char* rows :
       {"[3, 3]", "[4, 2]", "[0, 17]", "[-1, 2]", "[0.5, 2]", "[1]", "[0, 99999999999999999999]", "7"}) {
    expect(std::string(R"({"ask": "patch", "trace": 1, "layer": 1, "head": 1, "rows": )") + rows + "}", "\"rows\"");
  }
  expect(R"({"ask": "why", "trace": 1, "layer": 1, "head": 1, "row": 1, "key": 16})", "\"key\" is 16");
  expect(R"({"ask": "links", "trace": 1, "pairs": [[0, 14]]})", "14");
  expect(R"({"ask": "encode", "model": 1})", "an open model");
  EXPECT_THROW(session_.open_trace("no trace"), Error);
  EXPECT_THROW(session_.close(7), Error);
  EXPECT_EQ(ask({{"ask", "trace"}, {"trace", 1}})["layers"], 2);
  session_.close(1);
  expect(R"({"ask": "trace", "trace": 1})", "an open trace");
}

TEST_F(ViewSession, ProgressCancels) {
  for (const char* question :
       {R"({"ask": "map", "trace": 1, "layer": 0, "head": 0})", R"({"ask": "heads", "trace": 1})",
        R"({"ask": "links", "trace": 1, "pairs": [[0, 1]]})", R"({"ask": "thumbnails", "trace": 1, "size": 16})"}) {
    int calls = 0;
    const Answer answer = session_.ask(question, [&](double) { return ++calls > 1; });
    EXPECT_EQ(json::parse(answer.bytes)["cancelled"], true) << question;
    EXPECT_EQ(calls, 1) << question;
  }
}

TEST_F(CliViewSession, ALayerGivesTheBitsOfTheVerb) {
  std::mt19937 random(5);
  StateDict state, input;
  state.emplace("in_proj_weight", lens::random_tensor({36, 12}, random));
  state.emplace("in_proj_bias", lens::random_tensor({36}, random));
  state.emplace("out_proj.weight", lens::random_tensor({12, 12}, random));
  state.emplace("out_proj.bias", lens::random_tensor({12}, random));
  input.emplace("query", lens::random_tensor({2, 5, 12}, random));
  save_safetensors(path("w"), state);
  save_safetensors(path("x"), input);
  const std::int64_t weights = session_.open_tensors(text_of(path("w")));
  const std::int64_t query = session_.open_tensors(text_of(path("x")));
  json question = {{"ask", "layer"}, {"weights", weights}, {"input", query}, {"heads", 3}, {"with_weights", true}};
  const SafetensorsFile answer = numbers(question);
  const auto verb = cli_test::run({"layer", path("w"), path("x"), "-o", path("y"), "--heads", "3", "--weights"});
  ASSERT_EQ(verb.code, 0) << verb.err;
  const SafetensorsFile file = load_safetensors(path("y"));
  for (const char* name : {"output", "weights"}) {
    const Tensor &a = answer.at(name), &b = file.at(name);
    ASSERT_EQ(a.shape(), b.shape()) << name;
    EXPECT_EQ(std::memcmp(a.as<float>(), b.as<float>(), 4 * static_cast<std::size_t>(a.elements())), 0) << name;
  }
  question["heads"] = 5;
  EXPECT_NE(error_of(session_, question.dump()).find("d_model 12 is not divisible by 5 heads"), std::string::npos)
      << error_of(session_, question.dump());
  question["input"] = weights;
  question["heads"] = 3;
  EXPECT_EQ(error_of(session_, question.dump()), "input has no tensor \"query\"");
  session_.close(weights);
  EXPECT_NE(error_of(session_, question.dump()), "");
}

TEST_F(ViewSession, SharedKeyHeadsTakeFewerParameters) {
  const auto cut = [&](int kv_heads) {
    return ask({{"ask", "dims"}, {"d_model", 48}, {"heads", {8}}, {"kv_heads", kv_heads}, {"tokens", 3}})["heads"][0];
  };
  for (const int kv_heads : {1, 2, 4, 8}) {
    const MultiHeadAttention layer({.d_model = 48, .num_heads = 8, .num_kv_heads = kv_heads});
    EXPECT_EQ(cut(kv_heads)["parameters"], layer.parameter_count()) << kv_heads;
    EXPECT_EQ(cut(kv_heads)["shapes"]["W_k"], json({48, 6 * kv_heads})) << kv_heads;
    EXPECT_EQ(cut(kv_heads)["steps"][0]["flop"], 2 * 3 * 48 * (48 + 2 * 6 * kv_heads)) << kv_heads;
  }
  EXPECT_EQ(cut(3)["divides"], false);
  EXPECT_EQ(cut(3)["problem"], "num_heads 8 is not a multiple of num_kv_heads 3");
}

}  // namespace
}  // namespace manyheads::view
