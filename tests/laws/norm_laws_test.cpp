// Norms whose division was made constant, for every architecture: what the pass with the tap gives, the
// folded checkpoint gives, and nothing that normalises is left in it.
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "lamina/base/file.h"
#include "lamina/blueprint/absence.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/eval/generate.h"
#include "lamina/export/export.h"
#include "lamina/model/clamping.h"
#include "lamina/model/frozen_norms.h"
#include "tests/laws/tiny.h"

namespace lamina {
namespace {

using testing::HasSubstr;
using tiny::Tiny;
namespace fs = std::filesystem;

class NormLaws : public testing::TestWithParam<const Architecture*> {
 protected:
  const Architecture& architecture() const { return *GetParam(); }
  static std::vector<int32_t> ids(const Model& model, int64_t count = 24) {
    return tiny::tokens(count, model.blueprint().vocabulary, 7);
  }
};

INSTANTIATE_TEST_SUITE_P(Every, NormLaws, testing::ValuesIn(tiny::listed()),
                         [](const auto& info) { return std::string(info.param->name); });

// What a text's tokens are divided by, on average: constants near it keep the residual from running away.
class Measured : public Tap {
 public:
  bool reads_norm(Site) const override { return true; }
  Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
    scales[path] = norm.scale(x).mean().item<double>();
    return norm(x);
  }
  std::map<NormPath, double> scales;
};

// A scale of its own for every reader that `wanted` takes.
template <class Wanted>
Plan freezing(const Tiny& model, const Wanted& wanted) {
  const Blueprint& blueprint = model.opened.blueprint;
  Measured measured;
  tiny::logits(*model.model, tiny::tokens(32, blueprint.vocabulary, 5), measured);
  Plan plan;
  double factor = 1;
  for (const NormPath& path : blueprint.norm_paths()) {
    factor += 0.01;
    if (wanted(path))
      plan.edits.push_back(
          FreezeNorm{blueprint.norm_site(path), path.reader, factor * measured.scales.at(path)});
  }
  return plan;
}

Plan freezing_all(const Tiny& model) {
  return freezing(model, [](const NormPath&) { return true; });
}

// All norms frozen, but for those of the parts with these labels, which are cut.
Plan freezing_and_cutting(const Tiny& model, const std::vector<std::string>& labels) {
  const Blueprint& blueprint = model.opened.blueprint;
  Plan plan = freezing(model, [&](const NormPath& path) {
    return path.reader == Reader::head ||
           std::ranges::find(labels, blueprint.part(path.site).label()) == labels.end();
  });
  for (const Edit& cut : tiny::cuts_by_label(blueprint, labels).edits) plan.edits.push_back(cut);
  return plan;
}

// What apply can make of a checkpoint: every group of paths alone, all, all beside cuts.
std::vector<Plan> plans(const Tiny& model) {
  const auto reads = [&](std::set<Reader> readers) {
    return freezing(model, [=](const NormPath& path) { return readers.contains(path.reader); });
  };
  return {reads({Reader::mlp}),
          reads({Reader::qk, Reader::v}),
          reads({Reader::head}),
          freezing(model, [](const NormPath& path) { return path.site.index == 2; }),
          freezing_all(model),
          freezing_and_cutting(model, {"A1"}),
          freezing_and_cutting(model, {"F0", "A3", "F3"})};
}

// The pass that a plan means: norms held, neurons clamped, parts skipped.
class Preview : public FrozenNorms {
 public:
  Preview(const Blueprint& blueprint, const Plan& plan)
      : FrozenNorms(blueprint, plan), skip_(blueprint, plan), clamping_(blueprint, clamps(plan)) {}
  bool skips(Site site) const override { return skip_.skips(site); }
  bool reads_neurons(Site site) const override { return clamping_.reads_neurons(site); }
  Tensor neurons(Site site, NeuronPlace place, const Tensor& values) override {
    return clamping_.held(site, place, values);
  }

