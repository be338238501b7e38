// What a card says of a plan in a line.
#include "lamina/cli/card.h"

#include <gtest/gtest.h>

namespace lamina::cli {
namespace {

TEST(DoneBy, CountsCutsAsCutsAndNothingElse) {
  EXPECT_EQ(done_by({}, 60), "0 of 60 parts cut");
  EXPECT_EQ(done_by({.edits = {Cut{"a", {}}, Cut{"b", {}}, Silence{"c"}}}, 60), "3 of 60 parts cut");
  EXPECT_EQ(done_by({.edits = {Cut{"a", {}}, Clamp{.site = "b"}}}), "1 sub-layers cut, 1 neuron clamped");
}

TEST(DoneBy, EditsThatLeavePartsAreNoCuts) {
  EXPECT_EQ(done_by({.edits = {Regional{.site = "a"}}}, 60), "1 attention sees windows");
  EXPECT_EQ(
      done_by({.edits = {Inherit{.site = "a", .conv = "conv1"}, Inherit{.site = "a", .conv = "conv2"}}}, 60),
      "2 convolutions inherit kernels");
  EXPECT_EQ(done_by({.edits = {Blend{.site = "a", .conv = "conv1"}}}, 60), "1 mixed convolution made plain");
  EXPECT_EQ(done_by({.edits = {Unmask{"a"}, Unmask{"b"}}}, 60), "2 attentions unmasked");
  EXPECT_EQ(done_by({.edits = {Cut{"a", {}}, Regional{.site = "b"}, Regional{.site = "c"},
                               Inherit{.site = "d", .conv = "conv1"}}},
                    28),
            "1 of 28 parts cut, 2 attentions see windows, 1 convolution inherits kernels");
}

TEST(DoneBy, ANormWithTwoReadersIsOne) {
  EXPECT_EQ(done_by({.edits = {FreezeNorm{.site = "a"}, FreezeNorm{.site = "a", .reader = Reader::head}}}),
            "1 norm frozen");
}

}  // namespace
}  // namespace lamina::cli
