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
  for (const char* key : {"case", "dtype", "head_dim", "tokens", "threads", "causal", "isa", "limit_gflops", "gflops",
                          "limit_gbs", "gbs", "fraction", "over", "ratio", "share", "max_error"}) {
    EXPECT_TRUE(row.contains(key)) << key << " in " << row;
  }
  EXPECT_FALSE(row.at("isa").get<std::string>().empty()) << row;
  EXPECT_NE(row.at("limit_gflops").is_null(), row.at("limit_gbs").is_null()) << row;
  EXPECT_EQ(row.at("limit_gflops").is_null(), row.at("gflops").is_null()) << row;
  EXPECT_EQ(row.at("limit_gbs").is_null(), row.at("gbs").is_null()) << row;
  EXPECT_EQ(row.at("over").is_null(), row.at("ratio").is_null()) << row;
  if (!row.at("ratio").is_null()) {
    EXPECT_GT(row.at("ratio").get<double>(), 0) << row;
  }
}

// Outputs are means of numbers from N(0,1), rounded to the type.
void expect_exact(const json& row) {
  EXPECT_LT(row.at("max_error").get<double>(), row.at("dtype") == "f32" ? 1e-4 : 2e-2) << row;
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
  int beside = 0;
  for (const json& row : rows) {
    expect_keys(row);
    fma = fma || (row.at("case") == "limit fma" && row.at("limit_gflops").get<double>() > 0);
    memory = memory || (row.at("case") == "limit memory" && row.at("gbs").get<double>() > 0);
    beside += row.at("case").get<std::string>().starts_with("limit memory, ") && row.at("gbs").get<double>() > 0;
  }
  EXPECT_TRUE(fma && memory) << rows;
  EXPECT_EQ(beside, 12) << rows;  // three while multiplying, three in pieces, on one thread and on two
}

TEST(CliBench, AttentionAndTheLayerAgreeWithFloat64) {
  for (const char* name : {"attention", "small", "layer"}) {
    const json rows = bench({"--case", name, "--threads", "1"});
    EXPECT_FALSE(rows.empty());
    for (const json& row : rows) {
      expect_keys(row);
      expect_exact(row);
      EXPECT_TRUE(row.at("ratio").is_null()) << row;
    }
  }
}

TEST(CliBench, SmallCallsAreShownByTheirTime) {
  const Result result = run({"bench", "--quick", "--case", "small", "--threads", "1"});
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* name : {"small 1x4x1x16", "small 1x8x7x64"}) {
    const std::size_t at = result.out.find(name);
    ASSERT_NE(at, std::string::npos) << result.out;
    EXPECT_LT(result.out.find(" us ", at), result.out.find('\n', at)) << result.out;
  }
}

TEST(CliBench, MapsOfHeadsAreExactAndSayTheirMemory) {
  const json rows = bench({"--case", "pyramid", "--threads", "1"});
  ASSERT_EQ(rows.size(), 2u);
  for (const json& row : rows) {
    expect_keys(row);
    EXPECT_EQ(row.at("limit"), "fma");
    EXPECT_LT(row.at("max_error").get<double>(), 1e-7);
  }
  EXPECT_EQ(rows[1].at("case"), "pyramid, coarse");
  EXPECT_TRUE(rows[1].at("megabytes").is_null());
  const double megabytes = rows[0].at("megabytes").get<double>();
  EXPECT_GE(megabytes, 0);
  EXPECT_LT(megabytes, 16);  // 1.5 of tokens, 0.3 of cells
  const json patches = bench({"--case", "patch", "--threads", "1"});
  ASSERT_EQ(patches.size(), 1u);
  EXPECT_LT(patches[0].at("max_error").get<double>(), 1e-7);
}

