#include "lamina/heal/objective.h"

#include "lamina/base/error.h"
#include "lamina/heal/impl/head_loss.h"
#include "lamina/heal/impl/walk.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

namespace {

double cross_entropy_of(const Pass& pass) {
  const Stream end = walk(pass);
  return head_loss(pass.model.read_out(end, pass.tap), pass.model.head(), pass.batch.targets).cross_entropy;
}

class CrossEntropy : public Objective {
 public:
  explicit CrossEntropy(double dropout) : dropout_(dropout) {
    if (dropout < 0 || dropout >= 1) fail("a dropout is from 0 up to but not 1, not {}", dropout);
  }
  Losses operator()(const Pass& pass) const override {
    const Stream end = lamina::walk(pass);
    Tensor read = pass.model.read_out(end, pass.tap);
    if (dropout_ > 0 && c10::GradMode::is_enabled()) read = at::dropout(read, dropout_, /*train=*/true);
    const HeadLoss loss = head_loss(read, pass.model.head(), pass.batch.targets, {.weight = pass.weight});
    return {.sum = loss.sum, .measure = loss.cross_entropy};
  }
  double measure(const Pass& pass) const override { return cross_entropy_of(pass); }
  std::string digest() const override {
    return dropout_ > 0 ? fmt::format("cross-entropy, dropout {}", dropout_) : "cross-entropy";
  }

 private:
  double dropout_;
};

class Distillation : public Objective {
 public:
  Distillation(std::shared_ptr<const Model> teacher, DistillOptions options, std::string digest)
      : teacher_(std::move(teacher)), options_(options), digest_(std::move(digest)) {
    if (!(options_.temperature > 0)) fail("a temperature is above 0, and {} is not", options_.temperature);
    if (options_.logits < 0 || options_.hidden < 0 || options_.cross_entropy < 0)
      fail("the weights of a distillation are 0 or more");
    if (options_.logits + options_.hidden + options_.cross_entropy == 0)
      fail("every weight of the distillation is 0; nothing would be learnt");
  }

  Losses operator()(const Pass& pass) const override {
    check(pass.model.blueprint());
    std::map<int, Tensor> taught;  // by block: the stream behind it
    Tensor hidden;
    {
      const c10::NoGradGuard watching;
      Tap none;
      const Pass theirs{.model = *teacher_, .batch = pass.batch, .tap = none};
      const Stream end = walk(theirs, [&](Site site, const Tensor& x) {
        if (options_.hidden > 0) taught[teacher_->blueprint().part(site).block] = x;
      });
      hidden = teacher_->read_out(end, none);
    }
    std::map<int, Tensor> ours;
    const Stream end = walk(pass, [&](Site site, const Tensor& x) {
      if (options_.hidden > 0) ours[pass.model.blueprint().part(site).block] = x;
    });
    HeadLossOptions options{.weight = pass.weight, .cross_entropy = options_.cross_entropy};
    if (options_.logits > 0)
      options.teacher.emplace(TeacherHead{.hidden = hidden,
                                          .head = teacher_->head(),
                                          .temperature = options_.temperature,
                                          .weight = options_.logits});
    const HeadLoss said =
        head_loss(pass.model.read_out(end, pass.tap), pass.model.head(), pass.batch.targets, options);
    Losses losses{.sum = said.sum, .measure = said.cross_entropy};
    if (options_.logits > 0) losses.terms["kl"] = said.kl;
    if (options_.hidden > 0) {
      const Tensor counts = pass.batch.targets.ne(kNotLearnt).to(hidden.device());
      Tensor sum = at::zeros({}, hidden.options().dtype(at::kDouble));
      int64_t blocks = 0;
      for (const auto& [block, x] : ours) {
        const auto it = taught.find(block);
        if (it == taught.end()) continue;
        const Tensor squares = (x - it->second.to(x.scalar_type())).square().mean(-1);
        sum = sum + at::where(counts, squares, at::zeros({}, squares.options())).sum().to(at::kDouble);
        ++blocks;
      }
      sum = sum / static_cast<double>(std::max<int64_t>(1, blocks));
      losses.terms["hidden"] = sum.detach().item<double>();
      losses.sum = losses.sum + sum * (options_.hidden * pass.weight);
    }
    return losses;
  }
  double measure(const Pass& pass) const override { return cross_entropy_of(pass); }
  std::string digest() const override { return digest_; }

 private:
  void check(const Blueprint& student) const {
    const Blueprint& teacher = teacher_->blueprint();
    if (student.vocabulary != teacher.vocabulary)
      fail("the teacher has {} tokens and the student {}; a teacher shares its student's vocabulary",
           teacher.vocabulary, student.vocabulary);
    if (options_.hidden > 0 && (student.width != teacher.width || student.blocks != teacher.blocks))
      fail(
          "the teacher has {} blocks of width {} and the student {} of width {}; hidden states are compared "
          "between equals, so give them no weight",
          teacher.blocks, teacher.width, student.blocks, student.width);
  }

  std::shared_ptr<const Model> teacher_;
  DistillOptions options_;
  std::string digest_;
};

}  // namespace

std::unique_ptr<Objective> cross_entropy(double dropout) {
  return std::make_unique<CrossEntropy>(dropout);
}

std::unique_ptr<Objective> distillation(std::shared_ptr<const Model> teacher, DistillOptions options) {
  std::string digest =
      fmt::format("distillation of {} from {}, temperature {}, logits {}, hidden {}, targets {}",
                  teacher->blueprint().family, options.teacher, options.temperature, options.logits,
                  options.hidden, options.cross_entropy);
  return std::make_unique<Distillation>(std::move(teacher), std::move(options), std::move(digest));
}

Tensor summed_cross_entropy(const Tensor& hidden, const Linear& head, const Tensor& targets) {
  return head_loss(hidden, head, targets).sum;
}

}  // namespace lamina
