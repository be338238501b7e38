// Masks taken off, for every architecture: what the pass with the tap gives, the edited checkpoint gives; who
// sees the future is who the plan says; padding and batches change nothing; a token classifier is the same
// stack with another head.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/blueprint/absence.h"
#include "lamina/eval/generate.h"
#include "lamina/export/export.h"
#include "lamina/methods/unmask/tagger.h"
#include "lamina/plan/mask.h"
#include "tests/laws/tiny.h"

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using tests::refusal;
using tiny::Tiny;
namespace fs = std::filesystem;

class MaskLaws : public testing::TestWithParam<const Architecture*> {
 protected:
  const Architecture& architecture() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Every, MaskLaws, testing::ValuesIn(tiny::listed()),
                         [](const auto& info) { return std::string(info.param->name); });

Opened with(const Opened& opened, const MaskPlan& mask) {
  return declare(apply(opened.checkpoint, opened.blueprint, edits_of(mask, opened.blueprint)));
}

std::unique_ptr<Model> built(const Opened& opened) {
  return build_model(opened, {.dtype = at::kDouble});
}

TEST_P(MaskLaws, ApplyGivesWhatTheTapGives) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  const auto ids = tiny::tokens(24, blueprint.vocabulary, 7);
  const Tensor causal = tiny::logits(*model.model, ids);
  for (const MaskPlan& mask : every_mask_plan(4, blueprint)) {
    SCOPED_TRACE(mask.name);
    Unmasking tap(blueprint, edits_of(mask, blueprint));
    const Opened edited = with(model.opened, mask);
    EXPECT_EQ(mask_plan_of(edited.blueprint), mask);
    const Tensor there = tiny::logits(*built(edited), ids);
    EXPECT_TRUE(at::equal(tiny::logits(*model.model, ids, tap), there));
    EXPECT_EQ(at::equal(there, causal), mask.blocks.empty());
  }
}

// The plan is in the checkpoint: written, read again, the same to the bit; and stock loaders refuse it.
TEST_P(MaskLaws, ThePlanIsStored) {
  const Tiny model(architecture());
  const tests::Folder folder;
  const MaskPlan mask = mask_plan("0110", model.opened.blueprint);
  const Opened edited = with(model.opened, mask);
  fs::create_directory(folder / "m");
  write_folder(edited.checkpoint, folder / "m", {});
  const Opened again = open(folder / "m");
  EXPECT_EQ(mask_plan_of(again.blueprint), mask);
  EXPECT_EQ(again.checkpoint.config.at("model_type").get<std::string>(),
            "lamina_" + std::string(architecture().model_type));
  const auto ids = tiny::tokens(16, again.blueprint.vocabulary, 3);
  EXPECT_TRUE(at::equal(tiny::logits(*built(again), ids), tiny::logits(*built(edited), ids)));
  // Taken back, it is the stock model again.
  Checkpoint stock = again.checkpoint;
  write_unmasked(stock.config, {});
  name_for_loaders(stock.config, again.blueprint);
  EXPECT_EQ(stock.config, model.opened.checkpoint.config);
}

TEST_P(MaskLaws, WhoSeesTheFutureIsWhoThePlanSays) {
  const Tiny model(architecture());
  for (const MaskPlan& mask : every_mask_plan(4, model.opened.blueprint)) {
    SCOPED_TRACE(mask.name);
    const unmask::MaskTest test = unmask::mask_test(*built(with(model.opened, mask)));
    EXPECT_EQ(test.looks_right, !mask.blocks.empty());
    EXPECT_EQ(test.first_block, mask.blocks.empty() ? -1 : mask.blocks.front());
    EXPECT_EQ(test.reacting, mask.blocks.empty() ? 0 : model.opened.blueprint.blocks - mask.blocks.front());
  }
}

// A causal model under another's name is found out.
TEST_P(MaskLaws, TheSelfTestCatchesAWrongPlan) {
  class Lying : public Model {
   public:
    Lying(Blueprint blueprint, const Model& inner)
        : Model(std::move(blueprint), inner.dtype()), inner_(inner) {
      head_ = inner.head();
    }
    Stream begin(const Inputs& inputs) const override { return inner_.begin(inputs); }
    void step(Stream& stream, Site site, Tap& tap) const override { inner_.step(stream, site, tap); }
    Tensor read_out(const Stream& stream, Tap& tap) const override { return inner_.read_out(stream, tap); }

   private:
    const Model& inner_;
  };
  const Tiny model(architecture());
  const Opened right = with(model.opened, mask_plan("0010", model.opened.blueprint));
  const Lying causal(right.blueprint, *model.model);
  EXPECT_THAT(refusal([&] { unmask::mask_test(causal); }), HasSubstr("self-test failed"));
  const auto unmasked = built(right);
  const Lying leaks(model.opened.blueprint, *unmasked);
  EXPECT_THAT(refusal([&] { unmask::mask_test(leaks); }), HasSubstr("self-test failed"));
}

