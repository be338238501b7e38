#include "lamina/methods/repair/repair.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "tests/laws/unets.h"

namespace lamina::repair {
namespace {

using testing::HasSubstr;

using tiny::four_stages;
using tiny::unet_architecture;

// Maps large enough for more positions than unknowns; other times in each batch.
std::vector<Inputs> samples(const Json& config, int64_t batches) {
  std::vector<Inputs> list;
  for (int64_t b = 0; b < batches; ++b) {
    list.push_back(tiny::unet_inputs(config, 100 + 10 * static_cast<uint64_t>(b),
                                     {.batch = 4, .height = 16, .width = 16}));
    list.back().time = list.back().time + 7.0 * static_cast<double>(b);
  }
  return list;
}

// A model whose part adds the same to every position, whatever it reads.
Opened adding_constants(const Opened& opened, const std::string& map) {
  Checkpoint checkpoint = opened.checkpoint;
  for (Stored& stored : checkpoint.tensors) {
    if (stored.name == map + ".weight") stored.zero = true;
  }
  return declare(checkpoint);
}

Opened cut(const Opened& opened, const std::vector<std::string>& sites) {
  return tiny::edited(opened, tiny::cuts(sites));
}

class Repair : public testing::Test {
 protected:
  tiny::Tiny whole_{unet_architecture(), {.config = four_stages()}};
  const Opened& opened() const { return whole_.opened; }
};

TEST_F(Repair, AConstantIsMadeGoodInFrontOfTheGapOrBesideIt) {
  for (const auto& [part, map, mended] :
       {std::tuple{"mid_block.attentions.0", ".proj_out", "mid_block.resnets.0.conv2"},
        std::tuple{"up_blocks.1.resnets.1", ".conv2", "up_blocks.1.resnets.1.conv_shortcut"}}) {
    const Opened teacher = adding_constants(opened(), std::string(part) + map);
    const auto model = build_model(teacher, {.dtype = at::kDouble});
    const Repaired repaired = repair(cut(teacher, {part}), *model, samples(teacher.checkpoint.config, 4), {});
    EXPECT_GT(repaired.before, 1e-8);
    EXPECT_LT(repaired.after, 1e-16 * repaired.before) << part;
    EXPECT_LT(repaired.fitted_after, 1e-16 * repaired.fitted_before) << part;
    ASSERT_FALSE(repaired.rows.empty());
    EXPECT_EQ(repaired.rows.front().path, mended);
    EXPECT_TRUE(repaired.rows.front().kept);
    EXPECT_EQ(repaired.rows.front().target, part);
  }
}

TEST_F(Repair, WhatIsWrittenGivesTheLossThatIsSaid) {
  const auto inputs = samples(opened().checkpoint.config, 4);
  const Opened lacking = cut(opened(), {"down_blocks.1.attentions.0", "up_blocks.2.resnets.1"});
  const Repaired repaired = repair(lacking, *whole_.model, inputs, {});
  EXPECT_LT(repaired.after, repaired.before);
  const InferenceMode evaluating;
  const auto loss = [&](const Opened& model) {  // on the batch that decides
    return (build_model(model, {.dtype = at::kDouble})->run(inputs[3]) - whole_.model->run(inputs[3]))
        .square()
        .mean()
        .item<double>();
  };
  EXPECT_NEAR(loss(lacking), repaired.before, 1e-12 * repaired.before);
  EXPECT_NEAR(loss(repaired.opened), repaired.after, 1e-12 * repaired.after);
  // Only maps that are said to be repaired have changed.
  std::set<std::string> kept;
  for (const Row& row : repaired.rows) {
    if (row.kept) kept.insert(row.path.substr(0, row.path.rfind('.')));
  }
  for (const Stored& stored : repaired.opened.checkpoint.tensors) {
    const Stored& before = *lacking.checkpoint.find(stored.name);
    if (at::equal(load(stored, at::kDouble), load(before, at::kDouble))) continue;
    EXPECT_TRUE(std::ranges::any_of(kept, [&](const std::string& part) {
      return stored.name.starts_with(part);
    })) << stored.name;
  }
}

// Nothing stands in front of the first gap that could be wrong.
TEST_F(Repair, WhatIsBeforeTheGapIsLeftAlone) {
  const Repaired repaired = repair(cut(opened(), {"up_blocks.2.attentions.0"}), *whole_.model,
                                   samples(opened().checkpoint.config, 3), {});
  for (const Row& row : repaired.rows)
    EXPECT_TRUE(row.path.starts_with("up_blocks.") || row.path.starts_with("conv_out")) << row.path;
  EXPECT_EQ(repaired.rows.front().path, "up_blocks.2.resnets.0.conv2");
}

TEST_F(Repair, AModelThatLacksNothingStaysAsItIs) {
  const Repaired repaired = repair(opened(), *whole_.model, samples(opened().checkpoint.config, 2), {});
  EXPECT_TRUE(repaired.rows.empty());
  EXPECT_EQ(repaired.before, 0);
  EXPECT_EQ(repaired.after, 0);
}

// Transformers of several blocks, wrappers that go with the last, parts at both ends; never worse.
TEST(RepairEverywhere, ItIsNeverWorseWhereItDecides) {
  const tiny::Tiny whole(unet_architecture(), {.config = unet_architecture().tiny()});
  const auto inputs = samples(whole.opened.checkpoint.config, 3);
  const std::vector<Part>& parts = whole.opened.blueprint.parts;
  for (size_t every : {2, 3, 5}) {
    for (size_t first = 0; first < 2; ++first) {
      std::vector<std::string> sites;
      for (size_t i = first; i < parts.size(); i += every) sites.push_back(parts[i].path);
      const Repaired repaired = repair(cut(whole.opened, sites), *whole.model, inputs, {});
      EXPECT_LE(repaired.after, repaired.before);
      EXPECT_LT(repaired.after, 0.9 * repaired.before) << every << " " << first;
    }
  }
}

TEST_F(Repair, WhatCannotBeIsRefused) {
  const auto inputs = samples(opened().checkpoint.config, 1);
  EXPECT_THAT(tests::refusal([&] { repair(opened(), *whole_.model, inputs, {}); }), HasSubstr("two batches"));
  const tiny::Tiny other(unet_architecture(), {.config = unet_architecture().tiny()});
  EXPECT_THAT(tests::refusal(
                  [&] { repair(other.opened, *whole_.model, samples(opened().checkpoint.config, 2), {}); }),
              HasSubstr("parts where"));
}

}  // namespace
}  // namespace lamina::repair
