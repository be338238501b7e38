#include "lamina/methods/denorm/denorm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lamina/base/error.h"
#include "lamina/heal/train.h"
#include "lamina/methods/denorm/compare.h"
#include "lamina/model/frozen_norms.h"
#include "tests/laws/tiny.h"

namespace lamina::denorm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// ---- schedules

Blueprint of_blocks(int blocks) {
  Blueprint blueprint;
  blueprint.blocks = blocks;
  blueprint.final_norm = "ln_f";
  for (int b = 0; b < blocks; ++b) {
    const std::string path = fmt::format("h.{}.", b);
    blueprint.parts.push_back(
        {.path = path + "attn",
         .kind = Kind::attention,
         .block = b,
         .norm = FrontNorm{path + "ln_1", {{Reader::qk, "c", 0, 2}, {Reader::v, "c", 2, 1}}}});
    blueprint.parts.push_back({.path = path + "mlp",
                               .kind = Kind::mlp,
                               .block = b,
                               .norm = FrontNorm{path + "ln_2", {{Reader::mlp, "d", 0, 4}}}});
  }
  return blueprint;
}

int64_t first_of(const Removals& removals, Reader reader) {
  for (const Removal& removal : removals) {
    if (removal.path.reader == reader) return removal.step;
  }
  return -1;
}

TEST(Schedules, ThePublishedOnes) {
  struct Row {
    int blocks;
    StagedOptions options;
    int64_t qk, v, last;
  };
  const Row rows[] = {{12, {20, 2, 2, 3}, 44, 68, 104},
                      {24, {20, 2, 2, 3}, 68, 116, 188},
                      {36, {30, 4, 4, 6}, 174, 318, 534},
                      {48, {50, 4, 4, 6}, 242, 434, 722},
                      {12, {200, 20, 20, 30}, 440, 680, 1040}};  // 2024
  for (const Row& row : rows) {
    const Removals removals = staged(of_blocks(row.blocks), row.options);
    ASSERT_EQ(std::ssize(removals), 3 * row.blocks + 1);
    EXPECT_EQ(first_of(removals, Reader::mlp), row.options.start);
    EXPECT_EQ(first_of(removals, Reader::qk), row.qk);
    EXPECT_EQ(first_of(removals, Reader::v), row.v);
    EXPECT_EQ(first_of(removals, Reader::head), row.last);
    EXPECT_EQ(removals.back().step, row.last);
    EXPECT_TRUE(std::ranges::is_sorted(removals, {}, &Removal::step));
    // Between two of one kind lies their gap, in the order of the blocks.
    EXPECT_EQ(removals[1].step - removals[0].step, row.options.gap_mlp);
    EXPECT_EQ(removals[1].path.site.index - removals[0].path.site.index, 2);
  }
}

TEST(Schedules, SimpleStories) {
  const Blueprint blueprint = of_blocks(2);
  const Removals removals =
      staged(blueprint,
             {.start = 1, .gap_mlp = 500, .gap_qk = 500, .gap_v = 500, .attention = AttentionNorm::whole});
  std::vector<std::string> said;
  for (const Removal& removal : removals)
    said.push_back(fmt::format("{} {}", removal.step, blueprint.label(removal.path)));
  EXPECT_THAT(said,
              ElementsAre("1 mlp0", "501 mlp1", "1001 qk0", "1001 v0", "1501 qk1", "1501 v1", "2001 final"));
}

TEST(Schedules, WithPartsCutAndNormsGone) {
  Blueprint blueprint = of_blocks(3);
  blueprint.parts[1].present = false;  // mlp 0
  blueprint.parts[2].norm.reset();     // attention 1
  blueprint.final_norm.clear();
  std::vector<std::string> said;
  for (const Removal& removal : staged(blueprint, {.start = 5, .gap_mlp = 2, .gap_qk = 3, .gap_v = 4}))
    said.push_back(fmt::format("{} {}", removal.step, blueprint.label(removal.path)));
  EXPECT_THAT(said, ElementsAre("5 mlp1", "7 mlp2", "9 qk0", "12 qk2", "15 v0", "19 v2"));
  for (const Removal& removal : at_once(blueprint, 9)) EXPECT_EQ(removal.step, 9);
  EXPECT_EQ(at_once(blueprint, 9).size(), 6);
}

