// What must hold for the neurons of every architecture that is listed: what a tap reads, what a clamp does,
// and that a clamp in a pass, in the weights and in the config are the same function.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "lamina/base/file.h"
#include "lamina/base/hash.h"
#include "lamina/export/export.h"
#include "lamina/model/clamping.h"
#include "lamina/plan/undo.h"
#include "tests/laws/tiny.h"

namespace lamina {
namespace {

using testing::HasSubstr;
using tiny::InMemory;
using tiny::Tiny;
namespace fs = std::filesystem;

constexpr ClampMode kModes[] = {ClampMode::set, ClampMode::add, ClampMode::scale, ClampMode::max,
                                ClampMode::if_active};

class NeuronLaws : public testing::TestWithParam<const Architecture*> {
 protected:
  const Architecture& architecture() const { return *GetParam(); }
  // The tiny config, and the same without biases where the architecture can go without.
  std::vector<Json> configs() const {
    std::vector<Json> all = {architecture().tiny()};
    const Blueprint blueprint = architecture().blueprint(all[0], "tiny");
    const std::string key = blueprint.part(blueprint.with_neurons().at(0)).neurons->bias_key;
    if (!key.empty()) {
      all.push_back(all[0]);
      all[1][key] = false;
    }
    return all;
  }
  static std::vector<int32_t> ids(const Model& model) {
    return tiny::tokens(24, model.blueprint().vocabulary, 7);
  }
};

INSTANTIATE_TEST_SUITE_P(Every, NeuronLaws, testing::ValuesIn(tiny::listed()),
                         [](const auto& info) { return std::string(info.param->name); });

std::vector<NeuronPlace> places(const Neurons& neurons) {
  if (neurons.gate.empty()) return {NeuronPlace::linear, NeuronPlace::post};
  return {NeuronPlace::gate, NeuronPlace::linear, NeuronPlace::post};
}

Plan plan_of(const std::vector<Clamp>& clamps) {
  return {.edits = {clamps.begin(), clamps.end()}};
}

Opened applied(const Opened& opened, const Plan& plan) {
  return declare(apply(opened.checkpoint, opened.blueprint, plan));
}

// Reads every place of every part, replaces nothing, and keeps what the parts wrote.
class Reader : public Tap {
 public:
  bool reads_neurons(Site) const override { return true; }
  Tensor neurons(Site site, NeuronPlace place, const Tensor& values) override {
    order.push_back({site, place});
    seen[{site, place}] = values;
    return values;
  }
  void saw(Site site, const Tensor& before, const Tensor& after) override { written[site] = after - before; }
  std::vector<std::pair<Site, NeuronPlace>> order;
  std::map<std::pair<Site, NeuronPlace>, Tensor> seen;
  std::map<Site, Tensor> written;
};

// Clamps, and keeps what the parts wrote then.
class Watched : public Clamping {
 public:
  using Clamping::Clamping;
  void saw(Site site, const Tensor& before, const Tensor& after) override { written[site] = after - before; }
  std::map<Site, Tensor> written;
};

// Skips what a plan removes and clamps what it clamps.
class Preview : public Clamping {
 public:
  Preview(const Blueprint& blueprint, const Plan& removals, const std::vector<Clamp>& clamps)
      : Clamping(blueprint, clamps), skip_(blueprint, removals) {}
  bool skips(Site site) const override { return skip_.skips(site); }