 private:
  static std::vector<Clamp> clamps(const Plan& plan) {
    std::vector<Clamp> all;
    for (const Edit& edit : plan.edits) {
      if (const auto* clamp = std::get_if<Clamp>(&edit)) all.push_back(*clamp);
    }
    return all;
  }
  Skip skip_;
  Clamping clamping_;
};

std::string text_of(const Plan& plan) {
  return fmt::format("{} edits, the first of {}", plan.edits.size(),
                     std::visit([](const auto& edit) { return edit.site; }, plan.edits.front()));
}

// Here acceptance is an answer too, and some tests ask for it.
template <class Work>
std::string refusal(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "was accepted";
}

// Names of the operators that a pass ran, without their namespace.
std::set<std::string> operators_of(const Model& model, const std::vector<int32_t>& ids, Tap& tap) {
  static std::set<std::string> seen;
  seen.clear();
  const at::CallbackHandle handle =
      at::addGlobalCallback(at::RecordFunctionCallback([](const at::RecordFunction& function)
                                                           -> std::unique_ptr<at::ObserverContext> {
                              const std::string_view name = function.name();
                              seen.emplace(name.substr(name.rfind(':') + 1));
                              return nullptr;
                            }).scopes({at::RecordScope::FUNCTION}));
  tiny::logits(model, ids, tap);
  at::removeCallback(handle);
  return seen;
}

std::set<std::string> normalising(const std::set<std::string>& operators) {
  std::set<std::string> found;
  for (const std::string& name : operators) {
    for (const char* part : {"norm", "var", "std", "rsqrt", "sqrt", "mean"}) {
      if (name.find(part) != std::string::npos) found.insert(name);
    }
  }
  return found;
}

TEST_P(NormLaws, FoldedIsWhatThePreviewGives) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  const std::vector<int32_t> text = ids(*model.model);
  const Tensor live = tiny::logits(*model.model, text);
  int number = 0;
  for (const Plan& plan : plans(model)) {
    Preview preview(blueprint, plan);
    const Tensor expected = tiny::logits(*model.model, text, preview);
    EXPECT_GT(tiny::greatest_difference(live, expected), 1e-3) << text_of(plan);
    const Opened folded = declare(apply(model.opened.checkpoint, blueprint, plan));
    EXPECT_LT(tiny::greatest_difference(expected, tiny::logits(folded, text)), 1e-9) << text_of(plan);
    const fs::path folder = model.folder / fmt::format("{}", number++);
    fs::create_directory(folder);
    write_forms(model.opened, plan, {{Form::hf_perlayer, {}}}, folder, {});
    EXPECT_LT(tiny::greatest_difference(expected, tiny::logits(open(folder), text)), 1e-9) << text_of(plan);
  }
}

TEST_P(NormLaws, NoOperatorThatNormalisesIsLeft) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  const std::vector<int32_t> text = ids(*model.model);
  Tap none;
  const std::set<std::string> live = operators_of(*model.model, text, none);
  EXPECT_FALSE(normalising(live).empty()) << "the scan sees nothing";
  EXPECT_TRUE(live.contains(blueprint.centred_norms ? "native_layer_norm" : "rms_norm"));
  EXPECT_FALSE(blueprint.norm_paths().empty());

  const Opened folded = declare(apply(model.opened.checkpoint, blueprint, freezing_all(model)));
  EXPECT_TRUE(folded.blueprint.norm_paths().empty());
  const auto without = build_model(folded, {.dtype = at::kDouble});
  const std::set<std::string> left = operators_of(*without, text, none);
  EXPECT_TRUE(left.contains("linear") || left.contains("addmm")) << "the scan sees nothing";
  EXPECT_TRUE(normalising(left).empty()) << fmt::format("{}", fmt::join(normalising(left), " "));

  // One norm left is one too many.
  const Plan but_one = freezing(model, [](const NormPath& path) { return path.reader != Reader::head; });
  const auto almost =
      build_model(declare(apply(model.opened.checkpoint, blueprint, but_one)), {.dtype = at::kDouble});
  EXPECT_FALSE(normalising(operators_of(*almost, text, none)).empty());
}

TEST_P(NormLaws, ParametersAreCountedBeforeAndAfter) {
  const Tiny model(architecture());
  const Blueprint& before = model.opened.blueprint;
  const Blueprint after = declare(apply(model.opened.checkpoint, before, freezing_all(model))).blueprint;
  int64_t expected = before.parameters();
  for (const Slot& slot : before.slots) {
    const bool norm = slot.axes.size() == 1 && !after.slot(slot.name);
    if (norm) expected -= slot.axes[0].size();
  }
  const int64_t per_norm = before.width * (before.centred_norms ? 2 : 1);
  EXPECT_EQ(before.parameters() - expected, per_norm * (2 * before.blocks + 1));
  if (before.tied()) expected += before.vocabulary * before.width;
  if (before.centred_norms) expected += before.vocabulary;
  EXPECT_EQ(after.parameters(), expected);
  EXPECT_FALSE(after.tied());
}