TEST(Schedules, AsJson) {
  const Blueprint blueprint = of_blocks(2);
  const Removals removals = staged(blueprint);
  EXPECT_EQ(removals_from_json(to_json(removals, blueprint), blueprint, "s.json"), removals);
  const auto refused = [&](const char* list) {
    try {
      removals_from_json(
          parse_json(fmt::format(R"({{"lamina_norm_schedule": 1, "removals": {}}})", list), "s.json"),
          blueprint, "s.json");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(refused(R"([{"step": 1, "norm": "mlp2"}])"),
              HasSubstr("\"mlp2\" is no norm of this model; was"));
  EXPECT_THAT(refused(R"([{"step": 1, "norm": "mlp0"}, {"step": 3, "norm": "mlp0"}])"),
              HasSubstr("goes twice"));
  EXPECT_THAT(refused(R"([{"step": -1, "norm": "mlp0"}])"), HasSubstr("step"));
  EXPECT_THAT(refused(R"([{"step": 1, "norm": "qk0"}])"), HasSubstr("qk0 goes but v0 stays"));
  EXPECT_THAT(refused("[]"), HasSubstr("no norm goes"));
  EXPECT_EQ(refused(R"([{"step": 9, "norm": "v0"}, {"step": 1, "norm": "qk0"}])"), "");
  EXPECT_THROW(check_fits(removals, blueprint, removals.back().step), Error);
  EXPECT_NO_THROW(check_fits(removals, blueprint, removals.back().step + 1));
}

// ---- the hook

Batch batch_of(const std::vector<std::vector<int64_t>>& rows) {
  std::vector<Tensor> ids;
  for (const auto& row : rows) ids.push_back(at::tensor(row, at::kLong));
  Batch batch;
  batch.inputs.ids = at::stack(ids);
  batch.targets = at::full_like(batch.inputs.ids, kNotLearnt);
  batch.targets.narrow(1, 0, batch.targets.size(1) - 1)
      .copy_(batch.inputs.ids.narrow(1, 1, batch.targets.size(1) - 1));
  return batch;
}

std::string as_text(const Denorm& hook) {
  return to_json(Plan{.edits = hook.edits()}).dump();
}

Batch random_batch(int64_t rows, int64_t tokens, int64_t vocabulary, uint64_t seed) {
  std::vector<std::vector<int64_t>> all;
  for (int64_t r = 0; r < rows; ++r) {
    const auto ids = tiny::tokens(tokens, vocabulary, seed + static_cast<uint64_t>(r));
    all.emplace_back(ids.begin(), ids.end());
  }
  return batch_of(all);
}

// Sums of scales, and the last residual.
class Watched : public Tap {
 public:
  bool reads_norm(Site) const override { return true; }
  Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
    sum[path] += norm.scale(x).sum().item<double>();
    count[path] += x.numel() / x.size(-1);
    if (path.reader == Reader::head) last = norm.scale(x);
    return norm(x);
  }
  std::map<NormPath, double> sum;
  std::map<NormPath, int64_t> count;
  Tensor last;
};

class OnEvery : public testing::TestWithParam<const Architecture*> {
 protected:
  OnEvery() : model(*GetParam()), student(model.opened, {.dtype = at::kDouble}) {}
  const Blueprint& blueprint() const { return model.opened.blueprint; }
  Batch batch(uint64_t seed, int64_t rows = 2, int64_t tokens = 6) const {
    return random_batch(rows, tokens, blueprint().vocabulary, seed);
  }
  void pass(Denorm& hook, const Batch& batch) {
    hook.begin_pass(batch);
    student.model().run(batch.inputs, hook.tap());
  }
  void step(Denorm& hook, int64_t number, double loss = 1) {
    hook.begin_step(number);
    pass(hook, batch(static_cast<uint64_t>(number)));
    hook.extra_loss();
    StepRecord record{.step = number, .loss = loss};
    hook.end_step(record, *group);
  }
  Options at_once_after(int64_t first) const {
    return {.removals = at_once(blueprint(), first), .steps = 100};
  }
  tiny::Tiny model;
  Student student;
  std::unique_ptr<Group> group = alone();
};
INSTANTIATE_TEST_SUITE_P(Denorm, OnEvery, testing::ValuesIn(tiny::listed()),
                         [](const auto& info) { return std::string(info.param->name); });

TEST_P(OnEvery, RunningMeansAreOfStepsAndNotOfPasses) {
  Denorm hook(student, at_once_after(3));
  std::map<NormPath, double> mean;
  for (int64_t number = 1; number <= 3; ++number) {
    Watched watched;
    hook.begin_step(number);
    for (int64_t rows : {1, 3}) {  // micro-batches of different size: a mean of means would differ
      const Batch piece = batch(static_cast<uint64_t>(10 * number + rows), rows);
      pass(hook, piece);
      student.model().run(piece.inputs, watched);
      hook.recomputing(true);
      student.model().run(batch(99, 4).inputs, hook.tap());
      hook.recomputing(false);
    }
    StepRecord record{.step = number, .loss = 1};
    hook.end_step(record, *group);
    student.model().run(batch(98, 4).inputs, hook.tap());  // an evaluation
    for (const NormPath& path : blueprint().norm_paths()) {
      const double value = watched.sum[path] / static_cast<double>(watched.count[path]);
      mean[path] = number == 1 ? value : 0.9 * mean[path] + 0.1 * value;
    }
  }
  hook.begin_step(4);
  ASSERT_TRUE(hook.finished());
  const std::vector<Edit> edits = hook.edits();
  ASSERT_EQ(edits.size(), mean.size());
  for (size_t p = 0; p < edits.size(); ++p) {
    const auto& freeze = std::get<FreezeNorm>(edits[p]);
    const NormPath path = blueprint().norm_paths()[p];
    EXPECT_EQ(freeze.site, blueprint().norm_site(path));
    EXPECT_EQ(freeze.reader, path.reader);
    EXPECT_NEAR(freeze.scale, mean[path], 1e-12 * mean[path]) << blueprint().label(path);
  }
}

TEST_P(OnEvery, FrozenIsWhatThePlanFreezesAndWhatFoldingGives) {
  Denorm hook(student, {.removals = staged(blueprint(), {.start = 2, .gap_mlp = 1, .gap_qk = 1, .gap_v = 1}),
                        .steps = 100});
  const Batch text = batch(50);
  const auto apart = [&](const Plan& plan) {
    FrozenNorms frozen(blueprint(), plan);
    return tiny::greatest_difference(student.model().run(text.inputs, hook.tap()),
                                     student.model().run(text.inputs, frozen));
  };
  for (int64_t number = 1; !hook.finished(); ++number) {
    step(hook, number);
    EXPECT_LE(apart({.edits = hook.edits()}), 1e-12) << "after step " << number;
  }
  hook.settle();
  const Plan plan{.edits = hook.edits()};
  const Opened folded = declare(apply(model.opened.checkpoint, blueprint(), plan));
  EXPECT_TRUE(folded.blueprint.norm_paths().empty());
  EXPECT_LE(tiny::greatest_difference(build_model(folded, {.dtype = at::kDouble})->run(text.inputs),
                                      student.model().run(text.inputs, hook.tap())),
            1e-9);
  // It does something: norms that are frozen at other constants give something else.
  EXPECT_GT(tiny::greatest_difference(student.model().run(text.inputs),
                                      student.model().run(text.inputs, hook.tap())),
            1e-3);
}

TEST_P(OnEvery, TheExtraLossByHand) {
  Options options = at_once_after(50);
  options.lambda = 0.25;
  options.end_of_text = 3;
  Denorm hook(student, options);
  const Batch text = batch_of({{1, 2, 3, 4}, {5, 3, 6, 7}});
  Watched watched;
  student.model().run(text.inputs, watched);
  const Tensor scale = watched.last.detach().squeeze(-1);
  const auto at = [&](int64_t row, int64_t token) { return scale[row][token].item<double>(); };
  const double usual = (at(0, 1) + at(0, 3) + at(1, 2) + at(1, 3)) / 4;
  double expected = 0;
  for (int64_t row : {0, 1}) {
    for (int64_t token : {0, 1, 2, 3}) expected += 0.25 * std::pow(at(row, token) - usual, 2) / 8;
  }
  hook.begin_step(1);
  pass(hook, text);
  const auto extra = hook.extra_loss();
  ASSERT_TRUE(extra);
  EXPECT_NEAR(extra->second.item<double>(), expected, 1e-12 * expected);
  EXPECT_TRUE(extra->second.requires_grad());
  EXPECT_FALSE(hook.extra_loss()) << "nothing was seen since";
  options.lambda = 0;
  Denorm none(student, options);
  none.begin_step(1);
  pass(none, text);
  EXPECT_FALSE(none.extra_loss());
}

TEST_P(OnEvery, TaperingGoesFromTheNormToAConstant) {
  Denorm hook(student, {.taper = Taper{.from = 3, .to = 7}, .steps = 100});
  const Batch text = batch(50);
  const Tensor live = student.model().run(text.inputs);
  double last = 0;
  for (int64_t number = 1; number <= 9; ++number) {
    step(hook, number);
    const double apart = tiny::greatest_difference(student.model().run(text.inputs, hook.tap()), live);
    if (number <= 4) {  // the gate of step n is that of n - 1 steps done
      EXPECT_EQ(apart, 0) << number;
    }
    if (number > 4 && number <= 8) {
      EXPECT_GT(apart, last) << number;
    }
    last = apart;
  }
  // Another gain than the norm's own, as training makes it.
  for (Parameter& gain : hook.parameters()) gain.value.detach().mul_(1.5);
  const Tensor tapered = student.model().run(text.inputs, hook.tap()).detach();
  hook.settle();
  FrozenNorms frozen(blueprint(), {.edits = hook.edits()});
  EXPECT_LE(tiny::greatest_difference(student.model().run(text.inputs, frozen), tapered), 1e-12);
}

TEST_P(OnEvery, TheConstantOfATaperIsTheLeastSquaresOne) {
  Denorm hook(student, {.taper = Taper{.from = 1, .to = 4}, .steps = 100});
  step(hook, 1);
  hook.begin_step(2);
  hook.begin_step(3);
  // E |h gain|^2 / E (|h gain|^2 / scale) at the last norm.
  class Ends : public Tap {
   public:
    bool reads_norm(Site site) const override { return site == Site{}; }
    Tensor norm(const NormPath&, const Norm& norm, const Tensor& x) override {
      const Tensor h = norm.centred ? x - x.mean(-1, true) : x,
                   square = (h * norm.gain).square().sum(-1, true);
      scale = (square.sum() / (square / norm.scale(x)).sum()).item<double>();
      return norm(x);
    }
    double scale = 0;
  } ends;
  student.model().run(batch(1).inputs, ends);
  const auto last = std::get<FreezeNorm>(hook.edits().back());
  EXPECT_EQ(last.reader, Reader::head);
  EXPECT_NEAR(last.scale, ends.scale, 1e-12 * ends.scale);
}

TEST_P(OnEvery, BacksOffWhenTheLossJumps) {
  Options options{.removals = staged(blueprint(), {.start = 5, .gap_mlp = 10, .gap_qk = 10, .gap_v = 10}),
                  .steps = 1000,
                  .back_off = {.above = 0.1, .window = 4}};
  const auto steps_of = [&](const Options& with) {
    Denorm hook(student, with);
    std::vector<int64_t> steps;
    for (int64_t number = 1; number <= 60; ++number) {
      // From the first removal on the loss is higher, for thirteen steps.
      step(hook, number, number > 5 && number <= 18 ? 2.0 : 1.0);
    }
    for (const Removal& removal : hook.gone()) steps.push_back(removal.step);
    return std::pair(steps, hook.waits());
  };
  const auto [steps, waits] = steps_of(options);
  // Due at 15; the mean of four steps is 1 again once 22 are done. All that follows is 7 later.
  ASSERT_GE(steps.size(), 3);
  EXPECT_EQ(steps[0], 5);
  EXPECT_EQ(steps[1], 22);
  EXPECT_EQ(steps[2], 32);
  ASSERT_EQ(waits.size(), 1);
  EXPECT_EQ(waits[0].step, 15);
  EXPECT_EQ(waits[0].steps, 7);
  EXPECT_FALSE(waits[0].given_up);
  options.back_off.on = false;
  EXPECT_EQ(steps_of(options).first[1], 15);
  options.back_off.on = true;
  options.steps = options.removals.back().step + 3 + options.removals.back().step / 9;  // room for few steps
  const auto [late, given_up] = steps_of(options);
  EXPECT_LT(late[1], 22);
  EXPECT_TRUE(given_up[0].given_up);
}

TEST_P(OnEvery, GoesOnFromItsState) {
  for (const bool tapers : {false, true}) {
    const Options options =
        tapers ? Options{.taper = Taper{.from = 3, .to = 9}, .steps = 100}
               : Options{.removals = staged(blueprint(), {.start = 2, .gap_mlp = 1, .gap_qk = 1, .gap_v = 1}),
                         .steps = 100};
    Denorm whole(student, options), first(student, options), second(student, options);
    for (int64_t number = 1; number <= 12; ++number) {
      step(whole, number);
      step(number <= 5 ? first : second, number);
      if (number == 5) {
        const Hook::State state = first.state();
        second.restore({.json = parse_json(state.json.dump(), "state"), .tensors = state.tensors});
      }
    }
    EXPECT_EQ(as_text(whole), as_text(second));
    EXPECT_EQ(whole.gone(), second.gone());
    EXPECT_EQ(whole.history().live, second.history().live);
    EXPECT_EQ(whole.drifts(), second.drifts());
    EXPECT_EQ(whole.digest(), second.digest());
  }
}

TEST_P(OnEvery, AStoppedRunGivesTheSameLosses) {
  for (const bool tapers : {false, true}) {
    const Options options =
        tapers ? Options{.taper = Taper{.from = 3, .to = 9}, .steps = 14}
               : Options{.removals = staged(blueprint(), {.start = 2, .gap_mlp = 1, .gap_qk = 1, .gap_v = 1}),
                         .steps = 30};
    TrainOptions training{.steps = options.steps, .batch = 2, .accumulate = 2, .learning_rate = 1e-3};
    training.checkpoint_every = 5;
    const auto ids = tiny::tokens(400, blueprint().vocabulary, 3);
    const auto data = text_batches(ids, 8, 1);
    const auto losses = [](const Trained& trained) {
      std::vector<double> all;
      for (const StepRecord& record : trained.curve) all.push_back(record.loss);
      return all;
    };
    const auto go = [&](const TrainOptions& with, const Watch& watch,
                        const std::function<void(const StepRecord&)>& on_step) {
      Student fresh(model.opened, {.dtype = at::kDouble});
      Denorm hook(fresh, options);
      const Trained trained =
          train(fresh, *cross_entropy(), {.train = *data}, with, hook, *group, watch, on_step);
      hook.settle();
      return std::pair(losses(trained), as_text(hook));
    };
    const auto whole = go(training, {}, {});
    ASSERT_EQ(std::ssize(whole.first), options.steps);
    const tiny::Folder folder;
    training.state = folder / "state";
    std::stop_source stop;
    EXPECT_THROW(go(training, {.tick = {}, .stop = stop.get_token()},
                    [&](const StepRecord& record) {
                      if (record.step == 6) stop.request_stop();
                    }),
                 Stopped);
    training.resume = true;
    const auto resumed = go(training, {}, {});
    EXPECT_EQ(whole.first, resumed.first);
    EXPECT_EQ(whole.second, resumed.second);
  }
}

TEST_P(OnEvery, CheckpointedPassesGiveTheSameStep) {
  const auto ids = tiny::tokens(200, blueprint().vocabulary, 3);
  const auto data = text_batches(ids, 8, 1);
  std::vector<double> losses[2];
  for (const bool again : {false, true}) {
    Student fresh(model.opened, {.dtype = at::kDouble});
    Denorm hook(fresh, {.removals = at_once(blueprint(), 2), .steps = 5});
    TrainOptions training{.steps = 5, .batch = 2, .learning_rate = 1e-3};
    training.gradient_checkpointing = again;
    for (const StepRecord& record :
         train(fresh, *cross_entropy(), {.train = *data}, training, hook, *group).curve)
      losses[again].push_back(record.objective);
  }
  ASSERT_EQ(losses[0].size(), 5);
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(losses[0][i], losses[1][i], 1e-10);
}

// ---- arms side by side

TEST(Compare, Spikes) {
  const auto curve = [](const std::vector<double>& losses) {
    std::vector<StepRecord> records;
    for (double loss : losses) records.push_back({.step = std::ssize(records) + 1, .loss = loss});
    return records;
  };
  const Spike spike = worst_spike(curve({9, 3, 5, 4, 2}), curve({9, 3, 3.5, 1, 2}), 1);
  EXPECT_EQ(spike.step, 3);
  EXPECT_DOUBLE_EQ(spike.loss, 5);
  EXPECT_DOUBLE_EQ(spike.over_worst, 1.5);
  EXPECT_DOUBLE_EQ(spike.over_same, 3);
  EXPECT_EQ(spike.over_same_step, 4);
}

}  // namespace
}  // namespace lamina::denorm
