#include "view/limits.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "view/session.hpp"

namespace manyheads::view {
namespace {

using nlohmann::json;

json ask(Session& session, const json& question) { return json::parse(session.ask(question.dump()).bytes); }

TEST(ViewLimits, AreMeasuredOnceAndBindEachStep) {
  Session session("native", {.num_threads = 1});
  const json question = {{"ask", "dims"}, {"d_model", 512}, {"heads", {7, 8}}, {"tokens", 2048}};
  const json before = ask(session, question);
  EXPECT_EQ(before["limits"], nullptr);
  EXPECT_EQ(before["heads"][1]["steps"][0]["limit"], nullptr);

  const json limits = ask(session, {{"ask", "limits"}});
  EXPECT_GT(limits["fma_gflops"], 0.1);
  EXPECT_GT(limits["memory_gbs"], 0.1);
  EXPECT_GE(limits["memory_bytes"], 1 << 20);
  EXPECT_EQ(limits["where"], "native");
  EXPECT_EQ(limits["threads"], 1);
  EXPECT_EQ(ask(session, {{"ask", "limits"}}), limits);  // to the bit: it is not measured again

  const json after = ask(session, question);
  for (const char* name : {"isa", "fma_gflops", "memory_gbs"}) EXPECT_EQ(after["limits"][name], limits[name]);
  const double ridge = limits["fma_gflops"].get<double>() / limits["memory_gbs"].get<double>();
  int memory = 0;
  json steps = after["heads"][1]["steps"];
  steps.push_back(after["heads"][1]["fused"]);
  for (const json& step : steps) {
    const bool below = step["intensity"].get<double>() < ridge;
    EXPECT_EQ(step["limit"], below ? "memory" : "fma") << step;
    memory += below;
  }
  EXPECT_GT(memory, 0);  // softmax: 5 FLOP for 8 bytes
}

TEST(ViewLimits, ProgressCancelsAndNothingIsKept) {
  Session session("native", {.num_threads = 1});
  const Answer answer = session.ask(R"({"ask": "limits"})", [](double) { return false; });
  EXPECT_EQ(json::parse(answer.bytes)["cancelled"], true);
  EXPECT_EQ(ask(session, {{"ask", "dims"}, {"heads", {8}}})["limits"], nullptr);
}

}  // namespace
}  // namespace manyheads::view