// The same sentence alone and beside longer ones in a padded batch.
TEST_P(MaskLaws, PaddingAndBatchesChangeNothing) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  for (const MaskPlan& mask : every_mask_plan(4, blueprint)) {
    SCOPED_TRACE(mask.name);
    const auto net = built(with(model.opened, mask));
    const std::vector<int64_t> lengths = {5, 17, 9, 17};
    const Tensor ids = at::full({4, 17}, 3, at::kLong), stands = at::zeros({4, 17}, at::kBool);
    std::vector<Tensor> alone;
    for (int64_t row = 0; row < 4; ++row) {
      const int64_t length = lengths[static_cast<size_t>(row)];
      const Tensor own =
          tiny::batch(tiny::tokens(length, blueprint.vocabulary, 11 + static_cast<uint64_t>(row)));
      ids[row].narrow(0, 0, length).copy_(own[0]);
      stands[row].narrow(0, 0, length).fill_(true);
      alone.push_back(net->run({.ids = own}));
    }
    const Tensor together = net->run({.ids = ids, .padding = stands});
    for (int64_t row = 0; row < 4; ++row) {
      const int64_t length = lengths[static_cast<size_t>(row)];
      EXPECT_LT((together[row].narrow(0, 0, length) - alone[static_cast<size_t>(row)][0])
                    .abs()
                    .max()
                    .item<double>(),
                1e-12);
    }
  }
}

TEST_P(MaskLaws, AnUnmaskedModelSaysNoNextTokens) {
  const Tiny model(architecture());
  const Opened edited = with(model.opened, mask_plan("0001", model.opened.blueprint));
  EXPECT_THAT(refusal([&] { check_speaks(edited.blueprint, "m"); }), HasSubstr("block 3 looks right"));
  const auto net = built(edited);
  Tap none;
  EXPECT_THAT(refusal([&] { generate(*net, {1, 2, 3}, {.tokens = 2}, none); }), HasSubstr("looks right"));
}

TEST_P(MaskLaws, CutsAndMasksGoTogether) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  const Opened masked = with(model.opened, mask_plan("0101", blueprint));
  const Opened cut =
      declare(apply(masked.checkpoint, masked.blueprint, plan_from_list("1", masked.blueprint)));
  EXPECT_EQ(read_unmasked(cut.checkpoint.config, 4, "c"), (Unmasked{3}));
  const Opened compact = declare(shaped(Form::hf_compact, masked, plan_from_list("0", masked.blueprint)));
  EXPECT_EQ(read_unmasked(compact.checkpoint.config, 3, "c"), (Unmasked{0, 2}));
  const auto ids = tiny::tokens(12, blueprint.vocabulary, 2);
  Skip skip(masked.blueprint, plan_from_list("0", masked.blueprint));
  EXPECT_TRUE(at::equal(tiny::logits(*built(compact), ids), tiny::logits(*built(masked), ids, skip)));
}

// The blocks of a token classifier give what those of the language model give, and its head is its own.
TEST_P(MaskLaws, ATokenClassifierIsTheSameStack) {
  const Tiny model(architecture());
  const Opened tagger = unmask::with_labels(model.opened, {"O", "B-x", "I-x"}, {.repeat = 2});
  EXPECT_EQ(tagger.blueprint.labels, 3);
  EXPECT_FALSE(tagger.blueprint.tied());
  EXPECT_EQ(tagger.checkpoint.config.at("architectures")[0], architecture().classifier);
  EXPECT_THAT(unmask::labels_of(tagger.checkpoint.config, "c"), ElementsAre("O", "B-x", "I-x"));
  EXPECT_EQ(unmask::feeding_of(tagger.checkpoint.config, "c").repeat, 2);
  const tests::Folder folder;
  fs::create_directory(folder / "m");
  write_folder(tagger.checkpoint, folder / "m", {});
  const Opened again = open(folder / "m");
  EXPECT_EQ(again.blueprint.labels, 3);
  const auto net = built(again);
  const Inputs inputs{.ids = tiny::batch(tiny::tokens(9, model.opened.blueprint.vocabulary, 4))};
  Tap none;
  const auto read = [&](const Model& one) {
    Stream stream = one.begin(inputs);
    for (Site site : one.blueprint().present()) one.step(stream, site, none);
    return one.read_out(stream, none);
  };
  EXPECT_TRUE(at::equal(read(*net), read(*model.model)));
  EXPECT_EQ(net->run(inputs).size(2), 3);
  EXPECT_THAT(refusal([&] { check_speaks(again.blueprint, "m"); }), HasSubstr("token classifier"));
}

