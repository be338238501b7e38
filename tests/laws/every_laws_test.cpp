// What must hold for every architecture that is listed, whatever it reads and says: a new one is tested the
// moment it is in the table. laws_test.cpp has what holds for language models besides.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "lamina/base/file.h"
#include "tests/laws/tiny.h"

namespace lamina {
namespace {

using testing::HasSubstr;
using tiny::InMemory;
using tiny::Tiny;
namespace fs = std::filesystem;

class EveryLaws : public testing::TestWithParam<const Architecture*> {
 protected:
  const Architecture& architecture() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Architecture, EveryLaws, testing::ValuesIn(tiny::every()),
                         [](const auto& info) { return std::string(info.param->name); });

std::string text_of(const Plan& plan) {
  return to_json(plan).dump();
}

// Every part alone, neighbours together, the whole inside of every wrapper, one part in two, all but one.
std::vector<Plan> plans(const Blueprint& blueprint) {
  std::vector<Plan> all;
  const int parts = static_cast<int>(blueprint.parts.size());
  const auto add = [&](const auto& goes) {
    std::vector<std::string> sites;
    for (int i = 0; i < parts; ++i) {
      if (goes(i)) sites.push_back(blueprint.parts[static_cast<size_t>(i)].path);
    }
    if (!sites.empty() && static_cast<int>(sites.size()) < parts) all.push_back(tiny::cuts(sites));
  };
  for (int i = 0; i < parts; ++i) {
    add([&](int j) { return j == i; });
    if (i % 3 == 0) add([&](int j) { return j == i || j == i + 1; });
  }
  for (const Wrapper& wrapper : blueprint.wrappers)
    add([&](int j) { return std::ranges::find(wrapper.parts, j) != wrapper.parts.end(); });
  add([](int j) { return j % 2 == 0; });
  add([](int j) { return j % 2 == 1; });
  add([](int j) { return j > 0; });
  return all;
}

std::map<std::string, std::string> files_in(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    files[entry.path().filename()] = read_file(entry.path());
  return files;
}

std::string refusal_of(Checkpoint checkpoint) {
  try {
    declare(std::move(checkpoint));
  } catch (const Error& error) {
    return error.what();
  }
  return "was accepted";
}

TEST_P(EveryLaws, LoadThenSaveIsTheIdentity) {
  for (int shards : {1, 3}) {
    const Tiny model(architecture(), {.shards = shards});
    write_file(model.folder / "model/tokenizer_config.json", "{ }\n");
    write_file(model.folder / "model/config.json",
               model.opened.checkpoint.config.dump(3) + "\n\n");  // a layout not ours
    fs::create_directory(model.folder / "again");
    write_folder(open(model.folder / "model").checkpoint, model.folder / "again", {});
    EXPECT_EQ(files_in(model.folder / "model"), files_in(model.folder / "again"));
    EXPECT_EQ(files_in(model.folder / "again").size(), shards == 1 ? 3U : 6U);
  }
}

TEST_P(EveryLaws, SlotsAreTheTensorsOfTheFile) {
  const Tiny model(architecture());
  std::map<std::string, Shape> declared, stored;
  for (const Slot& slot : model.opened.blueprint.slots) {
    for (const Axis& axis : slot.axes) declared[slot.name].push_back(axis.size());
  }
  for (const Stored& tensor : model.opened.checkpoint.tensors) stored[tensor.name] = tensor.shape;
  EXPECT_EQ(declared, stored);
  EXPECT_EQ(declared.size(), model.opened.blueprint.slots.size()) << "a slot stands twice";
}

TEST_P(EveryLaws, SlotsOfOneAxisAgreeInCount) {
  std::map<std::string, int64_t> counts;
  for (const Slot& slot : architecture().blueprint(architecture().tiny(), "tiny").slots) {
    for (const Axis& axis : slot.axes) {
      if (axis.name.empty()) continue;  // shared with none
      EXPECT_EQ(counts.emplace(axis.name, axis.count).first->second, axis.count)
          << slot.name << " " << axis.name;
    }
  }
}

TEST_P(EveryLaws, EveryPartHasWhatSilencesIt) {
  const Blueprint blueprint = architecture().blueprint(architecture().tiny(), "tiny");
  std::set<int> silenced;
  for (const Slot& slot : blueprint.slots) {
    if (slot.silences && slot.wrapper < 0) silenced.insert(slot.part);
  }
  EXPECT_EQ(silenced.size(), blueprint.parts.size());
  EXPECT_FALSE(silenced.contains(-1));
}

// Units of one axis, moved together in every slot that names it. `only`: moved in that slot alone.
Opened permuted(const Opened& opened, const std::string& axis_name, std::string_view only, InMemory& memory) {
  memory.checkpoint = opened.checkpoint;
  for (const Slot& slot : opened.blueprint.slots) {
    if (!only.empty() && slot.name != only) continue;
    for (size_t dim = 0; dim < slot.axes.size(); ++dim) {
      const Axis& axis = slot.axes[dim];
      if (axis.name != axis_name) continue;
      const auto stored = std::ranges::find(memory.checkpoint.tensors, slot.name, &Stored::name);
      std::vector<int64_t> order;
      for (int64_t map = 0; map < axis.repeats; ++map) {
        for (int64_t unit = 0; unit < axis.count; ++unit) {  // the last first: no unit but a middle one stays
          for (int64_t k = 0; k < axis.unit; ++k)
            order.push_back((map * axis.count + (unit + axis.count - 1) % axis.count) * axis.unit + k);
        }
      }
      memory.set(
          *stored,
          load(*stored, at::kDouble).index_select(static_cast<int64_t>(dim), at::tensor(order, at::kLong)));
    }
  }
  return declare(memory.checkpoint);
}

TEST_P(EveryLaws, OrderWithinAnInnerAxisDoesNotMatter) {
  const Tiny model(architecture());
  const Tensor before = tiny::answer(model.opened);
  std::map<std::string, std::vector<std::string>> axes;
  for (const Slot& slot : model.opened.blueprint.slots) {
    for (const Axis& axis : slot.axes) {
      if (!axis.name.empty() && axis.name != "vocabulary" && axis.name != "positions")
        axes[axis.name].push_back(slot.name);
    }
  }
  if (model.opened.blueprint.speaks()) {
    EXPECT_EQ(axes.size(), 1U + 2U * static_cast<size_t>(model.opened.blueprint.blocks));
  }
  for (const auto& [axis, slots] : axes) {
    InMemory memory;
    const Opened moved = permuted(model.opened, axis, "", memory);
    EXPECT_LT(tiny::greatest_difference(before, tiny::answer(moved)), 1e-9) << axis;
    // Moved in one slot alone, the logits must change: else the law would hold for any table.
    InMemory alone;
    const Opened broken = permuted(model.opened, axis, slots.front(), alone);
    EXPECT_GT(tiny::greatest_difference(before, tiny::answer(broken)), 1e-6)
        << axis << " in " << slots.front();
  }
}

TEST_P(EveryLaws, SkipIsCutIsSilence) {
  const Tiny model(architecture());
  const Tensor whole = tiny::answer(model.opened);
  for (const Plan& plan : plans(model.opened.blueprint)) {
    Skip skip(model.opened.blueprint, plan);
    const Tensor skipped = tiny::answer(*model.model, model.opened, skip);
    EXPECT_GT(tiny::greatest_difference(whole, skipped), 1e-6) << text_of(plan);
    const Opened cut = declare(apply(model.opened.checkpoint, model.opened.blueprint, plan));
    EXPECT_TRUE(at::equal(skipped, tiny::answer(cut))) << "cut, " << text_of(plan);
    const Opened silent = declare(apply(model.opened.checkpoint, model.opened.blueprint, silenced(plan)));
    EXPECT_TRUE(at::equal(skipped, tiny::answer(silent))) << "silenced, " << text_of(plan);
  }
}

// What every search rests on: a pass goes on from a stream that was kept, however far another one has gone
// since.
TEST_P(EveryLaws, AKeptStreamGoesOnAsThePassDid) {
  const Tiny model(architecture());
  const InferenceMode evaluating;
  const int parts = static_cast<int>(model.opened.blueprint.parts.size());
  for (int start = 0; start < parts; ++start) {
    Skip skip(model.opened.blueprint,
              tiny::cuts({model.opened.blueprint.parts[static_cast<size_t>(start)].path}));
    const Tensor expected = tiny::answer(*model.model, model.opened, skip);
    Tap none;
    Stream stream = model.model->begin(tiny::inputs(model.opened));
    for (int i = 0; i < start; ++i) model.model->step(stream, {i}, none);
    Stream kept = stream;
    for (int i = start; i < parts; ++i) model.model->step(stream, {i}, none);
    for (int i = start; i < parts; ++i) model.model->step(kept, {i}, skip);
    EXPECT_TRUE(at::equal(expected, model.model->finish(kept, skip))) << start;
    EXPECT_TRUE(at::equal(tiny::answer(model.opened), model.model->finish(stream, none))) << start;
  }
}

// Adds what parts added in an earlier pass.
class StandIns : public Tap {
 public:
  void saw(Site site, const Tensor& before, const Tensor& after) override { added[site] = after - before; }
  const Tensor* stands_in(Site site) const override {
    const auto it = added.find(site);
    return it == added.end() || !replays ? nullptr : &it->second;
  }
  std::map<Site, Tensor> added;
  bool replays = false;
};

TEST_P(EveryLaws, WhatAPartAddedStandsInForIt) {
  const Tiny model(architecture());
  StandIns tap;
  const Tensor expected = tiny::answer(*model.model, model.opened, tap);
  EXPECT_EQ(tap.added.size(), model.opened.blueprint.parts.size());
  tap.replays = true;
  EXPECT_LT(tiny::greatest_difference(expected, tiny::answer(*model.model, model.opened, tap)), 1e-9);
  if (tap.added.empty()) return;
  tap.added.begin()->second = 2 * tap.added.begin()->second;
  EXPECT_GT(tiny::greatest_difference(expected, tiny::answer(*model.model, model.opened, tap)), 1e-6);
}

TEST_P(EveryLaws, APlanSurvivesJson) {
  const Blueprint blueprint = architecture().blueprint(architecture().tiny(), "tiny");
  Plan plan;
  plan.provenance = {{"method", "finercut"}, {"options", {{"remove", 3}}}};
  double score = 1.0 / 3;
  for (const Part& part : blueprint.parts) {
    if (part.kind == Kind::mlp)
      plan.edits.push_back(Silence{part.path});
    else
      plan.edits.push_back(Cut{part.path, part.block == 0 ? std::nullopt : std::optional(score /= 7)});
  }
  const std::string text = to_json(plan).dump(2);
  const Plan again = plan_from_json(parse_json(text, "plan.json"), "plan.json");
  EXPECT_EQ(to_json(again).dump(2), text);
  EXPECT_EQ(removed_sites(again, blueprint), removed_sites(plan, blueprint));
}

TEST_P(EveryLaws, EditsOfDifferentPartsCommute) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  for (size_t i = 0; i < blueprint.parts.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      for (const Edit& second :
           {Edit(Cut{blueprint.parts[j].path, {}}), Edit(Silence{blueprint.parts[j].path})}) {
        const Edit first = Cut{blueprint.parts[i].path, {}};
        const Opened one = declare(apply(model.opened.checkpoint, blueprint, {.edits = {first, second}}));
        const Opened other = declare(apply(model.opened.checkpoint, blueprint, {.edits = {second, first}}));
        const Opened half = declare(apply(model.opened.checkpoint, blueprint, {.edits = {first}}));
        const Opened in_turn = declare(apply(half.checkpoint, half.blueprint, {.edits = {second}}));
        for (const Opened* same : {&other, &in_turn}) {
          EXPECT_EQ(one.checkpoint.config, same->checkpoint.config);
          EXPECT_EQ(one.blueprint.present(), same->blueprint.present());
          const auto states = [](const Checkpoint& checkpoint) {
            std::vector<std::pair<std::string, bool>> all;
            for (const Stored& tensor : checkpoint.tensors) all.emplace_back(tensor.name, tensor.zero);
            return all;
          };
          EXPECT_EQ(states(one.checkpoint), states(same->checkpoint));
        }
      }
    }
  }
}

