// Normalised feature distillation on the model of examples/scenes: what share of the loss each map has, and
// what a change of a map's units makes of it. The student is BK-SDM's base cut, before training.
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <set>

#include "lamina/diffusion/pipeline.h"
#include "lamina/heal/features.h"
#include "lamina/heal/noised.h"
#include "lamina/methods/laptop/laptop.h"
#include "lamina/models/registry.h"
#include "lamina/tensor/autograd.h"

namespace lamina::laptop {
namespace {

constexpr const char* kPipeline = "examples/scenes/pipeline";
constexpr int64_t kScenes = 8;

// Another network's walk, with an ear for what is told to it and a map of it in other units. What it says
// stays what it was.
class Behind : public Model {
 public:
  explicit Behind(std::shared_ptr<const Model> inner)
      : Model(inner->blueprint(), inner->dtype()), inner_(std::move(inner)) {}
  Behind(std::shared_ptr<const Model> inner, int stage, double by) : Behind(std::move(inner)) {
    stage_ = stage, by_ = by;
  }
  Stream begin(const Inputs& inputs) const override {
    heard.push_back(inputs.text);
    return inner_->begin(inputs);
  }
  void step(Stream& stream, Site site, Tap& tap) const override {
    Louder louder(tap, *this);
    inner_->step(stream, site, louder);
  }
  Tensor read_out(const Stream& stream, Tap& tap) const override { return inner_->read_out(stream, tap); }
  Tensor finish(const Stream& stream, Tap& tap) const override { return inner_->finish(stream, tap); }

  mutable std::vector<Tensor> heard;

 private:
  class Louder : public Tap {
   public:
    Louder(Tap& behind, const Behind& model) : behind_(behind), model_(model) {}
    void saw_stage(int stage, const Tensor& x) override {
      behind_.saw_stage(stage, stage == model_.stage_ ? x * model_.by_ : x);
    }
    void saw(Site site, const Tensor& before, const Tensor& after) override {
      behind_.saw(site, before, after);
    }

   private:
    Tap& behind_;
    const Behind& model_;
  };
  std::shared_ptr<const Model> inner_;
  int stage_ = -1;
  double by_ = 1;
};

// Where the row "plain's largest share is above 0.9" does not hold on this model: as found, not as foreseen.
// Their maps are the quietest three by mean square (1/246 to 1/107 of the loudest) and the cut changes them
// little (0.004 to 0.021 of the normalised loss); a hundredfold brings their share to 0.70 to 0.84 when the
// teacher's map alone is scaled, and to 0.22 to 0.68 when both are.
const std::set<std::string> kNotRuling = {"down_blocks.0", "up_blocks.2", "up_blocks.3"};

using Shares = std::map<std::string, double>;

double largest(const Shares& shares) {
  return std::ranges::max_element(shares, {}, &Shares::value_type::second)->second;
}

std::string text_of(const Shares& shares) {
  std::vector<std::string> all;
  for (const auto& [name, share] : shares) all.push_back(fmt::format("{} {:.3f}", name, share));
  return fmt::format("{}", fmt::join(all, ", "));
}

class Distillation : public testing::Test {
 protected:
  Distillation()
      : painter_(open_pipeline(kPipeline), {.without_denoiser = true}),
        whole_(open(std::filesystem::path(kPipeline) / "unet")),
        teacher_(build_model(whole_)),
        pictures_(scene_pictures({.split = scene::Split::validation, .side = 32}, kScenes)) {
    Plan plan;
    for (Site site : handcrafted(whole_.blueprint, "bk-base"))
      plan.edits.emplace_back(Cut{.site = whole_.blueprint.part(site).path, .score = {}});
    student_ = build_model(declare(apply(whole_.checkpoint, whole_.blueprint, plan)));
    data_ = noised(0);
  }

  std::unique_ptr<Batches> noised(double dropped) const {
    return noised_pictures(*pictures_, painter_,
                           {.seed = 1, .dropped = dropped, .order = NoisedOptions::Order::as_given});
  }

  static Losses losses(const Teaching& teaching, const Model& student, const Batches& data) {
    const c10::NoGradGuard watching;
    Tap none;
    const Batch batch = data.at(0, kScenes);
    return teaching({.model = student, .batch = batch, .tap = none});
  }

  // Of the feature terms alone, by tap.
  Shares shares(FeatureMode mode, const std::shared_ptr<const Model>& teacher, const Model& student) const {
    const Teaching teaching(teacher, student, *data_,
                            {.task = 0, .output = 0, .mode = mode, .calibration = kScenes});
    const Losses now = losses(teaching, student, *data_);
    Shares all;
    double sum = 0;
    for (const FeatureTap& tap : teaching.taps()) sum += all[tap.name] = now.terms.at(tap.name);
    for (auto& [name, share] : all) share /= sum;
    return all;
  }

