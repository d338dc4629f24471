#include "kernels/tuning.hpp"

#include <gtest/gtest.h>

#include <manyheads/attention.hpp>

#include "attention/call.hpp"

namespace manyheads::test {
namespace {

TEST(Tuning, SaysEachFigureAndIsPartOfAnExplanation) {
  const kernels::Tuning& tuning = kernels::tuning();
  EXPECT_GT(tuning.l2_bytes, tuning.l1_bytes);
  EXPECT_GT(tuning.alone_bytes, 0);
  EXPECT_GT(tuning.keys_together_bytes, 0);
  const std::string text = tuning.to_string();
  EXPECT_TRUE(contains(text, "l1_bytes=" + std::to_string(tuning.l1_bytes))) << text;
  EXPECT_TRUE(contains(text, ",linear_depth=2048")) << text;
  Call call({.tq = 2, .tk = 3});
  EXPECT_EQ(call.explanation().tuning, text);
  EXPECT_TRUE(contains(call.explanation().to_string(), text));
}

TEST(Tuning, AnOverrideIsCheckedAndWhatFollowsFromItMoves) {
  const auto error = [](const char* text) { return error_of([text] { kernels::tuned(text); }); };
  EXPECT_TRUE(contains(error("l3_byte=5"), "MANYHEADS_TUNING: \"l3_byte=5\" sets no figure of the tuning; there are l1_"));
  EXPECT_TRUE(contains(error("l2_bytes"), "MANYHEADS_TUNING: \"l2_bytes\" sets no figure"));
  EXPECT_EQ(error("l2_bytes=x"), "MANYHEADS_TUNING: l2_bytes is \"x\", expected a whole number of 1024 to 2^40");
  EXPECT_EQ(error("tasks_per_worker=0"),
            "MANYHEADS_TUNING: tasks_per_worker is \"0\", expected a whole number of 1 to 2^40");
  const kernels::Tuning moved = kernels::tuned("l2_bytes=4194304,blocks_together=3");
  EXPECT_EQ(moved.keys_together_bytes, 1048576);
  EXPECT_EQ(moved.alone_bytes, 8388608);
  EXPECT_EQ(moved.blocks_together, 3);
  EXPECT_EQ(kernels::tuned("").to_string(), kernels::tuned(nullptr).to_string());
}

}  // namespace
}  // namespace manyheads::test
