// The greedy search against itself: cached, threaded, abandoned early and resumed must be the naive one, on
// random weights, with ties, and on a small trained model, where every subset can be scored.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <set>

#include "lamina/base/file.h"
#include "lamina/data/text_set.h"
#include "lamina/data/tokenizer.h"
#include "lamina/methods/registry.h"
#include "tests/laws/tiny.h"

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr Metric kMetrics[] = {Metric::jsd, Metric::ag,   Metric::kl,
                               Metric::ppl, Metric::norm, Metric::angular};

using Samples = std::vector<std::vector<int32_t>>;

struct Small {
  explicit Small(uint64_t seed, std::vector<std::string> silent = {},
                 std::string_view name = "LlamaForCausalLM") {
    for (const Architecture& architecture : architectures()) {
      if (architecture.name != name) continue;
      tiny::write(tiny::random_checkpoint(architecture, {.seed = seed, .dtype = at::kFloat}),
                  folder / "model");
    }
    opened = open(folder / "model");
    Plan silence;
    for (const std::string& label : silent) {
      for (const Part& part : opened.blueprint.parts) {
        if (part.label() == label) silence.edits.push_back(Silence{part.path});
      }
    }
    opened = declare(apply(opened.checkpoint, opened.blueprint, silence));
    model = build_model(opened, {.dtype = at::kFloat});
    for (uint64_t s = 0; s < 5; ++s)
      samples.push_back(tiny::tokens(24, opened.blueprint.vocabulary, 100 * seed + s));
  }
  tiny::Folder folder;
  Opened opened;
  std::unique_ptr<Model> model;
  Samples samples;
};

std::vector<std::string> labels(const GreedyResult& result) {
  std::vector<std::string> all;
  for (const Step& step : result.steps) all.push_back(result.units[static_cast<size_t>(step.unit)].label);
  return all;
}

void expect_same(const GreedyResult& naive, const GreedyResult& other, const std::string& what) {
  EXPECT_EQ(labels(naive), labels(other)) << what;
  ASSERT_EQ(naive.steps.size(), other.steps.size());
  for (size_t k = 0; k < naive.steps.size(); ++k) {
    EXPECT_NEAR(naive.steps[k].score, other.steps[k].score, 1e-6 * naive.steps[k].score)
        << what << " step " << k;
    // Every score that is given is right, every bound is one.
    ASSERT_EQ(naive.steps[k].candidates.size(), other.steps[k].candidates.size()) << what;
    for (size_t c = 0; c < naive.steps[k].candidates.size(); ++c) {
      const Step::Candidate &truth = naive.steps[k].candidates[c], &said = other.steps[k].candidates[c];
      EXPECT_EQ(truth.unit, said.unit);
      if (said.complete) {
        EXPECT_NEAR(truth.score, said.score, 1e-6 * truth.score) << what;
      } else {
        EXPECT_LE(said.score, truth.score * (1 + 1e-6)) << what;
        EXPECT_GE(said.score, naive.steps[k].score) << what << ": given up too early";
      }
    }
  }
}

class Bounded : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(From, Bounded, testing::Values(0, 4096),
                         [](const auto& info) { return info.param == 0 ? "Always" : "LargeVocabularies"; });

TEST_P(Bounded, CachedIsNaiveForEveryMetric) {
  for (Metric metric : kMetrics) {
    const Small small(1);
    const GreedyOptions options{
        .remove = 6, .metric = metric, .search = Search::naive, .bound_from = GetParam()};
    const GreedyResult naive = greedy(*small.model, small.samples, options);
    GreedyOptions cached = options;
    cached.search = Search::cached;
    expect_same(naive, greedy(*small.model, small.samples, cached), std::string(metric_name(metric)));
    cached.threads = 2;
    expect_same(naive, greedy(*small.model, small.samples, cached), "two workers");
    cached.cache_bytes = 20000;  // too small for every stream: some are kept
    expect_same(naive, greedy(*small.model, small.samples, cached), "small cache");
  }
}