 private:
  Skip skip_;
};

// Weight of a map that neurons read with or write to, as [neurons, width], whichever way it is stored.
Tensor by_neuron(const Opened& opened, const std::string& path) {
  const Slot& slot = *opened.blueprint.slot(path + ".weight");
  const Tensor weight = load(*opened.checkpoint.find(slot.name), at::kDouble);
  return slot.axes[0].name == "residual" ? weight.t() : weight;
}

TEST_P(NeuronLaws, ATapThatOnlyReadsChangesNothing) {
  const Tiny model(architecture());
  Reader reader;
  const Tensor plain = tiny::logits(*model.model, ids(*model.model));
  EXPECT_TRUE(at::equal(plain, tiny::logits(*model.model, ids(*model.model), reader)));
  std::vector<std::pair<Site, NeuronPlace>> expected;
  for (Site site : model.opened.blueprint.with_neurons()) {
    const Neurons& neurons = *model.opened.blueprint.part(site).neurons;
    for (NeuronPlace place : places(neurons)) {
      expected.emplace_back(site, place);
      EXPECT_EQ(reader.seen.at({site, place}).size(-1), neurons.count);
    }
  }
  EXPECT_EQ(reader.order, expected);
}

// Fused kernels for passes without gradients round otherwise than the general ones: both ways must take the
// same. Two texts in a batch, one padded, so that products of more than one row are made.
TEST_P(NeuronLaws, InFloat32AReadingTapChangesNothingToTheBit) {
  class Reading : public Tap {
   public:
    bool reads_neurons(Site) const override { return true; }
  };
  const Tiny model(architecture());
  const auto net = build_model(model.opened, {.dtype = at::kFloat});
  const InferenceMode evaluating;
  const Tensor row = tiny::batch(ids(*net)), stands = at::ones({2, row.size(1)}, at::kBool);
  stands[1].narrow(0, 20, row.size(1) - 20).fill_(false);
  Reading reading;
  for (const Inputs& inputs : {Inputs{.ids = row}, Inputs{.ids = at::cat({row, row}), .padding = stands}})
    EXPECT_TRUE(at::equal(net->run(inputs), net->run(inputs, reading)));
}

TEST_P(NeuronLaws, WhatNeuronsWriteIsWhatThePartWrites) {
  const Tiny model(architecture());
  Reader reader;
  tiny::logits(*model.model, ids(*model.model), reader);
  for (Site site : model.opened.blueprint.with_neurons()) {
    const Neurons& neurons = *model.opened.blueprint.part(site).neurons;
    Tensor sum = at::matmul(reader.seen.at({site, NeuronPlace::post}), by_neuron(model.opened, neurons.down));
    if (const Stored* bias = model.opened.checkpoint.find(neurons.down + ".bias"))
      sum = sum + load(*bias, at::kDouble);
    EXPECT_LT(tiny::greatest_difference(sum, reader.written.at(site)), 1e-9);
  }
}

TEST_P(NeuronLaws, AClampAtPostMovesTheResidualAlongTheColumn) {
  const Tiny model(architecture());
  Reader reader;
  tiny::logits(*model.model, ids(*model.model), reader);
  tiny::Random random(3);
  for (Site site : model.opened.blueprint.with_neurons()) {
    const Part& part = model.opened.blueprint.part(site);
    const int64_t n = random.below(part.neurons->count);
    const double c = 5 * random.centred();
    Watched watched(model.opened.blueprint, {{.site = part.path, .neuron = n, .value = c}});
    tiny::logits(*model.model, ids(*model.model), watched);
    const Tensor was = reader.seen.at({site, NeuronPlace::post}).select(-1, n).unsqueeze(-1);
    const Tensor column = by_neuron(model.opened, part.neurons->down)[n];
    EXPECT_LT(
        tiny::greatest_difference(watched.written.at(site) - reader.written.at(site), (c - was) * column),
        1e-9);
  }
}

TEST_P(NeuronLaws, AClampInThePassIsTheClampThatIsApplied) {
  for (const Json& config : configs()) {
    const Tiny model(architecture(), {.config = config});
    const std::vector<int32_t> text = ids(*model.model);
    const Tensor whole = tiny::logits(*model.model, text);
    const std::vector<Site> sites = model.opened.blueprint.with_neurons();
    tiny::Random random(11);
    size_t turn = 0;
    for (NeuronPlace place : places(*model.opened.blueprint.part(sites[0]).neurons)) {
      for (ClampMode mode : kModes) {
        for (double value : {2.5, -1.75, 0.0}) {
          const Part& part = model.opened.blueprint.part(sites[turn++ % sites.size()]);
          const Clamp clamp{.site = part.path,
                            .neuron = random.below(part.neurons->count),
                            .place = place,
                            .mode = mode,
                            .value = value};
          const std::string text_of = to_json(plan_of({clamp})).dump();
          Clamping tap(model.opened.blueprint, {clamp});
          const Tensor previewed = tiny::logits(*model.model, text, tap);
          if (value != 0) {
            EXPECT_GT(tiny::greatest_difference(whole, previewed), 1e-7) << text_of;
          }
          const Opened after = applied(model.opened, plan_of({clamp}));
          EXPECT_LT(tiny::greatest_difference(previewed, tiny::logits(after, text)), 1e-9) << text_of;
          const bool beyond = !beyond_weights(plan_of({clamp}), model.opened.blueprint).empty();
          EXPECT_EQ(after.checkpoint.config.contains("lamina_clamps"), beyond) << text_of;
          EXPECT_EQ(after.checkpoint.config.at("model_type").get<std::string>().starts_with("lamina_"),
                    beyond);
          EXPECT_EQ(after.architecture, model.opened.architecture);
        }
      }
    }
  }
}

// Many at once: every place of some neurons, in an order that is not that of the pass.
std::vector<Clamp> many(const Blueprint& blueprint, uint64_t seed, size_t count) {
  tiny::Random random(seed);
  std::vector<Clamp> clamps;
  const std::vector<Site> sites = blueprint.with_neurons();
  while (clamps.size() < count) {
    const Part& part = blueprint.part(sites[static_cast<size_t>(random.below(std::ssize(sites)))]);
    const int64_t neuron = random.below(part.neurons->count);
    for (NeuronPlace place : places(*part.neurons)) {
      const Clamp clamp{.site = part.path,
                        .neuron = neuron,
                        .place = place,
                        .mode = kModes[random.below(5)],
                        .value = 2 * random.centred()};
      const bool there = std::ranges::any_of(clamps, [&](const Clamp& c) {
        return c.site == clamp.site && c.neuron == clamp.neuron && c.place == clamp.place;
      });
      if (!there) clamps.insert(clamps.begin() + random.below(std::ssize(clamps) + 1), clamp);
    }
  }
  return clamps;
}

TEST_P(NeuronLaws, ManyClampsComposeAsThePreviewDoes) {
  for (const Json& config : configs()) {
    const Tiny model(architecture(), {.config = config});
    const std::vector<int32_t> text = ids(*model.model);
    for (uint64_t seed = 1; seed <= 6; ++seed) {
      const std::vector<Clamp> first = many(model.opened.blueprint, seed, 12);
      Clamping tap(model.opened.blueprint, first);
      const Opened once = applied(model.opened, plan_of(first));
      EXPECT_LT(tiny::greatest_difference(tiny::logits(*model.model, text, tap), tiny::logits(once, text)),
                1e-9)
          << to_json(plan_of(first)).dump();
      // On what was written before, half of it of the same neurons: the held clamps act first.
      std::vector<Clamp> second = many(once.blueprint, seed + 50, 9);
      for (size_t i = 0; i < first.size() && i < 6; ++i) {
        if (std::ranges::none_of(second, [&](const Clamp& c) {
              return c.site == first[i].site && c.neuron == first[i].neuron && c.place == first[i].place;
            })) {
          second.push_back(first[i]);
          second.back().mode = kModes[(seed + i) % 5];
        }
      }
      Clamping other(once.blueprint, second);
      const auto built = build_model(once, {.dtype = at::kDouble});
      const Opened twice = applied(once, plan_of(second));
      EXPECT_LT(tiny::greatest_difference(tiny::logits(*built, text, other), tiny::logits(twice, text)), 1e-9)
          << to_json(plan_of(second)).dump();
    }
  }
}

TEST_P(NeuronLaws, AReplacedVectorIsTheWeightSetByHand) {
  for (const Json& config : configs()) {
    const Tiny model(architecture(), {.config = config});
    const std::vector<int32_t> text = ids(*model.model);
    tiny::Random random(5);
    for (Site site : model.opened.blueprint.with_neurons()) {
      const Part& part = model.opened.blueprint.part(site);
      for (NeuronVector vector : {NeuronVector::gate, NeuronVector::up, NeuronVector::down}) {
        const std::string& path = vector == NeuronVector::gate ? part.neurons->gate
                                  : vector == NeuronVector::up ? part.neurons->up
                                                               : part.neurons->down;
        if (path.empty()) continue;
        Replace replace{.site = part.path, .neuron = random.below(part.neurons->count), .vector = vector};
        for (int64_t i = 0; i < model.opened.blueprint.width; ++i)
          replace.values.push_back(static_cast<float>(random.centred()));
        InMemory by_hand{.checkpoint = model.opened.checkpoint, .storage = {}};
        const auto stored = std::ranges::find(by_hand.checkpoint.tensors, path + ".weight", &Stored::name);
        const Tensor weight = load(*stored, at::kDouble).clone();
        const bool turned = model.opened.blueprint.slot(stored->name)->axes[0].name == "residual";
        weight.select(turned ? 1 : 0, replace.neuron).copy_(at::tensor(replace.values));
        by_hand.set(*stored, weight);
        const Opened expected = declare(by_hand.checkpoint);
        const Opened after = applied(model.opened, {.edits = {replace}});
        EXPECT_TRUE(at::equal(tiny::logits(expected, text), tiny::logits(after, text)));
        EXPECT_FALSE(at::equal(tiny::logits(*model.model, text), tiny::logits(after, text)));
        // A clamp of the same neuron acts on what was replaced, also when it stands in front of it.
        const Clamp clamp{.site = part.path, .neuron = replace.neuron, .mode = ClampMode::scale, .value = -3};
        Clamping tap(expected.blueprint, {clamp});
        const Opened both = applied(model.opened, {.edits = {clamp, replace}});
        EXPECT_LT(
            tiny::greatest_difference(tiny::logits(*build_model(expected, {.dtype = at::kDouble}), text, tap),
                                      tiny::logits(both, text)),
            1e-9);
      }
    }
  }
}

TEST_P(NeuronLaws, CutsAndClampsGoTogether) {
  for (const Json& config : configs()) {
    const Tiny model(architecture(), {.config = config});
    const std::vector<int32_t> text = ids(*model.model);
    const Blueprint& blueprint = model.opened.blueprint;
    const Plan block = tiny::cuts_by_label(blueprint, {"A1", "F1"}),
               half = tiny::cuts_by_label(blueprint, {"F1"});
    std::vector<Clamp> clamps;
    for (const Clamp& clamp : many(blueprint, 4, 12)) {
      if (blueprint.part(blueprint.site(clamp.site)).block != 1) clamps.push_back(clamp);
    }
    int number = 0;
    for (const auto& [form, cuts] :
         {std::pair{Form::hf_compact, block}, {Form::hf_zeroed, half}, {Form::hf_perlayer, half}}) {
      Plan plan = cuts;
      plan.edits.insert(plan.edits.begin(), clamps.begin(), clamps.end());
      Preview preview(blueprint, cuts, clamps);
      const Tensor expected = tiny::logits(*model.model, text, preview);
      const fs::path folder = model.folder / fmt::format("{}", number++);
      fs::create_directory(folder);
      const std::vector<Written> written = write_forms(model.opened, plan, {{form, {}}}, folder, {});
      EXPECT_THAT(written[0].opens_in, HasSubstr("lamina alone"));
      EXPECT_LT(tiny::greatest_difference(expected, tiny::logits(open(folder), text)), 1e-9)
          << form_name(form);
      EXPECT_FALSE(can_write(Form::gguf, model.opened, plan).possible);
    }
    // Parts that go take their clamps with them, and the stock names come back with the last one.
    const Opened held =
        applied(model.opened, plan_of({{.site = blueprint.part(blueprint.with_neurons()[0]).path,
                                        .mode = ClampMode::max,
                                        .value = 3}}));
    EXPECT_NE(held.checkpoint.config.at("model_type"), model.opened.checkpoint.config.at("model_type"));
    const Plan gone = tiny::cuts({blueprint.part(blueprint.with_neurons()[0]).path});
    for (const Plan& plan : {gone, silenced(gone)}) {
      EXPECT_EQ(apply(held.checkpoint, held.blueprint, plan).config,
                apply(model.opened.checkpoint, blueprint, plan).config);
    }
    EXPECT_THAT(can_write(Form::hf_compact, model.opened, plan_of({})).note, HasSubstr("transformers"));
    if (!architecture().dialects.empty()) {
      write_file(model.folder / "model/tokenizer.json", "{}");
      EXPECT_THAT(can_write(Form::gguf, declare([&] {
                              Checkpoint with = held.checkpoint;
                              with.sidecars = open(model.folder / "model").checkpoint.sidecars;
                              return with;
                            }()),
                            {})
                      .note,
                  HasSubstr("no GGUF can say the clamps"));
    }
  }
}

TEST_P(NeuronLaws, APlanOfNeuronsSurvivesJson) {
  const Blueprint blueprint = architecture().blueprint(architecture().tiny(), "tiny");
  Plan plan = plan_of(many(blueprint, 2, 30));
  tiny::Random random(1);
  for (Site site : blueprint.with_neurons()) {
    Replace replace{.site = blueprint.part(site).path, .neuron = 1, .vector = NeuronVector::down};
    for (int64_t i = 0; i < blueprint.width; ++i)
      replace.values.push_back(static_cast<float>(random.centred()));
    plan.edits.emplace_back(replace);
  }
  const std::string text = to_json(plan).dump(2);
  const Plan again = plan_from_json(parse_json(text, "plan.json"), "plan.json");
  EXPECT_EQ(to_json(again).dump(2), text);
  for (size_t i = 0; i < plan.edits.size(); ++i) {
    if (const auto* clamp = std::get_if<Clamp>(&plan.edits[i])) {
      EXPECT_EQ(*clamp, std::get<Clamp>(again.edits.at(i)));
    } else {
      EXPECT_EQ(std::get<Replace>(plan.edits[i]).values, std::get<Replace>(again.edits.at(i)).values);
    }
  }
}

std::map<std::string, std::string> hashes(const fs::path& folder) {
  std::map<std::string, std::string> all;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("undo.")) all[name] = sha256_hex(read_file(entry.path()));
  }
  return all;
}

