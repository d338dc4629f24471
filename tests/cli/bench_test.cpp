#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "program.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

json bench(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"bench", "--json", "--quick"});
  const Result result = run(arguments);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  return json::parse(result.out);
}

void expect_keys(const json& row) {
  for (const char* key :
       {"case", "dtype", "head_dim", "tokens", "threads", "causal", "isa", "limit_gflops", "gflops", "fraction"}) {
    EXPECT_TRUE(row.contains(key)) << key << " in " << row;
  }
  EXPECT_FALSE(row.at("isa").get<std::string>().empty()) << row;
}

TEST(CliBench, LinearRowsAreFractionsOfTheLimitAndExact) {
  const json rows = bench({"--case", "linear", "--threads", "1"});
  ASSERT_EQ(rows.size(), 4u);
  for (const json& row : rows) {
    expect_keys(row);
    EXPECT_EQ(row.at("threads"), 1);
    const double fraction = row.at("gflops").get<double>() / row.at("limit_gflops").get<double>();
    EXPECT_DOUBLE_EQ(row.at("fraction").get<double>(), fraction);
    EXPECT_LT(row.at("max_error").get<double>(), 1e-3);
  }
}

TEST(CliBench, LimitsOfEachInstructionSetAndOfMemory) {
  const json rows = bench({"--case", "limit", "--threads", "2"});
  bool memory = false, fma = false;
  for (const json& row : rows) {
    expect_keys(row);
    fma = fma || (row.at("case") == "limit fma" && row.at("limit_gflops").get<double>() > 0);
    memory = memory || (row.at("case") == "limit memory" && row.at("gbs").get<double>() > 0);
  }
  EXPECT_TRUE(fma && memory) << rows;
}

TEST(CliBench, AttentionAndTheLayerAgreeWithFloat64) {
  for (const char* name : {"attention", "layer"}) {
    const json rows = bench({"--case", name, "--threads", "1"});
    EXPECT_FALSE(rows.empty());
    for (const json& row : rows) {
      expect_keys(row);
      EXPECT_LT(row.at("max_error").get<double>(), row.at("dtype") == "f32" ? 1e-4 : 2e-2) << row;
    }
  }
}

}  // namespace
}  // namespace manyheads::cli_test