TEST_P(Bounded, CachedIsNaiveOnManyModelsWithTies) {
  // Parts that write zeros score exactly nothing, and nothing again in the next step: canonical order
  // decides.
  const std::vector<std::vector<std::string>> silent = {
      {}, {"A1", "F2"}, {"F0", "A0"}, {"A3", "F3", "A2"}, {"F1", "A1", "F3", "A0"}};
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const Small small(seed, silent[seed % silent.size()]);
    const GreedyOptions options{.remove = 7, .search = Search::naive, .bound_from = GetParam()};
    const GreedyResult naive = greedy(*small.model, small.samples, options);
    GreedyOptions cached = options;
    cached.search = Search::cached;
    expect_same(naive, greedy(*small.model, small.samples, cached), std::to_string(seed));
  }
}

TEST(Search, TiesGoByBlockThenAttentionFirst) {
  const Small small(3, {"F3", "A1", "F1", "A3", "A0"});
  for (Search search : {Search::naive, Search::cached}) {
    const GreedyResult result = greedy(*small.model, small.samples, {.remove = 5, .search = search});
    EXPECT_THAT(labels(result), ElementsAre("A0", "A1", "F1", "A3", "F3"));
    for (const Step& step : result.steps) EXPECT_EQ(step.score, 0);
  }
}

TEST(Search, EveryKindOfUnitAndBarriers) {
  const Small small(4);
  const auto run = [&](GreedyOptions options, Search search) {
    options.search = search;
    return greedy(*small.model, small.samples, options);
  };
  for (Units units : {Units::attention, Units::mlp, Units::block, Units::both}) {
    const GreedyOptions options{.remove = 2, .units = units};
    expect_same(run(options, Search::naive), run(options, Search::cached), std::string(units_name(units)));
  }
  const GreedyOptions barred{
      .remove = 2, .units = Units::block, .metric = Metric::ppl, .first_barrier = 1, .last_barrier = 1};
  const GreedyResult inner = run(barred, Search::cached);
  expect_same(run(barred, Search::naive), inner, "barriers");
  std::set<std::string> gone;
  for (const std::string& label : labels(inner)) gone.insert(label);
  EXPECT_EQ(gone, (std::set<std::string>{"B1", "B2"}));
  GreedyOptions too_many = barred;
  too_many.remove = 3;
  EXPECT_THROW(run(too_many, Search::cached), Error);
}

TEST(Search, ResumedItIsTheSame) {
  const Small small(5);
  const GreedyOptions options{.remove = 6};
  const GreedyResult whole = greedy(*small.model, small.samples, options);
  for (size_t kept : {1U, 3U, 5U}) {
    GreedyHooks hooks;
    hooks.done.assign(whole.steps.begin(), whole.steps.begin() + static_cast<ptrdiff_t>(kept));
    const GreedyResult again = greedy(*small.model, small.samples, options, hooks);
    EXPECT_EQ(labels(whole), labels(again));
    for (size_t k = 0; k < whole.steps.size(); ++k)
      EXPECT_NEAR(whole.steps[k].score, again.steps[k].score, 1e-6 * whole.steps[k].score);
  }
  GreedyHooks wrong;
  wrong.done = {{.unit = 99, .candidates = {}}};
  EXPECT_THROW(greedy(*small.model, small.samples, options, wrong), Error);
}

TEST(Search, OneShotIsTheFirstStepSorted) {
  const Small small(6);
  const GreedyResult once = greedy(*small.model, small.samples, {.remove = 5, .search = Search::one_shot});
  std::vector<std::pair<double, std::string>> order;
  for (const Step::Candidate& c : once.steps.front().candidates)
    order.emplace_back(c.score, once.units[static_cast<size_t>(c.unit)].label);
  std::ranges::stable_sort(order, {}, &std::pair<double, std::string>::first);
  for (size_t k = 0; k < 5; ++k) EXPECT_EQ(labels(once)[k], order[k].second);
}