TEST_P(MaskLaws, MalformedKeysAreRefused) {
  const Tiny model(architecture());
  const auto said = [&](const Json& value) {
    Checkpoint checkpoint = model.opened.checkpoint;
    checkpoint.config["lamina_unmasked"] = value;
    return refusal([&] { declare(checkpoint); });
  };
  EXPECT_THAT(said("1"), HasSubstr("list of blocks"));
  EXPECT_THAT(said({4}), HasSubstr("from 0 to 3"));
  EXPECT_THAT(said({-1}), HasSubstr("from 0 to 3"));
  EXPECT_THAT(said({1.5}), HasSubstr("from 0 to 3"));
  EXPECT_THAT(said({2, 2}), HasSubstr("block 2 twice"));
}

TEST(MaskPlans, Spellings) {
  const Tiny model(*tiny::listed().front());
  const Blueprint& blueprint = model.opened.blueprint;
  const auto blocks = [&](std::string_view spelling) { return mask_plan(spelling, blueprint).blocks; };
  EXPECT_THAT(blocks("0011"), ElementsAre(2, 3));
  EXPECT_THAT(blocks("1000"), ElementsAre(0));
  EXPECT_THAT(blocks("01"), ElementsAre(2, 3));
  EXPECT_THAT(blocks("010"), ElementsAre(1));  // groups of 1, 1 and 2 blocks
  EXPECT_THAT(blocks("001"), ElementsAre(2, 3));
  EXPECT_THAT(blocks("from:3"), ElementsAre(3));
  EXPECT_THAT(blocks("blocks:3,0-1"), ElementsAre(0, 1, 3));
  EXPECT_THAT(blocks("middle"), ElementsAre(1, 2));
  EXPECT_THAT(blocks("none"), ElementsAre());
  EXPECT_THAT(blocks("all"), ElementsAre(0, 1, 2, 3));
  const auto said = [&](std::string_view spelling) {
    return refusal([&] { mask_plan(spelling, blueprint); });
  };
  EXPECT_THAT(said("00112"), HasSubstr("is no mask plan"));
  EXPECT_THAT(said(""), HasSubstr("is no mask plan"));
  EXPECT_THAT(said("00110"), HasSubstr("5 groups"));
  EXPECT_THAT(said("from:4"), HasSubstr("blocks 0 to 3"));
  EXPECT_THAT(said("from:x"), HasSubstr("no block number"));
  EXPECT_THAT(said("blocks:"), HasSubstr("no block number"));
  EXPECT_THAT(said("blocks:2-1"), HasSubstr("runs backwards"));
  EXPECT_THAT(said("blocks:1,1"), HasSubstr("twice"));
  EXPECT_EQ(every_mask_plan(2, blueprint).size(), 4);
}

TEST(MaskPlans, AsEdits) {
  const Tiny model(*tiny::listed().front());
  const Blueprint& blueprint = model.opened.blueprint;
  const Plan plan = edits_of(mask_plan("0110", blueprint), blueprint);
  EXPECT_EQ(to_json(plan_from_json(to_json(plan), "p")), to_json(plan));
  const auto said = [&](const std::vector<std::string>& sites) {
    Plan wrong;
    for (const std::string& site : sites) wrong.edits.emplace_back(Unmask{site});
    return refusal([&] { check_plan(wrong, blueprint); });
  };
  const std::string attention = blueprint.parts[0].path, mlp = blueprint.parts[1].path;
  EXPECT_THAT(said({mlp}), HasSubstr("no attention"));
  EXPECT_THAT(said({attention, attention}), HasSubstr("twice"));
  const Opened masked = with(model.opened, mask_plan("1000", blueprint));
  EXPECT_THAT(refusal([&] { check_plan({.edits = {Unmask{attention}}}, masked.blueprint); }),
              HasSubstr("already"));
}

}  // namespace
}  // namespace lamina