TEST_P(NeuronLaws, UndoGivesTheOriginalsBytes) {
  for (const Json& config : configs()) {
    for (const auto& [dtype, shards] :
         {std::pair{at::kFloat, 1}, {at::kBFloat16, 3}, {at::kBFloat16, 1}, {at::kFloat, 3}}) {
      const Tiny model(architecture(), {.dtype = dtype, .shards = shards, .config = config});
      const fs::path original = model.folder / "model", edited = model.folder / "edited";
      write_file(original / "config.json", model.opened.checkpoint.config.dump(3) + "\n\n");
      const Opened before = open(original);
      Plan plan = plan_of(many(before.blueprint, static_cast<uint64_t>(shards), 10));
      const std::string site = before.blueprint.part(before.blueprint.with_neurons()[1]).path;
      plan.edits.emplace_back(
          Replace{.site = site,
                  .neuron = 3,
                  .vector = NeuronVector::down,
                  .values = std::vector<float>(static_cast<size_t>(before.blueprint.width), 0.5F)});
      const Checkpoint after = apply(before.checkpoint, before.blueprint, plan);
      fs::create_directory(edited);
      write_folder(after, edited, {});
      write_undo(before.checkpoint, after, edited);
      check_equal(after, open(edited).checkpoint, {});  // what lies beside is not taken for weights
      EXPECT_NE(hashes(original), hashes(edited));
      EXPECT_LT(fs::file_size(edited / kUndoWeights), before.checkpoint.file_bytes() / 4);

      fs::create_directory(model.folder / "again");
      write_folder(undo(edited), model.folder / "again", {});
      EXPECT_EQ(hashes(original), hashes(model.folder / "again"));
      EXPECT_FALSE(fs::exists(model.folder / "again" / kUndoText)) << "undo files do not travel";
    }
  }
}