TEST(Search, RefusesWhatCannotBe) {
  const Small small(7);
  EXPECT_THROW(greedy(*small.model, small.samples, {.remove = 0}), Error);
  EXPECT_THROW(greedy(*small.model, small.samples, {.remove = 8}), Error);
  EXPECT_THROW(greedy(*small.model, small.samples, {.remove = 4, .units = Units::block}), Error);
  EXPECT_EQ(greedy(*small.model, small.samples, {.remove = 4, .units = Units::attention}).steps.size(), 4U);
  EXPECT_THROW(greedy(*small.model, {}, {.remove = 2}), Error);
  EXPECT_THROW(greedy(*small.model, {{1, 2, 3}, {1, 2}}, {.remove = 2}), Error);
}

// The figures that the authors' code gives for Llama-3 8B and 70B with a share of 40 %, and with none.
TEST(Schedule, IsThatOfThePublicCode) {
  for (const auto& [units, share, closed, reopen, candidates] :
       {std::tuple{64, 0.4, 13, 26, 38}, {160, 0.4, 33, 65, 94}, {64, 0.0, 1, 1, 62}}) {
    const Schedule schedule = Schedule::frozen(units, share);
    EXPECT_EQ(schedule.closed_blocks, closed);
    EXPECT_EQ(schedule.reopen_after, reopen);
    int open = 0;
    for (int u = 0; u < units; ++u) open += schedule.open({.sites = {}, .block = u / 2, .label = {}}, 0);
    EXPECT_EQ(open, candidates);
    EXPECT_TRUE(schedule.open({.sites = {}, .block = 0, .label = {}}, reopen));
    EXPECT_FALSE(schedule.open({.sites = {}, .block = 0, .label = {}}, reopen - 1));
  }
}

TEST(Schedule, ClosesTheFrontUntilEnoughHasGone) {
  const Small small(8, {"A0"});  // would go first if it could
  GreedyOptions options{.remove = 7,
                        .schedule = Schedule::frozen(8, 0.5)};  // blocks 0 to 2 closed, open again after 5
  EXPECT_THROW(greedy(*small.model, small.samples, options), Error);  // block 3 has two units only
  options.schedule = Schedule::frozen(8, 0.25);                       // blocks 0 and 1, until 3 are gone
  for (Search search : {Search::naive, Search::cached}) {
    options.search = search;
    const std::vector<std::string> order = labels(greedy(*small.model, small.samples, options));
    for (size_t k = 0; k < 3; ++k) EXPECT_GE(std::stoi(order[k].substr(1)), 2);
    EXPECT_EQ(order[3], "A0");
  }
}

// ---- a trained model

const fs::path kShared = fs::path("..") / "shared" / "data";

struct Stories {
  static bool there() { return fs::exists(kShared / "weights/stories260K/stories260K.gguf"); }
  explicit Stories(int64_t count = 3, int64_t length = 64)
      : opened(open(kShared / "weights/stories260K/stories260K.gguf")) {
    model = build_model(opened, {.dtype = at::kFloat});
    const Tokenizer tokenizer = Tokenizer::from_gguf(*opened.checkpoint.gguf, "stories260K");
    samples = calibration_samples(read_text_file(kShared / "text/tinystories_sample.txt"), tokenizer,
                                  {.samples = count, .length = length, .what = "tinystories"});
  }
  Opened opened;
  std::unique_ptr<Model> model;
  Samples samples;
};

TEST_P(Bounded, CachedIsNaiveOnATrainedModel) {
  if (!Stories::there()) GTEST_SKIP() << "the small trained model is not in " << kShared;
  const Stories stories;
  for (Metric metric : kMetrics) {
    const GreedyOptions options{
        .remove = 8, .metric = metric, .search = Search::naive, .bound_from = GetParam()};
    GreedyOptions cached = options;
    cached.search = Search::cached;
    expect_same(greedy(*stories.model, stories.samples, options),
                greedy(*stories.model, stories.samples, cached), std::string(metric_name(metric)));
  }
}

