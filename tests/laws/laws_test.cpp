// What must hold for every architecture that is listed: a new one is tested the moment it is in the table.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "lamina/base/file.h"
#include "lamina/eval/generate.h"
#include "lamina/export/export.h"
#include "tests/laws/tiny.h"

namespace lamina {
namespace {

using testing::HasSubstr;
using tiny::InMemory;
using tiny::Tiny;
namespace fs = std::filesystem;

class Laws : public testing::TestWithParam<const Architecture*> {
 protected:
  const Architecture& architecture() const { return *GetParam(); }
  static std::vector<int32_t> ids(const Model& model, int64_t count = 24) {
    return tiny::tokens(count, model.blueprint().vocabulary, 7);
  }
};

INSTANTIATE_TEST_SUITE_P(Every, Laws, testing::ValuesIn(tiny::listed()),
                         [](const auto& info) { return std::string(info.param->name); });

// What a model may have lost, from half a block to most of it. First and last blocks are where caches and
// norms go wrong.
std::vector<Plan> plans(const Blueprint& blueprint) {
  const int last = blueprint.blocks - 1;
  const auto a = [](int block) { return fmt::format("A{}", block); };
  const auto f = [](int block) { return fmt::format("F{}", block); };
  std::vector<Plan> all;
  for (const std::vector<std::string>& labels :
       std::vector<std::vector<std::string>>{{a(0)},
                                             {f(0)},
                                             {a(last)},
                                             {f(last)},
                                             {a(0), a(last)},
                                             {a(0), f(0)},
                                             {a(last), f(last)},
                                             {f(1), a(1)},
                                             {a(0), f(0), a(last), f(1)},
                                             {a(0), f(0), a(1), f(1)}}) {
    all.push_back(tiny::cuts_by_label(blueprint, labels));
    EXPECT_EQ(all.back().edits.size(), labels.size());
  }
  return all;
}

std::string text_of(const Plan& plan) {
  return to_json(plan).dump();
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

TEST_P(Laws, LoadThenSaveIsTheIdentity) {
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

TEST_P(Laws, SlotsAreTheTensorsOfTheFile) {
  const Tiny model(architecture());
  std::map<std::string, Shape> declared, stored;
  for (const Slot& slot : model.opened.blueprint.slots) {
    for (const Axis& axis : slot.axes) declared[slot.name].push_back(axis.size());
  }
  for (const Stored& tensor : model.opened.checkpoint.tensors) stored[tensor.name] = tensor.shape;
  EXPECT_EQ(declared, stored);
  EXPECT_EQ(declared.size(), model.opened.blueprint.slots.size()) << "a slot stands twice";
}

TEST_P(Laws, SlotsOfOneAxisAgreeInCount) {
  std::map<std::string, int64_t> counts;
  for (const Slot& slot : architecture().blueprint(architecture().tiny(), "tiny").slots) {
    for (const Axis& axis : slot.axes)
      EXPECT_EQ(counts.emplace(axis.name, axis.count).first->second, axis.count)
          << slot.name << " " << axis.name;
  }
}

TEST_P(Laws, EveryPartHasWhatSilencesIt) {
  const Blueprint blueprint = architecture().blueprint(architecture().tiny(), "tiny");
  std::set<int> silenced;
  for (const Slot& slot : blueprint.slots) {
    if (slot.silences) silenced.insert(slot.part);
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

TEST_P(Laws, OrderWithinAnInnerAxisDoesNotMatter) {
  const Tiny model(architecture());
  const std::vector<int32_t> text = ids(*model.model);
  const Tensor before = tiny::logits(*model.model, text);
  std::map<std::string, std::vector<std::string>> axes;
  for (const Slot& slot : model.opened.blueprint.slots) {
    for (const Axis& axis : slot.axes) {
      if (axis.name != "vocabulary" && axis.name != "positions") axes[axis.name].push_back(slot.name);
    }
  }
  EXPECT_EQ(axes.size(), 1U + 2U * static_cast<size_t>(model.opened.blueprint.blocks));
  for (const auto& [axis, slots] : axes) {
    InMemory memory;
    const Opened moved = permuted(model.opened, axis, "", memory);
    EXPECT_LT(tiny::greatest_difference(before, tiny::logits(moved, text)), 1e-9) << axis;
    // Moved in one slot alone, the logits must change: else the law would hold for any table.
    InMemory alone;
    const Opened broken = permuted(model.opened, axis, slots.front(), alone);
    EXPECT_GT(tiny::greatest_difference(before, tiny::logits(broken, text)), 1e-6)
        << axis << " in " << slots.front();
  }
}

TEST_P(Laws, SkipIsCutIsSilence) {
  const Tiny model(architecture());
  const std::vector<int32_t> text = ids(*model.model);
  const Tensor whole = tiny::logits(*model.model, text);
  std::vector<Plan> all = plans(model.opened.blueprint);
  for (const Part& part : model.opened.blueprint.parts) all.push_back(tiny::cuts({part.path}));
  for (const Plan& plan : all) {
    Skip skip(model.opened.blueprint, plan);
    const Tensor skipped = tiny::logits(*model.model, text, skip);
    EXPECT_GT(tiny::greatest_difference(whole, skipped), 1e-6) << text_of(plan);
    const Opened cut = declare(apply(model.opened.checkpoint, model.opened.blueprint, plan));
    EXPECT_TRUE(at::equal(skipped, tiny::logits(cut, text))) << "cut, " << text_of(plan);
    const Opened silent = declare(apply(model.opened.checkpoint, model.opened.blueprint, silenced(plan)));
    EXPECT_TRUE(at::equal(skipped, tiny::logits(silent, text))) << "silenced, " << text_of(plan);
  }
}

class Recorder : public Tap {
 public:
  void saw(Site site, const Tensor& before, const Tensor& after) override {
    EXPECT_TRUE(residual.empty() || at::equal(residual.back(), before))
        << "a part starts where the last one ended";
    sites.push_back(site);
    residual = {after};
  }
  void saw_end(const Tensor& last, const Tensor&) override {
    EXPECT_TRUE(at::equal(residual.back(), last));
    ++ends;
  }
  std::vector<Site> sites;
  std::vector<Tensor> residual;
  int ends = 0;
};

TEST_P(Laws, APassMeetsThePartsInTheOrderOfTheBlueprint) {
  const Tiny model(architecture());
  Recorder all;
  tiny::logits(*model.model, ids(*model.model), all);
  EXPECT_EQ(all.sites, model.opened.blueprint.present());
  EXPECT_EQ(all.sites.size(), model.opened.blueprint.parts.size());
  EXPECT_EQ(all.ends, 1);
  EXPECT_TRUE(std::ranges::is_sorted(model.opened.blueprint.parts, {}, &Part::block));

  for (const Plan& plan : plans(model.opened.blueprint)) {
    const Opened cut = declare(apply(model.opened.checkpoint, model.opened.blueprint, plan));
    Recorder some;
    tiny::logits(*build_model(cut, {.dtype = at::kDouble}), ids(*model.model), some);
    EXPECT_EQ(some.sites, cut.blueprint.present());
    EXPECT_EQ(some.sites.size() + plan.edits.size(), all.sites.size());
  }
}

TEST_P(Laws, APlanSurvivesJson) {
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

TEST_P(Laws, EditsOfDifferentPartsCommute) {
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

TEST_P(Laws, PiecewisePassesEqualOnePass) {
  const Tiny model(architecture());
  std::vector<Plan> all = plans(model.opened.blueprint);
  all.push_back({});
  for (const Plan& plan : all) {
    const Opened cut = declare(apply(model.opened.checkpoint, model.opened.blueprint, plan));
    const auto small = build_model(cut, {.dtype = at::kDouble});
    const std::vector<int32_t> text = ids(*small);
    const Tensor whole = tiny::logits(*small, text);
    Skip skip(model.opened.blueprint, plan);
    Tap none;
    const InferenceMode evaluating;
    for (int64_t piece : {1, 5}) {
      for (const auto& [runner, tap] :
           {std::pair<const Model*, Tap*>{small.get(), &none}, {model.model.get(), &skip}}) {
        std::optional<Cache> cache = Cache{};
        std::vector<Tensor> pieces;
        for (int64_t at = 0; at < static_cast<int64_t>(text.size()); at += piece) {
          const Tensor part = tiny::batch(text).slice(
              1, at, std::min<int64_t>(at + piece, static_cast<int64_t>(text.size())));
          Stream stream = runner->begin({.ids = part, .cache = std::move(cache)});
          for (Site site : runner->blueprint().present()) runner->step(stream, site, *tap);
          pieces.push_back(runner->finish(stream, *tap));
          cache = std::move(stream.cache);
        }
        EXPECT_EQ(cache->tokens, static_cast<int64_t>(text.size()));
        EXPECT_LT(tiny::greatest_difference(whole, at::cat(pieces, 1)), 1e-10)
            << piece << " at a time, " << text_of(plan);
      }
    }
  }
}

TEST_P(Laws, GenerationWithACacheIsGenerationWithout) {
  const Tiny model(architecture());
  std::vector<Plan> all = plans(model.opened.blueprint);
  all.push_back({});
  for (const Plan& plan : all) {
    const auto small = build_model(declare(apply(model.opened.checkpoint, model.opened.blueprint, plan)),
                                   {.dtype = at::kDouble});
    Tap none;
    Skip skip(model.opened.blueprint, plan);
    for (double temperature : {0.0, 1.5}) {
      GenerateOptions options{.tokens = 20, .temperature = temperature, .seed = 3};
      const std::vector<int32_t> with = generate(*small, ids(*small, 9), options, none).ids;
      EXPECT_EQ(with, generate(*model.model, ids(*small, 9), options, skip).ids) << text_of(plan);
      options.cache = false;
      EXPECT_EQ(with, generate(*small, ids(*small, 9), options, none).ids) << text_of(plan);
      EXPECT_EQ(with.size(), 20U);
    }
  }
}

TEST_P(Laws, EveryPossibleFormGivesTheSameLogits) {
  const Tiny model(architecture());
  const std::vector<int32_t> text = ids(*model.model);
  int number = 0, written = 0;
  for (const Plan& plan : plans(model.opened.blueprint)) {
    Skip skip(model.opened.blueprint, plan);
    const Tensor expected = tiny::logits(*model.model, text, skip);
    for (Form form : {Form::hf_compact, Form::hf_zeroed, Form::hf_perlayer}) {
      const FormRequest request{form, {}};
      const fs::path folder = model.folder / fmt::format("{}", number++);
      fs::create_directory(folder);
      if (!can_write(form, model.opened, plan).possible) {
        EXPECT_THROW(write_forms(model.opened, plan, {request}, folder, {}), Error);
        EXPECT_TRUE(fs::is_empty(folder)) << "a refused form left something behind";
        continue;
      }
      const std::vector<Written> forms = write_forms(model.opened, plan, {request}, folder, {});
      ASSERT_EQ(forms.size(), 1U);
      const Opened again = open(folder / forms[0].path);
      EXPECT_TRUE(at::equal(expected, tiny::logits(again, text))) << request.text() << ", " << text_of(plan);
      ++written;
    }
  }
  EXPECT_GE(written, 20);
}

TEST_P(Laws, GgufGivesTheSameLogits) {
  Tiny model(architecture(), {.dtype = at::kFloat});
  // A GGUF carries its tokenizer.
  write_file(model.folder / "model/tokenizer.json", R"({"version": "1.0", "added_tokens": [],
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
      "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
      "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
  model.opened = open(model.folder / "model");
  const std::vector<int32_t> text = ids(*model.model);
  std::vector<Plan> all = plans(model.opened.blueprint);
  all.push_back({});
  int number = 0;
  for (const Plan& plan : all) {
    const Answer answer = can_write(Form::gguf, model.opened, plan);
    if (!answer.possible) GTEST_SKIP() << answer.note;
    const fs::path folder = model.folder / fmt::format("{}", number++);
    fs::create_directory(folder);
    const std::vector<Written> forms =
        write_forms(model.opened, plan, {{Form::gguf, DType::f32}}, folder, {});
    Skip skip(model.opened.blueprint, plan);
    const Tensor expected = tiny::logits(*model.model, text, skip);
    EXPECT_LT(tiny::greatest_difference(expected, tiny::logits(open(folder / forms.at(0).path), text)), 1e-5)
        << text_of(plan);
  }
}

TEST_P(Laws, ADamagedCheckpointIsRefusedByName) {
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

TEST_P(Laws, ACutModelIsNotReadWithoutItsDeclaration) {
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

// The figures that are reported, counted again from the tensors of the written file and nothing else.
TEST_P(Laws, SizesAreThoseOfTheWrittenFile) {
  const Tiny model(architecture());
  constexpr int64_t kContext = 50;
  int number = 0;
  for (const Plan& plan : plans(model.opened.blueprint)) {
    const fs::path folder = model.folder / fmt::format("{}", number++);
    fs::create_directory(folder);
    write_forms(model.opened, plan, {{Form::hf_perlayer, {}}}, folder, {});
    const Opened cut = open(folder);
    int64_t parameters = 0, cache = 0;
    double flops = 0;
    bool has_head = false;
    for (const Stored& tensor : cut.checkpoint.tensors) {
      const auto elements = static_cast<int64_t>(tensor.elements());
      parameters += elements;
      if (tensor.name == "lm_head.weight") has_head = true;
      if (tensor.shape.size() == 2 && tensor.name != cut.blueprint.embedding &&
          !tensor.name.ends_with("wpe.weight"))
        flops += 2.0 * static_cast<double>(elements);
      if (tensor.name.ends_with("k_proj.weight") || tensor.name.ends_with("v_proj.weight"))
        cache += tensor.shape[0];
      if (tensor.name.ends_with("q_proj.weight"))
        flops += 4.0 * static_cast<double>(tensor.shape[0] * kContext);
      if (tensor.name.ends_with("c_attn.weight")) {  // [in, out] of q, k and v
        cache += tensor.shape[1] / 3 * 2;
        flops += 4.0 * static_cast<double>(tensor.shape[1] / 3 * kContext);
      }
    }
    if (!has_head)
      flops += 2.0 * static_cast<double>(cut.checkpoint.find(cut.blueprint.embedding)->elements());
    EXPECT_EQ(cut.blueprint.parameters(), parameters);
    EXPECT_EQ(cut.blueprint.kv_values_per_token(), cache);
    EXPECT_DOUBLE_EQ(cut.blueprint.flops_per_token(kContext), flops);

    int64_t gone = 0;
    for (Site site : removed_sites(plan, model.opened.blueprint))
      gone += model.opened.blueprint.parameters(site);
    EXPECT_EQ(model.opened.blueprint.parameters() - gone, parameters);
  }
}

}  // namespace
}  // namespace lamina