TEST(CliBench, RatiosSayOverWhat) {
  const std::pair<const char*, const char*> cases[] = {{"sharp, keys x30", "keys of N(0,1)"},
                                                       {"window", "share x no mask"},
                                                       {"documents", "share x no mask"},
                                                       {"key lengths", "share x no mask"},
                                                       {"bool mask", "no mask"},
                                                       {"float bias", "no mask"},
                                                       {"layout", "layout BHTD"},
                                                       {"packed", "one call a sequence"}};
  for (const auto& [name, over] : cases) {
    json rows = bench({"--case", name, "--threads", "1"});
    std::erase_if(*rows.get_ptr<json::array_t*>(),  // those of the backward have the names of masks too
                  [&](const json& row) { return !row.at("case").get<std::string>().starts_with(name); });
    ASSERT_EQ(rows.size(), 1u) << name;
    expect_keys(rows[0]);
    expect_exact(rows[0]);
    EXPECT_EQ(rows[0].at("over"), over);
    const json& share = rows[0].at("share");
    EXPECT_EQ(share.is_null(), over != std::string("share x no mask")) << name;
    if (!share.is_null()) {
      EXPECT_NEAR(share.get<double>(), 0.1, 1e-3) << name;
    }
  }
}

// Gradients are sums of some values of N(0,1): near float64, and half types near their rounding.
TEST(CliBench, TheBackwardAgreesWithFloat64) {
  const json rows = bench({"--case", "backward", "--threads", "2"});
  std::vector<std::string> names;
  for (const json& row : rows) {
    expect_keys(row);
    EXPECT_LT(row.at("max_error").get<double>(), row.at("dtype") == "f32" ? 1e-5 : 5e-2) << row;
    names.push_back(row.at("case").get<std::string>() + (row.at("causal") ? ", causal" : "") +
                    (row.at("over").is_null() ? "" : " over " + row.at("over").get<std::string>()));
  }
  EXPECT_EQ(names, (std::vector<std::string>{
                       "backward", "backward, causal over full", "backward", "backward, causal over full",
                       "backward, dropout 10 % over no dropout", "backward, window 10 % over share x no mask",
                       "backward, documents 10 % over share x no mask", "backward, one head over one thread"}));
  // Five products where the forward has two.
  EXPECT_NEAR(rows[0].at("gflops").get<double>() * rows[0].at("seconds").get<double>(),
              10.0 * 8 * 64 * 1024 * 1024 / 1e9, 1e-6);
}

TEST(CliBench, MoreThreadsAreOverOne) {
  const json rows = bench({"--case", "linear", "--tokens", "64", "--threads", "2"});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_TRUE(rows[0].at("over").is_null());
  EXPECT_EQ(rows[1].at("threads"), 2);
  EXPECT_EQ(rows[1].at("over"), "one thread");
}

TEST(CliBench, DecodingIsAFractionOfMemory) {
  const json rows = bench({"--case", "decode", "--threads", "2"});
  ASSERT_EQ(rows.size(), 4u);
  for (const json& row : rows) {
    expect_keys(row);
    EXPECT_EQ(row.at("limit"), "memory");
    EXPECT_EQ(row.at("threads"), 2);
    EXPECT_EQ(row.at("heads"), 32);
    EXPECT_EQ(row.at("kv_heads"), 4);
    EXPECT_DOUBLE_EQ(row.at("fraction").get<double>(), row.at("gbs").get<double>() / row.at("limit_gbs").get<double>());
    // Queries and outputs are BF16 beside I8 keys.
    EXPECT_LT(row.at("max_error").get<double>(), row.at("dtype") == "i8" ? 2e-3 : 1e-4) << row;
  }
  EXPECT_EQ(rows[1].at("dtype"), "i8");
  EXPECT_EQ(rows[1].at("over"), "bf16");
  EXPECT_EQ(rows[2].at("case"), "decode, I8 products");
  EXPECT_EQ(rows[3].at("over"), "contiguous");
}

TEST(CliBench, FiltersHoldTogether) {
  const json rows = bench({"--case", "attention", "--dtype", "f32", "--head-dim", "128", "--threads", "1"});
  ASSERT_EQ(rows.size(), 2u);  // full and causal
  for (const json& row : rows) {
    EXPECT_EQ(row.at("dtype"), "f32");
    EXPECT_EQ(row.at("head_dim"), 128);
  }
  for (const std::vector<std::string>& none :
       {std::vector<std::string>{"--case", "nothing"}, {"--head-dim", "3"}, {"--case", "decode", "--dtype", "bf16"}}) {
    std::vector<std::string> arguments{"bench", "--quick"};
    arguments.insert(arguments.end(), none.begin(), none.end());
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 2) << none.front();
    EXPECT_TRUE(is_one_line(result, "no case fits")) << result.err;
  }
  EXPECT_EQ(run({"bench", "--dtype", "f64"}).code, 2);
}

}  // namespace
}  // namespace manyheads::cli_test
