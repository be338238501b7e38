#include "lamina/report/model_card.h"

#include <gmock/gmock.h>

#include "lamina/report/impl/example.h"
#include "lamina/report/impl/golden.h"

namespace lamina::report {
namespace {

using testing::HasSubstr;
using testing::Not;

ModelCard card() {
  return {.title = "SmolLM2-135M-Instruct, 8 of 60 sub-layers cut",
          .base_model = "HuggingFaceTB/SmolLM2-135M-Instruct",
          .license = "apache-2.0",
          .languages = {"en"},
          .tags = {"pruning", "finercut"},
          .summary = impl::pruning_example().verdict.sentence,
          .figures = impl::pruning_example().verdict.figures,
          .metrics = {{.dataset_name = "WikiText-2, test split",
                       .dataset = "wikitext",
                       .name = "Perplexity (64 x 1,024 tokens)",
                       .type = "perplexity",
                       .value = 19.87},
                      {.dataset_name = "WikiText-2, test split",
                       .dataset = "wikitext",
                       .name = "Loss (nats a token)",
                       .type = "loss",
                       .value = 2.9892},
                      {.dataset_name = "LAMBADA",
                       .dataset = "lambada",
                       .name = "Accuracy",
                       .type = "accuracy",
                       .value = not_measured}},
          .openings = {{.tool = "transformers 5.23",
                        .checked = "logits equal to ours within 3e-5 on 512 tokens",
                        .code = "from transformers import AutoModelForCausalLM\nmodel = "
                                "AutoModelForCausalLM.from_pretrained(\".\")",
                        .language = "python"},
                       {.tool = "llama.cpp", .code = "llama-cli -m model-q8_0.gguf", .language = "sh"}},
          .plan = {"model.layers.27.self_attn (A27), step 1", "model.layers.27.mlp (F27), step 2"},
          .limits = {"Speed was measured on one machine."},
          .command = "lamina prune SmolLM2-135M-Instruct -o smaller --cut 8",
          .version = "0.1.0",
          .date = "2026-11-24"};
}

TEST(ModelCard, IsAsItWasLookedAt) {
  impl::expect_golden("model_card.md", to_markdown(card()));
}

TEST(ModelCard, OfNothingIsStillACard) {
  EXPECT_EQ(to_markdown({.library = "", .pipeline = ""}), "---\ntags:\n- \"lamina\"\n---\n\n# \n");
}

TEST(ModelCard, LeavesOutMetricsThatWereNotMeasured) {
  EXPECT_THAT(to_markdown(card()), Not(HasSubstr("lambada")));
}

TEST(ModelCard, QuotesWhatYamlWouldMisread) {
  ModelCard odd = card();
  odd.license = "no";
  odd.base_model = "a: \"b\"\n# c \xff";
  const std::string text = to_markdown(odd);
  EXPECT_THAT(text, HasSubstr("license: \"no\"\n"));
  EXPECT_THAT(text, HasSubstr("base_model: \"a: \\\"b\\\"\\n# c \uFFFD\"\n"));
}

TEST(ModelCard, EscapesMarkdown) {
  ModelCard odd = card();
  odd.plan = {"a|b <i> [x](y)\nsecond"};
  odd.command = "echo ```";
  const std::string text = to_markdown(odd);
  EXPECT_THAT(text, HasSubstr("- a\\|b \\<i\\> \\[x\\](y) second\n"));
  EXPECT_THAT(text, HasSubstr("````sh\necho ```\n````\n"));
}

}  // namespace
}  // namespace lamina::report