TEST_P(EveryLaws, ADamagedCheckpointIsRefusedByName) {
  const Tiny model(architecture());
  const Checkpoint& good = model.opened.checkpoint;
  ASSERT_EQ(refusal_of(good), "was accepted");
  for (size_t i = 0; i < good.tensors.size(); ++i) {
    const std::string& name = good.tensors[i].name;
    Checkpoint missing = good;
    missing.tensors.erase(missing.tensors.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_THAT(refusal_of(missing), HasSubstr(name + " is missing"));

    Checkpoint renamed = good;
    renamed.tensors[i].name += "_2";
    EXPECT_THAT(refusal_of(renamed), HasSubstr(name));

    Checkpoint shorter = good;
    shorter.tensors[i].shape[0] -= 1;
    EXPECT_THAT(refusal_of(shorter), HasSubstr(name + " has the shape"));

    Checkpoint integer = good;
    integer.tensors[i].dtype = DType::i64;
    EXPECT_THAT(refusal_of(integer), HasSubstr(name));

    Checkpoint extra = good;
    extra.tensors.push_back(good.tensors[i]);
    extra.tensors.back().name = "model.layers.99.extra.weight";
    EXPECT_THAT(refusal_of(extra), HasSubstr("model.layers.99.extra.weight has no place"));
  }
}

TEST_P(EveryLaws, ACutModelIsNotReadWithoutItsDeclaration) {
  const Tiny model(architecture());
  for (const Part& part : model.opened.blueprint.parts) {
    Checkpoint cut = apply(model.opened.checkpoint, model.opened.blueprint, tiny::cuts({part.path}));
    ASSERT_EQ(refusal_of(cut), "was accepted");
    cut.config = model.opened.checkpoint.config;
    EXPECT_THAT(refusal_of(cut), HasSubstr("nothing in config.json says that it was cut")) << part.path;

    // And the other way round: what is declared gone must be gone.
    Checkpoint whole = model.opened.checkpoint;
    whole.config = apply(model.opened.checkpoint, model.opened.blueprint, tiny::cuts({part.path})).config;
    EXPECT_THAT(refusal_of(whole), HasSubstr("has no place")) << part.path;
  }
}

}  // namespace
}  // namespace lamina