// All 1,024 subsets of its ten units, scored: what greedy is worth against the truth.
TEST(Trained, EverySubsetScored) {
  if (!Stories::there()) GTEST_SKIP() << "the small trained model is not in " << kShared;
  const Stories stories(2, 48);
  const InferenceMode evaluating;
  const Divergence divergence = dense_reference(*stories.model, stories.samples, {.metric = Metric::jsd});
  const std::vector<Site> sites = stories.opened.blueprint.present();
  ASSERT_EQ(sites.size(), 10U);
  std::vector<double> score(1024);
  for (unsigned subset = 0; subset < 1023; ++subset) {  // the whole model cannot go
    std::vector<Site> without;
    for (unsigned u = 0; u < 10; ++u) {
      if (subset >> u & 1) without.push_back(sites[u]);
    }
    score[subset] = score_without(*stories.model, divergence, stories.samples, without);
  }
  EXPECT_LT(score[0], 1e-9);

  const GreedyResult result = greedy(*stories.model, stories.samples, {.remove = 9});
  unsigned gone = 0;
  for (size_t k = 0; k < result.steps.size(); ++k) {
    // Each step is the best of its candidates, by the table.
    double best_next = INFINITY;
    for (unsigned u = 0; u < 10; ++u) {
      if (!(gone >> u & 1)) best_next = std::min(best_next, score[gone | 1U << u]);
    }
    gone |= 1U << result.steps[k].unit;
    EXPECT_NEAR(score[gone], result.steps[k].score, 1e-6 * score[gone]);
    EXPECT_NEAR(score[gone], best_next, 1e-6 * best_next);
    // And how far from the best subset of its size: greedy is no more than a fifth worse on this model.
    double best = INFINITY;
    for (unsigned subset = 0; subset < 1023; ++subset) {
      if (std::popcount(subset) == static_cast<int>(k + 1)) best = std::min(best, score[subset]);
    }
    EXPECT_GE(score[gone], best * (1 - 1e-6));
    EXPECT_LE(score[gone], best * 1.2) << k + 1 << " removed";
    RecordProperty("greedy_over_best_" + std::to_string(k + 1), std::to_string(score[gone] / best));
  }
}

TEST(Methods, EveryOneProposesAPlanThatFits) {
  const Small small(9);
  for (const Method& method : methods()) {
    MethodOptions options;
    options.method = method.name;
    options.units = method.default_units;
    options.remove = 2;
    const Proposal proposal =
        method.propose({*small.model, small.opened.checkpoint, small.samples}, options, {});
    check_plan(proposal.plan, small.opened.blueprint);
    EXPECT_EQ(proposal.plan.edits.size(), options.units == "block" ? 4U : 2U) << method.name;
    const Proposal again =
        method.propose({*small.model, small.opened.checkpoint, small.samples}, options, {});
    EXPECT_EQ(to_json(proposal.plan), to_json(again.plan)) << method.name << ": same input, same plan";
  }
}

TEST(Methods, SimilarityIsOneMinusTheCosine) {
  const Small small(10);
  MethodOptions options{.method = "shortgpt", .remove = 1, .units = "block"};
  const Proposal proposal =
      method_by_name("shortgpt").propose({*small.model, small.opened.checkpoint, small.samples}, options, {});
  // By hand: the residual before and after each block, from the taps.
  struct Residuals : Tap {
    void saw(Site site, const Tensor& before, const Tensor& after) override {
      if (site.index % 2 == 0) start = before;
      if (site.index % 2 == 1) {
        const Tensor a = start.to(at::kDouble), b = after.to(at::kDouble);
        const Tensor cosine = (a * b).sum(-1) / (a.norm(2, -1) * b.norm(2, -1));
        influence[static_cast<size_t>(site.index / 2)] += 1 - cosine.mean().item<double>();
      }
    }
    Tensor start;
    std::vector<double> influence = std::vector<double>(4);
  } tap;
  for (const auto& ids : small.samples) tiny::logits(*small.model, ids, tap);
  for (const Step::Candidate& c : proposal.evidence.steps.front().candidates)
    EXPECT_NEAR(c.score, tap.influence[static_cast<size_t>(c.unit)] / 5, 1e-9);
}

TEST(Methods, UnknownNamesAreRefused) {
  try {
    method_by_name("finecut");
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("was finercut meant?"));
  }
}

}  // namespace
}  // namespace lamina
