#include "kernels/isa/processor.hpp"

#include <gtest/gtest.h>

#include <cerrno>

namespace manyheads::kernels {
namespace {

constexpr TileFacts kAllowed = {.tiles = true, .bf16 = true, .bf16_products = true, .state_kept = true};

TEST(Tiles, AProcessorThatHasThemOrNoneNeedsNoReason) {
  EXPECT_EQ(why_no_tiles(kAllowed), "");
  EXPECT_EQ(why_no_tiles(TileFacts{}), "");
  EXPECT_EQ(why_no_tiles(TileFacts{.bf16_products = true, .refused = EPERM}), "");
}

TEST(Tiles, WhatKeepsThemAwayIsSaid) {
  TileFacts facts = kAllowed;
  facts.refused = EPERM;
  EXPECT_EQ(why_no_tiles(facts), "the system refuses them to this process: Operation not permitted");
  facts.state_kept = false;
  EXPECT_EQ(why_no_tiles(facts), "the system keeps no state of them");
  facts.bf16_products = false;
  EXPECT_EQ(why_no_tiles(facts), "the processor shows no AVX-512 BF16");
  facts.bf16 = false;
  EXPECT_EQ(why_no_tiles(facts), "the processor's multiply no BF16");
}

TEST(Tiles, WhereTheyRunThereIsNoReason) { EXPECT_TRUE(!has_amx_bf16() || why_no_tiles().empty()); }

}  // namespace
}  // namespace manyheads::kernels