TEST_P(NormLaws, APlanSurvivesJson) {
  const Tiny model(architecture());
  for (const Plan& plan : plans(model)) {
    const std::string text = to_json(plan).dump(2);
    const Plan again = plan_from_json(parse_json(text, "plan.json"), "plan.json");
    EXPECT_EQ(to_json(again).dump(2), text);
    check_plan(again, model.opened.blueprint);
  }
}

std::map<std::string, std::vector<std::byte>> numbers_of(const Checkpoint& checkpoint) {
  std::map<std::string, std::vector<std::byte>> all;
  for (const Stored& tensor : checkpoint.tensors) all[tensor.name] = bytes_as(tensor, tensor.dtype);
  return all;
}

TEST_P(NormLaws, EditsCommute) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  const Plan plan = freezing_and_cutting(model, {"A1", "F3"});
  const Opened once = declare(apply(model.opened.checkpoint, blueprint, plan));
  Plan turned = plan;
  std::ranges::reverse(turned.edits);
  const Opened other = declare(apply(model.opened.checkpoint, blueprint, turned));
  // In turn: mlps, cuts, the head, attention.
  Opened in_turn = model.opened;
  for (int turn = 0; turn < 4; ++turn) {
    Plan some;
    for (const Edit& edit : plan.edits) {
      const auto* freeze = std::get_if<FreezeNorm>(&edit);
      const int when = !freeze                          ? 1
                       : freeze->reader == Reader::mlp  ? 0
                       : freeze->reader == Reader::head ? 2
                                                        : 3;
      if (when == turn) some.edits.push_back(edit);
    }
    in_turn = declare(apply(in_turn.checkpoint, in_turn.blueprint, some));
  }
  for (const Opened* same : std::initializer_list<const Opened*>{&other, &in_turn}) {
    EXPECT_EQ(nlohmann::json(once.checkpoint.config), nlohmann::json(same->checkpoint.config));
    EXPECT_EQ(numbers_of(once.checkpoint), numbers_of(same->checkpoint));
  }
}

TEST_P(NormLaws, GenerationWithACacheIsGenerationWithout) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  for (const Plan& plan : {freezing_all(model), freezing_and_cutting(model, {"A1"})}) {
    const auto folded =
        build_model(declare(apply(model.opened.checkpoint, blueprint, plan)), {.dtype = at::kDouble});
    Tap none;
    Preview preview(blueprint, plan);
    GenerateOptions options{.tokens = 20, .temperature = 0, .seed = 3};
    const std::vector<int32_t> with = generate(*folded, ids(*folded, 9), options, none).ids;
    EXPECT_EQ(with, generate(*model.model, ids(*folded, 9), options, preview).ids);
    options.cache = false;
    EXPECT_EQ(with, generate(*folded, ids(*folded, 9), options, none).ids);
  }
}

TEST_P(NormLaws, NarrowWeightsAreFoldedInFloat32) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Tiny model(architecture(), {.dtype = type});
    const Blueprint& blueprint = model.opened.blueprint;
    const std::vector<int32_t> text = ids(*model.model);
    const Plan plan = freezing_all(model);
    const Opened folded = declare(apply(model.opened.checkpoint, blueprint, plan));
    for (const Stored& tensor : folded.checkpoint.tensors) {
      const Stored* was = model.opened.checkpoint.find(tensor.name);
      EXPECT_TRUE(tensor.dtype == DType::f32 || (was && was->dtype == tensor.dtype)) << tensor.name;
    }
    Preview preview(blueprint, plan);
    const auto in_float = build_model(model.opened, {.dtype = at::kFloat});
    const Tensor expected = tiny::logits(*in_float, text, preview);
    const Tensor given = tiny::logits(*build_model(folded, {.dtype = at::kFloat}), text);
    EXPECT_LT(tiny::greatest_difference(expected, given), 1e-4);
  }
}

std::map<std::string, std::string> files_in(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    files[entry.path().filename()] = read_file(entry.path());
  return files;
}