// A GGUF stores block types, which edits turn into float32, as writing a folder does.
TEST_P(NeuronLaws, UndoOfAGgufGivesWhatAnUneditedWriteGives) {
  const Tiny model(architecture(), {.dtype = at::kFloat});
  write_file(model.folder / "model/tokenizer.json", R"({"version": "1.0", "added_tokens": [],
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
      "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
      "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
  const Opened with = open(model.folder / "model");
  if (const Answer answer = can_write(Form::gguf, with, {}); !answer.possible) GTEST_SKIP() << answer.note;
  for (DType dtype : {DType::q8_0, DType::f16}) {
    const fs::path folder = model.folder / dtype_name(dtype);
    for (const char* name : {"", "plain", "edited", "again"}) fs::create_directories(folder / name);
    const Opened in = open(folder / write_forms(with, {}, {{Form::gguf, dtype}}, folder, {}).at(0).path);
    const Plan plan = plan_of(many(in.blueprint, 9, 10));
    const Checkpoint after = apply(in.checkpoint, in.blueprint, plan);
    write_folder(in.checkpoint, folder / "plain", {});
    write_folder(after, folder / "edited", {});
    write_undo(in.checkpoint, after, folder / "edited");
    write_folder(undo(folder / "edited"), folder / "again", {});
    EXPECT_EQ(hashes(folder / "plain"), hashes(folder / "again")) << dtype_name(dtype);
    EXPECT_NE(hashes(folder / "plain"), hashes(folder / "edited")) << dtype_name(dtype);
  }
}

TEST_P(NeuronLaws, WhatAPartLacksIsNotClamped) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  const auto refusal = [&](const Clamp& clamp) {
    std::string from_tap, from_plan;
    try {
      Clamping tap(blueprint, {clamp});
    } catch (const Error& error) {
      from_tap = error.what();
    }
    try {
      apply(model.opened.checkpoint, blueprint, plan_of({clamp}));
    } catch (const Error& error) {
      from_plan = error.what();
    }
    EXPECT_EQ(from_tap, from_plan);
    return from_plan;
  };
  const Part& mlp = blueprint.part(blueprint.with_neurons()[0]);
  for (const Part& part : blueprint.parts) {
    if (!part.neurons) {
      EXPECT_THAT(refusal({.site = part.path}), HasSubstr("is attention and has none"));
    }
  }
  EXPECT_THAT(refusal({.site = mlp.path, .neuron = mlp.neurons->count}), HasSubstr("which has 0 to"));
  EXPECT_EQ(refusal({.site = mlp.path, .place = NeuronPlace::gate, .mode = ClampMode::scale}).empty(),
            !mlp.neurons->gate.empty());
}

}  // namespace
}  // namespace lamina
