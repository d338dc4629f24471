#include <gtest/gtest.h>

#include <manyheads/mask.hpp>

#include "attention/call.hpp"

namespace manyheads::test {
namespace {

TEST(MaskParts, ComposeInAnyOrder) {
  const Strided lengths = integers({1});
  const Strided added = dense(DType::kF32, {1});
  const Mask one = mask::causal(Alignment::kBottomRight) | mask::key_lengths(lengths.view()) | mask::window(3, 4) |
                   mask::bias(added.view());
  const Mask two = mask::bias(added.view()) | mask::window(3, 4) | mask::key_lengths(lengths.view()) |
                   mask::causal(Alignment::kBottomRight);
  for (const Mask& mask : {one, two}) {
    EXPECT_TRUE(mask.causal);
    EXPECT_EQ(mask.alignment, Alignment::kBottomRight);
    EXPECT_EQ(mask.window_left, 3);
    EXPECT_EQ(mask.window_right, 4);
    EXPECT_EQ(mask.key_lengths.data(), lengths.view().data());
    EXPECT_EQ(mask.bias.data(), added.view().data());
    EXPECT_FALSE(mask.allowed.defined());
  }
}

TEST(MaskParts, GivenTwiceAreAnError) {
  const Strided tensor = integers({1});
  const ConstTensorView view = tensor.view();
  const auto twice = [](const Mask& a, const Mask& b) { return error_of([&] { static_cast<void>(a | b); }); };
  EXPECT_EQ(twice(mask::window(1, 2), mask::window(1, 2)), "mask: window is given twice");
  EXPECT_EQ(twice(mask::window(1, -1), mask::window(-1, 0)), "mask: window is given twice");
  EXPECT_EQ(twice(mask::key_lengths(view), mask::key_lengths(view)), "mask: key_lengths is given twice");
  EXPECT_EQ(twice(mask::offsets(view), mask::offsets(view)), "mask: offsets is given twice");
  EXPECT_EQ(twice(mask::documents(view, view), mask::documents(view, view)), "mask: q_documents is given twice");
  EXPECT_EQ(twice(mask::allowed(view), mask::allowed(view)), "mask: allowed is given twice");
  EXPECT_EQ(twice(mask::bias(view), mask::causal() | mask::bias(view)), "mask: bias is given twice");
  EXPECT_EQ(twice(mask::alibi(view), mask::alibi(view)), "mask: alibi_slopes is given twice");
}

TEST(MaskParts, AlignmentsMustAgree) {
  EXPECT_EQ(
      error_of([] { static_cast<void>(mask::causal(Alignment::kTopLeft) | mask::align(Alignment::kBottomRight)); }),
      "mask: one part is aligned top-left, another bottom-right");
  EXPECT_EQ((mask::causal(Alignment::kTopLeft) | mask::window(1, 1, Alignment::kTopLeft)).alignment,
            Alignment::kTopLeft);
  EXPECT_EQ((mask::causal() | mask::causal()).causal, true);
}

}  // namespace
}  // namespace manyheads::test