  Painter painter_;
  Opened whole_;
  std::shared_ptr<const Model> teacher_, student_;
  std::unique_ptr<CaptionedPictures> pictures_;
  std::unique_ptr<Batches> data_;
};

TEST_F(Distillation, OneLoudMapRulesThePlainLossAndNotTheNormalisedOne) {
  const Shares plain = shares(FeatureMode::plain, teacher_, *student_),
               normed = shares(FeatureMode::teacher_norm, teacher_, *student_);
  std::cout << fmt::format("as they are:  plain {:.3f} ({})\n              teacher-norm {:.3f} ({})\n",
                           largest(plain), text_of(plain), largest(normed), text_of(normed));
  const Teaching teaching(teacher_, *student_, *data_, {.calibration = kScenes});
  ASSERT_GE(teaching.taps().size(), 6U);
  const double most = *std::ranges::max_element(teaching.mean_squares());
  for (size_t i = 0; i < teaching.taps().size(); ++i) {
    const FeatureTap& tap = teaching.taps()[i];
    const double square = 1e4 * teaching.mean_squares()[i];
    ASSERT_GE(tap.teacher.stage, 0) << tap.name;
    const auto loud_teacher = std::make_shared<Behind>(teacher_, tap.teacher.stage, 100.0);
    EXPECT_TRUE(at::equal(loud_teacher->run(data_->at(0, 2).inputs), teacher_->run(data_->at(0, 2).inputs)));
    const double plain_share = largest(shares(FeatureMode::plain, loud_teacher, *student_)),
                 normed_share = largest(shares(FeatureMode::teacher_norm, loud_teacher, *student_));
    // The same change of units in both networks: what follows from it when the student is made of the
    // teacher.
    const Behind loud_student(student_, tap.student.stage, 100.0);
    const Shares both_plain = shares(FeatureMode::plain, loud_teacher, loud_student),
                 both_normed = shares(FeatureMode::teacher_norm, loud_teacher, loud_student);
    std::cout << fmt::format(
        "{:<14} x100, then {:.3g} times the loudest in mean square: the teacher's alone: plain {:.4f}, "
        "teacher-norm {:.3f}; in both: plain {:.4f}, teacher-norm {:.3f}\n",
        tap.name, square / most, plain_share, normed_share, largest(both_plain), largest(both_normed));
    EXPECT_GT(plain_share, normed_share) << tap.name;
    if (!kNotRuling.contains(tap.name)) {
      EXPECT_GT(plain_share, 0.9) << tap.name;
      EXPECT_GT(largest(both_plain), 0.9) << tap.name;
    }
    EXPECT_LE(normed_share, 0.5) << tap.name;
    EXPECT_LE(largest(both_normed), 0.5) << tap.name;
    for (const auto& [name, share] : both_normed) EXPECT_NEAR(share, normed.at(name), 1e-4) << name;
  }
}

TEST_F(Distillation, WithoutACutEveryTermIsZeroAndEveryWeightFinite) {
  for (const FeatureMode mode :
       {FeatureMode::plain, FeatureMode::plain_equal, FeatureMode::teacher_norm, FeatureMode::batch_norm}) {
    const Teaching teaching(teacher_, *teacher_, *data_, {.mode = mode, .calibration = kScenes});
    EXPECT_EQ(teaching.taps().size(), whole_.blueprint.stages.size());
    for (const double square : teaching.mean_squares()) {
      EXPECT_GT(square, 0);
      EXPECT_TRUE(std::isfinite(1 / square));
    }
    for (const auto& [name, value] : losses(teaching, *teacher_, *data_).terms) {
      if (name != "task") {
        EXPECT_EQ(value, 0) << feature_mode_name(mode) << " " << name;
      }
    }
  }
}

TEST_F(Distillation, CaptionsThatAreDroppedAreDroppedForBoth) {
  const std::unique_ptr<Batches> data = noised(0.5);
  const auto teacher = std::make_shared<Behind>(teacher_);
  const Behind student(student_);
  const Teaching teaching(teacher, student, *data, {.mode = FeatureMode::none});
  losses(teaching, student, *data);
  ASSERT_EQ(teacher->heard.size(), 1U);
  ASSERT_EQ(student.heard.size(), 1U);
  EXPECT_TRUE(at::equal(teacher->heard[0], student.heard[0]));
  const Tensor nothing = painter_.unconditional(1, 32, 32).text;
  int64_t dropped = 0;
  for (int64_t i = 0; i < kScenes; ++i)
    dropped += at::equal(student.heard[0].narrow(0, i, 1), nothing) ? 1 : 0;
  EXPECT_GT(dropped, 0);
  EXPECT_LT(dropped, kScenes);
}

}  // namespace
}  // namespace lamina::laptop