TEST_P(NormLaws, LoadThenSaveOfAFoldedModelIsTheIdentity) {
  for (int shards : {1, 3}) {
    const Tiny model(architecture(), {.shards = shards});
    const Checkpoint folded = apply(model.opened.checkpoint, model.opened.blueprint, freezing_all(model));
    for (const char* name : {"folded", "again"}) fs::create_directory(model.folder / name);
    write_folder(folded, model.folder / "folded", {});
    write_folder(open(model.folder / "folded").checkpoint, model.folder / "again", {});
    EXPECT_EQ(files_in(model.folder / "folded"), files_in(model.folder / "again"));
  }
}

TEST_P(NormLaws, AnotherLoaderIsKeptOut) {
  const Tiny model(architecture());
  const Opened folded = declare(apply(model.opened.checkpoint, model.opened.blueprint, freezing_all(model)));
  const Json& config = folded.checkpoint.config;
  EXPECT_EQ(config["architectures"][0], "Lamina" + std::string(architecture().name));
  EXPECT_EQ(config["model_type"], "lamina_" + std::string(architecture().model_type));
  EXPECT_EQ(config["tie_word_embeddings"], false);
  // Without the declaration the file is no model.
  Checkpoint undeclared = folded.checkpoint;
  undeclared.config.erase("lamina_norms_removed");
  EXPECT_THAT(refusal([&] { declare(undeclared); }), HasSubstr("is missing"));
}

TEST_P(NormLaws, ANormThatIsHalfFrozenStays) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  const std::vector<int32_t> text = ids(*model.model);
  for (const Reader reader : {Reader::qk, Reader::v}) {
    const Plan plan = freezing(model, [&](const NormPath& path) { return path.reader == reader; });
    Preview preview(blueprint, plan);
    EXPECT_GT(tiny::greatest_difference(tiny::logits(*model.model, text),
                                        tiny::logits(*model.model, text, preview)),
              1e-3);
    EXPECT_THAT(refusal([&] { apply(model.opened.checkpoint, blueprint, plan); }),
                HasSubstr(reader == Reader::qk ? "freeze v0 as well" : "freeze qk0 as well"));
  }
}

TEST_P(NormLaws, PlansThatDoNotFitAreRefused) {
  const Tiny model(architecture());
  const Blueprint& b = model.opened.blueprint;
  const std::string mlp = b.parts[1].path;
  const FreezeNorm once{mlp, Reader::mlp, 2}, last{b.final_norm, Reader::head, 2};
  const auto said = [&](const Plan& plan) { return refusal([&] { check_plan(plan, b); }); };
  EXPECT_EQ(said({.edits = {once, last}}), "was accepted");
  EXPECT_THAT(said({.edits = {once, once}}), HasSubstr("twice"));
  EXPECT_THAT(said({.edits = {last, last}}), HasSubstr("freezes the last norm twice"));
  EXPECT_THAT(said({.edits = {once, Cut{mlp, {}}}}), HasSubstr("edits its norm as well"));
  EXPECT_THAT(said({.edits = {Silence{mlp}, once}}), HasSubstr("edits its norm as well"));
  EXPECT_THAT(said({.edits = {FreezeNorm{mlp, Reader::qk, 2}}}), HasSubstr("there is none"));
  EXPECT_THAT(said({.edits = {FreezeNorm{mlp, Reader::head, 2}}}), HasSubstr("there is none"));
  EXPECT_THAT(said({.edits = {FreezeNorm{mlp, Reader::mlp, 0}}}), HasSubstr("no positive number"));
  EXPECT_THAT(said({.edits = {FreezeNorm{"model.lyers.0", Reader::mlp, 1}}}),
              HasSubstr("no part of this model"));
  const Opened folded = declare(apply(model.opened.checkpoint, b, freezing_all(model)));
  EXPECT_THAT(refusal([&] { check_plan({.edits = {last}}, folded.blueprint); }), HasSubstr("there is none"));
}

