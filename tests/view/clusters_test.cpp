#include <gtest/gtest.h>

#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/safetensors_bytes.hpp"
#include "lens/head_distances.hpp"
#include "lens/random_trace.hpp"
#include "lens/rollout.hpp"
#include "view/memory_file.hpp"
#include "view/session.hpp"

namespace manyheads::view {
namespace {

using nlohmann::json;

class ViewClusters : public testing::Test {
 protected:
  void SetUp() override { session_.open_trace(lens::random_trace({3, 3, 12, 12, 4})); }
  json ask(const std::string& question) { return json::parse(session_.ask(question).bytes); }

  lens::Trace trace_ = lens::random_trace({3, 3, 12, 12, 4});
  Session session_{"native", {.num_threads = 1}};
};

TEST_F(ViewClusters, AreThoseOfTheHeadsDistances) {
  const json answer = ask(R"({"ask": "clusters", "trace": 1, "clusters": 4})");
  const std::size_t each = static_cast<std::size_t>(trace_.num_heads(0)), all = trace_.layers.size() * each;
  lens::HeadDistances distances(all);
  distances.add(trace_, {.num_threads = 1});
  const std::vector<double> mean = distances.mean();
  ASSERT_EQ(answer["distances"].size(), all);
  for (std::size_t a = 0; a < all; ++a) {
    for (std::size_t b = 0; b < all; ++b) EXPECT_EQ(answer["distances"][a][b], mean[a * all + b]) << a << " " << b;
  }
  const std::vector<lens::HeadCluster> clusters = lens::cluster_heads(mean, all, 4);
  ASSERT_EQ(answer["clusters"].size(), clusters.size());
  for (std::size_t c = 0; c < clusters.size(); ++c) {
    EXPECT_EQ(answer["clusters"][c]["mean_distance"], clusters[c].mean_distance);
    ASSERT_EQ(answer["clusters"][c]["heads"].size(), clusters[c].heads.size());
    for (std::size_t i = 0; i < clusters[c].heads.size(); ++i) {
      EXPECT_EQ(answer["clusters"][c]["heads"][i], json({clusters[c].heads[i] / each, clusters[c].heads[i] % each}));
    }
  }
}

TEST_F(ViewClusters, AreAtLeastOneAndAtMostEveryHead) {
  EXPECT_EQ(ask(R"({"ask": "clusters", "trace": 1, "clusters": 1})")["clusters"].size(), 1u);
  EXPECT_THROW(session_.ask(R"({"ask": "clusters", "trace": 1, "clusters": 0})"), Error);
  EXPECT_THROW(session_.ask(R"({"ask": "clusters", "trace": 1, "clusters": 1000})"), Error);
  EXPECT_THROW(session_.ask(R"({"ask": "clusters", "trace": 7, "clusters": 2})"), Error);
}

TEST_F(ViewClusters, RolloutIsThatOfTheTrace) {
  const Answer answer = session_.ask(R"({"ask": "rollout", "trace": 1})");
  const SafetensorsFile file = io::read_safetensors(memory_file(answer.bytes), "answer");
  const std::vector<double> wanted = lens::attention_rollout(trace_, {.num_threads = 1});
  ASSERT_EQ(file.at("rollout").elements(), static_cast<std::int64_t>(wanted.size()));
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(file.at("rollout").as<double>()[i], wanted[i]) << i;
}

TEST_F(ViewClusters, AClosedTraceIsForgotten) {
  EXPECT_EQ(ask(R"({"ask": "close", "trace": 1})")["closed"], 1);
  EXPECT_THROW(session_.ask(R"({"ask": "rollout", "trace": 1})"), Error);
  EXPECT_THROW(session_.ask(R"({"ask": "close", "trace": 1})"), Error);
}

}  // namespace
}  // namespace manyheads::view
