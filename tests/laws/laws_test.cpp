// What must hold for every language model that is listed, beside every_laws_test.cpp.
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