TEST_P(NormLaws, ClampsAndFrozenNormsGoTogether) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  const std::vector<int32_t> text = ids(*model.model);
  const std::string mlp = blueprint.parts[3].path;
  Plan plan = freezing_all(model);
  plan.edits.push_back(Clamp{mlp, 3, NeuronPlace::linear, ClampMode::set, 0.5});
  plan.edits.push_back(Clamp{mlp, 4, NeuronPlace::linear, ClampMode::scale, -2});
  plan.edits.push_back(Clamp{mlp, 5, NeuronPlace::post, ClampMode::max, 0.7});
  Preview preview(blueprint, plan);
  const Tensor expected = tiny::logits(*model.model, text, preview);
  const Opened both = declare(apply(model.opened.checkpoint, blueprint, plan));
  EXPECT_LT(tiny::greatest_difference(expected, tiny::logits(both, text)), 1e-9);

  // The clamps go with their part; the norms still keep stock loaders out.
  const Opened cut = declare(apply(both.checkpoint, both.blueprint, {.edits = {Cut{mlp, {}}}}));
  EXPECT_FALSE(cut.checkpoint.config.contains("lamina_clamps"));
  EXPECT_EQ(cut.checkpoint.config["model_type"], "lamina_" + std::string(architecture().model_type));
  // With the one part whose norm is gone, all that stock loaders could not read is gone.
  const Plan one = freezing(model, [](const NormPath& path) { return path.site.index == 3; });
  const Opened folded = declare(apply(model.opened.checkpoint, blueprint, one));
  const Opened without = declare(apply(folded.checkpoint, folded.blueprint, {.edits = {Cut{mlp, {}}}}));
  EXPECT_EQ(without.checkpoint.config["model_type"], architecture().model_type);
  EXPECT_FALSE(without.checkpoint.config.contains("lamina_norms_removed"));
}

TEST_P(NormLaws, BlocksOfAFoldedModelAreRenumbered) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  const std::vector<int32_t> text = ids(*model.model);
  // The norms of A0, F1, F2 and A3 stay.
  const std::set<int> live = {0, 3, 5, 6};
  const Plan plan = freezing(model, [&](const NormPath& path) {
    return path.reader == Reader::head || !live.contains(path.site.index);
  });
  const Opened folded = declare(apply(model.opened.checkpoint, blueprint, plan));
  EXPECT_EQ(default_forms(folded, tiny::cuts_by_label(blueprint, {"A1"})).front().form, Form::hf_perlayer);
  const Plan cut = tiny::cuts_by_label(blueprint, {"A1", "F1"});
  Skip skip(blueprint, cut);
  const Tensor expected = tiny::logits(*build_model(folded, {.dtype = at::kDouble}), text, skip);
  for (Form form : {Form::hf_compact, Form::hf_perlayer, Form::hf_zeroed}) {
    ASSERT_TRUE(can_write(form, folded, cut).possible) << form_name(form);
    EXPECT_THAT(can_write(form, folded, cut).note, HasSubstr("lamina alone"));
    const fs::path folder = model.folder / form_name(form);
    fs::create_directory(folder);
    write_forms(folded, cut, {{form, {}}}, folder, {});
    const Opened again = open(folder);
    EXPECT_LT(tiny::greatest_difference(expected, tiny::logits(again, text)), 1e-9) << form_name(form);
    if (form == Form::hf_compact) {
      const NormsRemoved removed =
          read_norms_removed(again.checkpoint.config, again.blueprint.blocks, "config");
      EXPECT_EQ(removed.parts, (Absences{{0, Kind::mlp}, {1, Kind::attention}, {2, Kind::mlp}}));
      EXPECT_TRUE(removed.last);
    }
  }
}

TEST_P(NormLaws, AHugeEpsilonInTheStockArchitectureIsTheSameFunction) {
  const Tiny model(architecture());
  const Blueprint& blueprint = model.opened.blueprint;
  const std::vector<int32_t> text = ids(*model.model);
  int number = 0;
  for (const Plan& plan : {freezing_all(model), freezing_and_cutting(model, {"A1", "F1"})}) {
    Preview preview(blueprint, plan);
    const Tensor expected = tiny::logits(*model.model, text, preview);
    ASSERT_TRUE(can_write(Form::hf_compat, model.opened, plan).possible);
    const fs::path folder = model.folder / fmt::format("compat{}", number++);
    fs::create_directory(folder);
    write_forms(model.opened, plan, {{Form::hf_compat, {}}}, folder, {});
    const Opened again = open(folder);
    EXPECT_EQ(again.checkpoint.config["architectures"], model.opened.checkpoint.config["architectures"]);
    EXPECT_EQ(again.checkpoint.config["model_type"], model.opened.checkpoint.config["model_type"]);
    // The mean square of the largest tokens here is still a few parts in 1e10 of the epsilon.
    EXPECT_LT(tiny::greatest_difference(expected, tiny::logits(again, text)), 1e-6);
    // In float32 the square root is 1e6 to the last bit.
    const Tensor single = tiny::logits(*build_model(again, {.dtype = at::kFloat}), text);
    EXPECT_LT(tiny::greatest_difference(expected, single.to(at::kDouble)), 1e-3);
  }
}

TEST_P(NormLaws, FormsThatCannotSayItAreRefused) {
  const Tiny model(architecture());
  const Blueprint& b = model.opened.blueprint;
  const Plan all = freezing_all(model);
  const auto why_not = [](Form form, const Opened& opened, const Plan& plan) {
    const Answer answer = can_write(form, opened, plan);
    return answer.possible ? "possible" : answer.note;
  };
  for (Form form : {Form::hf_compact, Form::hf_zeroed, Form::gguf})
    EXPECT_THAT(why_not(form, model.opened, all),
                HasSubstr("hf-perlayer would do, and hf-compat in float32"));
  EXPECT_EQ(default_forms(model.opened, all).size(), 1U);
  EXPECT_EQ(default_forms(model.opened, all).front().form, Form::hf_perlayer);
  EXPECT_THAT(can_write(Form::hf_perlayer, model.opened, all).note, HasSubstr("lamina alone"));

  const Plan but_last = freezing(model, [](const NormPath& path) { return path.reader != Reader::head; });
  EXPECT_THAT(why_not(Form::hf_compat, model.opened, but_last), HasSubstr("final reads is live"));
  EXPECT_THAT(why_not(Form::hf_compat, model.opened, {}), HasSubstr("qk0 reads is live"));
  EXPECT_THAT(why_not(Form::hf_compat, model.opened, freezing_and_cutting(model, {"A1"})),
              HasSubstr("A1 leaves half a block"));
  const Opened folded = declare(apply(model.opened.checkpoint, b, all));
  EXPECT_THAT(why_not(Form::hf_compat, folded, {}), HasSubstr("folded away already"));
  EXPECT_THAT(why_not(Form::gguf, folded, {}), HasSubstr("no GGUF can say"));

  const Tiny narrow(architecture(), {.dtype = at::kBFloat16});
  EXPECT_THAT(why_not(Form::hf_compat, narrow.opened, all), HasSubstr("is bfloat16"));
  const fs::path folder = model.folder / "none";
  fs::create_directory(folder);
  EXPECT_THAT(refusal([&] {
                write_forms(model.opened, all, {{Form::hf_compat, {}}}, folder,
                            {.dtype = DType::f16, .watch = {}});
              }),
              HasSubstr("not possible in float16"));
  EXPECT_TRUE(fs::is_empty(folder));
  EXPECT_EQ(parse_forms("folded,gpt2-compat").front().text(), "hf-perlayer");
  EXPECT_EQ(parse_forms("folded,gpt2-compat").back().text(), "hf-compat");
}

TEST_P(NormLaws, TransformerLensGetsEveryNumber) {
  const Tiny model(architecture(), {.dtype = at::kFloat});
  const Plan all = freezing_all(model);
  const Answer answer = can_write(Form::transformer_lens, model.opened, all);
  EXPECT_EQ(answer.possible, model.opened.blueprint.family == "gpt2") << answer.note;
  EXPECT_FALSE(can_write(Form::transformer_lens, model.opened, {}).possible);
  if (!answer.possible) {
    EXPECT_THAT(answer.note, HasSubstr("only GPT-2"));
    return;
  }
  const fs::path folder = model.folder / "lens";
  fs::create_directory(folder);
  write_forms(model.opened, all, {{Form::transformer_lens, {}}}, folder, {});
  const Checkpoint lens = open_folder(folder);
  uint64_t numbers = 0;
  for (const Stored& tensor : lens.tensors) numbers += tensor.elements();
  const Opened folded = declare(apply(model.opened.checkpoint, model.opened.blueprint, all));
  EXPECT_EQ(numbers, static_cast<uint64_t>(folded.blueprint.parameters()));
  EXPECT_TRUE(lens.config["normalization_type"].is_null() && lens.config.contains("normalization_type"));
  EXPECT_EQ(lens.find("blocks.3.attn.W_K")->shape, (Shape{6, 48, 8}));
  EXPECT_EQ(lens.find("unembed.W_U")->shape, (Shape{48, 97}));
}

}  // namespace
}  // namespace lamina
